"""Rotary positions equal those of Llama in transformers."""

import numpy as np
import pytest

import tinyllm as tl

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch", reason="PyTorch is not installed")
llama = pytest.importorskip("transformers.models.llama.modeling_llama", reason="transformers is not installed")


def test_equals_llama(rng):
    q, k = rng.normal(size=(2, 2, 3, 7, 10))  # (B, H, T, D) each
    angles = np.arange(5, 12)[:, None] / 500.0 ** (np.arange(0, 10, 2) / 10)  # (T, D / 2)
    cos, sin = (torch.tensor(np.tile(f(angles), 2)[None]) for f in (np.cos, np.sin))  # (1, T, D)
    expected = llama.apply_rotary_pos_emb(torch.tensor(q), torch.tensor(k), cos, sin)
    for x, y in zip((q, k), expected, strict=True):
        np.testing.assert_allclose(tl.nn.rotary(x, 500.0, offset=5).data, y.numpy(), rtol=1e-12, atol=1e-12)
