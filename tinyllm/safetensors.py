"""The safetensors file format, read and written with NumPy alone.

A file is: the length of the header (8 bytes, little-endian), the header (a JSON object: tensor name -> dtype, shape,
first and last byte), and the tensors' values end to end. There is nothing in it that could be executed. A file from
elsewhere may still lie about its sizes, so everything the header says is held against the size of the file before
anything is allocated.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from tinyllm.errors import CheckpointError, nearest

# The format's names. bfloat16, which NumPy lacks, is the upper half of a float32: it is widened when read.
_DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items() if name != "BF16"}
_FLOATS = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}  # what `save` converts to
_METADATA = "__metadata__"
_LONGEST_HEADER = 100_000_000  # bytes; the limit of the reference implementation


class _Entry(NamedTuple):
    """What the header says of one tensor; `begin` and `end` count from the first byte after the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def save(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
    dtype: str | None = None,
) -> None:
    """Write arrays to a safetensors file: whole, or not at all.

    Equal contents give equal bytes, in whatever order they are handed over.

    Parameters
    ----------
    path : path
        Replaced if it exists.
    tensors : mapping of str to array
        Any shapes and strides; floats, integers and booleans.
    metadata : mapping of str to str, optional
        Kept in the header. PyTorch's libraries expect ``{"format": "pt"}``.
    dtype : {"float64", "float32", "float16", "bfloat16"}, optional
        What floating arrays are rounded to, to the nearest; each is written as it is without it.

    Raises
    ------
    CheckpointError
        If the file cannot be written, what was there before is still whole; or if a number is too large for `dtype`.
    TypeError
        For an array, a name or a dtype that the format does not have.
    """
    if dtype is not None and dtype not in _FLOATS:
        raise TypeError(f"dtype={dtype!r} is not a floating type of the format{nearest(str(dtype), _FLOATS)}")
    for name, array in tensors.items():
        if not isinstance(name, str) or name == _METADATA:
            raise TypeError(f"a tensor's name is a string other than {_METADATA!r}, got {name!r}")
        if not isinstance(array, np.ndarray) or array.dtype.newbyteorder("<") not in _NAMES:
            what = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(
                f"tensor {name!r} is {what}; a safetensors file holds arrays of {', '.join(_NAMES.values())}"
            )
    if not all(isinstance(text, str) for pair in (metadata or {}).items() for text in pair):
        raise TypeError("metadata must map strings to strings")
    kinds = {
        name: _FLOATS[dtype] if dtype and array.dtype.kind == "f" else _NAMES[array.dtype.newbyteorder("<")]
        for name, array in tensors.items()
    }
    # The widest numbers first, so that every tensor begins at a multiple of its own item size.
    order = sorted(tensors, key=lambda name: (-_DTYPES[kinds[name]].itemsize, name))
    header: dict[str, Any] = {_METADATA: dict(sorted(metadata.items()))} if metadata else {}
    offset = 0
    for name in order:
        end = offset + tensors[name].size * _DTYPES[kinds[name]].itemsize
        header[name] = {"dtype": kinds[name], "shape": list(tensors[name].shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in order:
            file.write(np.asarray(_converted(name, tensors[name], kinds[name]), order="C").data)


def _converted(name: str, array: np.ndarray, kind: str) -> np.ndarray:
    """The array as the file holds it; CheckpointError where a finite number would become infinite."""
    if array.dtype.newbyteorder("<") == _DTYPES[kind]:
        return array.astype(_DTYPES[kind], copy=False)
    with np.errstate(over="ignore"):
        if kind == "BF16":
            # The upper half of a float32, rounded to the nearest, ties to even: a carry runs into the exponent as it
            # should. A NaN is kept from being rounded to an infinity.
            bits = array.astype("<f4").view("<u4")
            rounded = bits + (0x7FFF + ((bits >> 16) & 1))
            quiet = np.where(np.isnan(array), bits | 0x400000, rounded)
            new, infinite = (quiet >> 16).astype("<u2"), ((quiet >> 16) & 0x7FFF) == 0x7F80
        else:
            new = array.astype(_DTYPES[kind])
            infinite = np.isinf(new)
    lost = infinite & np.isfinite(array)
    if lost.any():
        index = tuple(int(i) for i in np.argwhere(lost)[0])
        what = next(long for long, short in _FLOATS.items() if short == kind)
        raise CheckpointError(f"{name}{list(index)} is {array[index]}, too large for {what}; save it as float32")
    return new


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` when the block ends well, and vanishes when it does not.

    It lies in the same folder under one fixed name, so that a process killed while writing leaves at most one such
    file, which the next write overwrites.

    Parameters
    ----------
    path : path
        What is to be replaced.

    Yields
    ------
    binary file

    Raises
    ------
    CheckpointError
        If the operating system refuses: disk full, no such folder, no permission.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        try:
            with open(part, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))
        why = "the disk is full: free some space, or write elsewhere" if full else error.strerror or str(error)
        old = "; the old file is unchanged" if path.is_file() else ""
        raise CheckpointError(f"{path}: cannot be written: {why}{old}") from error


def load(path: str | os.PathLike[str], mapped: bool = False) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a safetensors file.

    Parameters
    ----------
    path : path
    mapped : bool
        Leave the values in the file, of which the operating system brings in what is looked at: nothing is copied
        before it is needed, and programs that use the same weights share them. What is written to such an array stays
        in memory and never reaches the file, which must not be overwritten in place meanwhile (`save` never does).

    Returns
    -------
    tensors : dict of str to array
        In the order of their values in the file; bfloat16 is widened to float32.
    metadata : dict of str to str
        Empty where the file has none.

    Raises
    ------
    CheckpointError
        If there is no such file, or it is not whole: naming the file, the byte, and what is wrong there.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            entries, metadata, start = _read_header(file, path)
            whole = file_map(file) if mapped else None
            return {entry.name: _read_values(file, whole, entry, start, path) for entry in entries}, metadata
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error


def file_map(file: BinaryIO) -> np.ndarray:
    """The bytes of an open file that is not empty, uint8, mapped into memory copy-on-write."""
    return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)


def _read_header(file: BinaryIO, path: Path) -> tuple[list[_Entry], dict[str, str], int]:
    """The tensors that the file holds, its metadata, and the byte where the values begin."""
    size = os.fstat(file.fileno()).st_size
    if size < 8:
        raise CheckpointError(f"{path}: {size} bytes are too few for a safetensors file; was it cut off?")
    length = int.from_bytes(file.read(8), "little")
    if length > min(size - 8, _LONGEST_HEADER):
        raise CheckpointError(
            f"{path}: byte 0 announces a header of {length} bytes in a file of {size}; "
            "it was cut off, or is not a safetensors file"
        )
    header = _parse(file.read(length), path)
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(f"{path}: byte 8: {_METADATA} in the header must map strings to strings")
    entries = sorted((_entry(name, said, path) for name, said in header.items()), key=lambda e: (e.begin, e.end))
    at = 0
    for entry in entries:
        if entry.begin != at:
            what = (
                "overlaps the tensor before it"
                if entry.begin < at
                else "leaves bytes before it that belong to no tensor"
            )
            raise CheckpointError(
                f"{path}: byte {8 + length + entry.begin}: tensor {entry.name!r} {what} "
                f"(it begins at {entry.begin} of the values, the one before ends at {at})"
            )
        at = entry.end
    if 8 + length + at != size:
        what = "was it cut off?" if 8 + length + at > size else "the rest belongs to no tensor"
        raise CheckpointError(
            f"{path}: byte {size}: the file ends here, but its tensors end at {8 + length + at}; {what}"
        )
    return entries, metadata, 8 + length


def _parse(text: bytes, path: Path) -> dict[str, Any]:
    """The header's JSON object."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"the name {next(n for n in names if names.count(n) > 1)!r} comes twice")
        return found

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=once)
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: byte {8 + error.start}: the header is not UTF-8") from None
    except json.JSONDecodeError as error:
        at = 8 + len(error.doc[: error.pos].encode())
        raise CheckpointError(f"{path}: byte {at}: the header is not valid JSON ({error.msg})") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: byte 8: the header is damaged ({error})") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: byte 8: the header must be a JSON object")
    return header


def _entry(name: str, said: Any, path: Path) -> _Entry:
    """One tensor of the header, if what it says is possible."""

    def wrong(what: str) -> CheckpointError:
        return CheckpointError(f"{path}: byte 8: header, tensor {name!r}: {what}")

    def counts(value: Any) -> bool:
        return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)

    if not isinstance(said, dict) or set(said) != {"dtype", "shape", "data_offsets"}:
        raise wrong("expected dtype, shape and data_offsets")
    dtype, shape, offsets = said["dtype"], said["shape"], said["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise wrong(f"dtype {dtype!r} is not supported; known: {', '.join(_DTYPES)}")
    if not counts(shape) or len(shape) > 64:
        raise wrong(f"shape must be a list of at most 64 lengths, got {shape!r}")
    if not counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise wrong(f"data_offsets must be [begin, end], got {offsets!r}")
    needed = math.prod(shape) * _DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != needed:
        raise wrong(f"{shape} of {dtype} needs {needed} bytes, data_offsets {offsets} hold {offsets[1] - offsets[0]}")
    return _Entry(name, dtype, tuple(shape), *offsets)


def _read_values(file: BinaryIO, whole: np.ndarray | None, entry: _Entry, start: int, path: Path) -> np.ndarray:
    if whole is not None:
        flat = whole[start + entry.begin : start + entry.end].view(_DTYPES[entry.dtype])
    else:
        file.seek(start + entry.begin)
        flat = np.fromfile(file, _DTYPES[entry.dtype], math.prod(entry.shape))
    if flat.nbytes != entry.end - entry.begin:
        raise CheckpointError(
            f"{path}: byte {start + entry.begin + flat.nbytes}: the file ended while it was being read"
        )
    if entry.dtype == "BF16":
        wide = flat.astype(np.uint32)
        wide <<= 16
        flat = wide.view(np.float32)
    elif entry.dtype == "BOOL" and flat.view(np.uint8).max(initial=0) > 1:
        raise CheckpointError(
            f"{path}: byte {start + entry.begin}: tensor {entry.name!r} has booleans other than 0 and 1"
        )
    try:
        return flat.astype(flat.dtype.newbyteorder("="), copy=False).reshape(entry.shape)
    except ValueError:  # an empty tensor whose other lengths are beyond NumPy's
        raise CheckpointError(f"{path}: tensor {entry.name!r}: shape {entry.shape} is impossible") from None
