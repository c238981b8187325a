"""What a GGUF file holds: its values stay in the mapped file until they are asked for."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyllm.errors import CheckpointError
from tinyllm.gguf.blocks import Kind

LENGTH = struct.Struct("<Q")  # of a string, in bytes, which follow
_NEEDED = object()  # in place of a default
_AT_ONCE = 1 << 12  # blocks that are decoded together, so that they stay in the processor's cache


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in its file.

    Attributes
    ----------
    name : str
    shape : tuple of int
    kind : Kind
    raw : (rows, bytes of a row) uint8, in the mapped file
    path : Path
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind
    raw: np.ndarray
    path: Path

    def decode(self, rows: np.ndarray | None = None) -> np.ndarray:
        """The numbers in float32; with `rows`, those rows in that order.

        Raises
        ------
        CheckpointError
            If one is NaN or infinite.
        """
        raw = self.raw if rows is None else self.raw[rows]
        if self.kind.name == "F32" and raw.size and raw.flags.aligned:
            out = raw.view(np.float32).reshape(self.shape)
            self._refuse_broken(out.reshape(-1), 0)
            return out
        blocks = raw.reshape(-1, self.kind.width)
        out = np.empty((len(blocks), self.kind.size), np.float32)
        for start in range(0, len(blocks), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            with np.errstate(all="ignore"):  # of broken scales, which are refused at once
                self.kind.decode(blocks[part], out[part])
            self._refuse_broken(out[part].reshape(-1), start * self.kind.size)
        return out.reshape(self.shape)

    def _refuse_broken(self, values: np.ndarray, start: int) -> None:
        # The sum of many finite weights is finite, and one that is not makes it so: one pass, and no array of flags.
        with np.errstate(all="ignore"):
            if math.isfinite(values.sum(dtype=np.float32)) or np.isfinite(values).all():
                return
        at = int(np.flatnonzero(~np.isfinite(values))[0])
        raise CheckpointError(
            f"{self.path}: {self.name}: number {start + at} is {values[at]}; a model with such weights is broken"
        )


@dataclass(frozen=True)
class StoredStrings:
    """An array of strings in its file, such as a vocabulary: decoded by those who want it, not by all who read."""

    path: Path
    name: str
    view: memoryview
    start: int
    count: int

    def tolist(self) -> list[str]:
        """The strings; CheckpointError where one is not UTF-8."""
        found, at, view = [], self.start, self.view
        try:
            for _ in range(self.count):
                end = at + 8 + LENGTH.unpack_from(view, at)[0]
                found.append(str(view[at + 8 : end], "utf-8"))
                at = end
        except UnicodeDecodeError:
            raise CheckpointError(f"{self.path}: byte {at}: a string of {self.name} is not UTF-8") from None
        return found


@dataclass(frozen=True)
class GGUF:
    """What a file holds.

    Attributes
    ----------
    path : Path
    metadata : dict
        Settings by name: numbers, booleans, strings, arrays, `StoredStrings`. Use `get`.
    tensors : dict of str to StoredTensor
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, StoredTensor]

    def get(self, name: str, kind: type, default: Any = _NEEDED) -> Any:
        """A setting that must be of this kind: int, float, bool, str or list.

        Raises
        ------
        CheckpointError
            If it is of another kind, or missing where there is no default.
        """
        if name not in self.metadata and default is not _NEEDED:
            return default
        value = self.metadata.get(name)
        if isinstance(value, np.ndarray | StoredStrings):
            value = value.tolist()
        if type(value) is not kind:
            found = f"is {str(value)[:60]!r}" if name in self.metadata else "is missing"
            raise CheckpointError(f"{self.path}: the setting {name} {found}; expected: {kind.__name__}")
        return value
