"""Training an LSTM on windows that follow each other: the state is carried on, and the gradient is not."""

import numpy as np
import pytest

import tinyllm as tl
from tinyllm.autograd.tape import gradients
from tinyllm.cli import main
from tinyllm.data import Strands
from tinyllm.errors import ConfigError
from tinyllm.models.lstm import LSTMConfig, LSTMLanguageModel
from tinyllm.train import Settings, resume, train
from tinyllm.train.truncated import Truncated

V, T, B, WINDOWS = 7, 5, 4, 3


@pytest.fixture
def tokens(rng):
    return rng.integers(0, V, B * T * WINDOWS + 1)


@pytest.fixture
def model(rng):
    config = LSTMConfig(vocab_size=V, embedding_size=4, hidden_size=6, num_layers=2)
    return LSTMLanguageModel(config, rng=rng, dtype=np.float64)


def losses(model, batches, steps):
    objective = Truncated(model, T, B)
    return [objective.loss(batches.at(step)).item() for step in range(steps)]


def test_windows_that_follow_each_other_have_the_loss_of_the_whole_text(model, tokens):
    found = losses(model, Strands(tokens, B, T), WINDOWS)
    whole = Strands(tokens, B, T * WINDOWS).at(0)["input_ids"]
    assert np.mean(found) == pytest.approx(model.next_token_loss(whole[:, :-1], whole[:, 1:]).item(), abs=1e-12)
    alone = Strands(tokens, B, T).at(1)["input_ids"]
    assert found[1] != pytest.approx(model.next_token_loss(alone[:, :-1], alone[:, 1:]).item(), abs=1e-6)


def test_a_strand_begins_anew_without_a_state(model, tokens):
    found = losses(model, Strands(tokens, B, T), WINDOWS + 1)
    assert found[WINDOWS] == found[0]


def test_however_the_batch_is_cut_each_row_has_its_own_state(model, tokens):
    batches, objective = Strands(tokens, B, T), Truncated(model, T, B)
    for step, whole in enumerate(losses(model, batches, WINDOWS)):
        batch = batches.at(step)
        parts = [{name: array[i:j] for name, array in batch.items()} for i, j in ((2, 4), (0, 1), (1, 2))]
        weighted = sum(len(part["strand"]) * objective.loss(part).item() for part in parts) / B
        assert weighted == pytest.approx(whole, abs=1e-12)


def test_the_gradient_ends_where_the_window_begins(model, tokens):
    """It is the one with the state before as a constant."""
    batches, objective = Strands(tokens, B, T), Truncated(model, T, B)
    learns = list(model.parameters())
    first, second = (objective.loss(batches.at(step)) for step in range(2))
    found = gradients(second, learns, tl.tensor(np.ones(())))
    _, left = model.window_loss(*halves(batches.at(0)))
    constant = tuple(tl.tensor(s.numpy()) for s in left)
    loss, _ = model.window_loss(*halves(batches.at(1)), constant)
    for a, b in zip(found, gradients(loss, learns, tl.tensor(np.ones(()))), strict=True):
        np.testing.assert_allclose(a.data, b.data, atol=1e-13)
    first.backward()  # its tape is whole: writing the state down has changed nothing on it


def halves(batch):
    return batch["input_ids"][:, :-1], batch["input_ids"][:, 1:]


def test_the_text_in_its_order_is_judged_as_one(model, tokens):
    found = Truncated(model, T, B).also(tokens, tokens)["loss_in_order"]
    assert found == pytest.approx(model.next_token_loss(tokens[None, :-1], tokens[None, 1:]).item(), abs=1e-12)


@pytest.fixture
def settings(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. a dog ran to the door. " * 40)
    sizes = {"n_layer": 1, "n_head": 1, "n_embd": 8, "block_size": 8, "batch_size": 4, "sample_tokens": 0}
    run = {"steps": 12, "eval_every": 4, "min_count": 1, "clean": "no"}
    return Settings.make({"model": "lstm", "carry_state": "yes", "data": str(text)}, sizes, run)


def test_a_run_that_was_resumed_is_the_one_that_was_not(settings, tmp_path):
    level = {"lr": 1e-2, "final_lr": 1e-2, "warmup": 0}  # a rate that does not depend on the number of steps
    whole = train(Settings.make(settings.as_dict(), level), tmp_path / "whole")
    train(Settings.make(settings.as_dict(), level, {"steps": 7}), tmp_path / "half")
    resumed = resume(tmp_path / "half", steps=settings.steps)
    assert resumed["loss"] == whole["loss"]
    assert resumed["loss_in_order"] == whole["loss_in_order"] != whole["loss"]


def test_the_table_has_a_row_for_the_text_in_its_order(settings, tmp_path, capsys):
    (tmp_path / "settings.toml").write_text(settings.to_toml())
    assert (
        main(["train", "--config", str(tmp_path / "settings.toml"), "--steps", "2", "--out", str(tmp_path / "r")]) == 0
    )
    assert "the same, with its state carried on" in capsys.readouterr().out


def test_other_models_have_no_state_to_carry(settings):
    with pytest.raises(ConfigError, match="a gpt has no state"):
        Settings.make(settings.as_dict(), {"model": "gpt"})


def test_a_teacher_and_a_state_do_not_go_together(settings, tmp_path):
    train(Settings.make(settings.as_dict(), {"steps": 2}), tmp_path / "teacher")
    with pytest.raises(ConfigError, match="teacher"):
        train(Settings.make(settings.as_dict(), {"teacher": str(tmp_path / "teacher")}), tmp_path / "student")
