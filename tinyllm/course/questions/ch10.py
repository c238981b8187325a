"""Chapter 10, mixture of experts: the gate, its derivative, who is dropped, and the loss that must be added."""

from __future__ import annotations

import numpy as np

from tinyllm.autograd import Tensor, ops, vjp
from tinyllm.autograd.fused import softmax
from tinyllm.course.exercise import Exercise, law_on
from tinyllm.formulas import moe
from tinyllm.testing.problem import Array
from tinyllm.testing.suite import oracle
from tinyllm.testing.suite.answer import Case
from tinyllm.testing.suite.topics import draw


def _softmax(scores: Array, axis: int = -1) -> Array:
    return np.exp(oracle.log_softmax(scores, axis))


def _best(scores: Array, k: int) -> Array:
    """True for the k largest of each row, of equal ones the first."""
    order = np.argsort(-scores, axis=-1, kind="stable")
    mask = np.zeros(scores.shape, bool)
    np.put_along_axis(mask, order[..., :k], True, axis=-1)
    return mask


# -- topk_gate ---------------------------------------------------------------------------------------------------------


def _scores(rng: np.random.Generator) -> list[Case]:
    return [{"scores": 2 * draw(rng, n, e), "k": k} for n, e, k in ((4, 5, 2), (3, 4, 1), (2, 6, 3))]


def _gates(scores: Array, k: int) -> Array:
    W = np.eye(scores.shape[1]).tolist()
    return np.array([moe.moe_gate(row, W, k) for row in scores.tolist()])


def _all_normalised(scores: Array, k: int) -> Array:
    return np.where(_best(scores, k), _softmax(scores), 0.0)


def _overflowing(scores: Array, k: int) -> Array:
    e = np.exp(scores) * _best(scores, k)
    return e / e.sum(axis=-1, keepdims=True)


GATE = Exercise(
    name="topk_gate",
    chapter="10",
    asks="F-MOE's gate: in each row of scores (N, E) the softmax over the k largest, of equal ones the first; exactly "
    "0 for the other experts. An array (N, E).",
    arguments=("scores", "k"),
    answer=_gates,
    cases=_scores,
    mistakes=(
        ("all experts get a share: only the k best may", lambda scores, k: _softmax(scores)),
        (
            "the softmax runs over all experts, then the others are cut off: the rows no longer sum to 1",
            _all_normalised,
        ),
        (
            "the others' scores are 0, not -inf, and exp(0) = 1 takes its share",
            lambda scores, k: _softmax(np.where(_best(scores, k), scores, 0.0)),
        ),
        ("the k smallest are kept: sort from the largest down", lambda scores, k: _gates(-scores, k)),
        ("the k kept share alike: the better of them is to get more", lambda scores, k: _best(scores, k) / k),
        (
            "the softmax runs over the tokens (axis 0): each token has a gate of its own",
            lambda scores, k: _softmax(np.where(_best(scores, k), scores, -1e30), 0),
        ),
        ("of equal scores the first wins, and more than k are kept here", lambda scores, k: _ties(scores, k)),
        ("large scores overflow: take the largest of each row off before exp", _overflowing),
    ),
    hints=(
        "Which k columns of a row are kept? Then forget the others entirely: a softmax over k numbers.",
        "Put -inf in the place of the scores that are not kept; exp(-inf) is 0.",
        "order = np.argsort(-scores, axis=-1, kind='stable')[:, :k] names the kept columns; np.put_along_axis puts "
        "their scores into an array full of -inf.",
    ),
    laws=(
        law_on("equals", "Of equal scores the first win.", [{"scores": np.array([[1.0, 1.0, 1.0, -2.0]]), "k": 2}]),
        law_on("large", "Large scores do not overflow.", [{"scores": np.array([[900.0, 899.0, -5.0]]), "k": 2}]),
    ),
)


def _ties(scores: Array, k: int) -> Array:
    least = np.sort(scores, axis=-1)[:, -k][:, None]
    return _softmax(np.where(scores >= least, scores, -1e30))


# -- gate_vjp ----------------------------------------------------------------------------------------------------------


def _mixed(rng: np.random.Generator) -> list[Case]:
    cases: list[Case] = []
    for n, e, k, c in ((4, 5, 2, 3), (3, 4, 3, 2), (2, 3, 2, 1)):
        gates = _gates(2 * draw(rng, n, e), k)
        cases.append({"g": draw(rng, n, c), "gates": gates, "outputs": draw(rng, n, e, c)})
    return cases


def _gate_vjp(g: Array, gates: Array, outputs: Array) -> Array:
    kept = gates > 0
    scores = np.where(kept, np.log(np.where(kept, gates, 1.0)), -np.inf)  # any scores that have these gates

    def mix(s: Tensor) -> Tensor:
        return ops.sum(ops.expand_dims(softmax(ops.where(kept, s, -1e30)), -1) * outputs, axis=1)

    _, pull = vjp(mix, Tensor(np.where(kept, scores, 0.0)))
    return pull(g)[0].numpy()


def _slopes(g: Array, outputs: Array) -> Array:
    return np.einsum("nc,nec->ne", g, outputs)


def _with_all_experts(g: Array, gates: Array, outputs: Array) -> Array:
    d = _slopes(g, outputs)
    return gates * (d - d.mean(axis=-1, keepdims=True))


GATE_VJP = Exercise(
    name="gate_vjp",
    chapter="10",
    asks="y[n] = sum over e of gates[n, e] outputs[n, e], with gates (N, E) a softmax of the kept scores, 0 elsewhere, "
    "and outputs (N, E, C). Given the gradient g (N, C) of y: the gradient (N, E) of the scores.",
    arguments=("g", "gates", "outputs"),
    answer=_gate_vjp,
    cases=_mixed,
    points=2,
    mistakes=(
        (
            "that is the gradient of the gates, not yet of the scores: the softmax is missing",
            lambda g, gates, outputs: _slopes(g, outputs),
        ),
        (
            "of the softmax's derivative only the diagonal part: a score also takes from the other gates",
            lambda g, gates, outputs: gates * _slopes(g, outputs),
        ),
        (
            "p (1 - p) alone: the gates compete, and the other experts' slopes matter",
            lambda g, gates, outputs: gates * (1 - gates) * _slopes(g, outputs),
        ),
        ("the mean is to be weighted by the gates", _with_all_experts),
        ("the sign is turned", lambda g, gates, outputs: -_gate_vjp(g, gates, outputs)),
        (
            "summed over the tokens: each token has scores of its own",
            lambda g, gates, outputs: np.broadcast_to(_gate_vjp(g, gates, outputs).sum(0), gates.shape),
        ),
        (
            "experts that were not chosen get a gradient: their gate is 0, and a little more score leaves it 0",
            lambda g, gates, outputs: np.where(gates > 0, _gate_vjp(g, gates, outputs), _slopes(g, outputs)),
        ),
    ),
    hints=(
        "Two steps: first the gradient of each gate, then back through the softmax of chapter 02.",
        "The gradient of gates[n, e] is the dot product of g[n] with outputs[n, e].",
        "With d = np.einsum('nc,nec->ne', g, outputs): the gradient of a score is its gate times (d minus the mean of "
        "d weighted by the gates).",
    ),
)

# -- kept_by_capacity --------------------------------------------------------------------------------------------------


def _choices(rng: np.random.Generator) -> list[Case]:
    fixed = [0, 0, 0, 1, 0, 2, 1, 0, 1, 1]
    return [
        {"chosen": np.array(fixed), "capacity": 2},
        {"chosen": rng.integers(3, size=9), "capacity": 3},
        {"chosen": np.array([1, 1, 1, 1, 0]), "capacity": 1},
    ]


def _earlier(chosen: Array) -> Array:
    """How many tokens before each have chosen the same expert."""
    return np.array([(chosen[:t] == e).sum() for t, e in enumerate(chosen)])


def _kept(chosen: Array, capacity: int) -> Array:
    return (_earlier(chosen) < capacity).astype(float)


CAPACITY = Exercise(
    name="kept_by_capacity",
    chapter="10",
    asks="Token t wants expert chosen[t]; each expert reads `capacity` tokens, the first ones. For every token 1.0 if "
    "it is read, 0.0 if it is dropped: an array (N,).",
    arguments=("chosen", "capacity"),
    answer=_kept,
    cases=_choices,
    mistakes=(
        ("the last tokens are kept: first come, first served",
         lambda chosen, capacity: _kept(chosen[::-1], capacity)[::-1]),
        ("one too many is read: there are capacity places, numbered from 0",
         lambda chosen, capacity: _kept(chosen, capacity + 1)),
        ("one too few is read: the last place is one too", lambda chosen, capacity: _kept(chosen, capacity - 1)),
        ("all experts together have that capacity: each has its own",
         lambda chosen, capacity: (np.arange(len(chosen)) < capacity).astype(float)),
        ("nobody is dropped", lambda chosen, capacity: np.ones(len(chosen))),
        ("an expert that is too full reads nobody: it reads the first ones",
         lambda chosen, capacity: (np.bincount(chosen)[chosen] <= capacity).astype(float)),
        ("the answer is turned round: 1.0 for a token that is read",
         lambda chosen, capacity: 1 - _kept(chosen, capacity)),
        ("only neighbours are counted: all earlier tokens of the expert take places",
         lambda chosen, capacity: _runs(chosen, capacity)),
    ),
    hints=(
        "Walk through the tokens with one counter for each expert.",
        "A token is read while the counter of its expert is still below the capacity; then the counter goes up.",
        "counters = np.zeros(chosen.max() + 1); for t, e in enumerate(chosen): ... The result starts as np.zeros(N).",
    ),
)  # fmt: skip


def _runs(chosen: Array, capacity: int) -> Array:
    kept, run = np.zeros(len(chosen)), 0
    for t, e in enumerate(chosen):
        run = run + 1 if t and chosen[t - 1] == e else 0
        kept[t] = float(run < capacity)
    return kept


# -- mixture_loss ------------------------------------------------------------------------------------------------------


def _surprises(rng: np.random.Generator) -> list[Case]:
    return [
        {"surprise": np.abs(draw(rng, n)), "probabilities": _softmax(2 * draw(rng, n, e)), "alpha": alpha}
        for n, e, alpha in ((6, 3, 0.5), (9, 4, 0.2), (4, 2, 1.0))
    ]


def _loss(surprise: Array, probabilities: Array, alpha: float) -> Array:
    return np.array(surprise.mean() + moe.balance_loss(probabilities.tolist(), alpha))


def _shares(probabilities: Array) -> Array:
    N, E = probabilities.shape
    return np.bincount(probabilities.argmax(axis=1), minlength=E) / N


LOSS = Exercise(
    name="mixture_loss",
    chapter="10",
    asks="What is to be minimised: the mean of surprise (N,) plus F-MOE's balance loss, alpha E sum_e f_e P_e, of the "
    "gate's probabilities (N, E), each row a softmax over all experts. One number.",
    arguments=("surprise", "probabilities", "alpha"),
    answer=_loss,
    cases=_surprises,
    points=2,
    mistakes=(
        (
            "the balance loss is computed, perhaps, but never added: it trains nothing",
            lambda surprise, probabilities, alpha: np.array(surprise.mean()),
        ),
        (
            "the model's own loss is missing",
            lambda surprise, probabilities, alpha: np.array(moe.balance_loss(probabilities.tolist(), alpha)),
        ),
        (
            "alpha is left out",
            lambda surprise, probabilities, alpha: _loss(surprise, probabilities, 1.0) if alpha != 1 else np.array(0.0),
        ),
        (
            "the number of experts is left out: an even spread would not give alpha",
            lambda surprise, probabilities, alpha: _loss(surprise, probabilities, alpha / probabilities.shape[1]),
        ),
        (
            "P is used twice: f is the share of tokens whose best expert it is",
            lambda surprise, probabilities, alpha: np.array(
                surprise.mean() + alpha * probabilities.shape[1] * (probabilities.mean(0) ** 2).sum()
            ),
        ),
        (
            "f is used twice, which no gradient can pass: P is the mean probability",
            lambda surprise, probabilities, alpha: np.array(
                surprise.mean() + alpha * probabilities.shape[1] * (_shares(probabilities) ** 2).sum()
            ),
        ),
        (
            "subtracted: a crowd at one expert would be rewarded",
            lambda surprise, probabilities, alpha: _loss(surprise, probabilities, -alpha),
        ),
        (
            "the surprise is summed over the tokens: its mean is meant",
            lambda surprise, probabilities, alpha: _loss(surprise * len(surprise), probabilities, alpha),
        ),
    ),
    hints=(
        "Three steps: f, the shares of tokens by their best expert; P, the mean of each column; then the sum.",
        "np.bincount(probabilities.argmax(axis=1), minlength=E) / N gives f.",
        "Return the mean surprise plus alpha * E * (f * P).sum(), as one number.",
    ),
)

EXERCISES = (GATE, GATE_VJP, CAPACITY, LOSS)
