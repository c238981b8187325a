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
from tinyllm.formulas import get
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
    """Its docstring begins with the id of a registry entry that names it, and has the document and the faults."""
    for name in samples.__all__:
        text = sys.modules[getattr(samples, name).__module__].__doc__
        entry = get(text.split(":")[0])
        assert f"tinyllm.samples.{name}" in entry.library
        assert entry.where[0][0] in text
        assert "section" in text
        assert "What is wrong" in text


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
    """F-BLOCK, its loops with the layer's own parts."""
    layer = EncoderLayer(6, 2, 9, rng=rng)
    layer.eval()
    for p in layer.parameters():
        p.assign_(rng.normal(size=p.shape))
    x = rng.normal(size=(2, 5, 6)).astype(np.float32)

    def loops_of(part):
        return lambda rows: part(tl.tensor(np.array(rows, np.float32)[None])).numpy()[0].astype(float).tolist()

    parts = [loops_of(part) for part in (layer.attention, layer.feed_forward, layer.norm1, layer.norm2)]
    for text, ours in zip(x, layer(tl.tensor(x)).numpy(), strict=True):
        np.testing.assert_allclose(ours, block_post_norm(text.tolist(), *parts), rtol=1e-4, atol=1e-5)


def test_layer_drops_in_all_four_places(rng):
    layer = EncoderLayer(4, 2, 8, dropout=0.3, rng=rng)
    drops = [m.p for _, m in layer.named_modules() if isinstance(m, nn.Dropout)]
    assert drops == [0.3, 0.3]  # in the feed-forward, and the one behind both halves
    assert layer.attention.dropout == 0.3
    x = tl.tensor(rng.normal(size=(1, 3, 4)).astype(np.float32))
    assert not np.array_equal(layer(x).data, layer(x).data)
    layer.eval()
    np.testing.assert_array_equal(layer(x).data, layer(x).data)
