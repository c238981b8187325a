"""Chapter 15, translation: what is given and what is asked, attention to a source, BLEU's matches, a step of beams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from tinyllm.course.exercise import Exercise, law_on
from tinyllm.testing.problem import Array
from tinyllm.testing.suite import oracle
from tinyllm.testing.suite.answer import Case
from tinyllm.testing.suite.topics import draw

IGNORED = -100

# -- translation_batch -------------------------------------------------------------------------------------------------


def _padded(rng: np.random.Generator, lengths: tuple[int, ...], longest: int) -> Array:
    ids = rng.integers(2, 9, (len(lengths), longest))
    return np.where(np.arange(longest) < np.array(lengths)[:, None], ids, 0)


def _texts(rng: np.random.Generator) -> list[Case]:
    sizes = (((6, 4), (3, 6), 6), ((5,), (4,), 5), ((1, 3, 4), (4, 2, 3), 5))
    return [{"source": _padded(rng, s, n), "target": _padded(rng, t, n), "start": 1} for s, t, n in sizes]


def _after_start(ids: Array, start: int) -> Array:
    return np.concatenate([np.full((len(ids), 1), start), ids[:, :-1]], axis=1)


def _labels(ids: Array) -> Array:
    return np.where(ids == 0, IGNORED, ids)


def _one_to_the_left(ids: Array) -> Array:
    return np.concatenate([ids[:, 1:], np.zeros((len(ids), 1), ids.dtype)], axis=1)


BATCH = Exercise(
    name="translation_batch",
    chapter="15",
    asks="Of source and target (B, T), both padded at the end with 0: what the encoder reads; what the decoder has "
    "before it, beginning with the token `start`; and what it is to say at each place, -100 for padding. Three (B, T).",
    arguments=("source", "target", "start"),
    answer=lambda source, target, start: (source, _after_start(target, start), _labels(target)),
    cases=_texts,
    results=3,
    mistakes=(
        (
            "the encoder is given the target: it reads the answer, and nothing is left to be translated",
            lambda source, target, start: (target, _after_start(target, start), _labels(target)),
        ),
        (
            "the decoder is given the target as it is: at each place it sees the token that it is to say",
            lambda source, target, start: (source, target, _labels(target)),
        ),
        (
            "the decoder is given the source: it goes on from its own tokens, those of the target",
            lambda source, target, start: (source, _after_start(source, start), _labels(target)),
        ),
        (
            "padding is to be predicted: its label is -100",
            lambda source, target, start: (source, _after_start(target, start), target),
        ),
        (
            "shifted twice: the decoder's input is moved already, the labels stay where they are",
            lambda source, target, start: (source, _after_start(target, start), _labels(_one_to_the_left(target))),
        ),
        (
            "the decoder's first token is the target's last: it begins with the start token",
            lambda source, target, start: (source, np.roll(target, 1, axis=1), _labels(target)),
        ),
        (
            "shifted the wrong way: the decoder is shown what comes after",
            lambda source, target, start: (source, _one_to_the_left(target), _labels(target)),
        ),
    ),
    hints=(
        "Think of place 0. What has the decoder written so far? What is it to say? Who reads the source?",
        "The labels are the target itself, with -100 for 0. The decoder's input is the target one place to the right.",
        "np.concatenate puts a column of `start` before target[:, :-1]; the encoder reads `source`, and nothing else.",
    ),
)

# -- memory_vjp --------------------------------------------------------------------------------------------------------


def _sources(rng: np.random.Generator) -> list[Case]:
    sizes = ((3, 6, 4), (1, 5, 2), (4, 3, 9))
    return [{"g": draw(rng, t, d), "q": draw(rng, t, d), "memory": draw(rng, s, d)} for t, s, d in sizes]


def _parts(g: Array, q: Array, memory: Array) -> tuple[Array, Array]:
    """The gradient of the memory as values, and as keys."""
    weights, root = _weights(q, memory), np.sqrt(q.shape[-1])
    dweights = g @ memory.T
    dscores = weights * (dweights - (weights * dweights).sum(axis=-1, keepdims=True))
    return weights.T @ g, dscores.T @ q / root


def _weights(q: Array, memory: Array) -> Array:
    return np.exp(oracle.log_softmax(q @ memory.T / np.sqrt(q.shape[-1]), -1))


def _without_the_sum(g: Array, q: Array, memory: Array) -> Array:
    weights = _weights(q, memory)
    return weights.T @ g + (weights * (g @ memory.T)).T @ q / np.sqrt(q.shape[-1])


def _without_the_root(g: Array, q: Array, memory: Array) -> Array:
    values, keys = _parts(g, q, memory)
    return values + keys * np.sqrt(q.shape[-1])


def _through_the_softmax_as_it_is(g: Array, q: Array, memory: Array) -> Array:
    return _weights(q, memory).T @ g + (g @ memory.T).T @ q / np.sqrt(q.shape[-1])


MEMORY = Exercise(
    name="cross_attention_vjp",
    chapter="15",
    asks="For y = softmax(q memory^T / sqrt(d)) memory, q (T, d), memory (S, d): the gradient (S, d) of the memory, "
    "given the gradient g (T, d) of y.",
    arguments=("g", "q", "memory"),
    answer=lambda g, q, memory: sum(_parts(g, q, memory)),
    cases=_sources,
    points=2,
    mistakes=(
        (
            "only the use as values: the memory is also compared with the queries, as keys",
            lambda g, q, memory: _parts(g, q, memory)[0],
        ),
        (
            "only the use as keys: the memory is also what is mixed, as values",
            lambda g, q, memory: _parts(g, q, memory)[1],
        ),
        (
            "the mean of the two gradients: they are added",
            lambda g, q, memory: sum(_parts(g, q, memory)) / 2,
        ),
        ("the sum term of softmax's derivative is missing", _without_the_sum),
        ("the scores were divided by sqrt(d), so their gradient is too", _without_the_root),
        (
            "the derivative of softmax is missing: weights times (their gradient minus its mean)",
            _through_the_softmax_as_it_is,
        ),
    ),
    hints=(
        "Pretend that keys and values are two matrices. Differentiate by each, as in chapter 05; then they are one.",
        "As values: weights.T @ g. As keys: the gradient of the scores, transposed, times q, over sqrt(d).",
        "dweights = g @ memory.T; dscores = weights * (dweights - (weights * dweights).sum(axis=-1, keepdims=True)).",
    ),
    laws=(
        law_on(
            "far_apart",
            "A query that sees one place only leaves the scores without a gradient, and nothing overflows.",
            [{"g": np.ones((1, 2)), "q": np.array([[900.0, 0.0]]), "memory": np.array([[2.0, 1.0], [-3.0, 1.0]])}],
        ),
    ),
)

# -- ngram_matches -----------------------------------------------------------------------------------------------------


def _sentences(rng: np.random.Generator) -> list[Case]:
    """Few different tokens, so that n-grams repeat; the first candidate says one of them again and again."""
    cases: list[Case] = [
        {"candidate": np.array([3, 3, 3, 3, 3, 1, 2]), "reference": np.array([3, 1, 2, 3, 4, 2]), "n": n}
        for n in (1, 2)
    ]
    for a, b, n in ((12, 9, 1), (14, 10, 2), (9, 15, 2), (30, 25, 3)):
        cases.append({"candidate": rng.integers(0, 3, a), "reference": rng.integers(0, 3, b), "n": n})
    return cases


def _grams(ids: Array, n: int) -> Counter[tuple[int, ...]]:
    return Counter(tuple(int(i) for i in ids[k : k + n]) for k in range(len(ids) - n + 1))


def _counted(
    count: Callable[[Counter[tuple[int, ...]], Counter[tuple[int, ...]]], tuple[int, int]],
) -> Callable[..., Array]:
    return lambda candidate, reference, n: np.array(count(_grams(candidate, n), _grams(reference, n)))


def _clipped(candidate: Array, reference: Array, n: int) -> Array:
    mine, theirs = _grams(candidate, n), _grams(reference, n)
    return np.array([(mine & theirs).total(), mine.total()])


def _place_by_place(candidate: Array, reference: Array, n: int) -> Array:
    pairs = ((candidate[k : k + n], reference[k : k + n]) for k in range(max(0, len(candidate) - n + 1)))
    return np.array([sum(np.array_equal(a, b) for a, b in pairs), max(0, len(candidate) - n + 1)])


MATCHES = Exercise(
    name="ngram_matches",
    chapter="15",
    asks="How many n-grams of candidate (C,) are found in reference (R,), each counted at most as often as it occurs "
    "there; and how many n-grams the candidate has. An array of these two numbers.",
    arguments=("candidate", "reference", "n"),
    answer=_clipped,
    cases=_sentences,
    mistakes=(
        (
            "not clipped: saying a word of the reference again and again would be right every time",
            _counted(lambda mine, theirs: (sum(c for gram, c in mine.items() if gram in theirs), mine.total())),
        ),
        (
            "each n-gram is counted once, however often both say it",
            _counted(lambda mine, theirs: (len(mine.keys() & theirs.keys()), mine.total())),
        ),
        (
            "the n-grams of the reference are the total: that is recall; BLEU asks how much of the candidate is right",
            _counted(lambda mine, theirs: ((mine & theirs).total(), theirs.total())),
        ),
        (
            "the total counts different n-grams only, not every one",
            _counted(lambda mine, theirs: ((mine & theirs).total(), len(mine))),
        ),
        (
            "the total is the number of words: there are n - 1 fewer n-grams",
            lambda candidate, reference, n: np.array([_clipped(candidate, reference, n)[0], len(candidate)]),
        ),
        (
            "single words whatever n is: an n-gram is n words in a row",
            lambda candidate, reference, n: _clipped(candidate, reference, 1),
        ),
        ("compared place by place: an n-gram may stand anywhere in the reference", _place_by_place),
    ),
    hints=(
        "Count the n-grams of both, each in a table: n-gram -> how often. What do two such tables have in common?",
        "For each n-gram of the candidate, the smaller of its two counts; sum these.",
        "collections.Counter has `&`, which takes the smaller count of each key, and `.total()`; keys can be tuples.",
    ),
    laws=(
        law_on(
            "too_short",
            "A candidate shorter than n has no n-grams: 0 of 0.",
            [{"candidate": np.array([1, 2]), "reference": np.array([1, 2, 3]), "n": 3}],
        ),
    ),
)

# -- beam_step ---------------------------------------------------------------------------------------------------------


def _beams(rng: np.random.Generator) -> list[Case]:
    sizes = ((2, 6, 2), (3, 5, 3), (1, 4, 3), (4, 7, 4))
    return [
        {
            "logp": oracle.log_softmax(2 * draw(rng, b, v), -1),
            "scores": -np.arange(1.0, b + 1) * rng.uniform(0.3, 2.0),
            "k": k,
        }
        for b, v, k in sizes
    ]


def _best(total: Array, k: int) -> Array:
    order = np.argsort(-total.reshape(-1), kind="stable")[:k]
    return np.stack([order // total.shape[1], order % total.shape[1]], axis=1)


def _best_of_each(logp: Array, scores: Array, k: int) -> Array:
    tokens = logp.argmax(axis=1)
    order = np.argsort(-(scores + logp.max(axis=1)), kind="stable")
    pairs = np.stack([order, tokens[order]], axis=1)
    return np.resize(pairs, (k, 2))


def _flat(logp: Array, scores: Array, k: int) -> Array:
    order = np.argsort(-(scores[:, None] + logp).reshape(-1), kind="stable")[:k]
    return np.stack([np.zeros_like(order), order], axis=1)


BEAMS = Exercise(
    name="beam_step",
    chapter="15",
    asks="Beginnings with sums of log-probabilities `scores` (B,) may each go on with any token, log-probabilities "
    "`logp` (B, V): the k best continuations, the best first, of equal ones the lower beginning, then the lower token. "
    "Pairs (beginning, token), (k, 2).",
    arguments=("logp", "scores", "k"),
    answer=lambda logp, scores, k: _best(scores[:, None] + logp, k),
    cases=_beams,
    points=2,
    mistakes=(
        (
            "what the beginnings have scored so far is left out: a good end of a bad text wins",
            lambda logp, scores, k: _best(logp, k),
        ),
        (
            "the best token of each beginning: all beginnings compete, and one may go on in several ways",
            _best_of_each,
        ),
        (
            "the worst first: sort from the highest down",
            lambda logp, scores, k: _best(-(scores[:, None] + logp), k),
        ),
        ("the place in the flat array is no token: divide it by V into beginning and token", _flat),
        (
            "the pairs are (token, beginning): asked for were (beginning, token)",
            lambda logp, scores, k: _best(scores[:, None] + logp, k)[:, ::-1],
        ),
        (
            "the probability of the new token is added, not its logarithm",
            lambda logp, scores, k: _best(scores[:, None] + np.exp(logp), k),
        ),
    ),
    hints=(
        "How good is a continuation as a whole? Give each of the B V a number, then look for the largest.",
        "scores[:, None] + logp, of shape (B, V); sort all of it at once, not row by row.",
        "np.argsort(-total.reshape(-1), kind='stable')[:k] gives places; divmod(place, V) is (beginning, token).",
    ),
    laws=(
        law_on(
            "equals",
            "Of equally good continuations the lower beginning comes first, then the lower token.",
            [{"logp": np.full((2, 3), -1.0), "scores": np.zeros(2), "k": 4}],
        ),
        law_on(
            "impossible",
            "A token that cannot come, -inf, is chosen by nobody while there is another.",
            [{"logp": np.array([[-np.inf, -2.0], [-0.1, -np.inf]]), "scores": np.array([-5.0, -9.0]), "k": 2}],
        ),
    ),
)

EXERCISES = (BATCH, MEMORY, MATCHES, BEAMS)
