"""The laws, one small function each: it returns if the answer keeps the law, and raises `Broken` if not.

`Broken` says what came and what was expected; `NotApplicable`, that the law has nothing to say about this answer.
Which laws hold for which function stands in `table`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyllm.testing.problem import Array
from tinyllm.testing.suite.answer import Answer, Case, copied, is_floating
from tinyllm.testing.suite.compare import check, deviation, label, mistakes
from tinyllm.testing.suite.gradient import hold_gradient, tape_gradient
from tinyllm.testing.suite.outcome import Broken, NotApplicable
from tinyllm.testing.suite.signature import Parameters
from tinyllm.testing.suite.topics import draw, odd_cases


def _rng() -> np.random.Generator:
    return np.random.default_rng(11)


def _needs(answer: Answer, *names: str) -> None:
    """The law is about arguments that an answer may leave out."""
    if not answer.takes(*names):
        raise NotApplicable(f"takes no {' or '.join(n for n in names if not answer.takes(n))}")


# -- every function ----------------------------------------------------------------------------------------------------


def values(answer: Answer) -> None:
    """The numbers are those of the formula."""
    for case in answer.cases():
        check(answer, case)


def shapes(answer: Answer) -> None:
    """Axes of length 1, single rows, and more or fewer axes than usual."""
    cases = [case for case in odd_cases(answer.name, _rng()) if answer.parameters.accepts(case)]
    if not cases:
        raise NotApplicable("its arguments leave none to try")
    for case in cases:
        check(answer, case)


def unchanged(answer: Answer) -> None:
    """Neither the function nor its backward pass changes what it is given."""
    case = answer.cases()[-1]
    given = copied(case)
    y = answer.as_array(answer.raw(given, answer.uses_tensors))
    _refuse_change(case, given, "the function")
    if answer.backward is not None:
        g = np.where(np.isfinite(y), 1.25, 0.0)
        before = {**case, "g": g.copy()}
        found = answer.gradients(g, given)
        _refuse_change(before, {**given, "g": g}, "the backward pass")
        for name, d in found.items():
            if d is not None and np.may_share_memory(d, g):
                answer.remarks.append(f"the gradient for {name} is g itself: whoever adds to it in place changes g too")


def _refuse_change(before: Case, after: Case, who: str) -> None:
    for name, old in before.items():
        if isinstance(old, np.ndarray) and not np.array_equal(old, after[name], equal_nan=old.dtype.kind == "f"):
            raise Broken(
                f"{who} changed its input {name}",
                [f"an operation in place ({name} -= ..., {name}[...] = ..., out={name}): work on a copy"],
            )


def single_precision(answer: Answer) -> None:
    """float32 inputs give the right numbers to float32's precision, forward and backward."""
    for case in answer.cases()[:2]:
        small = {n: v.astype(np.float32) if is_floating(v) else v for n, v in case.items()}
        y, expected = answer(**small), answer.expected(case)
        if y.shape != expected.shape:
            raise Broken(f"for float32 {label(case)}: its result has shape {y.shape}, expected {expected.shape}")
        if (deviation(y, expected) > 3e-5).any():
            raise Broken(
                f"for float32 {label(case)}: off by {deviation(y, expected).max():.2g} of the largest number, "
                "where rounding explains 0.00003",
                mistakes(answer, case, y, expected),
            )
        if y.dtype != np.float32 and any(is_floating(v) for v in small.values()):
            remark = f"float32 inputs give {y.dtype}: a NumPy scalar (np.sqrt(d)) or float64 array upcasts them"
            if remark not in answer.remarks:
                answer.remarks.append(remark)
        if answer.backward is not None or answer.uses_tensors:
            _gradients_agree(answer, small, case, expected)


def _gradients_agree(answer: Answer, small: Case, case: Case, y: Array) -> None:
    if answer.topic.results > 1:
        return
    g = np.where(np.isfinite(y), draw(_rng(), *y.shape), 0.0)
    single = tape_gradient(answer, g.astype(np.float32), copied(small))
    double = tape_gradient(answer, g, copied(case))
    for name, d in double.items():
        e = single[name]
        if d is not None and e is not None and e.shape == d.shape and (deviation(e, d) > 1e-4).any():
            raise Broken(
                f"for float32 {label(case)}: the gradient for {name} is off by {deviation(e, d).max():.2g} of its "
                "largest number from the one for float64"
            )


def gradient(answer: Answer) -> None:
    """The backward pass gives the derivative of the forward pass, as values alone show it."""
    if answer.backward is None and not answer.differentiable:
        raise NotApplicable(f"no {answer.name}_backward(g, ...), and it is not written with Tensors")
    cases = [case for case in answer.cases() if np.isfinite(answer.expected(case)).all()]
    for case in cases[:3] + [case for case in odd_cases(answer.name, _rng())[:1] if answer.parameters.accepts(case)]:
        hold_gradient(answer, case)


# -- softmax, log_softmax, logsumexp -----------------------------------------------------------------------------------


def axes(answer: Answer) -> None:
    """The axis that is asked for is the one it works along."""
    _needs(answer, "axis")
    for axis in (0, 1, -2):
        check(answer, {"x": draw(_rng(), 2, 3, 5), "axis": axis})


def _rows(answer: Answer, x: Any) -> Case:
    """A matrix, normalised along its last axis."""
    return {"x": np.array(x, dtype=float), "axis": -1}


def large_inputs(answer: Answer) -> None:
    """Numbers as large as 1e4 overflow nowhere."""
    check(answer, _rows(answer, [[1000.0, 1001.0, 999.0], [-1000.0, 0.0, 1.0]]), "inputs of +-1000")
    check(answer, _rows(answer, [[1e4, -1e4, 0.0], [-1e4, -1e4 - 1, -1e4 + 1]]), "inputs of +-10000")


def minus_infinity(answer: Answer) -> None:
    """An input of -inf (a mask) has no weight, and its neighbours are right."""
    check(answer, _rows(answer, [[0.5, -np.inf, 1.5], [-np.inf, -np.inf, 2.0]]), "inputs of -inf")


def adds_up(answer: Answer) -> None:
    """The weights are positive and sum to 1."""
    y = answer(**_rows(answer, draw(_rng(), 4, 6)))
    if (y < 0).any() or not np.allclose(y.sum(axis=-1), 1, atol=1e-5):
        raise Broken(
            f"the rows sum to {np.array2string(y.sum(axis=-1), precision=4)}, the smallest weight is {y.min():.4g}",
            ["the sum runs over another axis than the last one, or the division is missing"],
        )


def all_minus_infinity(answer: Answer) -> None:
    """The logarithm of a sum of nothing is -inf."""
    check(answer, _rows(answer, [[-np.inf, -np.inf], [0.0, 1.0]]), "a row of -inf")


# -- activations -------------------------------------------------------------------------------------------------------


def extremes(answer: Answer) -> None:
    """+-1000 gives neither NaN nor a wrong inf."""
    check(answer, {"x": np.array([-1000.0, -50.0, 50.0, 1000.0])}, "inputs of +-1000")


def tails(answer: Answer) -> None:
    """Far from 0 the digits that are left are right."""
    if answer.single:
        raise NotApplicable("it computes in single precision")
    check(answer, {"x": np.array([-30.0, -20.0, -10.0])}, "inputs of -30, -20, -10", 1e-6, relative=True)


def at_zero(answer: Answer) -> None:
    """At 0 and -0."""
    check(answer, {"x": np.array([0.0, -0.0])}, "inputs of 0")


def both_kinds(answer: Answer) -> None:
    """approximate="tanh" gives GPT-2's, "none" the exact one."""
    _needs(answer, "approximate")
    for kind in ("none", "tanh"):
        check(answer, {"x": draw(_rng(), 3, 5), "approximate": kind})


# -- layer_norm, rms_norm ----------------------------------------------------------------------------------------------


def small_variance(answer: Answer) -> None:
    """The eps stands inside the root: it decides where rows hardly vary."""
    x = draw(_rng(), 3, 8, scale=2.0**-8)
    case = _affine(answer, x)
    check(answer, case, "rows of variance 1e-5")


def constant_rows(answer: Answer) -> None:
    """A row of equal numbers gives the bias, not NaN."""
    check(answer, _affine(answer, np.array([[3.0] * 4, [0.0] * 4])), "rows of equal numbers")


def far_from_zero(answer: Answer) -> None:
    """Rows with a large mean keep their digits."""
    offset, tolerance = (2.0**10, 5e-3) if answer.single else (2.0**23, 1e-5)
    x = np.round(draw(_rng(), 3, 8) * 64) / 64 + offset
    check(answer, _affine(answer, x), f"rows with mean {offset:.0f}", tolerance)


def several_axes(answer: Answer) -> None:
    """Two axes at once are normalised together."""
    _needs(answer, "normalized_shape")
    names = [n for n in ("weight", "bias") if n in answer.parameters.arguments and answer.takes(n)]
    case = {"x": draw(_rng(), 2, 3, 4), "normalized_shape": (3, 4), "eps": 1e-5}
    check(answer, {**case, **{n: draw(_rng(), 3, 4) for n in names}})


def _affine(answer: Answer, x: Array) -> Case:
    """Rows with a weight and a bias where the answer has them."""
    case: Case = {"x": x, "normalized_shape": (x.shape[-1],), "eps": 1e-5}
    for name in ("weight", "bias"):
        if name in answer.parameters.arguments and answer.takes(name):
            case[name] = draw(_rng(), x.shape[-1]) + 2.0
    return case


# -- losses ------------------------------------------------------------------------------------------------------------


def reductions(answer: Answer) -> None:
    """reduction="sum" and "none"."""
    _needs(answer, "reduction")
    for case in answer.cases()[:2]:
        for reduction in ("sum", "none"):
            check(answer, {**case, "reduction": reduction})


def large_logits(answer: Answer) -> None:
    """A confident wrong prediction costs much, but neither inf nor NaN."""
    logits = np.array([[1000.0, 0.0, -1000.0], [0.0, 1000.0, 0.0]])
    check(answer, {"logits": logits, "target": np.array([2, 1])}, "logits of +-1000")


def ignored_targets(answer: Answer) -> None:
    """Targets of ignore_index (-100) cost nothing and do not count."""
    _needs(answer, "ignore_index")
    case = {"logits": draw(_rng(), 4, 5), "target": np.array([1, -100, 4, -100]), "ignore_index": -100}
    check(answer, case, "two of four targets ignored")


def large_scores(answer: Answer) -> None:
    """A confident wrong prediction costs much, but neither inf nor NaN."""
    case = {"input": np.array([-1000.0, 1000.0, 1000.0]), "target": np.array([1.0, 0.0, 1.0])}
    check(answer, case, "inputs of +-1000")


# -- layers ------------------------------------------------------------------------------------------------------------


def square_weight(answer: Answer) -> None:
    """A square weight too is stored (out, in): nothing but the numbers shows it."""
    check(answer, {"x": draw(_rng(), 2, 4), "weight": draw(_rng(), 4, 4)})


def repeated_ids(answer: Answer) -> None:
    """The gradients of an id that occurs several times are added."""
    if answer.backward is None and not answer.differentiable:
        raise NotApplicable("no embedding_backward(g, ...), and it is not written with Tensors")
    hold_gradient(answer, {"ids": np.array([1, 1, 3, 1]), "weight": draw(_rng(), 5, 3)})


# -- attention ---------------------------------------------------------------------------------------------------------


def _qkv(t: int = 4, s: int = 4, lead: tuple[int, ...] = (2,)) -> Case:
    rng = _rng()
    return {"q": draw(rng, *lead, t, 3), "k": draw(rng, *lead, s, 3), "v": draw(rng, *lead, s, 5)}


def masks(answer: Answer) -> None:
    """A boolean mask: True where attention is allowed."""
    _needs(answer, "attn_mask")
    mask = np.array([[1, 0, 1, 1], [1, 1, 0, 0], [0, 0, 0, 1]], dtype=bool)
    check(answer, {**_qkv(3, 4), "attn_mask": mask}, "a boolean mask of shape (3, 4)")


def masked_row(answer: Answer) -> None:
    """A query that may attend to nothing gets zeros, and its neighbours are right."""
    _needs(answer, "attn_mask")
    mask = np.array([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1]], dtype=bool)
    check(answer, {**_qkv(3, 4), "attn_mask": mask}, "a mask whose row 1 allows nothing")


def additive_masks(answer: Answer) -> None:
    """A mask of numbers is added to the scores; -inf forbids."""
    _needs(answer, "attn_mask")
    mask = draw(_rng(), 3, 4)
    mask[0, 2] = -np.inf
    check(answer, {**_qkv(3, 4), "attn_mask": mask}, "a mask of numbers, one of them -inf")


def causal(answer: Answer) -> None:
    """is_causal=True: query t sees keys 0..t."""
    _needs(answer, "is_causal")
    check(answer, {**_qkv(), "is_causal": True})


def no_leak(answer: Answer) -> None:
    """Under a causal mask nothing before t changes when positions from t on do."""
    case = _qkv(5, 5)
    if answer.takes("is_causal"):
        case["is_causal"] = True
    elif answer.takes("attn_mask"):
        case["attn_mask"] = np.tril(np.ones((5, 5), dtype=bool))
    else:
        raise NotApplicable("takes no is_causal and no mask")
    y = answer(**case)
    for t in range(1, 5):
        other = copied(case)
        for name in ("q", "k", "v"):
            other[name][..., t:, :] += 3.0
        with np.errstate(invalid="ignore"):
            moved = np.abs(answer(**other) - y)[..., :t, :]
        if not (moved <= 1e-6).all():
            first = int(np.argwhere(~(moved <= 1e-6))[0][-2])
            raise Broken(
                f"changing positions {t} and later moves the output at position {first} by {np.nanmax(moved):.3g}",
                mistakes(answer, case, y, answer.expected(case)) or ["the future leaks into the past"],
            )


def causal_gradient(answer: Answer) -> None:
    """The backward pass knows of the causal mask."""
    _needs(answer, "is_causal")
    case = {**_qkv(3, 3, ()), "is_causal": True}
    if answer.backward is None and not answer.differentiable:
        raise NotApplicable(f"no {answer.name}_backward(g, ...), and it is not written with Tensors")
    if answer.backward is not None and not Parameters(answer.backward, answer.topic.arguments, 1).accepts(case):
        raise NotApplicable(f"{answer.name}_backward takes no is_causal")
    hold_gradient(answer, case)


def scales(answer: Answer) -> None:
    """scale= replaces 1 / sqrt(d)."""
    _needs(answer, "scale")
    check(answer, {**_qkv(3, 4), "scale": 0.125})


def sharp_scores(answer: Answer) -> None:
    """Scores of 1000 overflow nowhere."""
    case = _qkv(3, 4)
    case["q"] = case["q"] * 1024
    check(answer, case, "queries a thousand times larger")


# -- dropout -----------------------------------------------------------------------------------------------------------


def _drop(answer: Answer, x: Array, seed: int = 0) -> Array:
    case: Case = {"x": x, "p": 0.25}
    for name, value in (("training", True), ("rng", np.random.default_rng(seed))):
        if answer.takes(name):
            case[name] = value
    return answer(**case)


def switched_off(answer: Answer) -> None:
    """With training=False, or p=0, every number passes unchanged."""
    x = draw(_rng(), 3, 5)
    if answer.takes("training"):
        check(answer, {"x": x, "p": 0.25, "training": False})
    y = answer(**{"x": x, "p": 0.0, **({"rng": _rng()} if answer.takes("rng") else {})})
    if y.shape != x.shape or (deviation(y, x) > 1e-6).any():
        raise Broken("with p=0 the result differs from the input")


def scaled_up(answer: Answer) -> None:
    """What is kept is divided by 1 - p, so that the mean stays."""
    x = np.abs(draw(_rng(), 40, 50)) + 1.0
    y = _drop(answer, x)
    if y.shape != x.shape:
        raise Broken(f"its result has shape {y.shape}, expected {x.shape}")
    ratio = (y / x)[y != 0]
    if not np.allclose(ratio, 1 / 0.75, rtol=1e-5):
        c = float(np.median(ratio)) if ratio.size else 0.0
        said = {1.0: "not divided by 1 - p", 4.0: "divided by p", 0.75: "multiplied by 1 - p"}
        likely = [text for value, text in said.items() if abs(c - value) < 1e-5]
        raise Broken(f"with p=0.25, what is kept is {c:.6g} times the input, expected 1 / 0.75 = 1.33333", likely)


def share_dropped(answer: Answer) -> None:
    """The share that is dropped, element by element, is p."""
    dropped = _drop(answer, np.ones((40, 50))) == 0
    if abs(dropped.mean() - 0.25) > 0.06:  # six standard deviations
        likely = ["p is the probability of dropping, not of keeping"] if abs(dropped.mean() - 0.75) < 0.06 else []
        raise Broken(f"with p=0.25, {dropped.mean():.3g} of the numbers are dropped", likely)
    if dropped.all(axis=0).any() or dropped.all(axis=1).any():
        raise Broken("whole rows or columns are dropped together", ["one draw for each element is needed"])


def random_draws(answer: Answer) -> None:
    """Two generators give two masks, the same seed the same one."""
    x = np.ones((10, 50))
    if np.array_equal(_drop(answer, x, 0), _drop(answer, x, 1)):
        raise Broken("two calls drop the same elements", ["the seed is fixed inside the function"])
    if answer.takes("rng") and not np.array_equal(_drop(answer, x, 0), _drop(answer, x, 0)):
        raise Broken("the same generator gives different masks", ["rng is ignored"])


# -- optimisers --------------------------------------------------------------------------------------------------------


def three_steps(answer: Answer) -> None:
    """Three steps in a row, each from the state the last one returned."""
    rng = _rng()
    theta, m, v = draw(rng, 4), np.zeros(4), np.zeros(4)
    for t in (1, 2, 3):
        case = {"theta": theta, "g": draw(rng, 4), "m": m, "v": v, "t": t, "lr": 0.125}
        check(answer, case, f"step {t}")
        theta, m, v = answer.expected(case)


def tiny_gradients(answer: Answer) -> None:
    """The eps stands outside the root: it decides where gradients are tiny."""
    case = {"theta": np.zeros(3), "g": np.array([1e-8, -1e-9, 1e-7]), "m": np.zeros(3), "v": np.zeros(3), "t": 1}
    check(answer, {**case, "lr": 0.125}, "gradients of 1e-8", tolerance=1e-3)


# -- positions ---------------------------------------------------------------------------------------------------------


def other_base(answer: Answer) -> None:
    """base= sets the slowest frequency."""
    _needs(answer, "base")
    check(answer, {"T": 6, "C": 8, "base": 100.0})


def far_positions(answer: Answer) -> None:
    """Hundreds of positions."""
    check(answer, {"T": 300, "C": 4}, "300 positions", tolerance=1e-4)
