"""TER: the edits a translation needs to become a reference, where moving a run of words costs one edit as well."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tinyllm.metrics.ngram_counts import segments

# The search for moves is greedy, and bounded as in Snover's program tercom: other bounds give other scores.
MAX_SHIFT_SIZE, MAX_SHIFT_DISTANCE, MAX_CANDIDATES, BEAM = 10, 50, 1000, 25

Row = tuple[list[float], str]  # cost and last edit of each cell
KEEP, SUBSTITUTE, DELETE, INSERT, UNREACHED = "=sdi?"


@dataclass(frozen=True)
class TERScore:
    """TER and what it is made of.

    Attributes
    ----------
    score : float
        Edits for 100 words of reference.
    num_edits : int
        Of all sentences.
    ref_length : float
        Words of the references, the mean where a sentence has several.
    """

    score: float
    num_edits: int
    ref_length: float

    def __str__(self) -> str:
        return f"TER = {self.score:.2f}"


def ter(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str | None]],
    normalized: bool = False,
    no_punct: bool = False,
    asian_support: bool = False,
    case_sensitive: bool = False,
) -> TERScore:
    """Translation edit rate in percent; smaller is better.

    Parameters
    ----------
    hypotheses : sequence of str
        What is judged.
    references : sequence of sequences of str or None
        Stream k holds the k-th reference of every hypothesis; the one with the fewest edits counts.
    normalized : bool
        Set marks apart from words.
    no_punct : bool
        Remove marks.
    asian_support : bool
        Let the two above know Chinese and Japanese characters and marks.
    case_sensitive : bool
        Tell upper from lower case.

    Returns
    -------
    TERScore

    Notes
    -----
    Source: Snover et al. 2006, section 3 and algorithm 1; ties and bounds: its program tercom, as in sacrebleu.
    """

    def words(text: str) -> list[str]:
        return _words(text.rstrip(), normalized, no_punct, asian_support, case_sensitive)

    edits, length = 0, 0.0
    for hypothesis, known in segments(hypotheses, references):
        # sacrebleu tokenises references twice, which with `normalized` can cut more; scores are compared with its own
        ours, refs = words(hypothesis), [words(" ".join(words(text))) for text in known]
        edits += min(_Editor(ref).edits(ours) for ref in refs)
        length += sum(map(len, refs)) / len(refs)
    rate = edits / length if length else float(edits > 0)
    return TERScore(100 * rate, edits, length)


class _Editor:
    """Turns hypotheses into one reference. Rows of the table are kept by the words that lead to them."""

    def __init__(self, reference: list[str]) -> None:
        self.reference = reference
        first: Row = ([float(j) for j in range(len(reference) + 1)], INSERT * (len(reference) + 1))
        self.rows: dict[tuple[str, ...], Row] = {(): first}

    def edits(self, words: list[str]) -> int:
        """Moves and single edits: greedily the best move, as long as one saves more than it costs."""
        if not self.reference:
            return len(words)
        moves = checked = 0
        while True:
            saved, moved, checked = self._best_move(words, checked)
            if checked >= MAX_CANDIDATES or saved <= 0:
                return moves + self._align(words)[0]
            words, moves = moved, moves + 1

    def _best_move(self, words: list[str], checked: int) -> tuple[int, list[str], int]:
        """What the best move saves, the words after it, and the number of moves tried so far."""
        before, trace = self._align(words)
        place, wrong_here, wrong_there = _read(trace)
        best: tuple[int, int, int, int, list[str]] | None = None
        for start, there, length in self._matches(words):
            if not any(wrong_here[start : start + length]) or not any(wrong_there[there : there + length]):
                continue  # one of the two is right already
            if start <= place[there] < start + length:
                continue  # it would move into itself
            tried = -1
            for j in range(there - 1, there + length):
                if j >= 0 and j not in place:
                    break
                target = place[j] + 1 if j >= 0 else 0
                if target == tried:
                    continue
                tried = target
                moved = _move(words, start, length, target)
                # the best saves most, then is longest, then begins earliest, then goes to the earliest place
                found = (before - self._align(moved)[0], length, -start, -target, moved)
                best = found if best is None else max(best, found)
                checked += 1
            if checked >= MAX_CANDIDATES:
                break
        return (0, words, checked) if best is None else (best[0], best[4], checked)

    def _matches(self, words: list[str]) -> Iterator[tuple[int, int, int]]:
        """Runs of words that also stand in the reference: where here, where there, how long."""
        for start in range(len(words)):
            for there in range(len(self.reference)):
                if abs(start - there) > MAX_SHIFT_DISTANCE:
                    continue
                for length in range(1, 1 + min(MAX_SHIFT_SIZE, len(words) - start, len(self.reference) - there)):
                    if words[start + length - 1] != self.reference[there + length - 1]:
                        break
                    yield start, there, length

    def _align(self, words: list[str]) -> tuple[int, str]:
        """Edit distance to the reference, looked for near the diagonal alone, and the edits that make it up."""
        columns = len(self.reference) + 1
        slope = len(self.reference) / len(words) if words else 1.0
        beam = math.ceil(slope / 2 + BEAM) if slope / 2 > BEAM else BEAM
        table = [self.rows[()]]
        for i in range(1, len(words) + 1):
            key = tuple(words[:i])
            if key not in self.rows:
                diagonal = math.floor(i * slope)
                last = columns if i == len(words) else min(columns, diagonal + beam)
                self.rows[key] = self._row(table[-1], words[i - 1], max(0, diagonal - beam), last)
            table.append(self.rows[key])
        trace, i, j = [], len(words), len(self.reference)
        while i > 0 or j > 0:
            edit = table[i][1][j]
            trace.append(edit)
            i, j = i - (edit != INSERT), j - (edit != DELETE)
        return int(table[-1][0][-1]), "".join(reversed(trace))

    def _row(self, above: Row, word: str, first: int, last: int) -> Row:
        """The next row of the table from column `first` to `last`; of equal costs, a substitution, then a deletion."""
        over = above[0]
        cost, edit = [math.inf] * len(over), [UNREACHED] * len(over)
        for j in range(first, last):
            if j == 0:
                cost[0], edit[0] = over[0] + 1, DELETE
                continue
            same = word == self.reference[j - 1]
            cost[j], edit[j] = over[j - 1] + (not same), KEEP if same else SUBSTITUTE
            if over[j] + 1 < cost[j]:
                cost[j], edit[j] = over[j] + 1, DELETE
            if cost[j - 1] + 1 < cost[j]:
                cost[j], edit[j] = cost[j - 1] + 1, INSERT
        return cost, "".join(edit)


def _read(trace: str) -> tuple[dict[int, int], list[bool], list[bool]]:
    """Where each place of the reference lies in the hypothesis, and which places of either are wrong."""
    place: dict[int, int] = {}
    here: list[bool] = []
    there: list[bool] = []
    for edit in trace:
        if edit != INSERT:
            here.append(edit != KEEP)
        if edit != DELETE:
            place[len(there)] = len(here) - 1
            there.append(edit != KEEP)
    return place, here, there


def _move(words: list[str], start: int, length: int, target: int) -> list[str]:
    """The words with `length` of them from `start` put before what is at `target`."""
    run, rest = words[start : start + length], words[:start] + words[start + length :]
    if target > start + length:  # counted with the run in its place
        target -= length
    return rest[:target] + run + rest[target:]


_ASIAN = (
    "\u4e00-\u9fff\u3400-\u4dbf\u31c0-\u31ef\u2e80-\u2eff\u3300-\u33ff\uf900-\ufaff\ufe30-\ufe4f"
    "\u3200-\u3f22"  # meant to end at U+32FF
)
_ASIAN_MARKS = (
    "\u3001\u3002\u3008-\u3011\u3014-\u301f\uff61-\uff65\u30fb\uff0e\uff0c\uff1f\uff1a\uff1b\uff01\uff02\uff08\uff09"
)
_SPACED = r"!\"#$%&()*+:;<=>?@/\[\\\]^_`{|}~"


def _words(text: str, normalized: bool, no_punct: bool, asian_support: bool, case_sensitive: bool) -> list[str]:
    """Words by tercom's rules."""
    if not case_sensitive:
        text = text.lower()
    if normalized and text:
        text = text.replace("\n-", "").replace("\n", " ")
        for entity, mark in (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")):
            text = text.replace(entity, mark)
        text = re.sub(f"([{_SPACED}])", r" \1 ", f" {text} ").replace("'s ", " 's ")
        text = re.sub(r"([^0-9])([.,])", r"\1 \2 ", text)
        text = re.sub(r"([.,])([^0-9])", r" \1 \2", text)
        text = re.sub(r"([0-9])(-)", r"\1 \2 ", text)
        if asian_support:
            text = re.sub(f"([{_ASIAN}{_ASIAN_MARKS}])", r" \1 ", text)
    if no_punct:
        text = re.sub(f'[.,?:;!"(){_ASIAN_MARKS if asian_support else ""}]', "", text)
    return text.split()
