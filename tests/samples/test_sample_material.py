"""What the samples share: the excerpt of a corpus, the loader, the encoder layer; and the names of the room."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyllm as tl
from tinyllm import nn, samples
from tinyllm.data import Corpus, Document
from tinyllm.formulas import all_formulas
from tinyllm.formulas.block import block_post_norm
from tinyllm.samples.layer import EncoderLayer
from tinyllm.samples.material import excerpt, next_token_loader
from tinyllm.text import clean


def test_every_name_is_a_function_of_its_file():
    for name in samples.__all__:
        function = getattr(samples, name)
        assert function.__name__ == name
        assert function.__module__ == f"tinyllm.samples.{samples._HOMES[name]}"
    assert dir(samples) == sorted(samples.__all__)
    with pytest.raises(AttributeError, match="no attribute 'training'"):
        samples.training  # noqa: B018


def test_the_room_is_loaded_when_it_is_named():
    code = "import sys, tinyllm; tinyllm.samples; print([m for m in sys.modules if m.startswith('tinyllm.samples.')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_every_file_says_what_it_corrects():
    named = {name for entry in all_formulas() for name in entry.library if name.startswith("tinyllm.samples.")}
    for name in samples.__all__:
        entry = next(e for e in all_formulas() if f"tinyllm.samples.{name}" in e.library and e.kind != "formula")
        text = sys.modules[getattr(samples, name).__module__].__doc__
        owners = [e.id for e in all_formulas() if f"tinyllm.samples.{name}" in e.library]
        assert any(text.startswith(f"{id}:") for id in owners)
        assert any(document.split("_")[1].removesuffix(".txt") in text for document, _ in entry.where)
        assert "wrong" in text
        assert f"tinyllm.samples.{name}" in named


def test_excerpt_is_the_beginning(prose):
    part = excerpt(prose, 3000)
    assert part.characters == 3000
    whole = [clean(document.text) for document in prose.documents[: len(part.documents)]]
    assert [document.text for document in part.documents[:-1]] == whole[:-1]
    assert whole[-1].startswith(part.documents[-1].text)
    assert len(excerpt(prose, 10**9).documents) == len(prose.documents)


def test_excerpt_reads_a_file(tmp_path):
    (tmp_path / "train.txt").write_text("<p>Two cats</p> sat.", encoding="utf-8")
    assert [d.text for d in excerpt(tmp_path / "train.txt", 100).documents] == [clean("<p>Two cats</p> sat.")]
    nothing = Corpus("x", (Document("", "a"), Document("ab", "b")))
    assert [d.source for d in excerpt(nothing, 5).documents] == ["b"]


@given(st.integers(2, 60), st.integers(1, 4), st.integers(1, 9), st.integers(0, 3))
def test_loader_targets_each_token_once(n, batch_size, block_size, seed):
    ids = np.arange(n, dtype=np.uint16)
    seen = []
    for src, tgt in next_token_loader(ids, batch_size, block_size, np.random.default_rng(seed)):
        assert src.shape == tgt.shape
        assert src.shape[0] <= batch_size
        np.testing.assert_array_equal(tgt, src + 1)  # one place further
        seen += tgt.reshape(-1).tolist()
    assert sorted(seen) == list(range(1, (n - 1) // block_size * block_size + 1))


def test_loader_shuffles():
    ids = np.arange(100)
    first = [src[0, 0] for src, _ in next_token_loader(ids, 1, 5, np.random.default_rng(0))]
    assert first != sorted(first)


def test_layer_is_the_formula(rng):
    """F-BLOCK with one head, loop against module."""
    C, F, T = 4, 6, 5
    layer = EncoderLayer(C, 1, F, rng=rng)
    layer.eval()
    for _, p in layer.named_parameters():
        p.assign_(rng.normal(size=p.shape))
    x = rng.normal(size=(T, C)).astype(np.float32)
    q, k, v = layer.attention.in_proj_weight.numpy().reshape(3, C, C)
    bq, bk, bv = layer.attention.in_proj_bias.numpy().reshape(3, C)
    out = layer.attention.out_proj

    def self_attention(X):
        from tinyllm.formulas.attention import attention

        X = np.array(X)
        return (attention(X @ q.T + bq, X @ k.T + bk, X @ v.T + bv) @ out.weight.numpy().T + out.bias.numpy()).tolist()

    def feed_forward(X):
        up, down = layer.feed_forward.up, layer.feed_forward.down
        hidden = np.maximum(np.array(X) @ up.weight.numpy().T + up.bias.numpy(), 0)
        return (hidden @ down.weight.numpy().T + down.bias.numpy()).tolist()

    del block_post_norm, self_attention, feed_forward
