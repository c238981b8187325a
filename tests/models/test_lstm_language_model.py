"""The LSTM language model: padding, state, cache, folders, truncated backpropagation, the command line."""

import json

import numpy as np
import pytest

import tinyllm as tl
from tinyllm.data import consecutive_windows
from tinyllm.errors import CheckpointError, ConfigError, DataError
from tinyllm.models import LSTMConfig, LSTMLanguageModel

V = 11


def tiny(**settings):
    config = LSTMConfig(vocab_size=V, **({"embedding_size": 5, "hidden_size": 6, "num_layers": 2} | settings))
    return LSTMLanguageModel(config, rng=np.random.default_rng(3), dtype=np.float64)


@pytest.fixture
def ids(rng):
    return rng.integers(0, V, (3, 7))


def test_there_is_a_prediction_at_every_position(ids):
    model = tiny()
    out = model(ids, labels=ids, output_hidden_states=True)
    assert out.logits.shape == (3, 7, V)
    assert [s.shape for s in out.hidden_states] == [(3, 7, 5), (3, 7, 6)]
    log_p = tl.log_softmax(out.logits).data[:, :-1]
    expected = -np.take_along_axis(log_p, ids[:, 1:, None], axis=-1).mean()
    assert out.loss.item() == pytest.approx(expected)
    assert model.loss({"input_ids": ids, "labels": ids}).item() == pytest.approx(expected)
    assert model.next_token_loss(ids[:, :-1], ids[:, 1:]).item() == pytest.approx(expected)


@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_padding_changes_nothing(ids, side):
    model = tiny()
    mask = np.ones((3, 7), dtype=int)
    if side in ("left", "both"):
        mask[0, :3] = 0
    if side in ("right", "both"):
        mask[0, 5:] = mask[2, 1:] = 0
    logits = model(ids, attention_mask=mask).logits.data
    for b in range(3):
        real = mask[b] == 1
        np.testing.assert_allclose(logits[b, real], model(ids[b : b + 1, real]).logits.data[0], atol=1e-13)


def test_a_text_of_padding_alone_is_refused(ids):
    mask = np.ones((3, 7), dtype=int)
    mask[1] = 0
    with pytest.raises(ValueError, match="row 1 has no token"):
        tiny()(ids, attention_mask=mask)


def test_with_the_state_and_without_it(ids):
    model = tiny()
    cache, parts = model.new_cache(), []
    for part in (ids[:, :3], ids[:, 3:4], ids[:, 4:]):
        parts.append(model(part, cache=cache).logits.data)
    assert cache.length == 7
    np.testing.assert_allclose(np.concatenate(parts, axis=1), model(ids).logits.data, atol=1e-13)
    mask = np.array([[0, 0, 1], [1, 1, 1]])
    for beams in (1, 3):
        with_it, without = (
            tl.generate(model, ids[:2, :3], 6, num_beams=beams, use_cache=use, attention_mask=mask)
            for use in (True, False)
        )
        np.testing.assert_array_equal(with_it, without)


def test_the_state_cannot_be_taken_back(ids):
    model = tiny()
    cache = model.new_cache()
    model(ids, cache=cache)
    cache.crop(7)
    with pytest.raises(ValueError, match="cannot go back from 7 to 4"):
        cache.crop(4)
    cache.crop(0)
    np.testing.assert_array_equal(model(ids, cache=cache).logits.data, model(ids).logits.data)


def test_windows_with_the_state_between_have_the_loss_of_the_whole(ids):
    model = tiny()
    whole = model.next_token_loss(ids[:, :6], ids[:, 1:])
    first, state = model.window_loss(ids[:, :3], ids[:, 1:4])
    second, _ = model.window_loss(ids[:, 3:6], ids[:, 4:], state)
    assert (first.item() + second.item()) / 2 == pytest.approx(whole.item())


def test_the_tape_of_a_window_does_not_reach_the_one_before(ids):
    """Each window's gradient is as if its first state were a constant, and the windows before may be released."""
    model = tiny()
    _, state = model.window_loss(ids[:, :3], ids[:, 1:4])
    assert not any(s.requires_grad for s in state)
    losses = list(model.truncated_losses(consecutive_windows(np.tile(ids.ravel(), 3), 2, 5)))
    assert len(losses) == 6
    for loss in losses:
        loss.backward()
    nodes = [
        len(tl.autograd.tape.reachable(loss)) for loss in model.truncated_losses(consecutive_windows(ids.ravel(), 1, 5))
    ]
    assert len(set(nodes)) == 1  # they do not grow


def test_consecutive_windows_continue_each_other():
    windows = [w["input_ids"] for w in consecutive_windows(np.arange(23), 2, 4)]
    np.testing.assert_array_equal(windows[0], [[0, 1, 2, 3, 4], [11, 12, 13, 14, 15]])
    np.testing.assert_array_equal(windows[1], [[4, 5, 6, 7, 8], [15, 16, 17, 18, 19]])
    assert len(windows) == 2
    with pytest.raises(DataError, match="no window"):
        next(consecutive_windows(np.arange(8), 2, 4))
    with pytest.raises(DataError, match="at least 1"):
        next(consecutive_windows(np.arange(8), 0, 4))


@pytest.mark.parametrize("tied", [False, True])
def test_folders(tmp_path, ids, tied):
    model = tiny(tie_word_embeddings=tied, hidden_size=5, eos_token_id=3)
    model.save_pretrained(tmp_path / "a")
    loaded = tl.models.from_pretrained(tmp_path / "a")
    assert type(loaded) is LSTMLanguageModel
    assert loaded.config == model.config
    np.testing.assert_array_equal(loaded(ids).logits.data, model(ids).logits.data)
    settings = json.loads((tmp_path / "a" / "config.json").read_text())
    for change, error in (({"hidden_size": 7}, CheckpointError), ({"num_layers": 3}, CheckpointError)):
        (tmp_path / "a" / "config.json").write_text(json.dumps(settings | {"tie_word_embeddings": False} | change))
        with pytest.raises(error, match=r"config\.json"):
            tl.models.from_pretrained(tmp_path / "a")


@pytest.mark.parametrize(
    "settings",
    [{"hidden_size": 0}, {"dropout": 2.0}, {"num_layers": 1.5}, {"tie_word_embeddings": True}, {"vocab_size": -1}],
)
def test_impossible_settings(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        LSTMConfig(**({"vocab_size": 5} | settings))


def test_it_learns_what_lies_far_back():
    """The first token comes again at the end: 8 steps lie between."""
    rng = np.random.default_rng(0)
    config = LSTMConfig(vocab_size=4, embedding_size=8, hidden_size=16, initializer_range=1.0)
    model = LSTMLanguageModel(config, rng=rng)
    opt = tl.optim.Adam(model.parameters(), lr=0.01)
    text = np.concatenate([rng.integers(1, 4, (64, 1)), np.zeros((64, 8), int)], axis=1)
    targets = np.full((64, 9), -100)
    targets[:, -1] = text[:, 0]
    for _ in range(50):
        loss = model.next_token_loss(text, targets)
        opt.zero_grad()
        loss.backward()
        tl.optim.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
    assert loss.item() < 0.1
