"""Tokens through whole blocks: the same numbers as through the model's operations, one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyllm as tl
from tinyllm.models import llama_step
from tinyllm.models.llama import Llama, Mistral
from tinyllm.models.llama_config import LlamaConfig, MistralConfig

V = 31


def a_model(window, tied, dtype, attention_dropout=0.0):
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes |= {"intermediate_size": 40, "vocab_size": V, "max_position_embeddings": 64, "tie_word_embeddings": tied}
    sizes["attention_dropout"] = attention_dropout
    rng = np.random.default_rng(0)
    if window is None:
        model = Llama(LlamaConfig(**sizes), rng=rng, dtype=dtype)
    else:
        model = Mistral(MistralConfig(**sizes, sliding_window=window), rng=rng, dtype=dtype)
    for p in model.parameters():
        p.assign_(p.data + rng.normal(0, 0.2, p.shape))
    return model.eval()


def written(model, ids, mask, plan, kernels):
    """The logits of the tokens of `plan`, some at a time; and of all hidden states."""
    cache, at, logits, states = model.new_cache(), 0, [], []
    with pytest.MonkeyPatch.context() as patch, tl.no_grad():
        patch.setattr(llama_step, "_WORTH", 1 if kernels else 1 << 60)
        for n in plan:
            shown = None if mask is None else mask[:, : at + n]
            out = model(ids[:, at : at + n], attention_mask=shown, cache=cache, output_hidden_states=True)
            logits.append(out.logits.data)
            states.append(np.stack([h.data for h in out.hidden_states]))
            at += n
    return np.concatenate(logits, axis=1), np.concatenate(states, axis=2)


@given(
    st.lists(st.one_of(st.integers(1, 4), st.integers(13, 20)), min_size=1, max_size=4),
    st.integers(1, 2),
    st.sampled_from([None, 1, 3, 5]),
    st.integers(0, 3),
    st.sampled_from(["float64", "float32"]),
)
@settings(max_examples=25)
def test_blocks_are_the_model(plan, batch, window, padding, dtype):
    model, rng = a_model(window, tied=padding % 2 == 0, dtype=dtype), np.random.default_rng(1)
    ids = rng.integers(0, V, (batch, sum(plan)))
    mask = np.ones(ids.shape, dtype=bool)
    mask[0, : min(padding, ids.shape[1] - 1)] = False
    bound = 1e-12 if dtype == "float64" else 2e-5
    expected = written(model, ids, mask, plan, kernels=False)
    found = written(model, ids, mask, plan, kernels=True)
    for a, b in zip(found, expected, strict=True):
        assert np.abs((a - b)[..., mask, :]).max() < bound


def test_threads_share_the_inner_channels(monkeypatch):
    """As the sum is divided so are its roundings, and nothing else."""
    monkeypatch.setattr(llama_step, "_GRAIN", 1)
    model, ids = a_model(None, True, "float64"), np.arange(6)[None]
    before = tl.threads.get_num_threads()
    found = []
    for threads in (1, 3):
        tl.threads.set_num_threads(threads)
        found.append(written(model, ids, None, [2, 1, 1, 2], kernels=True)[0])
    tl.threads.set_num_threads(before)
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-12)


@given(st.integers(1, 3), st.integers(13, 40), st.sampled_from([None, 3, 70]), st.integers(1, 4))
@settings(max_examples=15)
def test_a_text_without_a_cache(batch, length, window, threads):
    model, rng = a_model(window, tied=True, dtype="float64"), np.random.default_rng(length)
    ids = rng.integers(0, V, (batch, length))
    before = tl.threads.get_num_threads()
    with pytest.MonkeyPatch.context() as patch, tl.no_grad():
        expected = model(ids).logits.data
        patch.setattr(llama_step, "_WORTH", 1)
        patch.setattr(llama_step, "_MOVED", 1)
        patch.setattr(llama_step, "_MULTIPLIED", 1)
        tl.threads.set_num_threads(threads)
        try:
            found = model(ids).logits.data
        finally:
            tl.threads.set_num_threads(before)
    assert np.abs(found - expected).max() < 1e-12


def test_dropout_is_not_left_out(monkeypatch):
    """In training mode attention drops weights, with or without a tape."""
    monkeypatch.setattr(llama_step, "_WORTH", 1)
    model = a_model(None, True, "float64", attention_dropout=0.5)
    ids = np.arange(20)[None]
    with tl.no_grad():
        quiet = model(ids).logits.data
        model.train()
        with tl.random_scope(1):
            assert np.abs(model(ids).logits.data - quiet).max() > 1e-3


def test_the_kernels_are_used_where_they_should_be(monkeypatch):
    calls = []
    monkeypatch.setattr(llama_step, "_WORTH", 1)
    blocks = llama_step.blocks
    monkeypatch.setattr(llama_step, "blocks", lambda *a: calls.append(1) or blocks(*a))
    model = a_model(None, True, "float64")
    cases = {
        "a token": (1, True, 1),
        "a prompt": (13, True, 1),
        "a text, to be judged": (13, False, 1),
        "a token without a cache": (1, False, 0),
    }
    for name, (count, cached, used) in cases.items():
        calls.clear()
        with tl.no_grad():
            model(np.ones((1, count), int), cache=model.new_cache() if cached else None)
        assert len(calls) == used, name
    calls.clear()
    model(np.ones((1, 1), int), cache=model.new_cache())  # recorded
    with tl.no_grad(), tl.backend("numpy"):
        model(np.ones((1, 1), int), cache=model.new_cache())
    assert not calls
