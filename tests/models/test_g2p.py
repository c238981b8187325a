"""The trained weights of g2p-en pronounce as they do in the package's own NumPy."""

import importlib.util
import sys
import types

import numpy as np
import pytest

from tinyllm.errors import CheckpointError
from tinyllm.models import g2p

WORDS = ["tinyllm", "perplexity", "activationist", "transformer", "shakespeare", "numba", "qzx", "a", "don't"]


@pytest.fixture
def g2p_file():
    path = g2p.installed_weights()
    if path is None:
        pytest.skip("g2p-en is not installed")
    return path


@pytest.fixture
def theirs(g2p_file, monkeypatch):
    """The package's class without its dictionaries, which its import would download: `predict` needs the weights."""
    for name in ("nltk", "nltk.corpus", "nltk.tokenize", "g2p_en", "g2p_en.expand"):
        module = types.ModuleType(name)
        module.__path__ = []
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules["nltk"].pos_tag = sys.modules["nltk.corpus"].cmudict = None
    sys.modules["nltk"].data = types.SimpleNamespace(find=lambda name: name)
    sys.modules["nltk.tokenize"].TweetTokenizer = lambda: types.SimpleNamespace(tokenize=str.split)
    sys.modules["g2p_en.expand"].normalize_numbers = str
    spec = importlib.util.spec_from_file_location("g2p_en.g2p", g2p_file.parent / "g2p.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "g2p_en.g2p", module)
    module.__spec__.loader.exec_module(module)
    monkeypatch.setattr(module.G2p, "__init__", lambda self: None)
    package = module.G2p()
    package.graphemes, package.phonemes = list(g2p.GRAPHEMES), list(g2p.PHONEMES)
    package.g2idx = {g: i for i, g in enumerate(package.graphemes)}
    package.idx2p = dict(enumerate(package.phonemes))
    package.load_variables()
    return package


@pytest.mark.peers
def test_words_sound_as_in_the_package(g2p_file, theirs):
    model = g2p.load_g2p(g2p_file)
    for word in WORDS:
        assert g2p.pronounce(model, word) == theirs.predict(word)
    assert g2p.pronounce(model, "Hello") == ["HH", "EH1", "L", "OW0"]


@pytest.mark.peers
def test_scores_equal_those_of_the_package(g2p_file, theirs):
    model = g2p.load_g2p(g2p_file, dtype=np.float64)
    word = "perplexity"
    states = theirs.gru(
        theirs.encode(word), len(word) + 1, theirs.enc_w_ih, theirs.enc_w_hh, theirs.enc_b_ih, theirs.enc_b_hh
    )
    ids = [theirs.g2idx[letter] for letter in word] + [2]
    np.testing.assert_allclose(model.encode([ids]).data, states, atol=1e-5)


def test_phonemes_are_those_of_the_arpabet():
    assert len(g2p.PHONEMES) == 74
    assert len(g2p.GRAPHEMES) == 29
    assert g2p.PHONEMES[4:8] == ("AA0", "AA1", "AA2", "AE0")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 nothing")
    np.savez(tmp_path / "b.npz", enc_emb=np.zeros((29, 4)))
    for name in ("a.npz", "b.npz", "missing.npz"):
        with pytest.raises(CheckpointError, match=name):
            g2p.load_g2p(tmp_path / name)
