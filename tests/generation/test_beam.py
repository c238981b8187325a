"""Beam search: its two ends are greedy decoding and exhaustive search, and transformers finds the same texts."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyllm as tl
from tinyllm.generation.beam import Beams, beam_search
from tinyllm.generation.choice import Choice
from tinyllm.generation.filters import log_softmax
from tinyllm.generation.generate import _End
from tinyllm.generation.session import Session
from tinyllm.models import GPT, GPTConfig

V = 5
prompts = st.lists(st.integers(0, V - 1), min_size=1, max_size=4)
seeds = st.integers(0, 4)


@functools.cache
def gpt(seed, vocab=V, context=12):
    """A GPT whose next token depends on everything before it."""
    config = GPTConfig(vocab_size=vocab, n_positions=context, n_embd=12, n_layer=2, n_head=3)
    model = GPT(config, rng=np.random.default_rng(seed), dtype="float64")
    rng = np.random.default_rng(seed + 1)
    for p in model.parameters():
        p.assign_(p.data + rng.normal(0, 0.4, p.shape))
    return model.eval()


def search(model, prompt, count, eos=None, **beams):
    """The hypotheses of one prompt, also for a width of 1."""
    ids = np.array([prompt])
    end = _End(eos, None, None)
    session = Session(model, ids, np.ones(ids.shape, bool), use_cache=True)
    return beam_search(session, count, Beams(**beams), Choice(), end, len(end.eos))[0]


def total(model, prompt, new):
    """The log-probability of the new tokens, from one pass over the whole text."""
    logp = log_softmax(model([[*prompt, *new]]).logits.data[0])
    return sum(logp[len(prompt) - 1 + i, token] for i, token in enumerate(new))


@given(prompts, seeds, st.integers(1, 6))
@settings(max_examples=15)
def test_width_1_is_greedy(prompt, seed, count):
    model = gpt(seed)
    greedy = tl.generate(model, prompt, count)[0, len(prompt) :]
    assert search(model, prompt, count, num_beams=1)[0].ids == greedy.tolist()
    ended = tl.generate(model, prompt, count, eos_token_id=2)[0, len(prompt) :]
    assert search(model, prompt, count, eos=2, num_beams=1, early_stopping=True)[0].ids == ended.tolist()


@given(prompts, seeds, st.integers(1, 3))
@settings(max_examples=8)
def test_full_width_is_exhaustive_search(prompt, seed, count):
    model, width = gpt(seed, vocab=4), 4 ** max(1, count - 1)
    prompt = [t % 4 for t in prompt]
    found = search(model, prompt, count, num_beams=width)
    scored = {new: total(model, prompt, new) / count for new in itertools.product(range(4), repeat=count)}
    expected = sorted(scored, key=lambda new: -scored[new])[:width]
    assert [tuple(h.ids) for h in found] == expected
    np.testing.assert_allclose([h.score for h in found], [scored[new] for new in expected], rtol=1e-12)


@given(prompts, seeds, st.sampled_from([0.0, 0.7, 1.0, 2.0]))
@settings(max_examples=5)
def test_full_width_is_exhaustive_search_over_texts_that_end(prompt, seed, penalty):
    """Every text of at most 3 tokens whose last alone may be the end; stopping early is left out."""
    model, count = gpt(seed, vocab=4), 3
    prompt = [t % 4 for t in prompt]
    found = search(model, prompt, count, eos=3, num_beams=40, length_penalty=penalty, early_stopping="never")
    texts = [
        (*head, last)
        for length in (1, 2, 3)
        for head in itertools.product(range(3), repeat=length - 1)
        for last in (range(4) if length == count else [3])
    ]
    scored = {new: total(model, prompt, new) / len(new) ** penalty for new in texts}
    assert [tuple(h.ids) for h in found] == sorted(scored, key=lambda new: -scored[new])[:40]


@given(st.lists(prompts, min_size=1, max_size=3), seeds, st.booleans(), st.sampled_from([False, True]))
@settings(max_examples=15)
def test_a_batch_is_its_rows_and_the_cache_changes_nothing(texts, seed, use_cache, early):
    model, width = gpt(seed), max(map(len, texts))
    ids = np.array([[0] * (width - len(t)) + t for t in texts])
    mask = np.array([[0] * (width - len(t)) + [1] * len(t) for t in texts])
    beams = {"num_beams": 2, "num_return_sequences": 2, "eos_token_id": 1, "early_stopping": early, "pad_token_id": 0}
    beams |= {"no_repeat_ngram": 2, "details": True}
    out = tl.generate(model, ids, 6, attention_mask=mask, use_cache=use_cache, **beams)
    for i, prompt in enumerate(texts):
        alone = tl.generate(model, prompt, 6, **beams)
        rows = slice(2 * i, 2 * i + 2)
        new = alone.ids[:, len(prompt) :]
        assert out.ids[rows, width : width + new.shape[1]].tolist() == new.tolist()
        np.testing.assert_allclose(out.scores[rows], alone.scores, rtol=0, atol=1e-12)
        np.testing.assert_allclose(out.logprobs[rows, : new.shape[1]], alone.logprobs, rtol=0, atol=1e-12)


def test_beams_go_on_when_the_window_slides():
    model = gpt(3, context=6)
    options = {"num_beams": 3, "num_return_sequences": 3}
    found = tl.generate(model, [1, 2, 3], 8, **options)
    np.testing.assert_array_equal(found, tl.generate(model, [1, 2, 3], 8, use_cache=False, **options))
    assert len({tuple(row) for row in found}) == 3


def test_scores_and_log_probabilities_belong_to_the_texts():
    model = gpt(1)
    out = tl.generate(model, [1, 2], 4, num_beams=3, num_return_sequences=3, length_penalty=0.5, details=True)
    for row, logprobs, score in zip(out.ids, out.logprobs, out.scores, strict=True):
        assert score == pytest.approx(total(model, [1, 2], row[2:]) / 4**0.5, rel=1e-12)
        assert score == pytest.approx(logprobs.sum() / 4**0.5, rel=1e-12)
    assert (np.diff(out.scores) <= 0).all()


def test_a_stop_string_ends_a_beam():
    class Letters:
        def decode(self, ids):
            return "".join("abcde"[i] for i in ids)

    found = tl.generate(gpt(4), [1], 6, num_beams=4, stop=["ba", "c"], tokenizer=Letters(), pad_token_id=0)
    text = Letters().decode(found[0, 1:])
    place = min(text.find(s) + len(s) for s in ("ba", "c") if s in text)
    assert text[place:] == "a" * (len(text) - place)


def test_more_texts_than_there_are():
    out = tl.generate(gpt(0), [1], 1, num_beams=V, num_return_sequences=V)
    assert sorted(out[:, 1]) == list(range(V))
    with pytest.raises(ValueError, match="fewer than 6 texts"):
        tl.generate(gpt(0), [1], 1, num_beams=6, num_return_sequences=6)
    assert tl.generate(gpt(0), [1], 0, num_beams=2).tolist() == [[1]]


# -- transformers ------------------------------------------------------------------------------------------------------


@pytest.mark.peers
@pytest.mark.parametrize(("early", "penalty"), [(False, 1.0), (True, 2.0), ("never", 1.5), (False, -0.5)])
def test_transformers_finds_the_same_beams(early, penalty, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    peers = pytest.importorskip("transformers", reason="transformers is not installed")
    model = gpt(7, vocab=23, context=40)
    model.save_pretrained(tmp_path)
    theirs = peers.GPT2LMHeadModel.from_pretrained(tmp_path, dtype=torch.float64).eval()
    rng = np.random.default_rng(0)
    both = {"num_beams": 4, "num_return_sequences": 3, "length_penalty": penalty, "early_stopping": early}
    both |= {"max_new_tokens": 10, "pad_token_id": 22}
    cases = [
        ({"eos_token_id": [1]}, {}, {}),
        ({"eos_token_id": [1, 2, 9], "repetition_penalty": 1.3}, {}, {}),
        ({}, {"no_repeat_ngram": 2}, {"no_repeat_ngram_size": 2}),
    ]
    for shared, our_own, their_own in cases:
        ids, mask = rng.integers(3, 22, size=(3, 6)), np.ones((3, 6), int)
        mask[0, :2], mask[1, :1] = 0, 0
        expected = theirs.generate(
            torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
            **both,
            **shared,
            **their_own,
        )
        found = tl.generate(model, ids, attention_mask=mask, details=True, **both, **shared, **our_own)
        width = expected.sequences.shape[1]
        assert found.ids[:, :width].tolist() == expected.sequences.tolist()
        assert (found.ids[:, width:] == 22).all()
        np.testing.assert_allclose(found.scores, expected.sequences_scores.numpy(), rtol=1e-5)
