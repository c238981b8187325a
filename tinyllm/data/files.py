"""Text out of a file, a folder or standard input; what is not text is refused by name and byte."""

from __future__ import annotations

import codecs
import gzip
import os
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tinyllm.data.corpus import Corpus, Document, without_duplicates
from tinyllm.errors import ConfigError, DataError

Progress = Callable[[int, int, str], None]

GZIP_MARK = b"\x1f\x8b\x08"

# UTF-32's little-endian mark begins with UTF-16's, so it is tried first.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


class BinaryDataError(DataError):
    """Bytes with a NUL where text was expected."""


def decode(data: bytes, source: str, encoding: str | None = None) -> str:
    r"""Text of `data`: UTF-8 unless a byte order mark or `encoding` says otherwise.

    The mark is dropped and line ends become \n.

    Parameters
    ----------
    data : bytes
        The whole file.
    source : str
        What the errors call it.
    encoding : str, optional
        A name that Python knows; it overrules the mark.

    Raises
    ------
    BinaryDataError
        For a NUL byte where neither a mark nor `encoding` explains it.
    DataError
        For the first byte that is not of the encoding.
    ConfigError
        For an encoding that Python does not know.
    """
    mark = next((mark for mark in BYTE_ORDER_MARKS if data.startswith(mark)), b"")
    name = encoding or BYTE_ORDER_MARKS.get(mark, "utf-8")
    if not encoding and not mark and (nul := data.find(b"\0")) >= 0:
        raise BinaryDataError(
            f"{source} is not text: NUL at byte {nul}; if it is UTF-16 or UTF-32 without a byte order mark, "
            "name it with --encoding (utf-16-le, say)"
        )
    try:
        # The mark stays in until it is decoded, so that the offset in an error is the file's.
        text = data.decode(name)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source} is not {name}: byte {error.start} is 0x{data[error.start]:02x} ({error.reason}); "
            "name the encoding of the text with --encoding (latin-1, cp1252, utf-16, ...)"
        ) from error
    except (LookupError, ValueError) as error:
        raise ConfigError(
            f"unknown encoding {name!r}; expected one that Python knows, such as utf-8 or latin-1"
        ) from error
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def read_text(path: Path, encoding: str | None = None) -> str:
    """Text of one file, unpacked first where it is gzip's (offsets in errors then count unpacked bytes)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if data.startswith(GZIP_MARK):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is a damaged gzip file: {error}") from error
    return decode(data, str(path), encoding)


def read_file(path: Path, encoding: str | None = None) -> Corpus:
    """One file as one document."""
    text = read_text(path, encoding)
    if not text:
        raise DataError(f"{path} is empty")
    return Corpus(str(path), (Document(text, str(path)),))


def read_stdin(encoding: str | None = None) -> Corpus:
    """Standard input as one document."""
    text = decode(sys.stdin.buffer.read(), "standard input", encoding)
    if not text:
        raise DataError("standard input is empty")
    return Corpus("standard input", (Document(text, "standard input"),))


def read_folder(folder: Path, encoding: str | None = None, progress: Progress | None = None) -> Corpus:
    """Every text file below `folder`, in sorted order, each a document.

    Hidden, binary (a NUL inside) and empty files and exact copies are left out and counted; a file without NUL that is
    not of the encoding is refused, because leaving text out unasked would be worse.
    """
    paths, hidden = _visible_files(folder)
    left_out = Counter(hidden=hidden, binary=0, empty=0)
    documents = []
    for done, path in enumerate(paths, start=1):
        try:
            text = read_text(path, encoding)
        except BinaryDataError:
            left_out["binary"] += 1
        else:
            if text:
                documents.append(Document(text, path.relative_to(folder).as_posix()))
            else:
                left_out["empty"] += 1
        if progress:
            progress(done, len(paths), "files")
    kept, left_out["duplicate"] = without_duplicates(documents)
    if not kept:
        counts = ", ".join(f"{count} {kind}" for kind, count in left_out.items() if count)
        raise DataError(f"{folder} holds no text file" + (f" ({counts})" if counts else ""))
    return Corpus(str(folder), kept, dict(left_out))


def _refuse(error: OSError) -> None:
    """A folder that cannot be listed is an error, not a folder without files."""
    raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error


def _visible_files(folder: Path) -> tuple[list[Path], int]:
    """Files below `folder` with no dotted name in their path, sorted, and the number of dotted files and folders."""
    paths, hidden = [], 0
    for directory, folders, files in os.walk(folder, onerror=_refuse):
        hidden += sum(name.startswith(".") for name in folders + files)
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(directory, name) for name in files if not name.startswith(".")]
    # Sorted as the reader names them, so that the order is the same on every system.
    return sorted(
        (path for path in paths if path.is_file()), key=lambda path: path.relative_to(folder).as_posix()
    ), hidden
