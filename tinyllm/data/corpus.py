"""A corpus: documents, each with the place it came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Document:
    """A text, the place it came from, and the group (a package, say) that training and test must not share."""

    text: str
    source: str
    group: str = ""


@dataclass(frozen=True)
class Corpus:
    """Documents under one name, with what was left out of them and the Python whose library they are, if any."""

    name: str
    documents: tuple[Document, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    python: str = ""

    @property
    def characters(self) -> int:
        """Length of all texts in Unicode code points."""
        return sum(len(document.text) for document in self.documents)

    @property
    def bytes(self) -> int:
        """Length of all texts in UTF-8, the denominator of bits per byte."""
        return sum(len(document.text.encode()) for document in self.documents)

    @property
    def groups(self) -> tuple[str, ...]:
        """The distinct groups, sorted."""
        return tuple(sorted({document.group for document in self.documents}))

    def __str__(self) -> str:
        parts = [f"{self.characters:,} characters"]
        for what, number in (("documents", len(self.documents)), ("groups", len(self.groups))):
            if number > 1:
                parts.append(f"{number:,} {what}")
        left_out = [f"{count:,} {kind}" for kind, count in self.left_out.items() if count]
        return f"{self.name}: {', '.join(parts)}" + (f" (left out: {', '.join(left_out)})" if left_out else "")


def without_duplicates(documents: Iterable[Document]) -> tuple[tuple[Document, ...], int]:
    """The documents and the number of later exact copies taken out: a copy carries training text into the test."""
    first: dict[str, Document] = {}
    seen = 0
    for document in documents:
        seen += 1
        first.setdefault(document.text, document)
    return tuple(first.values()), seen - len(first)
