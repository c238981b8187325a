"""Reading a GGUF file.

A file is: "GGUF", a version, how many tensors and settings there are; the settings (name, type, value); the tensors'
names, shapes, types and places; padding; the tensors' values. Everything that it says of sizes is held against the size
of the file before anything is allocated.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np

from tinyllm.errors import CheckpointError
from tinyllm.gguf.blocks import KINDS, OTHERS, Kind
from tinyllm.gguf.contents import GGUF, LENGTH, StoredStrings, StoredTensor
from tinyllm.safetensors import file_map


def read(path: str | os.PathLike[str]) -> GGUF:
    """Read a GGUF file (version 2 or 3), whose weights stay in it until they are decoded.

    Parameters
    ----------
    path : path

    Returns
    -------
    GGUF

    Raises
    ------
    CheckpointError
        If there is no such file, it is not whole, or a tensor is of a type that is not read: naming the file, the byte
        and what is wrong there.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size < 24:
                raise CheckpointError(f"{path}: too short for a GGUF file; was it cut off?")
            return _Reader(path, file_map(file)).read()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error


# Types of settings: what `struct` reads them by.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MOST_AXES = 4
_LEAST_SETTING, _LEAST_TENSOR = 8 + 4 + 1, 8 + 4 + 8 + 4 + 8  # bytes that one takes at least


class _Reader:
    """A place in a file, and what is read from there on."""

    def __init__(self, path: Path, data: np.ndarray) -> None:
        self.path, self.data, self.at = path, data, 0
        self.view = data.data

    def wrong(self, what: str, at: int | None = None) -> CheckpointError:
        return CheckpointError(f"{self.path}: byte {self.at if at is None else at}: {what}")

    def take(self, count: int, what: str) -> memoryview:
        """The next `count` bytes."""
        if count > len(self.data) - self.at:
            raise self.wrong(f"{what} needs {count} bytes, but the file ends at {len(self.data)}; was it cut off?")
        self.at += count
        return self.view[self.at - count : self.at]

    def number(self, code: str, what: str) -> Any:
        form = struct.Struct("<" + code)
        return form.unpack(self.take(form.size, what))[0]

    def count(self, what: str, least: int) -> int:
        """A number of things, each of which takes at least so many bytes of the rest of the file."""
        count = self.number("Q", f"the number of {what}")
        if count * least > len(self.data) - self.at:
            raise self.wrong(f"{count} {what} do not fit into a file of {len(self.data)} bytes", self.at - 8)
        return count

    def text(self, what: str) -> str:
        start = self.at
        try:
            return str(self.take(self.count(f"bytes of {what}", 1), what), "utf-8")
        except UnicodeDecodeError:
            raise self.wrong(f"{what} is not UTF-8", start) from None

    def texts(self, name: str) -> StoredStrings:
        """An array of strings, which are stepped over here."""
        count, view, start, end = self.count(f"strings of {name}", 8), self.view, self.at, len(self.data)
        at = start
        for _ in range(count):
            if at + 8 > end or at + 8 + (length := LENGTH.unpack_from(view, at)[0]) > end:
                raise self.wrong(f"a string of {name} goes beyond the end of the file; was it cut off?", at)
            at += 8 + length
        self.at = at
        return StoredStrings(self.path, name, view, start, count)

    def read(self) -> GGUF:
        magic, version = bytes(self.take(4, "the beginning")), self.number("I", "the version")
        if magic != b"GGUF" or version not in (2, 3):
            raise self.wrong(f"expected GGUF, version 2 or 3, but this begins {magic!r}, {version}", 0)
        n_tensors = self.count("tensors", _LEAST_TENSOR)
        n_settings = self.count("settings", _LEAST_SETTING)
        metadata: dict[str, Any] = {}
        for _ in range(n_settings):
            start = self.at
            name = self.text("a setting's name")
            if name in metadata:
                raise self.wrong(f"the setting {name!r} comes twice", start)
            metadata[name] = self.value(self.number("I", f"the type of {name}"), name)
        entries = [self.entry() for _ in range(n_tensors)]
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment not in (1 << k for k in range(3, 17)):
            raise self.wrong(f"general.alignment is {alignment!r}; expected: a power of 2 from 8 to 65536", 0)
        begin = -(-self.at // alignment) * alignment
        return GGUF(self.path, metadata, self.tensors(entries, begin, alignment))

    def value(self, kind: int, name: str) -> Any:
        """The value of a setting."""
        if kind == _STRING:
            return self.text(name)
        if kind in _SCALARS:
            return self.number(_SCALARS[kind], name)
        if kind != _ARRAY:
            raise self.wrong(f"{name} has the unknown type {kind}")
        inner = self.number("I", f"the type of {name}")
        if inner == _STRING:
            return self.texts(name)
        if inner not in _SCALARS:
            raise self.wrong(f"{name} is an array of the type {inner}, which is not read")
        item = np.dtype("<" + _SCALARS[inner])
        count = self.count(f"numbers of {name}", item.itemsize)
        return np.frombuffer(self.take(count * item.itemsize, name), item)

    def entry(self) -> tuple[str, tuple[int, ...], Kind, int]:
        """What the file says of one tensor: name, shape, type, and where it begins."""
        start = self.at
        name = self.text("a tensor's name")
        axes = self.number("I", f"{name}'s number of axes")
        if not 1 <= axes <= _MOST_AXES:
            raise self.wrong(f"{name} has {axes} axes; expected: 1 to {_MOST_AXES}", start)
        lengths = struct.unpack(f"<{axes}Q", self.take(8 * axes, f"{name}'s shape"))
        number = self.number("I", f"{name}'s type")
        if number not in KINDS:
            known = ", ".join(sorted(kind.name for kind in KINDS.values()))
            raise self.wrong(f"{name} is of the type {OTHERS.get(number, number)}, which is not read; known: {known}")
        kind = KINDS[number]
        if lengths[0] % kind.size:
            raise self.wrong(f"{name} has rows of {lengths[0]} numbers, but blocks of {kind.name} have {kind.size}")
        return name, lengths[::-1], kind, self.number("Q", f"{name}'s place")

    def tensors(
        self, entries: list[tuple[str, tuple[int, ...], Kind, int]], begin: int, alignment: int
    ) -> dict[str, StoredTensor]:
        """The tensors, each in its place, if no two of them share a byte."""
        found: dict[str, StoredTensor] = {}
        end = begin
        for name, shape, kind, offset in sorted(entries, key=lambda entry: entry[3]):
            start, size = begin + offset, math.prod(shape) // kind.size * kind.width
            if name in found:
                raise self.wrong(f"the tensor {name!r} comes twice", start)
            if offset % alignment:
                raise self.wrong(f"{name} begins at no multiple of {alignment}", start)
            if start < end:
                raise self.wrong(f"{name} overlaps the tensor before it, which ends at {end}", start)
            end = start + size
            if end > len(self.data):
                raise self.wrong(f"{name} ends at {end}, but the file at {len(self.data)}; was it cut off?", start)
            if size == 0:
                raise self.wrong(f"{name} has the shape {shape}: it is empty", start)
            raw = self.data[start:end].reshape(-1, shape[-1] // kind.size * kind.width)
            found[name] = StoredTensor(name, shape, kind, raw, self.path)
        return found
