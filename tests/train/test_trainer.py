"""The training loop: its laws, its interruptions, its failures."""

import json
import os
import signal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainees import Bigram, make_trainer, resumed, threads

import tinyllm as tl
from tinyllm import safetensors
from tinyllm.errors import CheckpointError, ConfigError
from tinyllm.train import DivergedError, checkpoint, mean_loss
from tinyllm.train import trainer as trainer_module
from tinyllm.train.sums import GradientSum
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


@pytest.fixture
def sharded(monkeypatch):
    """Even the smallest batch is divided among the threads."""
    monkeypatch.setattr(trainer_module, "shards", lambda predictions, parameters, threads: threads)


@pytest.mark.parametrize(
    ("model", "predictions", "parameters", "expected"),
    [
        ("4 layers, 128 channels", 756, 800_000, 2),
        ("6 layers, 384 channels", 2040, 10_700_000, 2),
        ("GPT-2", 252, 124_000_000, 1),
        ("GPT-2, more windows", 4096, 124_000_000, 1),
        ("2 layers, 64 channels", 248, 110_000, 1),
    ],
)
def test_small_batches_and_large_models_are_not_cut(model, predictions, parameters, expected):
    assert trainer_module.shards(predictions, parameters, threads=2) == expected
    assert trainer_module.shards(predictions, parameters, threads=1) == 1


@pytest.mark.usefixtures("sharded")
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("killed", range(12))
def test_a_killed_and_resumed_run_equals_one_never_interrupted(tmp_path, killed, number):
    with threads(number):
        whole = make_trainer(tmp_path / "a")
        cut = make_trainer(tmp_path / "b")
        for trainer in (whole, cut):
            trainer.folder.mkdir()
        whole.run()
        cut.batches = StopAt(cut.batches, killed)
        with pytest.raises(SystemExit):
            cut.run()
        assert len(history(tmp_path / "b")) > 0
        again = resumed(tmp_path / "b")
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


@given(accumulate=st.integers(1, 4), number=st.integers(1, 3))
def test_pieces_give_the_gradient_of_the_whole_batch(accumulate, number):
    whole = make_trainer(None, model=Bigram("float64"), steps=3)
    pieces = make_trainer(None, model=Bigram("float64"), steps=3, accumulate=accumulate)
    with threads(1):
        whole.run()
    with threads(number), pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "shards", lambda predictions, parameters, threads: threads)
        pieces.run()
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

    model = Sum()
    before = model.table.numpy()
    trainer = make_trainer(None, model=model, steps=1, clip=1.0, rate=lambda t: 1.0)
    trainer.optimizer = tl.optim.SGD([model.table, model.other])
    trainer.run()
    moved = model.table.numpy() - before
    np.testing.assert_allclose(model.other.data, moved, rtol=1e-9, atol=1e-12)
    assert np.sqrt(2 * (moved**2).sum()) == pytest.approx(1.0, abs=1e-4)


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
    with (
        threads(1),
        pytest.raises(DivergedError, match=r"became nan at step 7: 'log' \(node .*checkpoint\.safetensors"),
    ):
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


class Two(Bigram):
    """A Bigram with a second, large parameter, so that threads share one array and one piece is not all there is."""

    def __init__(self, dtype="float32"):
        super().__init__(dtype)
        rng = np.random.default_rng(4)
        self.hidden = tl.tensor(rng.normal(size=(6, 20_000)) / 30, dtype=dtype, requires_grad=True)

    def named_parameters(self):
        yield from (("table", self.table), ("hidden", self.hidden))

    def loss(self, batch):
        ids = batch["input_ids"]
        hidden = tl.relu(tl.embedding(ids[:, :-1], self.hidden))
        return tl.cross_entropy(tl.embedding(ids[:, :-1], self.table) + hidden @ self.hidden.mT, ids[:, 1:])


@pytest.mark.parametrize("cut", [False, True])
def test_the_number_of_threads_changes_rounding_alone(cut, request):
    if cut:
        request.getfixturevalue("sharded")
    found = {}
    for number in (1, 2, 3):
        for again in range(2):
            trainer = make_trainer(None, model=Two())
            with threads(number):
                trainer.run()
            found[number, again] = weights(trainer)["hidden"]
        np.testing.assert_array_equal(found[number, 0], found[number, 1])
        np.testing.assert_allclose(found[number, 0], found[1, 0], rtol=0, atol=5e-5)


def test_the_sum_of_gradients_is_that_of_numpy(rng):
    pieces = [[rng.normal(size=(300, 400)).astype(np.float32), None, rng.normal(size=5)] for _ in range(3)]
    pieces[1][2] = None
    pieces[2][1] = np.float64(rng.normal(size=(2, 3)))
    kept = [[None if g is None else g.copy() for g in piece] for piece in pieces]
    total = GradientSum()
    for i, piece in enumerate(pieces):
        total.add(piece)
        expected = [sum(p[n] for p in pieces[: i + 1] if p[n] is not None) for n in range(3)]
        squares = sum(float(np.sum(np.square(e, dtype=float))) for e in expected)
        assert total.norm() == pytest.approx(np.sqrt(squares), rel=1e-12)
    np.testing.assert_array_equal(total.total[0], pieces[0][0] + pieces[1][0] + pieces[2][0])
    np.testing.assert_array_equal(total.total[1], pieces[2][1])
    np.testing.assert_array_equal(total.total[2], pieces[0][2] + pieces[2][2])
    for piece, before in zip(pieces, kept, strict=True):  # what is added is only read
        for g, b in zip(piece, before, strict=True):
            assert (g is None) == (b is None)
            if g is not None:
                np.testing.assert_array_equal(g, b)


def with_average(folder, **options):
    trainer = make_trainer(folder, **options)
    trainer.ema = tl.optim.EMA([trainer.model.table], 0.8)
    return trainer


def test_an_average_is_evaluated_and_saved_and_does_not_touch_training(tmp_path):
    plain, averaged = make_trainer(None), with_average(tmp_path / "a")
    averaged.folder.mkdir()
    kept = []
    averaged.saved = lambda folder: kept.append(weights(averaged)["table"])
    plain.run(), averaged.run()
    np.testing.assert_array_equal(weights(averaged)["table"], weights(plain)["table"])
    np.testing.assert_array_equal(kept[-1], averaged.ema.state_dict()["average.0"])
    averaged.use_best()
    np.testing.assert_array_equal(weights(averaged)["table"], kept[-1])
    last = [record["held_out"] for record in history(tmp_path / "a") if "held_out" in record][-1]
    assert mean_loss(averaged.model, averaged.held_out()) == pytest.approx(last, abs=1e-9)


def test_an_average_goes_on_after_a_kill(tmp_path):
    whole, cut = with_average(tmp_path / "a"), with_average(tmp_path / "b")
    for trainer in (whole, cut):
        trainer.folder.mkdir()
    whole.run()
    cut.batches = StopAt(cut.batches, 6)
    with pytest.raises(SystemExit):
        cut.run()
    again = with_average(tmp_path / "b")
    again.resume(checkpoint.load(tmp_path / "b" / checkpoint.FILE))
    again.run()
    for trainer in (whole, again):
        trainer.use_best()
    np.testing.assert_array_equal(weights(again)["table"], weights(whole)["table"])
    assert history(tmp_path / "a") == history(tmp_path / "b")


def test_a_run_without_an_average_cannot_go_on_with_one(tmp_path):
    make_trainer(tmp_path).run()
    with pytest.raises(CheckpointError, match="no averaged parameters"):
        with_average(tmp_path).resume(checkpoint.load(tmp_path / checkpoint.FILE))


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_checkpointed_blocks_give_the_same_gradients(dropout):
    sizes = {"n_layer": 3, "n_head": 2, "n_embd": 16, "n_positions": 8, "vocab_size": 6}
    rates = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), dropout)
    found = []
    for again in (False, True):
        model = tl.models.GPT(tl.models.GPTConfig(**sizes, **rates), rng=np.random.default_rng(0))
        model.transformer.checkpoint_blocks = again
        trainer = make_trainer(None, model=model, steps=3)
        trainer.held_out = None
        trainer.run()
        found.append(model.state_dict())
    for name, value in found[0].items():
        np.testing.assert_array_equal(found[1][name], value, err_msg=name)


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
