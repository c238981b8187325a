"""Columns of small Parquet files, read with NumPy alone: what word lists and tables of texts are distributed in.

Flat columns of strings and numbers without missing values, in plain or dictionary encoding, uncompressed or in snappy:
what is met in practice. Anything else is refused by name. Source: the specification of Apache Parquet; of snappy,
format_description.txt.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np

from tinyllm.errors import DataError

_MAGIC = b"PAR1"
_NUMBERS = {1: "<i4", 2: "<i8", 4: "<f4", 5: "<f8"}  # Type: INT32, INT64, FLOAT, DOUBLE
_STRINGS = 6
_PLAIN, _PLAIN_DICTIONARY, _RLE_DICTIONARY = 0, 2, 8
_DATA_PAGE, _DICTIONARY_PAGE = 0, 2
_CODECS = {0: "uncompressed", 1: "snappy"}


def read_parquet(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The columns of a file by name: a list of str, or an array of numbers.

    Parameters
    ----------
    path : path
        A Parquet file; it is read whole.

    Returns
    -------
    dict

    Raises
    ------
    DataError
        If it cannot be read, is damaged, or holds something that this reader does not know.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) < 12 or data[:4] != _MAGIC or data[-4:] != _MAGIC:
        raise DataError(f"{path} is no Parquet file, or a damaged one: it does not begin and end with PAR1")
    try:
        length = int.from_bytes(data[-8:-4], "little")
        footer = _Thrift(data, len(data) - 8 - length).struct()
        columns: dict[str, list[Any]] = {}
        optional = {element[4].decode(): element.get(3, 0) for element in footer[2][1:]}
        for group in footer[4]:
            for chunk in group[1]:
                name, values = _column(data, chunk[3], optional)
                columns.setdefault(name, []).append(values)
    except (IndexError, KeyError, struct.error, UnicodeDecodeError, ValueError, OverflowError, TypeError) as error:
        if isinstance(error, DataError):
            raise DataError(f"{path}: {error}") from error
        raise DataError(f"{path} is a damaged Parquet file ({type(error).__name__}: {error})") from error
    return {
        name: np.concatenate(parts) if isinstance(parts[0], np.ndarray) else [text for part in parts for text in part]
        for name, parts in columns.items()
    }


def _column(data: bytes, about: dict[int, Any], optional: dict[str, int]) -> tuple[str, Any]:
    """Name and values of one column of one group of rows; `about` is its ColumnMetaData."""
    kind, name, codec, total = about[1], about[3][-1].decode(), about[4], about[5]
    if len(about[3]) > 1 or optional.get(name, 0) == 2:
        raise DataError(f"the column {name!r} is nested, which this reader does not know")
    if kind not in _NUMBERS and kind != _STRINGS:
        raise DataError(f"the column {name!r} has the physical type {kind}, which this reader does not know")
    if codec not in _CODECS:
        raise DataError(f"the column {name!r} is compressed with codec {codec}; known: {', '.join(_CODECS.values())}")
    at = min(about[9], about.get(11, about[9]))
    dictionary: Any = None
    found: list[Any] = []
    count = 0
    while count < total:
        reader = _Thrift(data, at)
        header = reader.struct()
        page = data[reader.at : reader.at + header[3]]
        at = reader.at + header[3]
        page = _unsnap(page, header[2]) if codec else page
        if header[1] == _DICTIONARY_PAGE:
            dictionary = _plain(page, kind, header[7][1])
        elif header[1] == _DATA_PAGE:
            n, encoding = header[5][1], header[5][2]
            if n < 1:
                raise ValueError("an empty page")
            if optional.get(name):  # definition levels: 1 where there is a value
                size = int.from_bytes(page[:4], "little")
                if not (_hybrid(page[4 : 4 + size], 1, n) == 1).all():
                    raise DataError(f"the column {name!r} has missing values")
                page = page[4 + size :]
            if encoding == _PLAIN:
                found.append(_plain(page, kind, n))
            elif encoding in (_PLAIN_DICTIONARY, _RLE_DICTIONARY):
                which = _hybrid(page[1:], page[0], n)
                found.append(dictionary[which] if kind != _STRINGS else [dictionary[i] for i in which])
            else:
                raise DataError(f"the column {name!r} has the encoding {encoding}, which this reader does not know")
            count += n
        else:
            raise DataError(f"the column {name!r} has pages of type {header[1]}, which this reader does not know")
    if kind == _STRINGS:
        return name, [text for part in found for text in part]
    return name, np.concatenate(found)


def _plain(page: bytes, kind: int, n: int) -> Any:
    if kind != _STRINGS:
        return np.frombuffer(page, _NUMBERS[kind], n)
    texts, at = [], 0
    for _ in range(n):
        size = int.from_bytes(page[at : at + 4], "little")
        if at + 4 + size > len(page):
            raise ValueError("a text reaches over the end of its page")
        texts.append(page[at + 4 : at + 4 + size].decode("utf-8"))
        at += 4 + size
    return texts


def _hybrid(data: bytes, width: int, n: int) -> np.ndarray:
    """N small numbers of `width` bits: runs of one value, or groups of eight packed, each after its header."""
    found, count, at = [], 0, 0
    size = (width + 7) // 8
    while count < n:
        header, at = _varint(data, at)
        if header & 1:
            groups = header >> 1
            bits = np.unpackbits(np.frombuffer(data, np.uint8, groups * width, at), bitorder="little")
            values = (
                bits.reshape(-1, width).astype(np.int64) @ (1 << np.arange(width)) if width else np.zeros(8 * groups)
            )
            at += groups * width
        else:
            values = np.full(min(header >> 1, n - count), int.from_bytes(data[at : at + size], "little"))
            at += size
        if len(values) == 0:
            raise ValueError("an empty run")
        found.append(values.astype(np.int64))
        count += len(values)
    return np.concatenate(found)[:n] if found else np.zeros(0, np.int64)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and the place after it."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _unsnap(data: bytes, size: int) -> bytes:
    """Snappy: literal bytes, and copies of bytes that were written before."""
    length, at = _varint(data, 0)
    if length != size:
        raise ValueError(f"a compressed page of {length} bytes is said to have {size}")
    out = bytearray()
    while at < len(data):
        tag = data[at]
        at += 1
        if tag & 3 == 0:
            n = tag >> 2
            if n >= 60:
                extra = n - 59
                n = int.from_bytes(data[at : at + extra], "little")
                at += extra
            out += data[at : at + n + 1]
            at += n + 1
            continue
        if tag & 3 == 1:
            n, offset = 4 + (tag >> 2 & 7), (tag >> 5) << 8 | data[at]
            at += 1
        else:
            width = 2 if tag & 3 == 2 else 4
            n, offset = 1 + (tag >> 2), int.from_bytes(data[at : at + width], "little")
            at += width
        if not 0 < offset <= len(out):
            raise ValueError("a copy from before the beginning")
        if offset >= n:
            out += out[len(out) - offset : len(out) - offset + n]
        else:  # it copies what it writes
            run = bytes(out[-offset:])
            out += (run * (n // offset + 1))[:n]
    if len(out) != size:
        raise ValueError(f"a page of {size} bytes came out as {len(out)}")
    return bytes(out)


class _Thrift:
    """Thrift's compact protocol: structs as dicts from field number to value."""

    def __init__(self, data: bytes, at: int) -> None:
        if at < 0:
            raise ValueError("a place before the beginning of the file")
        self.data, self.at, self.depth = data, at, 0

    def varint(self) -> int:
        value, self.at = _varint(self.data, self.at)
        return value

    def zigzag(self) -> int:
        value = self.varint()
        return value >> 1 ^ -(value & 1)

    def struct(self) -> dict[int, Any]:
        self.depth += 1
        if self.depth > 20:
            raise ValueError("structures nested more than 20 deep")
        fields: dict[int, Any] = {}
        number = 0
        while byte := self.data[self.at]:
            self.at += 1
            number = number + (byte >> 4) if byte >> 4 else self.zigzag()
            fields[number] = self.value(byte & 15)
        self.at += 1
        self.depth -= 1
        return fields

    def value(self, kind: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            self.at += 1
            return self.data[self.at - 1]
        if kind in (4, 5, 6):
            return self.zigzag()
        if kind == 7:
            self.at += 8
            return struct.unpack_from("<d", self.data, self.at - 8)[0]
        if kind == 8:
            size = self.varint()
            self.at += size
            if self.at > len(self.data):
                raise ValueError("a text reaches over the end of the file")
            return self.data[self.at - size : self.at]
        if kind in (9, 10):
            byte = self.data[self.at]
            self.at += 1
            size = byte >> 4 if byte >> 4 < 15 else self.varint()
            if size > len(self.data):
                raise ValueError("a list longer than the file")
            return [self.value(byte & 15) for _ in range(size)]
        if kind == 12:
            return self.struct()
        raise ValueError(f"a field of the unknown type {kind}")
