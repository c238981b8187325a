"""BLEU, chrF, TER, ROUGE and error rates: by hand, and by the laws that they obey."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.metrics import (
    chrf,
    corpus_bleu,
    edit_distance,
    phoneme_error_rate,
    rouge_l,
    rouge_n,
    sentence_bleu,
    ter,
    tokenize_13a,
    tokenize_char,
    tokenize_intl,
    tokenize_none,
    tokenize_zh,
    word_error_rate,
)

WORDS = st.lists(st.sampled_from(["a", "b", "cat", "dog", "."]), max_size=8)


def test_tokenizers_by_hand():
    text = "It's 1,000.50—“quoted”, 2-3 <b>!"
    assert tokenize_none(text) == text.split()
    assert tokenize_char("a 中\t") == ["a", "中"]
    assert tokenize_13a(text) == ["It's", "1,000.50—“quoted”", ",", "2", "-", "3", "<", "b", ">", "!"]
    assert tokenize_13a("x&amp;y &quot;-\nz") == ["x", "&", "y", '"', "z"]
    assert tokenize_zh("我有3.5个苹果。ok") == ["我", "有", "3.5", "个", "苹", "果", "。", "ok"]
    assert tokenize_intl("“quoted”, 1,000 3+4€") == ["“", "quoted", "”", ",", "1,000", "3", "+", "4", "€"]


def test_bleu_by_hand():
    found = corpus_bleu(["the cat sat on the mat"], [["the cat sat on a mat"]], max_ngram_order=2)
    assert found.counts == (5, 3)
    assert found.totals == (6, 5)
    assert found.score == pytest.approx(100 * math.sqrt(5 / 6 * 3 / 5))
    short = corpus_bleu(["the cat"], [["the cat sat"]], max_ngram_order=2)
    assert short.bp == pytest.approx(math.exp(1 - 3 / 2))
    assert short.score == pytest.approx(100 * short.bp)
    # a word counts no more often than in one reference; the nearest reference gives the length
    twice = corpus_bleu(["the the the"], [["the cat the mat x"], ["the dog sat"]], max_ngram_order=1)
    assert (twice.counts, twice.ref_len) == ((2,), 3)


def test_smoothing_by_hand():
    def bleu(method, value=None, effective=False):
        return corpus_bleu(["a b x d"], [["a b c d"]], method, value, effective_order=effective).precisions

    assert bleu("none") == (75, pytest.approx(100 / 3), 0, 0)
    assert bleu("floor") == (75, pytest.approx(100 / 3), 5, 10)
    assert bleu("add-k") == (75, pytest.approx(50), pytest.approx(100 / 3), 50)
    assert bleu("exp") == (75, pytest.approx(100 / 3), 25, 25)
    assert sentence_bleu("a b", ["a b"]).score == pytest.approx(100)
    assert corpus_bleu(["a b"], [["a b"]]).score == 0.0  # there are no 3-grams


@given(st.lists(WORDS, min_size=1, max_size=4))
def test_a_text_against_itself_is_perfect(sentences):
    texts = [" ".join(["a", *words]) for words in sentences]
    assert chrf(texts, [texts]).score == pytest.approx(100)
    assert ter(texts, [texts]).score == 0
    assert rouge_n(texts, texts) == pytest.approx((1, 1, 1)) or "a" not in texts[0]
    assert word_error_rate(texts, texts) == 0
    assert corpus_bleu(texts, [texts], max_ngram_order=1).score == pytest.approx(100)


@given(WORDS, WORDS, WORDS)
def test_edit_distance_is_a_metric(a, b, c):
    d = edit_distance
    assert d(a, b) == d(b, a)
    assert (d(a, b) == 0) == (a == b)
    assert d(a, c) <= d(a, b) + d(b, c)
    assert abs(len(a) - len(b)) <= d(a, b) <= max(len(a), len(b))


@given(WORDS, WORDS)
def test_a_move_saves_edits_but_never_costs_any(a, b):
    edits = ter([" ".join(a)], [[" ".join(b)]]).num_edits
    assert edits <= edit_distance(a, b)
    assert sorted(a) != sorted(b) or a == b or edits > 0


def test_ter_moves_a_phrase_for_one_edit():
    found = ter(["sat there the old cat"], [["the old cat sat there"]])
    assert (found.num_edits, found.score) == (1, 20)
    assert edit_distance(["sat", "there", "the", "old", "cat"], ["the", "old", "cat", "sat", "there"]) == 4


def test_error_rates_by_hand():
    assert word_error_rate(["the cat sat", "a"], ["the cat sat down", ["x y", "a b"]]) == 2 / 6
    assert phoneme_error_rate([["K", "AE1", "T"]], [["K", "AH0", "T"]]) == 1 / 3
    assert phoneme_error_rate([["K", "AE1", "T"]], [[["K", "AH0"], ["K", "AE1", "T", "S"]]]) == 1 / 4


def test_rouge_by_hand():
    prediction, reference = "The quick brown dog jumps on the log.", "The quick brown fox jumps over the lazy dog"
    assert rouge_n(prediction, reference) == pytest.approx((6 / 8, 6 / 9, 12 / 17))
    assert rouge_n(prediction, reference, n=2) == pytest.approx((2 / 7, 2 / 8, 4 / 15))
    assert rouge_l(prediction, reference) == pytest.approx((5 / 8, 5 / 9, 10 / 17))
    assert rouge_n("runner running", "running runs", use_stemmer=True).precision == 0.5
    assert rouge_n(["a", "b"], ["a", ["c", "b"]]).fmeasure == 1.0
    assert rouge_n("我们", "我们去", tokenizer=list).recall == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: corpus_bleu("a", [["a"]]), "list of texts"),
        (lambda: corpus_bleu(["a"], ["a"]), "list of streams"),
        (lambda: corpus_bleu(["a", "b"], [["a"]]), "stream 0 has 1"),
        (lambda: corpus_bleu([], []), "nothing to judge"),
        (lambda: corpus_bleu(["a"], [[None]]), "no reference"),
        (lambda: corpus_bleu(["a"], [["a"]], tokenize="13b"), "did you mean '13a'"),
        (lambda: corpus_bleu(["a"], [["a"]], smooth_method="addk"), "did you mean 'add-k'"),
        (lambda: corpus_bleu(["a"], [["a"]], max_ngram_order=0), "at least 1"),
        (lambda: sentence_bleu("a", "a"), "list of texts"),
        (lambda: chrf(["a"], [["a"]], char_order=0), "no n-grams"),
        (lambda: rouge_n("a", "a", n=0), "at least 1"),
        (lambda: rouge_n(["a"], ["a", "b"]), "as many elements"),
        (lambda: word_error_rate("a", ["a"]), "lists"),
        (lambda: word_error_rate(["a"], [""]), "empty"),
        (lambda: phoneme_error_rate([["A"]], []), "1 hypotheses for 0"),
    ],
)
def test_what_cannot_be_judged_is_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()
