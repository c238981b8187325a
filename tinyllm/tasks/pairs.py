"""Pairs of texts, read from files or made elsewhere, and divided so that no source is in both parts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tinyllm.data.files import read_text
from tinyllm.errors import DataError, nearest

Item = TypeVar("Item")


@dataclass(frozen=True)
class Pair:
    """A source, what it is to be turned into, and the group (a package, say) that the two parts must not share."""

    source: str
    target: str
    group: str = ""

    @property
    def unit(self) -> str:
        """What decides the part that the pair falls into: its group, else its source without case and spacing."""
        return self.group or " ".join(self.source.casefold().split())


@dataclass(frozen=True)
class Pairs:
    """Pairs under one name, and what is to be said about them before they are used."""

    name: str
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return "\n".join([f"{self.name}: {len(self.pairs):,} pairs", *self.notes])


def clean_pairs(name: str, found: Iterable[tuple[str, Pair]], notes: Sequence[str] = ()) -> Pairs:
    """Pairs without those that have an empty side, and without repetitions; `found` gives each with its place.

    Raises
    ------
    DataError
        If nothing is left.
    """
    kept: dict[tuple[str, str], Pair] = {}
    empty: list[str] = []
    for place, pair in found:
        if pair.source.strip() and pair.target.strip():
            kept.setdefault((pair.source, pair.target), pair)
        else:
            empty.append(place)
    if not kept:
        raise DataError(f"{name} holds no pair of texts" + (f": a side of {empty[0]} is empty" if empty else ""))
    said = list(notes)
    if empty:
        said.append(f"warning: {len(empty):,} pairs with an empty side are left out, the first at {empty[0]}")
    same = sum(source == target for source, target in kept)
    if 2 * same > len(kept):
        said.append(
            f"warning: in {same:,} of {len(kept):,} pairs both sides are equal, so a model learns to copy; are they "
            "twice the same file or column?"
        )
    return Pairs(name, tuple(kept.values()), tuple(said))


def read_table(path: Path, encoding: str | None = None) -> Pairs:
    """A file with a pair on each line: source, tab, target; further columns are left alone. Plain or gzip.

    Raises
    ------
    DataError
        For a line without a tab, named; or a file that cannot be read.
    """
    found = []
    for number, line in _lines(path, encoding):
        columns = line.split("\t")
        if len(columns) < 2:
            raise DataError(f"{path}, line {number}: a source, a tab and a target were expected, got {line[:60]!r}")
        found.append((f"line {number}", Pair(columns[0].strip(), columns[1].strip())))
    return clean_pairs(str(path), found)


def read_files(source: Path, target: Path, encoding: str | None = None) -> Pairs:
    """Two files with the same number of lines: line n of one belongs to line n of the other.

    Raises
    ------
    DataError
        If they differ in length, with the first line that has no partner; or if one cannot be read.
    """
    sides = [dict(_lines(path, encoding, blank=True)) for path in (source, target)]
    if len(sides[0]) != len(sides[1]):
        longer, path = (sides[0], source) if len(sides[0]) > len(sides[1]) else (sides[1], target)
        first = min(len(side) for side in sides) + 1
        raise DataError(
            f"{source} has {len(sides[0]):,} lines and {target} {len(sides[1]):,}: line {first:,} of {path} "
            f"({longer[first][:60]!r}) is the first without a partner; line n of one must belong to line n of the other"
        )
    numbers = sides[0]
    found = ((f"line {n}", Pair(sides[0][n].strip(), sides[1][n].strip())) for n in numbers)
    return clean_pairs(f"{source}, {target}", found)


def _lines(path: Path, encoding: str | None, blank: bool = False) -> list[tuple[int, str]]:
    r"""The lines of a file with their numbers from 1; line ends may be \n, \r\n, \r or a mixture of them."""
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    text = read_text(path, encoding or None).removesuffix("\n")
    if not text:
        raise DataError(f"{path} is empty")
    return [(n, line) for n, line in enumerate(text.split("\n"), start=1) if blank or line.strip()]


def split_pairs(pairs: Sequence[Pair], held_out: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Divide pairs so that no unit is in both parts, as `split_units`."""
    return split_units(pairs, lambda pair: pair.unit, held_out, seed)


def split_units(
    items: Sequence[Item], unit: Callable[[Item], str], held_out: float, seed: int
) -> tuple[list[Item], list[Item]]:
    """Divide items by a hash of their unit and the seed, so that what is in one part is in none of the other.

    Parameters
    ----------
    items : sequence
    unit : callable
        What two items share that must not be divided.
    held_out : float
        About this share of the units is held out, between 0 and 1.
    seed : int

    Returns
    -------
    train, held_out : list

    Raises
    ------
    DataError
        If one of them is empty.
    """
    parts: tuple[list[Item], list[Item]] = ([], [])
    for item in items:
        digest = hashlib.sha256(f"{seed}:{unit(item)}".encode(errors="surrogatepass")).digest()
        parts[int.from_bytes(digest[:8], "big") < held_out * 2**64].append(item)
    if not all(parts):
        raise DataError(
            f"{len(items)} examples are too few to hold out a share of {held_out} of them: give more, or another "
            "held_out or seed"
        )
    return parts


def load_pairs(data: str, target: str, encoding: str, embedded: Mapping[str, Callable[[], Pairs]]) -> Pairs:
    """Pairs by the name of an embedded source, of a table, or of two files.

    Parameters
    ----------
    data : str
        A name among `embedded`, a table, or the file of the sources if there is a `target`.
    target : str
        The file of the targets, or "".
    encoding : str
        Of the files, or "".
    embedded : dict
        Functions by name.
    """
    if target:
        return read_files(Path(data), Path(target), encoding or None)
    if data in embedded:
        return embedded[data]()
    if not Path(data).exists():
        raise DataError(f"no file and no embedded data are called {data!r}{nearest(data, embedded)}")
    return read_table(Path(data), encoding or None)
