"""Count models: the packed tables against counting in dictionaries, laws, and published figures."""

import gzip
import random
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tinyllm.errors import ConfigError
from tinyllm.models.ngram import SMOOTHINGS, NGram, baselines

V = 5
SEQUENCES = st.lists(st.lists(st.integers(0, V - 1), max_size=12), min_size=1, max_size=5)
SETTINGS = st.sampled_from([("witten-bell", None), ("mle", None), ("add-k", 1.0), ("add-k", 0.3)])


class Naive:
    """The formulas of the docstring, one token at a time."""

    def __init__(self, order, smoothing, k, given, sequences):
        self.order, self.smoothing, self.k = order, smoothing, k
        self.counts = defaultdict(Counter)
        for sequence in sequences:
            for t in range(given, len(sequence)):
                for n in range(min(order, t + 1)):
                    self.counts[tuple(sequence[t - n : t])][sequence[t]] += 1

    def p(self, context, token):
        if self.order == 0:
            return 1 / V
        return self.rung(tuple(context[max(0, len(context) - self.order + 1) :]), token)

    def rung(self, h, token):
        count, total, distinct = (
            self.counts[h][token],
            self.counts[h].total(),
            sum(c > 0 for c in self.counts[h].values()),
        )
        if self.smoothing == "add-k":
            return (count + self.k) / (total + self.k * V)
        shorter = self.rung(h[1:], token) if h else 1 / V
        if total == 0:
            return shorter
        return count / total if self.smoothing == "mle" else (count + distinct * shorter) / (total + distinct)


@given(SEQUENCES, SEQUENCES, st.integers(0, 5), SETTINGS, st.integers(0, 2))
def test_packed_tables_equal_counting_in_dictionaries(train, test, order, setting, skip):
    def predicted(sequences):
        return [(s[:t], s[t]) for s in sequences for t in range(skip, len(s))]

    assume(predicted(train) and predicted(test))
    smoothing, k = setting
    model = NGram(order, V, smoothing, k, given=skip).fit(train)
    naive = Naive(order, smoothing, k, skip, train)
    expected = np.array([naive.p(context, token) for context, token in predicted(test)])
    np.testing.assert_allclose(np.exp(model.log_prob(test)), expected, rtol=1e-12, atol=1e-300)
    for context, token in predicted(test)[:6]:
        p = model.probs(context)
        assert abs(p.sum() - 1) < 1e-12
        np.testing.assert_allclose(p[token], naive.p(context, token), rtol=1e-12)


@given(SEQUENCES, SETTINGS)
def test_ladder_is_the_loss_of_every_order(train, setting):
    train = [*train, [0, 1, 2, 1, 0]]
    ladder = NGram(4, V, *setting).fit(train).ladder(train)
    assert ladder == [NGram(order, V, *setting).fit(train).loss(train) for order in range(5)]


def test_maximum_likelihood_is_the_best_on_its_own_text(rng):
    train = rng.integers(0, V, 500)
    best = NGram(2, V, "mle").fit(train).loss(train)
    assert all(best < NGram(2, V, name).fit(train).loss(train) for name in SMOOTHINGS if name != "mle")


@pytest.mark.parametrize("vocab_size", [3, 50_000])
def test_large_and_small_vocabularies_number_their_grams_alike(rng, vocab_size):
    """A small table of keys is indexed, a large one sorted: the counts are the same, and only 1 / V differs."""
    tokens = rng.integers(0, 3, 400)
    few, many = (NGram(4, size, "mle").fit(tokens).loss(tokens) for size in (3, vocab_size))
    assert few == many


def test_no_ngram_reaches_across_sequences():
    apart = NGram(2, 3, "mle").fit([[0, 1], [2, 1]])
    assert apart.probs([1]).tolist() == [
        0,
        1,
        0,
    ]  # 1 is never continued: what the unigram says (the first tokens are given)
    joined = NGram(2, 3, "mle").fit([0, 1, 2, 1])
    assert joined.probs([1]).tolist() == [0, 0, 1]


def test_forms_of_input_agree(rng):
    rows = rng.integers(0, V, (3, 7))
    losses = {NGram(3, V).fit(form).loss(form) for form in (rows, list(rows), rows.tolist(), rows.astype(np.uint8))}
    assert len(losses) == 1
    one = rows[0]
    assert NGram(3, V).fit(one).loss(one) == NGram(3, V).fit([one]).loss(one.tolist())


def test_generate_continues_the_prompt_with_its_own_frequencies():
    model = NGram(2, 3, "mle").fit([0, 1, 2] * 5)
    assert model.generate(5, np.random.default_rng(0), [1]).tolist() == [1, 2, 0, 1, 2, 0]
    fair = NGram(1, 2, "mle", given=0).fit([0, 1, 1, 1])
    draws = fair.generate(4000, np.random.default_rng(1))
    assert abs(draws.mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 4000)
    same = [fair.generate(50, np.random.default_rng(7)).tolist() for _ in range(2)]
    assert same[0] == same[1]
    assert len(NGram(0, 9).fit([1, 2]).generate(3, np.random.default_rng(0))) == 3


def test_an_impossible_token_costs_infinity_without_smoothing_and_a_finite_loss_with_it():
    train, test = [0, 1, 0, 1], [0, 2]
    assert NGram(2, 3, "mle").fit(train).loss(test) == np.inf
    assert np.isfinite(NGram(2, 3).fit(train).loss(test))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": -1, "vocab_size": 3}, "order"),
        ({"order": 2, "vocab_size": 0}, "vocab_size"),
        ({"order": 2, "vocab_size": 3, "smoothing": "witten bell"}, "did you mean 'witten-bell'"),
        ({"order": 2, "vocab_size": 3, "k": 0.1}, "add-k"),
        ({"order": 2, "vocab_size": 3, "smoothing": "add-k", "k": 0.0}, "above 0"),
    ],
)
def test_settings_out_of_range_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        NGram(**arguments)


@pytest.mark.parametrize("tokens", [[], [1], [[1], [2]], [0, 3], [-1, 0], [0.5, 1.0], [[[0, 1]]]])
def test_tokens_that_cannot_be_counted_are_refused(tokens):
    with pytest.raises(ValueError, match="token"):
        NGram(2, 3).fit(tokens)


def test_unfitted_model_says_so():
    with pytest.raises(ValueError, match="fit"):
        NGram(2, 3).probs([0])


def test_baselines_are_witten_bell_of_rising_order(rng):
    train, test = rng.integers(0, V, 3000), rng.integers(0, V, 300)
    lines = baselines(train, test, V)
    assert [name for name, _ in lines] == ["uniform", "unigram", "bigram", "trigram", "Witten-Bell 5-gram"]
    assert [loss for _, loss in lines] == [NGram(n, V).fit(train).loss(test) for n in (0, 1, 2, 3, 5)]
    assert lines[0][1] == pytest.approx(np.log(V))


def characters(text):
    """Ids in code point order, the order of every published character vocabulary."""
    return np.unique(np.array([ord(c) for c in text]), return_inverse=True)[1]


@pytest.fixture(scope="module")
def names(data_folder):
    """Each name as letters 1 to 26."""
    words = (data_folder / "names" / "names.txt").read_text().split()
    assert len(words) == 32033
    return [[ord(c) - 96 for c in word] for word in words]


@pytest.mark.parametrize(
    ("order", "smoothing", "k", "figure"),
    [(0, "mle", None, 3.2958), (1, "mle", None, 2.8227), (2, "mle", None, 2.454014), (2, "add-k", 1.0, 2.454577)],
)
def test_names_as_published(names, order, smoothing, k, figure):
    """The set that makemore counts on is the one it is evaluated on; 0 begins and ends a name."""
    words = [[0, *name, 0] for name in names]
    digits = len(str(figure).split(".")[1])
    assert round(NGram(order, 27, smoothing, k).fit(words).loss(words), digits) == figure


@pytest.mark.parametrize(("order", "figure"), [(2, 2.4531), (3, 2.2207), (4, 2.0752), (5, 2.0418)])
def test_held_out_names_as_published(names, order, figure):
    """Shuffled with seed 42, 80% / 10%; every name begins with order - 1 start symbols, which are not predicted."""
    words = [[0] * (order - 1) + name + [0] for name in names]
    random.Random(42).shuffle(words)
    train, dev = words[: int(0.8 * len(words))], words[int(0.8 * len(words)) : int(0.9 * len(words))]
    assert round(NGram(order, 27, given=order - 1).fit(train).loss(dev), 4) == figure


@pytest.fixture(scope="module")
def shakespeare(data_folder):
    """First 90%, last 10%."""
    text = gzip.decompress((data_folder / "tinyshakespeare" / "input.txt.gz").read_bytes()).decode()
    ids = characters(text)
    assert ids.max() == 64
    return ids[: int(0.9 * len(ids))], ids[int(0.9 * len(ids)) :]


@pytest.mark.parametrize(
    ("order", "smoothing", "k", "figure"),
    [
        (0, "mle", None, 4.1744),
        (1, "mle", None, 3.3473),
        (2, "add-k", 1.0, 2.4819),
        (3, "add-k", 0.1, 2.0458),
        (4, "add-k", 0.1, 1.7840),
        (5, "witten-bell", None, 1.6688),
    ],
)
def test_tinyshakespeare_as_published(shakespeare, order, smoothing, k, figure):
    """The published bigram is add-1, the trigram and 4-gram add-0.1, the 5-gram Witten-Bell."""
    train, test = shakespeare
    assert round(NGram(order, 65, smoothing, k).fit(train).loss(test), 4) == figure
