"""Training and held-out text that share no group and no document."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace

from tinyllm.data.corpus import Corpus, Document
from tinyllm.errors import ConfigError, DataError


def split(corpus: Corpus, held_out: float = 0.1, seed: int = 0) -> tuple[Corpus, Corpus]:
    """Divide a corpus by group where it has several, else by document, else by position.

    Whole groups (or documents, equal ones together) are held out until no further one fits into the share of characters
    asked for. Groups are tried in the order of a hash of seed and name, which is the same on every machine, so that a
    group that comes or goes moves few others. Where less than half the share is reached, as with one document or few
    long ones, the text is cut at a position instead: its first part trains, its end is held out.

    Parameters
    ----------
    corpus : Corpus
        What to divide.
    held_out : float
        Share of the characters, between 0 and 1.
    seed : int
        Another one holds out other groups.

    Returns
    -------
    train, held_out : Corpus
        Neither is empty; documents keep their order. The names say how the text was divided.

    Raises
    ------
    ConfigError
        For a share that is not between 0 and 1.
    DataError
        For a corpus of fewer than two characters.
    """
    if not 0 < held_out < 1:
        raise ConfigError(f"held_out is a share between 0 and 1, got {held_out}")
    characters = corpus.characters
    if characters < 2:
        raise DataError(f"{corpus.name} has {characters} characters: too few to hold any out")
    by_group = len(corpus.groups) > 1
    units = [document.group if by_group else document.text for document in corpus.documents]
    sizes: Counter[str] = Counter()
    for unit, document in zip(units, corpus.documents, strict=True):
        sizes[unit] += len(document.text)
    chosen = _choose(sizes, held_out * characters, seed)
    if 2 * sum(sizes[unit] for unit in chosen) < held_out * characters:
        return _by_position(corpus, held_out)

    def part(held: bool) -> Corpus:
        documents = (d for unit, d in zip(units, corpus.documents, strict=True) if (unit in chosen) == held)
        kept = len(chosen) if held else len(sizes) - len(chosen)
        name = f"{corpus.name} ({kept} of {len(sizes)} {'groups' if by_group else 'documents'})"
        return replace(corpus, name=name, documents=tuple(documents))

    return part(held=False), part(held=True)


def _choose(sizes: Counter[str], wanted: float, seed: int) -> set[str]:
    """Units tried in a seeded order, each taken if the sum stays within `wanted`."""
    chosen, total = set(), 0
    for unit in sorted(sizes, key=lambda unit: hashlib.sha256(f"{seed}:{unit}".encode()).digest()):
        if total + sizes[unit] <= wanted:
            chosen.add(unit)
            total += sizes[unit]
    return chosen


def _by_position(corpus: Corpus, held_out: float) -> tuple[Corpus, Corpus]:
    """The first characters of the corpus and the rest; the document on the cut is divided."""
    characters = corpus.characters
    cut = min(max(int((1 - held_out) * characters), 1), characters - 1)
    train: list[Document] = []
    rest: list[Document] = []
    position = 0
    for document in corpus.documents:
        inside = min(max(cut - position, 0), len(document.text))  # characters of this document before the cut
        for part, text in ((train, document.text[:inside]), (rest, document.text[inside:])):
            if text:
                part.append(replace(document, text=text))
        position += len(document.text)
    return (
        replace(corpus, name=f"{corpus.name} (first {cut:,} characters)", documents=tuple(train)),
        replace(corpus, name=f"{corpus.name} (last {characters - cut:,} characters)", documents=tuple(rest)),
    )
