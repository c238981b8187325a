"""The training loop: its laws, its interruptions, its failures."""

import json
import os
import signal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainees import Bigram, make_trainer, resumed

import tinyllm as tl
from tinyllm import safetensors
from tinyllm.errors import CheckpointError, ConfigError
from tinyllm.train import DivergedError, checkpoint, mean_loss
from tinyllm.train.trainer import LOG


def history(folder):
    """The log without its times."""
    records = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


def weights(trainer):
    return {name: p.numpy() for name, p in trainer.model.named_parameters()}


class StopAt:
    """Stands in for the batches and raises at a step, as a kill would end the process."""

    def __init__(self, batches, step):
        self.batches, self.step = batches, step

    def at(self, step):
        if step == self.step:
            raise SystemExit
        return self.batches.at(step)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("killed", range(12))
def test_a_killed_and_resumed_run_equals_one_never_interrupted(tmp_path, killed, threads):
    whole = make_trainer(tmp_path / "a", threads=threads)
    cut = make_trainer(tmp_path / "b", threads=threads)
    for trainer in (whole, cut):
        trainer.folder.mkdir()
    whole.run()
    cut.batches = StopAt(cut.batches, killed)
    with pytest.raises(SystemExit):
        cut.run()
    assert len(history(tmp_path / "b")) > 0
    again = resumed(tmp_path / "b", threads=threads)
    assert again.at.step == killed // 4 * 4
    again.run()
    np.testing.assert_array_equal(weights(again)["table"], weights(whole)["table"])
    assert history(tmp_path / "a") == history(tmp_path / "b")
    assert again.optimizer.state_dict().keys() == whole.optimizer.state_dict().keys()


def test_the_resume_law_notices_a_state_that_was_forgotten(tmp_path):
    whole, again = make_trainer(None), make_trainer(tmp_path)
    whole.run()
    again.batches = StopAt(again.batches, 6)
    with pytest.raises(SystemExit):
        again.run()
    state = checkpoint.load(tmp_path / checkpoint.FILE)
    again = make_trainer(tmp_path)
    state["optimizer"] = again.optimizer.state_dict()
    again.resume(state)
    again.run()
    assert not np.array_equal(weights(again)["table"], weights(whole)["table"])


@given(accumulate=st.integers(1, 4), threads=st.integers(1, 3))
def test_pieces_give_the_gradient_of_the_whole_batch(accumulate, threads):
    whole = make_trainer(None, model=Bigram("float64"), steps=3)
    pieces = make_trainer(None, model=Bigram("float64"), steps=3, accumulate=accumulate, threads=threads)
    whole.run(), pieces.run()
    np.testing.assert_allclose(weights(pieces)["table"], weights(whole)["table"], rtol=0, atol=1e-12)


def test_pieces_are_weighted_by_their_predictions():
    labels = np.array([[0, 1, 2, 3], [0, 1, -100, -100], [4, -100, -100, -100]])
    batch = {"input_ids": labels, "labels": labels}

    class Masked(Bigram):
        def loss(self, batch):
            ids = np.maximum(batch["labels"], 0)
            return tl.cross_entropy(tl.embedding(ids[:, :-1], self.table), batch["labels"][:, 1:])

    class Same:
        def at(self, step):
            return batch

    whole, pieces = (make_trainer(None, model=Masked("float64"), accumulate=n) for n in (1, 2))
    for trainer in (whole, pieces):
        trainer.batches = Same()
        trainer.held_out = None
        trainer.run()
    np.testing.assert_allclose(weights(pieces)["table"], weights(whole)["table"], rtol=0, atol=1e-12)


def test_two_parameters_with_one_gradient_are_clipped_once():
    class Sum(Bigram):
        def __init__(self):
            super().__init__("float64")
            self.other = tl.tensor(np.zeros((6, 6)), requires_grad=True)

        def named_parameters(self):
            yield from (("table", self.table), ("other", self.other))

        def loss(self, batch):
            ids = batch["input_ids"]
            return 100 * tl.cross_entropy(tl.embedding(ids[:, :-1], self.table + self.other), ids[:, 1:])

    trainer = make_trainer(None, model=Sum(), steps=1, clip=1.0)
    trainer.run()
    grads = [p.grad.numpy() for _, p in trainer.model.named_parameters()]
    np.testing.assert_array_equal(grads[0], grads[1])
    assert np.sqrt(sum((g**2).sum() for g in grads)) == pytest.approx(1.0, abs=1e-4)


def test_the_loss_of_an_evaluation_is_the_mean_over_predictions():
    model = Bigram("float64")
    ids = np.arange(10)[None] % 6
    parts = [{"input_ids": ids[:, :7], "labels": ids[:, :7]}, {"input_ids": ids[:, 6:], "labels": ids[:, 6:]}]
    whole = mean_loss(model, [{"input_ids": ids, "labels": ids}])
    assert mean_loss(model, parts) == pytest.approx(whole, abs=1e-12)


def test_training_lowers_the_loss():
    trainer = make_trainer(None, steps=60, rate=lambda t: 0.1)
    before = mean_loss(trainer.model, trainer.held_out())
    trainer.run()
    assert trainer.at.best_loss < before - 0.2


def test_ctrl_c_finishes_the_step_and_saves(tmp_path):
    whole, cut = make_trainer(None), make_trainer(tmp_path)
    whole.run()

    class Press:
        def at(self, step, batches=cut.batches):
            if step == 6:
                os.kill(os.getpid(), signal.SIGINT)
            return batches.at(step)

    handler = signal.getsignal(signal.SIGINT)
    cut.batches = Press()
    cut.run()
    assert cut.interrupted
    assert not cut.finished
    assert signal.getsignal(signal.SIGINT) is handler
    again = resumed(tmp_path)
    assert again.at.step == 7
    again.run()
    assert not again.interrupted
    np.testing.assert_array_equal(weights(again)["table"], weights(whole)["table"])


def test_a_second_ctrl_c_leaves_at_once(tmp_path):
    trainer = make_trainer(tmp_path)

    class Press:
        def at(self, step, batches=trainer.batches):
            if step == 6:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
            return batches.at(step)

    trainer.batches = Press()
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert resumed(tmp_path).at.step == 4


def test_a_loss_that_is_not_finite_names_the_operation_and_keeps_the_checkpoint(tmp_path):
    model = Bigram()
    model.poison_at = 7
    trainer = make_trainer(tmp_path, model=model)
    with pytest.raises(DivergedError, match=r"became nan at step 7: 'log' \(node .*checkpoint\.safetensors"):
        trainer.run()
    before = weights(trainer)["table"]
    assert np.isfinite(before).all()
    assert resumed(tmp_path).at.step == 4


def test_a_masked_infinity_is_legal():
    class Masked(Bigram):
        def loss(self, batch):
            ids = batch["input_ids"]
            logits = tl.masked_fill(tl.embedding(ids[:, :-1] % 3, self.table), np.arange(6) > 2, -np.inf)
            return tl.cross_entropy(logits, ids[:, 1:] % 3)

    trainer = make_trainer(None, model=Masked())
    trainer.run()
    assert trainer.finished


def test_a_gradient_that_is_not_finite_names_the_derivative():
    class Cusp(Bigram):
        def loss(self, batch):
            return super().loss(batch) + tl.sqrt(self.table * 0.0).sum()

    trainer = make_trainer(None, model=Cusp())
    before = weights(trainer)["table"]
    with pytest.raises(DivergedError, match=r"norm became (nan|inf) at step 1: the derivative of 'sqrt'"):
        trainer.run()
    np.testing.assert_array_equal(weights(trainer)["table"], before)


def test_early_stopping_keeps_the_best_parameters(tmp_path):
    # A rate that grows makes the loss rise again.
    trainer = make_trainer(tmp_path, steps=400, rate=lambda t: 0.02 if t < 40 else 3.0, patience=2)
    trainer.run()
    assert trainer.stopped_early
    assert trainer.at.step == trainer.at.best_step + 2 * 4
    losses = {record["step"]: record["held_out"] for record in history(tmp_path) if "held_out" in record}
    assert min(losses, key=losses.get) == trainer.at.best_step
    trainer.use_best()
    assert mean_loss(trainer.model, trainer.held_out()) == pytest.approx(trainer.at.best_loss, abs=1e-12)
    again = resumed(tmp_path, steps=400, patience=2)
    again.run()
    assert again.at.step == trainer.at.step
    again.use_best()
    np.testing.assert_array_equal(weights(again)["table"], weights(trainer)["table"])


def test_a_full_disk_stops_with_the_last_checkpoint_whole(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path)
    fsync, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 5:  # each save syncs the log and the checkpoint
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="full"):
        trainer.run()
    monkeypatch.setattr(os, "fsync", fsync)
    again = resumed(tmp_path)
    assert again.at.step == 4
    again.run()
    whole = make_trainer(None)
    whole.run()
    np.testing.assert_array_equal(weights(again)["table"], weights(whole)["table"])


def test_a_log_that_became_shorter_is_refused(tmp_path):
    make_trainer(tmp_path).run()
    (tmp_path / LOG).write_text("")
    with pytest.raises(CheckpointError, match="put it back"):
        resumed(tmp_path).run()


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    make_trainer(tmp_path, steps=4).run()
    before = (tmp_path / checkpoint.FILE).read_bytes()
    with pytest.raises(CheckpointError, match="resume it"):
        make_trainer(tmp_path).run()
    assert (tmp_path / checkpoint.FILE).read_bytes() == before


def test_a_log_without_a_checkpoint_is_begun_anew(tmp_path):
    (tmp_path / LOG).write_text("left by a run that was killed before its first checkpoint\n")
    make_trainer(tmp_path).run()
    assert history(tmp_path)[0]["step"] == 0


def test_the_checkpoint_of_another_model_is_refused(tmp_path):
    make_trainer(tmp_path).run()

    class Other(Bigram):
        def named_parameters(self):
            yield "matrix", self.table

    trainer = make_trainer(tmp_path, model=Other())
    with pytest.raises(CheckpointError, match=r"another model's: matrix, table differ"):
        trainer.resume(checkpoint.load(tmp_path / checkpoint.FILE))


def test_nothing_to_train_is_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        make_trainer(None, steps=0)


STATES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(STATES)
def test_a_checkpoint_gives_back_what_was_saved(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("state") / checkpoint.FILE
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(3, dtype=np.int64)]
    checkpoint.save(path, {"value": value, "arrays": arrays, "empty": {}})
    state = checkpoint.load(path)
    assert state["value"] == value
    assert type(state["value"]) is type(value)
    assert state["empty"] == {}
    for saved, loaded in zip(arrays, state["arrays"], strict=True):
        assert saved.dtype == loaded.dtype
        np.testing.assert_array_equal(saved, loaded)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    path = tmp_path / checkpoint.FILE
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.load(path)
    checkpoint.save(path, {"a": np.zeros(4)})
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="cut off"):
        checkpoint.load(path)
    safetensors.save(path, {"a": np.zeros(4)})
    with pytest.raises(CheckpointError, match="no checkpoint of this version"):
        checkpoint.load(path)
    safetensors.save(path, {}, {"format": "tinyllm checkpoint 1", "state": '{"tensor": "gone"}'})
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load(path)
