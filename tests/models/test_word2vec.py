"""word2vec: the pass against its formula and against autograd, the draws, reproducibility, and what it learns."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyllm as tl
from tinyllm.errors import ConfigError, DataError
from tinyllm.formulas import words as formulas
from tinyllm.models import Word2Vec
from tinyllm.models import word2vec as module
from tinyllm.models.huffman import huffman
from tinyllm.models.word2vec import alias_table, noise
from tinyllm.models.word2vec_numpy import word2vec as in_numpy

RATE = 1e-6  # small: a pass is then a step along the gradient at one point


def kernel_source(*args):
    """The kernel as Python runs it; that it is the same compiled is tested in float32, the type it is used with."""
    pytest.importorskip("numba", reason="Numba is not installed")
    from tinyllm.kernels.cpu.word2vec import word2vec

    getattr(word2vec, "py_func", word2vec)(*args)


def one_pass(kernel, vectors, outputs, text, cbow, negative, counts, window=1):
    """What a pass over one sentence adds to the tables (float64), over RATE; and the mean loss."""
    moved, others = vectors.copy(), outputs.copy()
    V, C = vectors.shape
    threshold, alias = alias_table(noise(counts))
    tree = huffman(counts) if not negative else (np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1))
    ids, bounds = np.array(text, np.int32), np.array([0, len(text)])
    scratch = np.empty(len(text), np.int32), np.empty(C), np.empty(C)
    loss = np.zeros(2)
    keep = np.full(V, 2**32)
    tables = moved, others, keep, threshold, alias, *tree
    kernel(ids, bounds, 0, 1, *tables, cbow, window, negative, 7, RATE, 0.0, *scratch, loss)
    return (moved - vectors) / RATE, (others - outputs) / RATE, loss[0] / loss[1]


def logistic_losses(h, outputs, rows, labels):
    """Sum over rows of -log sigmoid(u . h) or -log sigmoid(-u . h), in the library's differentiable operations."""
    x = (tl.embedding(np.asarray(rows), outputs) * h).sum(axis=-1)
    signs = 2.0 * np.asarray(labels, np.float64) - 1.0
    return -tl.log(tl.sigmoid(x * signs)).sum()


KERNELS = [pytest.param(kernel_source, id="kernel"), pytest.param(in_numpy, id="numpy")]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("cbow", [False, True])
@pytest.mark.parametrize("negative", [3, 0])
def test_a_pass_steps_along_the_gradient_of_autograd(rng, kernel, cbow, negative):
    """Words 0 to 2 are the text, 3 is the only word that is ever drawn as noise."""
    counts = [0, 0, 0, 9] if negative else [4, 3, 2, 1]
    v, u = rng.normal(size=(2, 4, 5))
    text = [0, 1, 2]
    vectors, outputs = (tl.tensor(x, requires_grad=True) for x in (v, u))
    start, node, label = huffman(counts)
    total = 0.0
    for t, centre in enumerate(text):
        near = [text[s] for s in (t - 1, t + 1) if 0 <= s < len(text)]
        for target in [centre] if cbow else near:
            h = tl.embedding(np.array(near if cbow else [centre]), vectors).mean(axis=0)
            if negative:
                rows, labels = [target] + [3] * negative, [1] + [0] * negative
            else:
                path = slice(start[target], start[target + 1])
                rows, labels = node[path], label[path]
            total = total + logistic_losses(h, outputs, rows, labels)
    total.backward()
    found_v, found_u, _ = one_pass(kernel, v, u, text, cbow, negative, counts)
    np.testing.assert_allclose(found_v, -vectors.grad.numpy(), atol=1e-4)
    np.testing.assert_allclose(found_u, -outputs.grad.numpy(), atol=1e-4)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_pass_steps_along_the_gradient_of_the_formula(rng, kernel):
    v, u = rng.normal(size=(2, 3, 4))

    def loss(v):
        pairs = formulas.skip_gram_pairs([0, 1], 1)
        return sum(formulas.skip_gram_negative_sampling(v[a], u[b], [u[2]] * 2) for a, b in pairs)

    moved, _, mean = one_pass(kernel, v, u, [0, 1], False, 2, [0, 0, 1])
    for i, j in np.ndindex(2, 4):
        step = np.zeros_like(v)
        step[i, j] = 1e-5
        assert moved[i, j] == pytest.approx(-(loss(v + step) - loss(v - step)) / 2e-5, abs=1e-4)
    first = formulas.skip_gram_negative_sampling(v[0], u[1], [u[2]] * 2)  # the kernel looks at it alone, NumPy at all
    assert mean == pytest.approx(first if kernel is kernel_source else loss(v) / 2, rel=1e-4)


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=30))
def test_noise_is_the_formula(counts):
    np.testing.assert_allclose(noise(counts), formulas.noise_distribution(counts), rtol=1e-12)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=40))
def test_alias_table_holds_the_law(counts):
    law = noise(counts)
    threshold, alias = alias_table(law.copy())
    held = threshold / 2**32
    np.add.at(held, alias, 1 - threshold / 2**32)
    np.testing.assert_allclose(held / len(law), law, atol=1e-9)


@pytest.mark.parametrize("counts", [[1000, 300, 100, 30, 10, 3, 1], [1] * 5])
def test_words_are_drawn_by_the_law(counts):
    """Pearson's statistic of 40,000 draws lies where it lies 999 times in 1000; without the 3/4 it is far away."""
    kernel = pytest.importorskip("tinyllm.kernels.cpu.word2vec", reason="Numba is not installed")
    threshold, alias = alias_table(noise(counts))
    drawn, state = [], 12345
    for _ in range(40_000):
        state = kernel.next_random(state)
        drawn.append(kernel.draw(state, threshold, alias))
    found = np.bincount(drawn, minlength=len(counts))

    def statistic(law):
        return ((found - len(drawn) * law) ** 2 / (len(drawn) * law)).sum()

    assert statistic(noise(counts)) < {7: 22.46, 5: 18.47}[len(counts)]  # chi-square, 6 and 4 degrees of freedom
    assert statistic(noise(counts, power=1.0)) > 1000 or counts[0] == counts[-1]


@given(st.lists(st.integers(1, 50), min_size=2, max_size=20))
def test_huffman_is_a_prefix_code_and_optimal_on_average(counts):
    start, node, label = huffman(counts)
    lengths = np.diff(start)
    assert sum(2.0**-n for n in lengths) == 1  # Kraft: a full tree
    assert len({tuple(zip(node[a:b], label[a:b], strict=True)) for a, b in pairwise(start)}) == len(counts)
    p = np.array(counts) / sum(counts)
    entropy = -(p * np.log2(p)).sum()
    assert entropy - 1e-9 <= (p * lengths).sum() < entropy + 1


def corpus(rng, n=1500):
    """Animals eat and sleep, vehicles drive and stop."""
    groups = [("cat", "dog", "cow"), ("eats", "sleeps"), ("car", "bus", "truck"), ("drives", "stops")]
    pick = lambda g: groups[g][rng.integers(len(groups[g]))]  # noqa: E731
    return [["the", pick(2 * k), pick(2 * k + 1), "there"] for k in rng.integers(0, 2, n)]


@pytest.mark.parametrize("architecture", ["skip-gram", "cbow"])
@pytest.mark.parametrize("objective", ["negative", "hierarchical"])
def test_words_used_alike_become_neighbours(rng, architecture, objective):
    model = Word2Vec(16, architecture, objective, window=2, epochs=12, min_count=1, sample=0, lr=0.05)
    v = model.fit(corpus(rng)).vectors
    same = np.mean([v.similarity("cat", w) for w in ("dog", "cow")])
    other = np.mean([v.similarity("cat", w) for w in ("car", "bus", "truck")])
    assert same > other + 0.2, (same, other)


def test_the_same_seed_gives_the_same_vectors(rng):
    text = corpus(rng, 300)
    fit = lambda **how: Word2Vec(8, min_count=1, epochs=2, **how).fit(text).vectors.vectors  # noqa: E731
    np.testing.assert_array_equal(fit(), fit())
    assert not np.array_equal(fit(), fit(seed=1))


def test_two_threads_learn_as_well(rng, monkeypatch):
    monkeypatch.setattr(module, "JOB", 500)
    text = corpus(rng)
    one, two = (Word2Vec(16, window=2, epochs=8, min_count=1, lr=0.05, threads=n).fit(text) for n in (1, 2))
    assert two.loss == pytest.approx(one.loss, rel=0.1)
    assert two.words_done == one.words_done == 8 * 6000
    assert two.vectors.similarity("cat", "dog") > two.vectors.similarity("cat", "car")


def test_progress_tells_words_loss_and_a_falling_rate(rng, monkeypatch):
    monkeypatch.setattr(module, "JOB", 500)
    seen = []
    Word2Vec(8, min_count=1, epochs=2, lr=0.1, sample=0).fit(corpus(rng), lambda *state: seen.append(state))
    done, total, loss, lr = zip(*seen, strict=True)
    assert list(done) == sorted(done)
    assert done[-1] == total[0] == 12_000
    assert list(lr) == sorted(lr, reverse=True)
    assert lr[-1] == pytest.approx(1e-4)
    assert loss[-1] < loss[0]


def test_what_was_learned_survives_an_interruption(rng, monkeypatch):
    monkeypatch.setattr(module, "JOB", 500)
    jobs = iter(range(100))

    def interrupt(*state):
        if next(jobs) == 5:
            raise KeyboardInterrupt

    model = Word2Vec(8, min_count=1, epochs=2).fit(corpus(rng), interrupt)
    assert model.interrupted
    assert 0 < model.words_done < 12_000
    assert np.abs(model.vectors["cat"]).max() > 0
    assert len(model.vectors.neighbours("cat", 3)) == 3


@pytest.mark.parametrize("architecture", ["skip-gram", "cbow"])
@pytest.mark.parametrize("objective", ["negative", "hierarchical"])
def test_compiled_or_not_the_kernel_is_the_same(rng, monkeypatch, architecture, objective):
    fit = lambda: Word2Vec(4, architecture, objective, min_count=1, epochs=1).fit(corpus(np.random.default_rng(0), 40))  # noqa: E731
    compiled = fit()
    monkeypatch.setattr(module, "_kernel", lambda: kernel_source)
    source = fit()
    np.testing.assert_allclose(source.vectors.vectors, compiled.vectors.vectors, atol=1e-6)
    np.testing.assert_allclose(source.outputs, compiled.outputs, atol=1e-6)
    assert source.loss == pytest.approx(compiled.loss, rel=1e-5)


def test_subsampling_leaves_frequent_words_out(rng):
    """A word of share f stays with probability sqrt(s / f) + s / f: with `the` mostly gone, fewer pairs are seen."""
    text = corpus(rng, 300)
    model = Word2Vec(8, min_count=1, epochs=1, sample=1e-4).fit(text)
    assert math.isfinite(model.loss)
    assert model.words_done == 1200


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"architecture": "skipgram"}, "did you mean 'skip-gram'"),
        ({"objective": "softmax"}, "objective='softmax'"),
        ({"size": 0}, "size must be at least 1"),
        ({"threads": 0}, "threads"),
    ],
)
def test_impossible_settings(how, match):
    with pytest.raises(ConfigError, match=match):
        Word2Vec(**how)


@pytest.mark.parametrize("text", [[], [[]], [["a"]], [["a", "b"]]])
def test_too_few_words(text):
    with pytest.raises(DataError, match="at least two words"):
        Word2Vec(min_count=2).fit(text)
