"""What the metrics of texts share: counting n-grams, and the shape of their arguments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def ngram_counts(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """How often each run of n tokens occurs."""
    return Counter(zip(*(tokens[i:] for i in range(n)), strict=False))


def segments(hypotheses: Sequence[str], references: Sequence[Sequence[str | None]]) -> list[tuple[str, list[str]]]:
    """Each hypothesis with its references, from references in streams.

    Parameters
    ----------
    hypotheses : sequence of N str
        What is judged.
    references : sequence of streams, each a sequence of N str or None
        Stream k holds the k-th reference of every hypothesis, None where it has no k-th.

    Returns
    -------
    list of (str, list of str)

    Raises
    ------
    ValueError
        For arguments of another form, saying which.
    """
    if isinstance(hypotheses, str):
        raise ValueError("hypotheses is a list of texts, got one text; put it into a list")
    if isinstance(references, str) or any(isinstance(stream, str) for stream in references):
        raise ValueError(
            "references is a list of streams, each with one text for every hypothesis; "
            "for a single reference each write [references]"
        )
    if not hypotheses or not references:
        raise ValueError(f"{len(hypotheses)} hypotheses and {len(references)} streams of references: nothing to judge")
    for k, stream in enumerate(references):
        if len(stream) != len(hypotheses):
            raise ValueError(f"stream {k} has {len(stream)} references for {len(hypotheses)} hypotheses")
    pairs = []
    for i, hypothesis in enumerate(hypotheses):
        known = [text for stream in references if (text := stream[i]) is not None]
        if not known:
            raise ValueError(f"hypothesis {i} has no reference: it is None in every stream")
        pairs.append((hypothesis, known))
    return pairs
