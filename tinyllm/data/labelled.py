"""Texts with a label each, out of a table (CSV, TSV), JSON lines, or a folder with one folder for each class."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tinyllm.data.files import GZIP_MARK, decode, read_text
from tinyllm.errors import ConfigError, DataError, nearest

TEXT_NAMES = ("text", "sentence", "content", "message", "review", "question", "utterance")
LABEL_NAMES = ("label", "category", "class", "intent", "target", "topic", "sentiment")
_MARKS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
_LONGEST_FIELD = 2**27  # characters of a cell; csv's own limit is 131,072, which a long document exceeds


@dataclass(frozen=True)
class Example:
    """A text and its label; several labels are written ``a|b``, and a number in digits."""

    text: str
    label: str

    @property
    def unit(self) -> str:
        """What two examples share that must not be divided between training and held-out data."""
        return " ".join(self.text.casefold().split())


@dataclass(frozen=True)
class Labelled:
    """Labelled texts under one name, and what is to be said about them before they are used."""

    name: str
    examples: tuple[Example, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def labels(self) -> list[str]:
        """The labels that occur, sorted."""
        return sorted({example.label for example in self.examples})

    def __str__(self) -> str:
        counts = Counter(example.label for example in self.examples)
        many = ", ".join(f"{label} {n:,}" for label, n in counts.most_common(8)) + ("" if len(counts) < 9 else ", ...")
        return "\n".join([f"{self.name}: {len(self.examples):,} texts, {len(counts)} labels ({many})", *self.notes])


def read_labelled(
    path: str | Path, text_column: str = "", label_column: str = "", encoding: str | None = None
) -> Labelled:
    """Read labelled texts.

    Parameters
    ----------
    path : path
        A ``.csv`` or ``.tsv`` file with a line of column names, a ``.jsonl`` file with an object on each line (any of
        them plain or gzip), or a folder: a folder in it for each class with a file for each text, or a file for each
        class with a text on each line.
    text_column, label_column : str, optional
        Names of the columns (or of the objects' keys); by default the first of those that are usual. Labels in a column
        each, with a 1 where the text has it and a 0 where not, are named together: ``"a,b,c"``.
    encoding : str, optional
        By default UTF-8.

    Returns
    -------
    Labelled
        Empty texts are left out, and said.

    Raises
    ------
    DataError
        For a file that cannot be read or has no such column, a row with a column missing or a mark that is neither 0
        nor 1 (its line is named), or data with fewer than two classes.
    ConfigError
        For another kind of file.
    """
    path = Path(path)
    if path.is_dir():
        rows = _folder(path, encoding)
    elif not path.is_file():
        raise DataError(f"there is no file or folder {path}")
    else:
        kind = Path(path.name.removesuffix(".gz")).suffix
        if kind not in (".csv", ".tsv", ".jsonl"):
            raise ConfigError(
                f"{path}: labelled texts are a .csv, .tsv or .jsonl file, or a folder with one folder for each class"
            )
        wanted = text_column, label_column
        rows = _json_lines(path, wanted, encoding) if kind == ".jsonl" else _table(path, kind, wanted, encoding)
    return gathered(str(path), rows)


def gathered(name: str, rows: Iterable[tuple[str, str, str]]) -> Labelled:
    """Examples from (place, text, label), without empty texts and repetitions.

    Raises
    ------
    DataError
        If fewer than two classes are left.
    """
    kept: dict[Example, None] = {}
    empty: list[str] = []
    total = 0
    for place, text, label in rows:
        total += 1
        if text.strip():
            kept[Example(text.strip(), label.strip())] = None
        else:
            empty.append(place)
    notes = []
    if empty:
        notes.append(f"warning: {len(empty):,} empty texts are left out, the first at {empty[0]}")
    if repeated := total - len(empty) - len(kept):
        notes.append(f"{repeated:,} repetitions are left out")
    found = Labelled(name, tuple(kept), tuple(notes))
    if len(found.labels) < 2:
        had = f"one label, {found.labels[0]!r}" if found.labels else "no text"
        raise DataError(f"{name} has {had}: there must be texts with at least two different labels")
    return found


@contextmanager
def _opened(path: Path, encoding: str | None) -> Iterator[io.TextIOWrapper]:
    """A text file, plain or gzip, to be read line by line; what is wrong with it is the user's error."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(len(GZIP_MARK)) == GZIP_MARK
            raw.seek(0)
            binary = gzip.GzipFile(fileobj=raw) if packed else raw
            name = encoding or "utf-8-sig"
            try:
                with io.TextIOWrapper(binary, encoding=name, newline="") as text:  # type: ignore[arg-type]
                    yield text
            except UnicodeDecodeError:
                decode(path.read_bytes() if not packed else gzip.decompress(path.read_bytes()), str(path), encoding)
                raise
            except LookupError as error:
                raise ConfigError(f"unknown encoding {encoding!r}") from error
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _table(path: Path, kind: str, wanted: tuple[str, str], encoding: str | None) -> Iterator[tuple[str, str, str]]:
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        with _opened(path, encoding) as file:
            if kind == ".csv":
                table = csv.reader(file)
            else:
                table = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            header = next(table, None)
            if header is None:
                raise DataError(f"{path} is empty")
            header = [name.strip() for name in header]
            text, labels = _columns(str(path), header, wanted)
            last, names = max(text, *labels), [header[i] for i in labels]
            for row in table:
                if not row:
                    continue
                where = f"{path}, line {table.line_num}"
                if len(row) <= last:
                    raise DataError(f"{where}: {len(row)} columns, but {header[last]!r} is column {last + 1}")
                yield f"line {table.line_num}", row[text], _label(where, names, [row[i] for i in labels])
    except csv.Error as error:
        raise DataError(f"{path}, line {table.line_num}: {error}") from error
    finally:
        csv.field_size_limit(before)


def _columns(name: str, header: list[str], wanted: tuple[str, str]) -> tuple[int, list[int]]:
    """The places of the text and of the label, or of each label, among the columns."""
    text, label = wanted
    parts = [label] if label in header else [part.strip() for part in label.split(",")]
    labels = list(dict.fromkeys(part for part in parts if part)) or [""]
    sought = [(text, TEXT_NAMES, "text-column"), *((one, LABEL_NAMES, "label-column") for one in labels)]
    lower, places = [column.lower() for column in header], []
    for asked, usual, flag in sought:
        found = [asked] if asked in header else [] if asked else [n for n in usual if n in lower]
        if not found:
            called = repr(asked) if asked else f"called {', '.join(usual)}"
            raise DataError(
                f"{name}: no column {called}; it has {', '.join(header)}"
                + ("" if asked else f"; name one with --{flag}")
            )
        places.append(header.index(asked) if asked else lower.index(found[0]))
    return places[0], places[1:]


def _label(where: str, names: list[str], cells: list[str]) -> str:
    """What stands in the column of the label; of several columns, the names of those that are marked, ``a|c``."""
    if len(cells) == 1:
        return cells[0]
    marks = [_MARKS.get(cell.strip().lower()) for cell in cells]
    for name, cell, mark in zip(names, cells, marks, strict=True):
        if mark is None:
            raise DataError(f"{where}: one of several label columns, {name!r} must hold 0 or 1, not {cell!r}")
    return "|".join(name for name, mark in zip(names, marks, strict=True) if mark)


def _json_lines(path: Path, wanted: tuple[str, str], encoding: str | None) -> Iterator[tuple[str, str, str]]:
    with _opened(path, encoding) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}: not JSON ({error})") from None
            if not isinstance(record, dict):
                raise DataError(f"{where}: a JSON object was expected, got {line.strip()[:40]!r}")
            keys = list(record)
            place, places = _columns(where, keys, wanted)
            text, labels = keys[place], [keys[i] for i in places]
            said = [record[label] for label in labels]
            if len(said) == 1 and isinstance(said[0], list) and all(isinstance(one, str) for one in said[0]):
                said = ["|".join(said[0])]  # as a table would have it
            if not isinstance(record[text], str) or any(isinstance(one, dict | list | None) for one in said):
                raise DataError(f"{where}: {text!r} must be a text and {', '.join(map(repr, labels))} a label")
            yield f"line {number}", record[text], _label(where, labels, list(map(str, said)))


def _folder(path: Path, encoding: str | None) -> Iterator[tuple[str, str, str]]:
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    folders = [entry for entry in entries if entry.is_dir()]
    for entry in folders:
        for file in sorted(file for file in entry.rglob("*") if file.is_file() and not file.name.startswith(".")):
            yield str(file), read_text(file, encoding), entry.name
    if not folders:
        for entry in entries:
            for number, line in enumerate(read_text(entry, encoding).split("\n"), 1):
                if line.strip():
                    yield f"{entry}, line {number}", line, entry.name.removesuffix(".gz").rsplit(".", 1)[0]


def embedded_or_file(
    data: str, embedded: Mapping[str, Callable[[], Labelled]], text_column: str, label_column: str, encoding: str
) -> Labelled:
    """Labelled texts by the name of an embedded source, or from a file or folder."""
    if data in embedded:
        return embedded[data]()
    if not Path(data).exists():
        raise DataError(f"no file and no embedded data are called {data!r}{nearest(data, embedded)}")
    return read_labelled(data, text_column, label_column, encoding or None)
