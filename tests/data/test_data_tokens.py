"""Token arrays and batches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.data import Batches, Document, eval_windows, token_dtype, tokenize_corpus
from tinyllm.errors import ConfigError, DataError


class Letters:
    """a is 0, b is 1, ..."""

    vocab_size = 26

    def encode(self, text):
        return [ord(c) - 97 for c in text]


DOCUMENTS = [Document("abc", "one"), Document("", "two"), Document("zz", "three")]


@pytest.mark.parametrize(
    ("vocab_size", "dtype"),
    [(1, np.uint8), (256, np.uint8), (257, np.uint16), (65536, np.uint16), (65537, np.uint32), (2**32, np.uint32)],
)
def test_smallest_type_that_holds_every_id(vocab_size, dtype):
    assert token_dtype(vocab_size) == dtype


def test_documents_follow_each_other_with_their_separators():
    ids = tokenize_corpus(DOCUMENTS, Letters())
    assert (ids.dtype, ids.tolist()) == (np.uint8, [0, 1, 2, 25, 25])
    assert tokenize_corpus(DOCUMENTS, Letters(), separator=9).tolist() == [0, 1, 2, 9, 9, 25, 25, 9]
    assert tokenize_corpus([], Letters()).shape == (0,)


def test_a_large_array_is_mapped_and_equal(tmp_path):
    path = tmp_path / "ids.npy"
    small = tokenize_corpus(DOCUMENTS, Letters(), 9, path, threshold=8)
    assert not path.exists()
    large = tokenize_corpus(DOCUMENTS, Letters(), 9, path, threshold=7)
    assert path.exists()
    assert isinstance(large, np.memmap)
    assert not large.flags.writeable
    assert large.dtype == small.dtype
    np.testing.assert_array_equal(large, small)
    batch = Batches(large, 3, 4).at(0)["input_ids"]
    assert type(batch) is np.ndarray
    np.testing.assert_array_equal(batch, Batches(small, 3, 4).at(0)["input_ids"])


def test_ids_outside_the_vocabulary_and_unwritable_paths_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"three: ids must be in \[0, 26\), got -32 to 0"):
        tokenize_corpus([Document("aA", "three")], Letters())
    with pytest.raises(ValueError, match="separator"):
        tokenize_corpus([], Letters(), separator=26)
    with pytest.raises(DataError, match="cannot be written"):
        tokenize_corpus(DOCUMENTS, Letters(), path=tmp_path / "no" / "ids.npy", threshold=0)


@given(st.integers(5, 40), st.integers(1, 6), st.integers(2, 5), st.integers(0, 2**64 - 1), st.integers(0, 10**9))
def test_a_batch_is_windows_of_the_text_and_depends_on_seed_and_step_alone(n, size, block, seed, step):
    batches = Batches(np.arange(n, dtype=np.uint8), size, block, seed)
    batch = batches.at(step)
    ids = batch["input_ids"]
    assert (ids.shape, ids.dtype) == ((size, block), np.int64)
    assert (np.diff(ids) == 1).all()  # the text counts upwards, so does every window of it
    assert ids.min() >= 0
    assert ids.max() < n
    np.testing.assert_array_equal(batch["labels"], ids)
    batches.at(step + 1)
    np.testing.assert_array_equal(Batches(batches.tokens, size, block, seed).at(step)["input_ids"], ids)


def test_batches_differ_by_step_and_by_seed_and_reach_every_start_equally_often():
    tokens = np.arange(12)
    starts = np.concatenate(
        [Batches(tokens, 100, 3, seed).at(step)["input_ids"][:, 0] for seed in (0, 1) for step in range(50)]
    )
    assert len({tuple(chunk) for chunk in starts.reshape(100, 100)}) == 100
    counts = np.bincount(starts, minlength=10)  # 10 starts, 1000 each expected
    assert len(counts) == 10
    assert ((counts - 1000) ** 2 / 1000).sum() < 28  # chi-square, 9 degrees of freedom, p = 0.001


def test_the_draws_never_change():
    """A resumed run must see the batches of the run that was interrupted, also after an upgrade."""
    assert Batches(np.arange(1000), 4, 8, seed=3).at(5)["input_ids"][:, 0].tolist() == [15, 143, 329, 561]


@given(st.integers(2, 60), st.integers(2, 9), st.integers(1, 4))
def test_evaluation_predicts_every_token_but_the_first_exactly_once(n, block, size):
    predicted = []
    whole = []
    for batch in eval_windows(np.arange(n, dtype=np.uint16), block, size):
        ids = batch["input_ids"]
        assert ids.shape[0] <= size
        assert 2 <= ids.shape[1] <= block
        assert ids.dtype == np.int64
        assert (np.diff(ids) == 1).all()
        np.testing.assert_array_equal(batch["labels"], ids)
        predicted += ids[:, 1:].ravel().tolist()
        whole += [len(ids)] * (ids.shape[1] == block)
    assert predicted == list(range(1, n))
    assert set(whole[:-1]) <= {size}  # no batch but the last of the whole windows is smaller than asked for


@given(st.integers(2, 200), st.integers(2, 9), st.integers(1, 4), st.integers(1, 40))
def test_a_limit_takes_windows_from_all_over_the_text(n, block, size, limit):
    everything = [row.tolist() for batch in eval_windows(np.arange(n), block, size) for row in batch["input_ids"]]
    some = [row.tolist() for batch in eval_windows(np.arange(n), block, size, limit) for row in batch["input_ids"]]
    assert len(some) == min(limit, len(everything))
    positions = [everything.index(row) for row in some]
    gaps = np.diff(positions)
    assert (gaps > 0).all()
    assert len(everything) - positions[-1] <= -(-len(everything) // limit)
    assert not len(gaps) or gaps.max() - gaps.min() <= 1


def test_text_that_is_too_short_says_how_long_it_is():
    with pytest.raises(
        DataError, match="is 5 tokens long, shorter than one block of 6: lower the block size to at most 5"
    ):
        Batches(np.arange(5), 1, 6)
    assert Batches(np.arange(5), 2, 5).at(0)["input_ids"].tolist() == [[0, 1, 2, 3, 4]] * 2
    with pytest.raises(DataError, match="held-out text is 1 tokens long"):
        eval_windows(np.arange(1), 4, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Batches(np.arange(9), 0, 4), "batch_size"),
        (lambda: Batches(np.arange(9), 1, 1), "block_size"),
        (lambda: Batches(np.arange(9), 1, 4, seed=-1), "seed"),
        (lambda: eval_windows(np.arange(9), 1, 1), "block_size"),
        (lambda: eval_windows(np.arange(9), 4, 0), "batch_size"),
        (lambda: eval_windows(np.arange(9), 4, 1, limit=0), "limit"),
    ],
)
def test_sizes_out_of_range_are_named(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
