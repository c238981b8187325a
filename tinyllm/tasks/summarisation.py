"""Summarisation: from the body of a docstring to its first line."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinyllm.data.stdlib import read_prose
from tinyllm.metrics import rouge_l, rouge_n
from tinyllm.tasks.pair_task import PairTask
from tinyllm.tasks.pairs import Pair, Pairs, clean_pairs, load_pairs
from tinyllm.tasks.sentences import sentences
from tinyllm.train.settings import Settings

_MOST = 600  # characters of a body; what comes later hardly bears on the first line


def _docstrings() -> Pairs:
    """The first paragraph of each docstring of the standard library and what follows it, grouped by package."""
    found = []
    for document in read_prose().documents:
        summary, _, body = document.text.partition("\n\n")
        summary, body = (" ".join(text.split()) for text in (summary, body))
        # A first paragraph that is a whole page, or a list of names, sums nothing up.
        if body and 3 <= len(summary.split()) <= 25:
            found.append((document.source, Pair(body[:_MOST], summary, document.group)))
    return clean_pairs("docstrings of the standard library, body to first line", found)


def _read(settings: Settings) -> Pairs:
    return load_pairs(settings.data, settings.target, settings.encoding, {"stdlib-docstrings": _docstrings})


def measure(hypotheses: Sequence[str], references: Sequence[Sequence[str]], settings: Settings) -> dict[str, float]:
    """The mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L, from 0 to 100, against the best of the references."""

    def mean(score: Callable[[str, str], float]) -> float:
        best = [max(score(text, one) for one in known) for text, known in zip(hypotheses, references, strict=True)]
        return 100 * sum(best) / len(best)

    return {name: mean(score) for name, score in _ROUGES.items()}


_ROUGES: dict[str, Callable[[str, str], float]] = {
    "ROUGE-1": lambda hypothesis, reference: rouge_n(hypothesis, reference, 1).fmeasure,
    "ROUGE-2": lambda hypothesis, reference: rouge_n(hypothesis, reference, 2).fmeasure,
    "ROUGE-L": lambda hypothesis, reference: rouge_l(hypothesis, reference).fmeasure,
}


def _baselines(train: Sequence[Pair], sources: Sequence[str]) -> dict[str, list[str]]:
    """The first sentence of the body."""
    return {"lead-1": [sentences(source)[0] for source in sources]}


TASKS = {"summarisation": PairTask(_read, measure, _baselines)}
