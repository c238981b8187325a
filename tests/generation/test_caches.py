"""Cached equals uncached at every step, for every kind of model: padded, with windows, after a new order of rows."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyllm as tl
from tinyllm.generation.session import Session
from tinyllm.models import GPT, GPTConfig
from tinyllm.models.llama import Llama, Mistral
from tinyllm.models.llama_config import LlamaConfig, MistralConfig
from tinyllm.models.transformer import Transformer
from tinyllm.models.transformer_config import TransformerConfig

V, CONTEXT = 11, 12
KINDS = ["gpt", "llama", "mistral", "transformer"]


@functools.cache
def a_model(kind):
    """A model whose next token depends on what it may see."""
    rng = np.random.default_rng(0)
    llama = {"vocab_size": V, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    llama |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT}
    if kind == "gpt":
        model = GPT(
            GPTConfig(vocab_size=V, n_positions=CONTEXT, n_embd=16, n_layer=2, n_head=2), rng=rng, dtype="float64"
        )
    elif kind == "llama":
        model = Llama(LlamaConfig(**llama), rng=rng, dtype="float64")
    elif kind == "mistral":
        model = Mistral(MistralConfig(**llama, sliding_window=4), rng=rng, dtype="float64")
    else:
        sizes = {"d_model": 16, "nhead": 2, "num_encoder_layers": 1, "num_decoder_layers": 2, "dim_feedforward": 24}
        config = TransformerConfig(src_vocab_size=V, tgt_vocab_size=V, **sizes)
        model = Transformer(config, rng=rng, dtype="float64")
    for p in model.parameters():
        p.assign_(p.data + rng.normal(0, 0.3, p.shape))
    return model.eval()


@given(
    st.sampled_from(KINDS),
    st.lists(st.lists(st.integers(3, V - 1), min_size=1, max_size=9), min_size=1, max_size=3),
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), min_size=1, max_size=9),
)
@settings(max_examples=25)
def test_cached_equals_uncached_also_after_new_orders(kind, prompts, orders):
    """Between two steps the rows are put in another order, some twice, some not at all; windows slide on the way."""
    width = max(map(len, prompts))
    ids = np.array([[0] * (width - len(p)) + p for p in prompts])
    mask = np.array([[False] * (width - len(p)) + [True] * len(p) for p in prompts])
    cached, anew = (Session(a_model(kind), ids, mask, use_cache) for use_cache in (True, False))
    rng = np.random.default_rng(0)
    for order in orders:
        found, expected = cached.logits(), anew.logits()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
        rows = np.array([i % len(found) for i in order])
        tokens = rng.integers(3, V, len(rows))
        for session in (cached, anew):
            session.reorder(rows)
            session.add(tokens)


@given(st.sampled_from(KINDS), st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(0, 3))
@settings(max_examples=20)
def test_what_is_taken_back_leaves_no_trace(kind, counts, back):
    """As a draft is: tokens come several at a time, and the newest go again."""
    ids = np.array([[3, 4, 5]])
    cached, anew = (Session(a_model(kind), ids, np.ones_like(ids, bool), use_cache) for use_cache in (True, False))
    rng = np.random.default_rng(0)
    for count in counts:
        tokens = rng.integers(3, V, (1, count))
        for session in (cached, anew):
            session.add(tokens)
        np.testing.assert_allclose(cached.logits(count), anew.logits(count), rtol=0, atol=1e-12)
        for session in (cached, anew):
            session.crop(max(1, session.length - min(back, count)))
            session.add(np.array([7]))


@pytest.mark.parametrize("kind", ["gpt", "llama"])
def test_both_crop_at_the_same_step_and_the_cache_is_given_up(kind):
    """Every position moves when the window slides: the whole window is asked for, with a cache as without."""
    asked = {}
    for use_cache in (True, False):
        model, seen = a_model(kind), asked.setdefault(use_cache, [])

        class Watched:
            context_length, new_cache, config = model.context_length, model.new_cache, model.config

            def __call__(self, ids, model=model, seen=seen, **more):
                seen.append(ids.shape[1])
                return model(ids, **more)

        tl.generate(Watched(), np.full((1, CONTEXT - 2), 3), 6, use_cache=use_cache)
    assert asked[True] == [CONTEXT - 2, 1, 1, CONTEXT, CONTEXT, CONTEXT]
    assert asked[False] == [CONTEXT - 2, CONTEXT - 1, CONTEXT, CONTEXT, CONTEXT, CONTEXT]


# -- encoder-decoders --------------------------------------------------------------------------------------------------


def test_an_encoder_decoder_begins_with_its_start_token_and_reads_the_source_once(monkeypatch):
    model, calls = a_model("transformer"), []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda *a, **k: calls.append(1) or encode(*a, **k))
    source, mask = np.array([[3, 4, 5], [6, 7, 0]]), np.array([[1, 1, 1], [1, 1, 0]])
    eos = -1  # never
    out = tl.generate(model, source, 5, attention_mask=mask, eos_token_id=eos, num_beams=2, num_return_sequences=2)
    assert len(calls) == 1
    assert out.shape == (4, 6)
    assert set(out[:, 0]) == {model.config.decoder_start_token_id}
    alone = tl.generate(model, source[1:, :2], 5, eos_token_id=eos, num_beams=2, num_return_sequences=2)
    np.testing.assert_array_equal(out[2:], alone)
    with pytest.raises(ValueError, match="source is empty"):
        tl.generate(model, [], 5)


# -- what is told ------------------------------------------------------------------------------------------------------


def test_log_probabilities_are_the_models_own_whatever_the_filters():
    model = a_model("llama")
    way = {"temperature": 1.3, "top_k": 4, "logit_bias": {5: 2.0}, "rng": np.random.default_rng(0)}
    out = tl.generate(model, [[3, 4], [5, 6]], 6, details=True, top_logprobs=3, **way)
    logits = model(out.ids[:, :-1]).logits.data[:, 1:]
    logp = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    new = out.ids[:, 2:]
    np.testing.assert_allclose(out.logprobs, np.take_along_axis(logp, new[..., None], -1)[..., 0], atol=1e-12)
    np.testing.assert_array_equal(out.top_ids, np.argsort(-logp, axis=-1, kind="stable")[..., :3])
    np.testing.assert_allclose(out.top_logprobs, -np.sort(-logp, axis=-1)[..., :3], atol=1e-12)
    assert out.scores is None
    assert out.acceptance_rate is None


def test_a_stream_tells_the_same_and_ended_rows_are_zero():
    model, ids = a_model("llama"), [[3, 4], [5, 6]]
    free = tl.generate(model, ids, 6)[0, 2:].tolist()
    eos = free[1]
    whole = tl.generate(model, ids, 6, eos_token_id=eos, details=True)
    steps = list(tl.generate(model, ids, 6, eos_token_id=eos, details=True, stream=True))
    np.testing.assert_array_equal(np.stack([s.logprobs for s in steps], axis=1), whole.logprobs)
    ended = free.index(eos) + 1
    assert not whole.logprobs[0, ended:].any()
    assert whole.logprobs[0, :ended].all()
    nothing = tl.generate(model, ids, 0, details=True, top_logprobs=2)
    assert (nothing.logprobs.shape, nothing.top_ids.shape) == ((2, 0), (2, 0, 2))


def test_several_draws_of_one_prompt():
    out = tl.generate(
        a_model("llama"), [[3], [4]], 8, temperature=1.0, num_return_sequences=3, rng=np.random.default_rng(0)
    )
    assert out[:, 0].tolist() == [3, 3, 3, 4, 4, 4]
    assert len({tuple(row) for row in out}) == 6


def test_frequency_counts_the_new_text_alone():
    """A prompt full of a token does not count against it; writing it does."""
    model, prompt = a_model("llama"), [3, 3, 3, 4]
    first = int(tl.generate(model, prompt, 1)[0, -1])
    assert int(tl.generate(model, [*prompt, first][:-1], 1, presence_penalty=1e9)[0, -1]) == first
    new = tl.generate(model, prompt, V, presence_penalty=1e9)[0, len(prompt) :]
    assert sorted(new) == list(range(V))  # no token twice
