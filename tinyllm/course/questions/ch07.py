"""Chapter 07, training and sampling: targets one to the left, the tied table's two gradients, temperature, top-p."""

from __future__ import annotations

import numpy as np

from tinyllm.autograd import Tensor, vjp
from tinyllm.autograd.fused import embedding
from tinyllm.course.exercise import Exercise, law_on
from tinyllm.generation import filters
from tinyllm.testing.problem import Array
from tinyllm.testing.suite import oracle
from tinyllm.testing.suite.answer import Case
from tinyllm.testing.suite.topics import draw

IGNORED = -100

# -- shifted_targets ---------------------------------------------------------------------------------------------------


def _padded(rng: np.random.Generator) -> list[Case]:
    cases: list[Case] = []
    for lengths, T in (((6, 4), 6), ((5,), 5), ((3, 1, 4), 5)):
        mask = (np.arange(T) < np.array(lengths)[:, None]).astype(int)
        cases.append({"ids": np.where(mask, rng.integers(1, 9, mask.shape), 0), "mask": mask})
    return cases


def _shifted(ids: Array, mask: Array, by: int = 1, ignored: int = IGNORED) -> Array:
    targets = np.full_like(ids, ignored)
    targets[:, :-by] = np.where(mask[:, by:] == 1, ids[:, by:], ignored)
    return targets


def _from_the_left(ids: Array, mask: Array) -> Array:
    targets = np.full_like(ids, IGNORED)
    targets[:, 1:] = np.where(mask[:, 1:] == 1, ids[:, :-1], IGNORED)
    return targets


def _unmoved_mask(ids: Array, mask: Array) -> Array:
    targets = np.full_like(ids, IGNORED)
    targets[:, :-1] = np.where(mask[:, :-1] == 1, ids[:, 1:], IGNORED)
    return targets


TARGETS = Exercise(
    name="shifted_targets",
    chapter="07",
    asks="What each position of ids (B, T) is to predict: the next token; -100 where the mask (B, T; 1 for tokens, 0 "
    "for padding at the end) says that it is padding, and where there is none. Integers (B, T).",
    arguments=("ids", "mask"),
    answer=_shifted,
    cases=_padded,
    mistakes=(
        (
            "not shifted: each position is asked for the token that it has just been given",
            lambda ids, mask: np.where(mask == 1, ids, IGNORED),
        ),
        ("shifted the wrong way: a position is asked for the token before it", _from_the_left),
        (
            "the last position is asked for the first token: np.roll goes round",
            lambda ids, mask: np.where(np.roll(mask, -1, axis=1) == 1, np.roll(ids, -1, axis=1), IGNORED),
        ),
        ("padding is predicted: its targets are -100 too", lambda ids, mask: _shifted(ids, np.ones_like(mask))),
        ("the mask is not shifted with the ids: the last token is asked for the padding", _unmoved_mask),
        ("nothing to predict is -100, not 0, which is a token", lambda ids, mask: _shifted(ids, mask, ignored=0)),
        ("shifted by two: next but one", lambda ids, mask: _shifted(ids, mask, by=2) if ids.shape[1] > 2 else ids),
    ),
    hints=(
        "Write six tokens in a row, and below each the token that comes next. What stands below the last one?",
        "Begin with -100 everywhere; then fill columns 0 .. T - 2 from columns 1 .. T - 1.",
        "targets[:, :-1] gets ids[:, 1:] where mask[:, 1:] is 1: it is the predicted token that must not be padding.",
    ),
)

# -- tied_table_vjp ----------------------------------------------------------------------------------------------------


def _tables(rng: np.random.Generator) -> list[Case]:
    return [
        {"g": draw(rng, len(ids), v), "ids": np.array(ids), "table": draw(rng, v, c)}
        for ids, v, c in (([0, 1, 2, 3, 0, 4], 7, 2), ([1, 1, 1], 4, 3), ([2, 0, 2, 2], 3, 5))
    ]


def _both(g: Array, ids: Array, table: Array) -> Array:
    _, pull = vjp(lambda table: embedding(ids, table) @ table.T, Tensor(table))
    return pull(g)[0].numpy()


def _as_head(g: Array, ids: Array, table: Array) -> Array:
    return g.T @ table[ids]


def _as_input(g: Array, ids: Array, table: Array) -> Array:
    return _both(g, ids, table) - _as_head(g, ids, table)


def _repeated_once(g: Array, ids: Array, table: Array) -> Array:
    grad = _as_head(g, ids, table)
    grad[ids] += g @ table
    return grad


def _overwritten(g: Array, ids: Array, table: Array) -> Array:
    grad = _as_head(g, ids, table)
    grad[ids] = _as_input(g, ids, table)[ids]
    return grad


def _only_rows_that_occur(g: Array, ids: Array, table: Array) -> Array:
    return np.where(np.isin(np.arange(len(table)), ids)[:, None], _both(g, ids, table), 0.0)


TIED = Exercise(
    name="tied_table_vjp",
    chapter="07",
    asks="For scores = table[ids] @ table.T, ids (T,), table (V, C): the gradient (V, C) of the table, given the "
    "gradient g (T, V) of the scores.",
    arguments=("g", "ids", "table"),
    answer=_both,
    cases=_tables,
    points=2,
    mistakes=(
        ("only the use as the head: the table is also looked up on the way in", _as_head),
        ("only the use as the input: every row of the table also scores, on the way out", _as_input),
        ("a token that occurs twice is counted once: grad[ids] += ... with arrays; use np.add.at", _repeated_once),
        ("the second gradient overwrites the first: the gradients of two uses are added", _overwritten),
        ("the mean of the two gradients: they are added", lambda g, ids, table: _both(g, ids, table) / 2),
        (
            "only rows of tokens that occur get a gradient: as the head, every row has scored",
            _only_rows_that_occur,
        ),
    ),
    hints=(
        "Pretend that there are two tables, one for the way in and one for the way out. Differentiate by each; then "
        "remember that they are one.",
        "With x = table[ids]: the way out gives g.T @ x, of shape (V, C); the way in gives g @ table, of shape (T, C), "
        "one row for each position.",
        "Row t of the latter belongs to row ids[t] of the table, and two positions may hold the same token: np.add.at.",
    ),
)

# -- temperature_softmax -----------------------------------------------------------------------------------------


def _hot_and_cold(rng: np.random.Generator) -> list[Case]:
    return [{"logits": 2 * draw(rng, n, v), "temperature": t} for n, v, t in ((3, 5, 0.5), (1, 4, 2.0), (4, 2, 1.25))]


def _softmax(logits: Array, axis: int = -1) -> Array:
    return np.exp(oracle.log_softmax(logits, axis))


def _overflowing(logits: Array, temperature: float) -> Array:
    e = np.exp(logits / temperature)
    return e / e.sum(axis=-1, keepdims=True)


TEMPERATURE = Exercise(
    name="temperature_softmax",
    chapter="07",
    asks="softmax(logits / temperature) along the last axis of logits (N, V), in one go: an array (N, V).",
    arguments=("logits", "temperature"),
    answer=lambda logits, temperature: _softmax(logits / temperature),
    cases=_hot_and_cold,
    mistakes=(
        (
            "multiplied by the temperature: high temperatures are to flatten, not to sharpen",
            lambda logits, temperature: _softmax(logits * temperature),
        ),
        (
            "the probabilities are divided, not the scores: they no longer sum to 1",
            lambda logits, temperature: _softmax(logits) / temperature,
        ),
        (
            "exp of the scores is divided, not the scores: normalised, the temperature cancels",
            lambda logits, temperature: _softmax(logits),
        ),
        (
            "softmax is taken twice: scores, divided, then one softmax",
            lambda logits, temperature: _softmax(_softmax(logits) / temperature),
        ),
        (
            "the softmax runs over the rows (axis 0): each row is a distribution",
            lambda logits, temperature: _softmax(logits / temperature, 0),
        ),
        ("a low temperature makes large scores: take the largest of each row off before exp", _overflowing),
    ),
    hints=(
        "One division, then the softmax that you have written in chapter 02.",
        "What should happen at temperature 0.01? The scores become a hundred times as large, and exp must bear it.",
        "z = logits / temperature; e = np.exp(z - largest z of each row); then divide each row by its sum.",
    ),
    laws=(
        law_on(
            "cold",
            "Near temperature 0 the likeliest token gets everything, and nothing overflows.",
            [{"logits": np.array([[10.0, 12.0, -3.0], [-20.0, -20.0, -21.0]]), "temperature": 0.01}],
        ),
    ),
)

# -- nucleus_logits ----------------------------------------------------------------------------------------------------


def _nuclei(rng: np.random.Generator) -> list[Case]:
    return [{"logits": 2 * draw(rng, n, v), "p": p} for n, v, p in ((3, 6, 0.8), (2, 8, 0.6), (1, 5, 0.9))]


def _kept(logits: Array, p: float, order: Array, closed: bool = False) -> Array:
    """-inf but for the first tokens in `order` up to the sum `p`; `closed` leaves out the one that reaches it."""
    q = np.take_along_axis(_softmax(logits), order, axis=-1)
    total = q.cumsum(axis=-1)
    keep = total <= p if closed else total - q < p
    mask = np.zeros(logits.shape, bool)
    np.put_along_axis(mask, order, keep, axis=-1)
    return np.where(mask, logits, -np.inf)


def _descending(logits: Array) -> Array:
    return np.argsort(-logits, axis=-1, kind="stable")


def _not_undone(logits: Array, p: float) -> Array:
    kept = filters.top_p(logits, p)
    return np.take_along_axis(kept, _descending(logits), axis=-1)


def _with_all_equals(logits: Array, p: float) -> Array:
    kept = filters.top_p(logits, p)
    least = np.where(np.isinf(kept), np.inf, kept).min(axis=-1, keepdims=True)
    return np.where(logits >= least, logits, -np.inf)


NUCLEUS = Exercise(
    name="nucleus_logits",
    chapter="07",
    asks="Top-p: in each row of logits (N, V) keep the likeliest tokens, up to and including the one with which their "
    "probability reaches p, of equal ones the lower ids first; the others become -inf. An array (N, V).",
    arguments=("logits", "p"),
    answer=filters.top_p,
    cases=_nuclei,
    points=2,
    mistakes=(
        (
            "the token with which the sum reaches p is left out: keep it, else there may be none",
            lambda logits, p: _kept(logits, p, _descending(logits), closed=True),
        ),
        (
            "the others are 0, and exp(0) = 1 still takes its share: they must be -inf",
            lambda logits, p: np.where(np.isinf(filters.top_p(logits, p)), 0.0, logits),
        ),
        (
            "the least likely tokens are taken first: sort from the largest down",
            lambda logits, p: _kept(logits, p, np.argsort(logits, axis=-1, kind="stable")),
        ),
        (
            "each probability is compared with p: it is their sum that is to reach p",
            lambda logits, p: np.where(_softmax(logits) >= p, logits, -np.inf),
        ),
        ("the result is in sorted order: each logit belongs in its old place", _not_undone),
        (
            "of equal tokens the higher ids come first: np.argsort(-logits, kind='stable')",
            lambda logits, p: _kept(logits, p, np.argsort(logits, axis=-1, kind="stable")[..., ::-1]),
        ),
        ("every token as likely as the last one is kept: of equal ones, the lower ids", _with_all_equals),
    ),
    hints=(
        "Sort each row from the largest logit down, and add up probabilities until there are enough. How do the "
        "decisions come back to where the tokens stand?",
        "A token is kept if the sum of those *before* it is still below p: so the first is always kept, and the one "
        "that reaches p is too.",
        "order = np.argsort(-logits, axis=-1, kind='stable') sorts; np.take_along_axis and np.put_along_axis go there "
        "and back again.",
    ),
    laws=(
        law_on(
            "equals",
            "Of equally likely tokens the lower ids are kept.",
            [{"logits": np.full((2, 4), 1.5), "p": 0.5}, {"logits": np.array([[0.0, 2.0, 2.0, 2.0, 0.0]]), "p": 0.5}],
        ),
        law_on(
            "at_least_one",
            "However small p is, the likeliest token is kept; p = 1 keeps every token.",
            [
                {"logits": np.array([[3.0, 0.0, -1.0], [0.0, 0.5, 0.25]]), "p": 0.01},
                {"logits": np.array([[3.0, 0.0, -1.0]]), "p": 1.0},
            ],
        ),
    ),
)

EXERCISES = (TARGETS, TIED, TEMPERATURE, NUCLEUS)
