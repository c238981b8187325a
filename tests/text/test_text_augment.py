"""Texts made of texts: what each change keeps and what it may touch."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.models import BERTConfig, BERTForMaskedLM
from tinyllm.text.augment import delete_words, masked_words, neighbour_words, swap_words
from tinyllm.text.wordpiece import WordPiece

TEXT = st.lists(st.text("abcdé", min_size=1, max_size=5), min_size=1, max_size=12).map(" ".join)
SEED = st.integers(0, 2**32)


@given(text=TEXT, seed=SEED)
def test_deletion_leaves_words_in_order(text, seed):
    left = iter(text.split())
    kept = delete_words(text, np.random.default_rng(seed), share=0.5).split()
    assert kept
    assert all(word in left for word in kept)  # each is found behind the one before it


def test_deletion_takes_its_share():
    text = " ".join(["word"] * 10_000)
    kept = len(delete_words(text, np.random.default_rng(0), share=0.1).split())
    assert abs(kept - 9000) < 5 * 30  # five standard deviations


@given(text=TEXT, seed=SEED)
def test_swapping_keeps_the_words(text, seed):
    assert Counter(swap_words(text, np.random.default_rng(seed), share=0.5).split()) == Counter(text.split())


@given(text=TEXT, seed=SEED)
def test_neighbours_come_from_the_list_or_nothing_changes(text, seed):
    rng = np.random.default_rng(seed)
    changed = neighbour_words(lambda word: ["X", "Y"] if "a" in word else [], text, rng, share=1.0).split()
    for before, after in zip(text.split(), changed, strict=True):
        assert after in ("X", "Y") if "a" in before else after == before


def test_a_masked_model_changes_some_tokens_and_writes_no_special_ones():
    tokenizer = WordPiece.train(["the cat sat on the mat and the dog ran"] * 3, vocab_size=80)
    config = BERTConfig(vocab_size=tokenizer.vocab_size, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=16, max_position_embeddings=32)  # fmt: skip
    model = BERTForMaskedLM(config, rng=np.random.default_rng(0))
    text = "the cat sat on the mat and the dog ran"
    found = [masked_words(model, tokenizer, text, np.random.default_rng(seed), share=0.3) for seed in range(20)]
    assert len(set(found)) > 10
    assert not any("[" in changed for changed in found)
    again = masked_words(model, tokenizer, text, np.random.default_rng(3), share=0.3)
    assert again == found[3]
    assert masked_words(model, tokenizer, "", np.random.default_rng(0)) == ""
