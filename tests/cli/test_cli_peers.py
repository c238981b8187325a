"""A run folder is a folder of Hugging Face's: transformers reads the model and the tokenizer from it."""

from pathlib import Path

import numpy as np
import pytest

import tinyllm as tl
from tinyllm import cli

pytestmark = pytest.mark.peers

TEXT = "the cat sat on the mat; a dog ran after it. " * 60


@pytest.mark.parametrize("kind", ["char", "bpe"])
@pytest.mark.filterwarnings("ignore")
def test_transformers_reads_what_tinyllm_train_wrote(tmp_path: Path, kind):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    (tmp_path / "cats.txt").write_text(TEXT)
    run = tmp_path / "run"
    flags = [
        "--n-layer",
        "2",
        "--n-head",
        "2",
        "--n-embd",
        "16",
        "--block-size",
        "16",
        "--batch-size",
        "4",
        "--steps",
        "5",
    ]
    argv = [
        "train",
        "--data",
        str(tmp_path / "cats.txt"),
        "--out",
        str(run),
        "--tokenizer",
        kind,
        "--vocab-size",
        "300",
    ]
    assert cli.main([*argv, *flags]) == 0
    tokenizer = transformers.AutoTokenizer.from_pretrained(run)
    ids = tokenizer("the cat ran")["input_ids"]
    assert ids == tl.text.load_tokenizer(run).encode("the cat ran")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(run).eval()
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits.numpy()
    ours = tl.models.GPT.from_pretrained(run)
    np.testing.assert_allclose(ours(np.array([ids])).logits.numpy(), expected, rtol=0, atol=1e-5)
