"""Translation: from English into the language of the other column."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from tinyllm.metrics import chrf, corpus_bleu
from tinyllm.models.ibm1 import IBM1
from tinyllm.tasks.catalogues import read_catalogues
from tinyllm.tasks.pair_task import PairTask
from tinyllm.tasks.pairs import Pair, Pairs, load_pairs
from tinyllm.text import word_tokenize
from tinyllm.train.settings import Settings

_EMBEDDED = {
    "jupyterlab-fr": lambda: read_catalogues("fr_FR"),
    "jupyterlab-zh": lambda: read_catalogues("zh_CN"),
}


def _read(settings: Settings) -> Pairs:
    return load_pairs(settings.data, settings.target, settings.encoding, _EMBEDDED)


def streams(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """References of each hypothesis as BLEU takes them: one list per stream, None where there are no more."""
    longest = max(map(len, references))
    return [[known[i] if i < len(known) else None for known in references] for i in range(longest)]


def measure(hypotheses: Sequence[str], references: Sequence[Sequence[str]], settings: Settings) -> dict[str, float]:
    """BLEU, in characters where the targets are mostly Chinese, and chrF; both from 0 to 100."""
    known = streams(references)
    tokenize = "zh" if _chinese("".join(text for each in references for text in each)) else "13a"
    return {
        "BLEU": corpus_bleu(hypotheses, known, tokenize=tokenize).score,
        "chrF": chrf(hypotheses, known).score,
    }


def _chinese(text: str) -> bool:
    letters = [c for c in text if c.isalpha()]
    return 3 * sum(unicodedata.name(c, "").startswith("CJK") for c in letters) > len(letters)


def word_by_word(train: Sequence[Pair], sources: Sequence[str]) -> list[str]:
    """Each word of a source replaced by its likeliest translation (IBM model 1)."""
    model = IBM1().fit([word_tokenize(pair.source) for pair in train], [word_tokenize(pair.target) for pair in train])
    return [join(model.best(word_tokenize(source))) for source in sources]


def join(words: Sequence[str]) -> str:
    """Words as a text: no space between Chinese characters, nor before a mark that ends something."""
    text = ""
    for word in words:
        tight = word in ".,:;!?)]}'’" or not text or text[-1] in "([{'’" or (_wide(word[0]) and _wide(text[-1]))
        text += word if tight else " " + word
    return text


def _wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


def _baselines(train: Sequence[Pair], sources: Sequence[str]) -> dict[str, list[str]]:
    """The source left as it is, and its words translated one by one."""
    return {"copy": list(sources), "word by word (IBM model 1)": word_by_word(train, sources)}


TASKS = {"translation": PairTask(_read, measure, _baselines)}
