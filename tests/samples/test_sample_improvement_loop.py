"""P-LOOP: it goes round, keeps the best, and ends in each of its ways."""

import itertools

import numpy as np
import pytest

from tinyllm.formulas.procedures import can_end, meant_chart
from tinyllm.samples import improvement_loop, p_loop
from tinyllm.samples.p_loop import (
    ENOUGH_ROUNDS,
    GOOD_ENOUGH,
    HELPED,
    NO_BETTER,
    NO_HELP,
    Prediction,
    evaluate,
    optimise,
    predict,
    preprocess,
)

SMALL = {"characters": 8000, "n_layer": 1, "n_embd": 16, "block_size": 16, "batch_size": 8, "steps": 60, "lr": 1e-2}


def held_out_loss(model, prose):
    _, _, ids = preprocess(prose, 8000, seed=0)
    return evaluate(predict(model, ids, 16))[0]


def test_p_loop_ends_when_it_gets_no_better(prose, capsys):
    model, rounds = improvement_loop(prose, **SMALL, tolerance=0.1, max_rounds=40)
    assert 3 <= len(rounds) < 40
    assert [r.decision for r in rounds[-2:]] == [NO_HELP, NO_BETTER]
    assert all(r.decision in (HELPED, NO_HELP) for r in rounds[:-1])
    assert rounds[0].decision == HELPED
    # never two rounds in a row without help before the end
    assert (NO_HELP, NO_HELP) not in itertools.pairwise(r.decision for r in rounds[:-1])
    # the model is the best one seen, and better than after the first round
    assert held_out_loss(model, prose) == pytest.approx(min(r.loss for r in rounds), rel=1e-6)
    assert min(r.loss for r in rounds) < rounds[0].loss - 0.1
    assert max(r.accuracy for r in rounds) > rounds[0].accuracy
    assert len(capsys.readouterr().out.splitlines()) == len(rounds)


def test_p_loop_sets_the_rate_by_the_evaluation(prose):
    _, rounds = improvement_loop(prose, **SMALL, tolerance=0.1, max_rounds=40)
    for one, after in itertools.pairwise(rounds):
        assert after.lr == optimise(one.lr, one.decision == HELPED)
    assert rounds[0].lr == SMALL["lr"]
    assert rounds[-1].lr < rounds[-2].lr


def test_p_loop_ends_after_the_last_round(prose):
    _, rounds = improvement_loop(prose, **SMALL, tolerance=0.0, max_rounds=2)
    assert [r.decision for r in rounds] == [HELPED, ENOUGH_ROUNDS]


def test_p_loop_ends_when_good_enough(prose):
    _, rounds = improvement_loop(prose, **SMALL, target=100.0)
    assert [r.decision for r in rounds] == [GOOD_ENOUGH]


def test_p_loop_goes_back_to_the_best(prose, monkeypatch):
    """Rounds that only spoil the model leave what was best before them."""
    good = p_loop.train

    def spoil(model, batches, steps, lr):
        if batches.seed == 0:
            good(model, batches, steps, lr)
        else:
            for p in model.parameters():
                p.assign_(20 * p.data)

    monkeypatch.setattr(p_loop, "train", spoil)
    model, rounds = improvement_loop(prose, **SMALL)
    assert [r.decision for r in rounds] == [HELPED, NO_HELP, NO_BETTER]
    assert rounds[1].loss == rounds[2].loss > rounds[0].loss  # both began from the same, the best
    assert held_out_loss(model, prose) == pytest.approx(rounds[0].loss, rel=1e-6)


def test_p_loop_walks_the_meant_chart(prose, monkeypatch):
    """The boxes of the chart, in the order in which they are come to."""
    walked = []
    names = ("preprocess", "initialise", "train", "predict", "evaluate", "optimise")
    boxes = {box: getattr(p_loop, box) for box in names}
    for box in names:

        def wrapped(*args, box=box, **kwargs):
            walked.append(box)
            return boxes[box](*args, **kwargs)

        monkeypatch.setattr(p_loop, box, wrapped)
    improvement_loop(prose, **SMALL, max_rounds=2)
    circle = ["train", "predict", "evaluate", "optimise"]
    assert walked == ["preprocess", "initialise", *circle, *circle[:-1]]
    assert can_end(meant_chart(), "preprocess")


def test_held_out_text_is_not_trained_on(prose):
    _, training, held_out = preprocess(prose, 8000, seed=0)
    assert 0.03 < len(held_out) / (len(held_out) + len(training)) < 0.15
    window = 60  # characters that would hardly occur twice by themselves
    texts = {bytes(training[i : i + window]) for i in range(len(training) - window)}
    assert not any(bytes(held_out[i : i + window]) in texts for i in range(0, len(held_out) - window, window))


def test_evaluation_by_hand():
    logits = np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    loss, accuracy = evaluate(Prediction(logits, np.array([0, 1])))
    assert loss == pytest.approx((np.log(2) + np.log(10)) / 2)
    assert accuracy == 0.5


@pytest.mark.slow
def test_p_loop_with_its_defaults():
    _, rounds = improvement_loop()
    assert rounds[-1].decision in (NO_BETTER, ENOUGH_ROUNDS)
    assert min(r.loss for r in rounds) < rounds[0].loss - 0.2
