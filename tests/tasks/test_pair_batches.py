"""Batches of pairs: padded at the end, drawn from the seed and the step alone, each pair once in an evaluation."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.tasks.batches import PairBatches, all_batches, by_length, collate

IDS = st.lists(st.integers(1, 9), min_size=1, max_size=6)
PAIRS = st.lists(st.tuples(IDS, IDS), min_size=1, max_size=30)


@given(pairs=PAIRS)
def test_collating_loses_nothing_and_adds_only_padding(pairs):
    batch = collate(pairs, pad=0)
    for i, (source, target) in enumerate(pairs):
        assert batch["input_ids"][i][batch["attention_mask"][i] == 1].tolist() == source
        assert batch["labels"][i][batch["labels"][i] != -100].tolist() == target
        assert (batch["attention_mask"][i][: len(source)] == 1).all()  # the padding is at the end
    assert batch["input_ids"].shape[1] == max(len(source) for source, _ in pairs)


@given(pairs=PAIRS, size=st.integers(1, 8), limit=st.integers(1, 40))
def test_an_evaluation_has_every_pair_once_or_some_evenly(pairs, size, limit):
    def rows(batches):
        return sorted(tuple(row[row != -100]) for batch in batches for row in batch["labels"])

    assert rows(all_batches(pairs, size, 0)) == sorted(tuple(target) for _, target in pairs)
    some = rows(all_batches(pairs, size, 0, limit))
    assert len(some) == min(limit, len(pairs))
    assert all(len(batch["labels"]) <= size for batch in all_batches(pairs, size, 0))


@given(pairs=PAIRS, size=st.integers(1, 8), seed=st.integers(0, 2**63 - 1), step=st.integers(0, 1000))
def test_a_batch_is_a_function_of_seed_and_step(pairs, size, seed, step):
    one, two = (PairBatches(pairs, size, seed, 0).at(step) for _ in range(2))
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])
    assert len(one["labels"]) == min(size, len(pairs))


def test_neighbours_in_length_are_together_and_every_pair_is_drawn():
    rng = np.random.default_rng(0)
    pairs = [([1] * n, [2, n]) for n in rng.permutation(np.arange(1, 101)).tolist()]
    assert [len(pairs[i][0]) for i in by_length(pairs)] == list(range(1, 101))
    batches = PairBatches(pairs, 8, 0, 0)
    drawn = [batches.at(step)["attention_mask"].sum(axis=1) for step in range(400)]
    assert set(np.concatenate(drawn)) == set(range(1, 101))
    assert np.mean([lengths.max() - lengths.min() for lengths in drawn if lengths.max() - lengths.min() < 60]) < 32
