"""BLEU: the n-grams that translations share with human ones, over a whole corpus."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinyllm.errors import nearest
from tinyllm.metrics.bleu_tokens import TOKENIZERS
from tinyllm.metrics.ngram_counts import ngram_counts, segments

#: What each way of smoothing adds where nothing else is asked for.
SMOOTHING: dict[str, float] = {"none": 0.0, "floor": 0.1, "add-k": 1.0, "exp": 0.0}


@dataclass(frozen=True)
class BLEUScore:
    """BLEU and what it is made of.

    Attributes
    ----------
    score : float
        0 to 100.
    counts, totals : tuple of N numbers
        n-grams found in a reference and all n-grams of the hypotheses, for n = 1..N; with the k of "add-k".
    precisions : tuple of N floats
        Their ratios after smoothing, 0 to 100.
    bp : float
        The brevity penalty.
    sys_len, ref_len : int
        Tokens of the hypotheses, and of the references nearest to them in length.
    """

    score: float
    counts: tuple[float, ...]
    totals: tuple[float, ...]
    precisions: tuple[float, ...]
    bp: float
    sys_len: int
    ref_len: int

    def __str__(self) -> str:
        precisions = "/".join(f"{p:.1f}" for p in self.precisions)
        ratio = self.sys_len / self.ref_len if self.ref_len else 0.0
        return (
            f"BLEU = {self.score:.2f} {precisions} "
            f"(BP = {self.bp:.3f} ratio = {ratio:.3f} hyp_len = {self.sys_len} ref_len = {self.ref_len})"
        )


def corpus_bleu(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str | None]],
    smooth_method: str = "exp",
    smooth_value: float | None = None,
    lowercase: bool = False,
    tokenize: str | Callable[[str], list[str]] = "13a",
    max_ngram_order: int = 4,
    effective_order: bool = False,
) -> BLEUScore:
    """BP exp(1/N sum_n log p_n) in percent, with the counts of all sentences added up (F-EVAL).

    Parameters
    ----------
    hypotheses : sequence of str
        What is judged, one sentence each, not tokenised.
    references : sequence of sequences of str or None
        Stream k holds the k-th reference of every hypothesis, None where it has no k-th.
    smooth_method : {"exp", "floor", "add-k", "none"}
        What is done about a p_n of 0: half as many matches with each order that has none; `smooth_value` matches;
        `smooth_value` added to matches and totals of every order above 1; nothing (the score is 0).
    smooth_value : float, optional
        For "floor" (0.1 without it) and "add-k" (1).
    lowercase : bool
        Ignore case.
    tokenize : {"13a", "zh", "intl", "char", "none"} or callable
        See `tinyllm.metrics.bleu_tokens`.
    max_ngram_order : int
        N.
    effective_order : bool
        Leave out orders for which the hypotheses have no n-gram; right for single short sentences.

    Returns
    -------
    BLEUScore

    Raises
    ------
    ValueError
        For arguments of another form, an unknown tokeniser or way of smoothing.

    Notes
    -----
    Source: Papineni et al. 2002, section 2.3; smoothing: Chen and Cherry 2014, section 3; conventions: Post 2018.
    """
    if smooth_method not in SMOOTHING:
        raise ValueError(f"smooth_method={smooth_method!r}{nearest(str(smooth_method), SMOOTHING)}")
    if max_ngram_order < 1:
        raise ValueError(f"max_ngram_order must be at least 1, got {max_ngram_order}")
    cut = _tokenizer(tokenize)

    def tokens(text: str) -> list[str]:
        return cut((text.lower() if lowercase else text).rstrip())

    counts, totals = [0] * max_ngram_order, [0] * max_ngram_order
    sys_len = ref_len = 0
    for hypothesis, known in segments(hypotheses, references):
        candidate, refs = tokens(hypothesis), [tokens(text) for text in known]
        sys_len += len(candidate)
        ref_len += min((abs(len(ref) - len(candidate)), len(ref)) for ref in refs)[1]
        for n in range(1, max_ngram_order + 1):
            grams = ngram_counts(candidate, n)
            at_most: Counter[tuple[str, ...]] = Counter()
            for ref in refs:
                at_most |= ngram_counts(ref, n)
            counts[n - 1] += (grams & at_most).total()
            totals[n - 1] += grams.total()
    value = SMOOTHING[smooth_method] if smooth_value is None else smooth_value
    return _score(counts, totals, sys_len, ref_len, smooth_method, value, effective_order)


def sentence_bleu(
    hypothesis: str,
    references: Sequence[str],
    smooth_method: str = "exp",
    smooth_value: float | None = None,
    lowercase: bool = False,
    tokenize: str | Callable[[str], list[str]] = "13a",
    max_ngram_order: int = 4,
    effective_order: bool = True,
) -> BLEUScore:
    """BLEU of one sentence against its references; a rough figure, for which orders without n-grams are left out.

    Parameters
    ----------
    hypothesis : str
        What is judged.
    references : sequence of str
        Right translations of it.
    smooth_method, smooth_value, lowercase, tokenize, max_ngram_order, effective_order
        As for `corpus_bleu`.

    Returns
    -------
    BLEUScore
    """
    if isinstance(references, str):
        raise ValueError("references is a list of texts, got one text; put it into a list")
    return corpus_bleu(
        [hypothesis],
        [[reference] for reference in references],
        smooth_method,
        smooth_value,
        lowercase,
        tokenize,
        max_ngram_order,
        effective_order,
    )


def _tokenizer(tokenize: str | Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    if callable(tokenize):
        return tokenize
    if tokenize not in TOKENIZERS:
        raise ValueError(f"tokenize={tokenize!r}{nearest(str(tokenize), TOKENIZERS)}")
    return TOKENIZERS[tokenize]


def _score(
    matches: Sequence[int],
    grams: Sequence[int],
    sys_len: int,
    ref_len: int,
    smooth_method: str,
    smooth_value: float,
    effective_order: bool,
) -> BLEUScore:
    """BLEU from the counts of the corpus."""
    counts: list[float] = list(matches)
    totals: list[float] = list(grams)
    precisions = [0.0] * len(counts)
    bp = 1.0
    if sys_len < ref_len:
        bp = math.exp(1 - ref_len / sys_len) if sys_len else 0.0
    if not any(matches):  # no smoothing makes something of nothing
        return BLEUScore(0.0, tuple(counts), tuple(totals), tuple(precisions), bp, sys_len, ref_len)
    orders, halvings = len(counts), 0
    for i in range(len(counts)):
        if smooth_method == "add-k" and i > 0:
            counts[i] += smooth_value
            totals[i] += smooth_value
        if totals[i] == 0:
            break
        if effective_order:
            orders = i + 1
        found = counts[i]
        if found == 0 and smooth_method == "exp":
            halvings += 1
            found = 0.5**halvings
        elif found == 0 and smooth_method == "floor":
            found = smooth_value
        precisions[i] = 100.0 * found / totals[i]
    used = precisions[:orders]
    score = bp * math.exp(sum(map(math.log, used)) / orders) if all(used) else 0.0
    return BLEUScore(score, tuple(counts), tuple(totals), tuple(precisions), bp, sys_len, ref_len)
