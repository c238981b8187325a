"""Generation: cached as uncached, batched as alone, and ended where it should."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyllm as tl
from tinyllm.errors import ConfigError
from tinyllm.models import GPT, GPTConfig

V, CONTEXT = 17, 10
SEED = np.random.default_rng(0)


def gpt(seed=0, **settings):
    """A GPT whose next token depends on everything before it."""
    config = GPTConfig(vocab_size=V, n_positions=CONTEXT, n_embd=12, n_layer=2, n_head=3, **settings)
    model = GPT(config, rng=np.random.default_rng(seed), dtype="float64")
    rng = np.random.default_rng(seed + 1)
    for p in model.parameters():
        p.assign_(p.data + rng.normal(0, 0.5, p.shape))
    return model


def naive(model, prompt, count):
    """Greedy decoding in its simplest form: each token from the last CONTEXT ones, all computed anew."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model([ids[-CONTEXT:]]).logits.data[0, -1].argmax()))
    return ids


class Watched:
    """A model that writes down what it was asked and what it answered."""

    def __init__(self, model):
        self.model, self.asked, self.answers = model, [], []
        self.context_length, self.new_cache, self.config = model.context_length, model.new_cache, model.config

    def __call__(self, ids, **more):
        out = self.model(ids, **more)
        self.asked.append(ids)
        self.answers.append(out.logits.numpy()[:, -1])
        return out


def left_padded(prompts):
    width = max(map(len, prompts))
    ids = np.array([[0] * (width - len(p)) + list(p) for p in prompts])
    mask = np.array([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    return ids, mask


@given(st.lists(st.integers(0, V - 1), min_size=1, max_size=14), st.booleans())
def test_greedy_is_the_most_likely_token_given_the_window(prompt, use_cache):
    model = gpt()
    written = tl.generate(model, prompt, max_new_tokens=12, use_cache=use_cache)
    assert written.dtype == np.int64
    assert written.tolist() == [naive(model, prompt, 12)]


@given(st.lists(st.lists(st.integers(0, V - 1), min_size=1, max_size=13), min_size=1, max_size=3))
def test_cached_equals_uncached_at_every_step_also_after_the_crop(prompts):
    ids, mask = left_padded(prompts)
    cached, uncached = Watched(gpt()), Watched(gpt())
    a = tl.generate(cached, ids, 15, attention_mask=mask)
    b = tl.generate(uncached, ids, 15, attention_mask=mask, use_cache=False)
    np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(cached.answers, uncached.answers, rtol=0, atol=1e-12)


def test_the_cache_saves_work_until_the_window_slides():
    model = Watched(gpt())
    tl.generate(model, [1, 2, 3], 10)
    assert [a.shape[1] for a in model.asked] == [3, 1, 1, 1, 1, 1, 1, 1, CONTEXT, CONTEXT]


@given(
    st.lists(st.lists(st.integers(0, V - 1), min_size=1, max_size=12), min_size=1, max_size=4),
    st.sampled_from([{}, {"repetition_penalty": 1.5}, {"no_repeat_ngram": 2}]),
)
def test_a_batch_is_its_rows(prompts, settings):
    model = gpt()
    ids, mask = left_padded(prompts)
    together = tl.generate(model, ids, 8, attention_mask=mask, **settings)
    assert together.shape == (len(prompts), ids.shape[1] + 8)
    for row, prompt in enumerate(prompts):
        alone = tl.generate(model, prompt, 8, **settings)[0]
        assert together[row, ids.shape[1] - len(prompt) :].tolist() == alone.tolist()


def test_the_seed_decides_what_is_drawn():
    model = gpt()
    a, b, c = (
        tl.generate(model, [[1, 2], [3, 4]], 20, temperature=1.0, rng=np.random.default_rng(s)) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
    assert (a[0] != a[1]).any()


def test_draws_follow_the_models_probabilities():
    model, n = gpt(), 20_000
    ids = np.tile([[4, 2]], (n, 1))
    settings = {"temperature": 1.7, "top_k": 9, "top_p": 0.95}
    drawn = tl.generate(model, ids, 1, rng=np.random.default_rng(0), **settings)[:, -1]
    logits = model(ids[:1]).logits.data[0, -1] / 1.7
    p = np.exp(logits - logits.max())
    order = np.argsort(-p)[:9]
    p = np.array([p[i] if i in order else 0 for i in range(V)]) / p[order].sum()
    keep = order[np.cumsum(p[order]) - p[order] < 0.95]
    p = np.array([p[i] if i in keep else 0 for i in range(V)]) / p[keep].sum()
    counts = np.bincount(drawn, minlength=V)
    assert 2 < len(keep) < 9
    assert not counts[p == 0].any()
    expected = n * p[p > 0]
    statistic = ((counts[p > 0] - expected) ** 2 / expected).sum()
    freedom = len(expected) - 1
    assert statistic < freedom + 5 * np.sqrt(2 * freedom)


def test_a_tiny_temperature_is_greedy():
    model = gpt()
    drawn = tl.generate(model, [1, 2], 15, temperature=1e-9, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(drawn, tl.generate(model, [1, 2], 15))


def test_equal_logits_give_the_lowest_id():
    model = gpt()
    model.transformer.wte.weight.assign_(np.zeros((V, 12)))  # tied: all logits are 0
    assert tl.generate(model, [3], 2).tolist() == [[3, 0, 0]]


def test_the_stream_is_what_is_returned():
    model = gpt()
    settings = {"temperature": 1.0, "top_p": 0.9, "eos_token_id": [3, 5]}
    whole = tl.generate(model, [[1, 2], [3, 4]], 12, rng=np.random.default_rng(0), **settings)
    steps = list(tl.generate(model, [[1, 2], [3, 4]], 12, rng=np.random.default_rng(0), stream=True, **settings))
    assert {s.shape for s in steps} == {(2,)}
    np.testing.assert_array_equal(np.stack(steps, axis=1), whole[:, 2:])


def test_a_stream_leaves_the_callers_world_alone():
    model = gpt(resid_pdrop=0.5)
    stream = tl.generate(model, [1, 2], 5, stream=True)
    next(stream)
    assert model.training
    assert tl.is_recording()
    assert model.transformer.h[0].training
    model.eval()
    next(stream)
    assert not model.training


def test_dropout_is_off_and_nothing_is_recorded():
    model = gpt(resid_pdrop=0.5, attn_pdrop=0.5)
    watched = Watched(model.eval())
    expected = tl.generate(watched, [1, 2], 6)
    np.testing.assert_array_equal(tl.generate(model.train(), [1, 2], 6), expected)
    assert model.training
    cache = model.new_cache()
    with tl.no_grad():
        assert model.eval()([[1]], cache=cache).logits.node is None


def test_the_mode_is_restored_after_an_error():
    model = gpt()
    with pytest.raises(IndexError, match=str(V)):
        tl.generate(model, [V])
    assert model.training


# -- where it ends -----------------------------------------------------------------------------------------------------


def test_a_row_ends_at_eos_and_is_filled_up():
    model = gpt()
    prompts = [[1, 2], [3, 4], [5, 6]]
    free = tl.generate(model, prompts, 12)[:, 2:]
    eos = int(free[0, 2])
    ends = [next((i for i, t in enumerate(row) if t == eos), 11) for row in free]
    assert len(set(ends)) > 1, "the seed makes rows end at different steps"
    written = tl.generate(model, prompts, 12, eos_token_id=eos)[:, 2:]
    padded = tl.generate(model, prompts, 12, eos_token_id=eos, pad_token_id=16)[:, 2:]
    assert written.shape[1] == max(ends) + 1
    for row, end in enumerate(ends):
        assert written[row].tolist() == free[row, : end + 1].tolist() + [eos] * (max(ends) - end)
        assert padded[row].tolist() == free[row, : end + 1].tolist() + [16] * (max(ends) - end)


def test_a_row_that_has_ended_does_not_disturb_the_others():
    model, prompts = gpt(), [[1, 2], [3, 4]]
    settings = {"temperature": 1.0, "no_repeat_ngram": 1}
    free = tl.generate(model, prompts, 7, rng=np.random.default_rng(0), **settings)
    eos = next(int(t) for t in free[0, 2:6] if t not in free[1])
    # A filled-up row repeats its fill, which no_repeat_ngram=1 would forbid.
    ended = tl.generate(model, prompts, 7, rng=np.random.default_rng(0), eos_token_id=eos, **settings)
    assert ended[0, -1] == eos
    assert ended[1].tolist() == free[1].tolist()


@dataclass
class Pieces:
    """A tokenizer of pieces."""

    pieces: list

    def decode(self, ids):
        return "".join(self.pieces[i] for i in ids)


class Says:
    """A model that continues every row with the same tokens, from where the prompt of length `start` ends."""

    context_length = None

    def __init__(self, tokens, start, size=6):
        self.tokens, self.start, self.size = tokens, start, size

    def __call__(self, ids, attention_mask=None):
        out = np.zeros((*ids.shape, self.size))
        out[:, -1, self.tokens[ids.shape[1] - self.start]] = 1.0
        return type("Output", (), {"logits": out})


def test_a_stop_string_is_found_across_tokens():
    tokenizer = Pieces(["a", "b\n", "\nc", "d", "", "e"])
    for stop, end in [("\n\n", 3), (["zz", "\nc"], 3), ("d", 4), ("b", 2), ("zz", 6)]:
        model = Says([0, 1, 2, 3, 5, 0], start=2)
        written = tl.generate(model, [1, 2], 6, stop=stop, tokenizer=tokenizer, use_cache=False)
        assert written.shape == (1, 2 + end), stop


def test_a_stop_string_in_the_prompt_does_not_end():
    tokenizer = Pieces(["a", "b\n", "\nc", "d", "", "e"])
    model = Says([2, 0, 0], start=1)
    assert tl.generate(model, [1], 3, stop="\n\n", tokenizer=tokenizer, use_cache=False).shape == (1, 4)


def test_any_model_of_the_protocol_is_continued():
    assert tl.generate(Says([5, 4, 3], start=1), [[0], [1]], 3, use_cache=False).tolist() == [
        [0, 5, 4, 3],
        [1, 5, 4, 3],
    ]


def test_no_new_tokens():
    assert tl.generate(gpt(), [1, 2], 0).tolist() == [[1, 2]]
    assert list(tl.generate(gpt(), [1, 2], 0, stream=True)) == []


def test_an_empty_prompt_begins_with_bos():
    model = gpt(bos_token_id=7)
    for empty in ([], np.zeros((1, 0), int)):
        assert tl.generate(model, empty, 5).tolist() == tl.generate(model, [7], 5).tolist()
    with pytest.raises(ValueError, match=r"empty.*bos_token_id"):
        tl.generate(gpt(), [], 5)


@pytest.mark.parametrize("prompt", [[1, 2], (1, 2), np.array([[1, 2]], "u1"), tl.tensor([1, 2])])
def test_prompts_of_every_kind(prompt):
    assert tl.generate(gpt(), prompt, 3).tolist() == tl.generate(gpt(), [[1, 2]], 3).tolist()


# -- misuse ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "settings", "error", "said"),
    [
        ([1], {"max_new_tokens": -1}, ConfigError, "max_new_tokens"),
        ([1], {"max_new_tokens": 2.5}, ConfigError, "max_new_tokens"),
        ([1], {"num_beams": 0}, ConfigError, "num_beams"),
        ([1], {"num_beams": 2, "temperature": 1.0, "rng": SEED}, ConfigError, "num_beams=2.*temperature"),
        ([1], {"num_beams": 2, "num_return_sequences": 3}, ConfigError, "num_return_sequences=3"),
        ([1], {"num_beams": 2, "early_stopping": "soon"}, ConfigError, "early_stopping.*'soon'"),
        ([1], {"num_beams": 2, "length_penalty": float("nan")}, ConfigError, "length_penalty"),
        ([1], {"num_return_sequences": 2}, ConfigError, "num_return_sequences=2.*temperature"),
        ([1], {"top_logprobs": 2}, ConfigError, "details=True"),
        ([[1], [2]], {"draft_model": gpt(1)}, ConfigError, "draft_model"),
        ([1], {"draft_model": gpt(1), "num_draft_tokens": 0}, ConfigError, "num_draft_tokens"),
        ([1], {"logit_bias": {V: 1.0}}, ConfigError, f"logit_bias: token {V}"),
        ([1], {"logit_bias": {"a": 1.0}}, ConfigError, "logit_bias: token 'a'"),
        ([1], {"logit_bias": {1: float("nan")}}, ConfigError, "logit_bias"),
        ([1], {"frequency_penalty": float("inf")}, ConfigError, "frequency_penalty"),
        ([1], {"presence_penalty": float("nan")}, ConfigError, "presence_penalty"),
        ([1], {"temperature": -1.0}, ConfigError, "temperature"),
        ([1], {"temperature": float("nan")}, ConfigError, "temperature"),
        ([1], {"temperature": 1.0}, ConfigError, r"rng=numpy.random.default_rng\(seed\)"),
        ([1], {"temperature": 1.0, "rng": 3}, ConfigError, "rng="),
        ([1], {"top_k": 0}, ConfigError, "top_k"),
        ([1], {"top_p": 1.5}, ConfigError, "top_p"),
        ([1], {"min_p": 2}, ConfigError, "min_p"),
        ([1], {"typical": 0}, ConfigError, "typical"),
        ([1], {"repetition_penalty": 0}, ConfigError, "repetition_penalty"),
        ([1], {"no_repeat_ngram": 0}, ConfigError, "no_repeat_ngram"),
        ([1], {"stop": "x"}, ConfigError, "tokenizer="),
        ([1], {"stop": ["x", ""], "tokenizer": Pieces([])}, ConfigError, "empty"),
        ([[1], [2]], {"stop": "x", "tokenizer": Pieces([])}, ConfigError, "pad_token_id"),
        ([[1, 2], [3]], {}, ValueError, "on the left"),
        ([[[1]]], {}, ValueError, r"\(1, 1, 1\)"),
        (np.zeros((0, 3), int), {}, ValueError, r"\(0, 3\)"),
        ([0.5], {}, TypeError, "integers.*float64"),
        (["ab"], {}, TypeError, "tokenizer"),
        ([1, 2], {"attention_mask": [1]}, ValueError, r"\(1, 2\)"),
        ([1, 2], {"attention_mask": [2, 1]}, ValueError, "1 for tokens"),
        ([1, 2], {"attention_mask": [1, 0]}, ValueError, "left"),
        ([1, 2, 3], {"attention_mask": [1, 0, 1]}, ValueError, "left"),
        ([1, 2], {"attention_mask": [0, 0]}, ValueError, "left"),
        (list(range(V)), {"no_repeat_ngram": 1}, ValueError, "no token is left"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_misuse_is_named(prompt, settings, error, said, stream):
    stream = stream and settings.get("num_beams", 1) <= 1
    with pytest.raises(error, match=said):
        list(tl.generate(gpt(), prompt, **settings, stream=stream))


def test_settings_are_refused_before_the_first_token_is_asked_for():
    with pytest.raises(ConfigError, match="top_p"):
        tl.generate(gpt(), [1], top_p=2, stream=True)


def test_a_broken_model_is_named():
    model = gpt()
    model.transformer.ln_f.bias.assign_(np.full(12, np.nan))
    with pytest.raises(ValueError, match="NaN"):
        tl.generate(model, [1])
