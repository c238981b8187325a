"""Speculative decoding writes what the model alone would write, whatever the draft."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyllm as tl
from tinyllm.errors import ConfigError
from tinyllm.generation.choice import Choice
from tinyllm.generation.filters import softmax
from tinyllm.models import GPT, GPTConfig

V = 6


@functools.cache
def gpt(seed, layers=1, vocab=V, context=14):
    """A GPT whose next token depends on everything before it."""
    config = GPTConfig(vocab_size=vocab, n_positions=context, n_embd=12, n_layer=layers, n_head=3)
    model = GPT(config, rng=np.random.default_rng(seed), dtype="float64")
    rng = np.random.default_rng(seed + 1)
    for p in model.parameters():
        p.assign_(p.data + rng.normal(0, 0.3, p.shape))
    return model.eval()


class Fixed:
    """A model whose logits depend on the last token alone; it is asked for a whole batch of drafts at no cost."""

    context_length = None

    def __init__(self, seed, spread=1.0):
        self.table = np.random.default_rng(seed).normal(0, spread, (V, V))

    def new_cache(self):
        raise AssertionError("these tests use none")

    def __call__(self, ids, **_):
        return type("Output", (), {"logits": self.table[ids]})


@given(
    st.lists(st.integers(0, V - 1), min_size=1, max_size=6),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(1, 6),
    st.booleans(),
)
@settings(max_examples=20)
def test_greedy_text_is_that_of_the_model_alone(prompt, seed, draft_seed, ahead, use_cache):
    """Also beyond the context of 14, and of the draft's 9."""
    model, draft = gpt(seed, layers=2), gpt(draft_seed, context=9)
    options = {"max_new_tokens": 14, "use_cache": use_cache, "repetition_penalty": 1.2, "details": True}
    alone = tl.generate(model, prompt, **options)
    found = tl.generate(model, prompt, draft_model=draft, num_draft_tokens=ahead, **options)
    np.testing.assert_array_equal(found.ids, alone.ids)
    np.testing.assert_allclose(found.logprobs, alone.logprobs, rtol=0, atol=1e-12)


def test_a_draft_that_is_the_model_is_always_right():
    model = gpt(1)
    out = tl.generate(model, [1], 9, draft_model=model, details=True)
    assert out.acceptance_rate == 1.0
    again = tl.generate(
        model,
        [1],
        9,
        temperature=1.0,
        rng=np.random.default_rng(0),
        draft_model=model,
        num_draft_tokens=3,
        details=True,
    )
    assert again.acceptance_rate == 1.0


def test_a_draft_that_is_never_right():
    model, wrong = Fixed(0), Fixed(0)
    wrong.table = -wrong.table
    out = tl.generate(model, [1], 9, draft_model=wrong, use_cache=False, details=True)
    assert out.acceptance_rate == 0.0
    assert out.ids.tolist() == tl.generate(model, [1], 9, use_cache=False).tolist()


def test_it_ends_where_the_model_alone_ends_and_streams_the_same():
    model, draft = gpt(2, layers=2), gpt(0)
    free = tl.generate(model, [1, 2], 10)[0, 2:].tolist()
    for eos in set(free):
        expected = tl.generate(model, [1, 2], 10, eos_token_id=eos)
        found = tl.generate(model, [1, 2], 10, eos_token_id=eos, draft_model=draft)
        np.testing.assert_array_equal(found, expected)
        steps = tl.generate(model, [1, 2], 10, eos_token_id=eos, draft_model=draft, stream=True)
        assert [int(s[0]) for s in steps] == expected[0, 2:].tolist()


def test_the_model_is_asked_less_often():
    asked = []
    model = gpt(1, layers=2)

    class Counted:
        context_length, new_cache, config = model.context_length, model.new_cache, model.config

        def __call__(self, ids, **more):
            asked.append(ids.shape[1])
            return model(ids, **more)

    tl.generate(Counted(), [1, 2, 3], 10, draft_model=model, num_draft_tokens=4)
    assert asked == [7, 5]  # the prompt and four guesses, then the tenth token's predecessor and four more


@pytest.mark.parametrize(
    "filters", [{}, {"top_k": 4, "top_p": 0.8}, {"temperature": 0.6, "presence_penalty": 0.7}], ids=str
)
def test_drawn_texts_follow_the_models_law(filters):
    """The joint law of three tokens, by Pearson's chi-square against the product of the model's own conditionals."""
    model, draft, n = Fixed(0), Fixed(1), 1000
    settings = {"temperature": 1.0} | filters
    rng = np.random.default_rng(2)
    choice = Choice(rng=rng, **settings)
    law = {}
    for text in itertools.product(range(V), repeat=3):
        p, ids = 1.0, [0]
        for token in text:
            seen = np.array([ids])
            p *= choice.probabilities(model.table[ids[-1:]], seen, seen[:, 1:])[0, token]
            ids.append(token)
        law[text] = p
    counts = dict.fromkeys(law, 0)
    kept = []
    for _ in range(n):
        out = tl.generate(
            model, [0], 3, rng=rng, use_cache=False, draft_model=draft, num_draft_tokens=2, details=True, **settings
        )
        counts[tuple(out.ids[0, 1:].tolist())] += 1
        kept.append(out.acceptance_rate)
    assert 0.2 < np.mean(kept) < 0.8  # the draft is neither right nor wrong throughout
    expected, found = np.array([*law.values()]) * n, np.array([*counts.values()])
    assert not found[expected == 0].any()
    rare = (expected > 0) & (expected < 5)
    cells = [(found[expected >= 5], expected[expected >= 5]), (found[rare].sum(), expected[rare].sum())]
    statistic = sum(float(((f - e) ** 2 / e).sum()) for f, e in cells if np.sum(e) > 0)
    freedom = int((expected >= 5).sum()) + bool(rare.any()) - 1
    # Above mean + 5 deviations a chi-square variable comes less than once in 10^4 seeds; the seed is fixed.
    assert statistic < freedom + 5 * np.sqrt(2 * freedom)


def test_the_law_is_not_the_drafts():
    """The same statistic tells the two models apart."""
    p, q = softmax(Fixed(0).table[0]), softmax(Fixed(1).table[0])
    assert 1000 * ((p - q) ** 2 / p).sum() > 100


def test_vocabularies_must_be_the_same():
    with pytest.raises(ConfigError, match="draft_model has 7 tokens, the model 6"):
        tl.generate(gpt(0), [1], 5, draft_model=gpt(0, vocab=7))
