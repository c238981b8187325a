"""The metrics equal scikit-learn's, SciPy's, sacrebleu's and rouge-score's."""

import gzip
import random
import re
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm import metrics

pytestmark = pytest.mark.peers

NAMES = np.array(["b", "aa", "c", "d"])
SAMPLES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=20)
LABELS = st.none() | st.permutations(NAMES.tolist()).flatmap(lambda p: st.integers(1, 4).map(lambda n: p[:n]))
ZERO = st.sampled_from([0, 1, np.nan])
# Characters on which tokenisers differ: marks of several scripts, digits, white space, entities, outside the BMP.
TEXT = st.text(st.sampled_from("aab b.,-'$5 67,.3!?\"“”。，中文ー€\n\t_&quot;<>[](){}éÀ½٣…—²\x85\U00020000\U0001f600"))


@pytest.fixture(scope="module")
def sk():
    return pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")


@pytest.fixture(scope="module")
def sentences(data_folder):
    """English, French and Chinese sentences of Tatoeba."""
    with open(data_folder / "tatoeba_eng_fra" / "eng-fra.tsv", encoding="utf-8") as file:
        lines = file.readlines()
    with gzip.open(data_folder / "tatoeba_eng_cmn" / "eng-cmn.tsv.gz", "rt", encoding="utf-8") as packed:
        lines += packed.readlines()[::5]
    return [text for line in lines for text in line.rstrip("\n").split("\t")[:2]]


def same(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13, equal_nan=True)


@given(SAMPLES, LABELS, ZERO)
def test_labels(sk, samples, labels, zero):
    y, p = NAMES[np.array(samples).T]
    same(metrics.accuracy(y, p), sk.accuracy_score(y, p))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of labels that never occur
        for average in (None, "micro", "macro", "weighted"):
            how = {"average": average, "labels": labels, "zero_division": zero}
            same(metrics.precision(y, p, **how), sk.precision_score(y, p, **how))
            same(metrics.recall(y, p, **how), sk.recall_score(y, p, **how))
            same(metrics.f1(y, p, **how), sk.f1_score(y, p, **how))
        if labels is None or set(labels) & set(y):  # scikit-learn refuses a table without a true label in it
            for normalize in (None, "true", "pred", "all"):
                theirs = sk.confusion_matrix(y, p, labels=labels, normalize=normalize)
                same(metrics.confusion_matrix(y, p, labels, normalize), theirs)
        theirs = sk.classification_report(y, p, labels=labels, zero_division=zero)
    ours = metrics.classification_report(y, p, labels, zero_division=zero)
    # where no label is ever right scikit-learn prints the support as 3.0
    assert str(ours).strip() == re.sub(r"  (\d+)\.0$", r"    \1", theirs, flags=re.MULTILINE).strip()


@given(SAMPLES, ZERO)
def test_binary_and_several_labels(sk, samples, zero):
    bits = np.array(samples)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y, p = (bits > 1).astype(int).T
        if 1 in y or 1 in p:
            how = {"average": "binary", "zero_division": zero}
            same(metrics.f1(y, p, **how), sk.f1_score(y, p, **how))
        y, p = bits // 2, bits % 2
        for average in (None, "micro", "macro", "weighted"):
            how = {"average": average, "zero_division": zero}
            same(metrics.precision(y, p, **how), sk.precision_score(y, p, **how))
            same(metrics.recall(y, p, **how), sk.recall_score(y, p, **how))
            same(metrics.f1(y, p, **how), sk.f1_score(y, p, **how))
        same(metrics.accuracy(y, p), sk.accuracy_score(y, p))


@given(SAMPLES, st.randoms(use_true_random=False))
def test_ranks(sk, samples, random):
    stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed")
    y, score = np.array(samples).T
    if len(set(y > 1)) == 2:
        same(metrics.roc_auc(y > 1, score / 3), sk.roc_auc_score(y > 1, score / 3))
    if len(set(y)) > 2:
        columns = np.array([[random.random() for _ in set(y)] for _ in y])
        columns /= columns.sum(axis=1, keepdims=True)
        same(metrics.roc_auc(y, columns), sk.roc_auc_score(y, columns, multi_class="ovr", labels=sorted(set(y))))
    if len(set(y)) > 1 and len(set(score)) > 1:
        same(metrics.spearman(y, score), stats.spearmanr(y, score).statistic)


@given(text=TEXT)
def test_tokenizers_on_drawn_texts(text):
    for name in ("none", "char", "13a", "zh", "intl"):
        assert getattr(metrics, f"tokenize_{name}")(text) == sacrebleu_tokens(name, text)


def test_tokenizers_on_sentences(sentences):
    for name in ("none", "char", "13a", "zh", "intl"):
        ours = getattr(metrics, f"tokenize_{name}")
        assert [text for text in sentences[::7] if ours(text) != sacrebleu_tokens(name, text)] == []


def sacrebleu_tokens(name, text):
    bleu = pytest.importorskip("sacrebleu.metrics.bleu", reason="sacrebleu is not installed")
    return bleu._get_tokenizer(name)()(text).split()


def corpus(sentences, rng, texts):
    """A few hypotheses near to one of their one to three references, or far from all."""
    n, streams = rng.randint(1, 6), rng.randint(1, 3)
    pool = [*texts, *rng.sample(sentences, 4 * n)]
    references = [[rng.choice(pool) for _ in range(n)] for _ in range(streams)]
    hypotheses = []
    for i in range(n):
        words = rng.choice(references)[i].split(" ")
        for _ in range(rng.randint(0, 3)):
            words.insert(rng.randrange(len(words) + 1), rng.choice(pool).split(" ")[0])
            start = rng.randrange(len(words))
            moved = words[start : start + rng.randint(0, 3)]
            del words[start : start + len(moved)]
            place = rng.randrange(len(words) + 1)
            words[place:place] = moved[: rng.randint(0, 3)]
        hypotheses.append(" ".join(words))
    if streams > 1:
        references[1][0] = None
    return hypotheses, references


@given(texts=st.lists(TEXT, max_size=3), rng=st.randoms(use_true_random=False))
def test_scores_of_sacrebleu(sentences, texts, rng):
    theirs = pytest.importorskip("sacrebleu.metrics", reason="sacrebleu is not installed")
    for _ in range(3):
        hypotheses, references = corpus(sentences, rng, texts)
        coin = lambda: rng.random() < 0.5  # noqa: E731
        bleu = {
            "smooth_method": rng.choice(["exp", "floor", "add-k", "none"]),
            "smooth_value": rng.choice([None, 0.5]),
            "lowercase": coin(),
            "tokenize": rng.choice(["none", "char", "13a", "zh", "intl"]),
            "max_ngram_order": rng.randint(1, 6),
            "effective_order": coin(),
        }
        chrf = {"char_order": rng.randint(1, 6), "word_order": rng.randint(0, 2), "beta": rng.randint(1, 3)}
        chrf |= {"lowercase": coin(), "whitespace": coin(), "eps_smoothing": coin()}
        ter = {name: coin() for name in ("normalized", "no_punct", "asian_support", "case_sensitive")}
        for ours, peer, how in (
            (metrics.corpus_bleu, theirs.BLEU, bleu),
            (metrics.chrf, theirs.CHRF, chrf),
            (metrics.ter, theirs.TER, ter),
        ):
            found, expected = ours(hypotheses, references, **how), peer(**how).corpus_score(hypotheses, references)
            assert str(found) == str(expected), how
            same(found.score, expected.score)
        references = [reference for (reference, *_) in references if reference is not None]
        found = metrics.sentence_bleu(hypotheses[0], references, **bleu)
        assert str(found) == str(theirs.BLEU(**bleu).sentence_score(hypotheses[0], references))


@given(rng=st.randoms(use_true_random=False), use_stemmer=st.booleans())
def test_scores_of_rouge(sentences, rng, use_stemmer):
    scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="rouge-score is not installed")
    theirs = scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=use_stemmer)
    for _ in range(5):
        hypotheses, references = corpus(sentences, rng, [""])
        known = [stream[-1] for stream in references if stream[-1] is not None]
        expected = theirs.score_multi(known, hypotheses[-1])
        for n in (1, 2):
            same(metrics.rouge_n([hypotheses[-1]], [known], n, use_stemmer), expected[f"rouge{n}"])
        same(metrics.rouge_l([hypotheses[-1]], [known], use_stemmer), expected["rougeL"])


def test_edit_distance_of_nltk(sentences):
    nltk = pytest.importorskip("nltk.metrics", reason="NLTK is not installed")
    pairs = random.Random(0).sample(sentences, 100)
    for a, b in zip(pairs[::2], pairs[1::2], strict=True):
        assert metrics.edit_distance(a, b) == nltk.edit_distance(a, b)
