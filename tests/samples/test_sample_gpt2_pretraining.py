"""C-002c: the trainer trains, block and context are one, and what it leaves can be loaded."""

import json

import numpy as np
import pytest

import tinyllm as tl
from tinyllm.errors import ConfigError
from tinyllm.samples import gpt2_pretraining
from tinyllm.samples.material import excerpt
from tinyllm.text import ByteLevelBPE, load_tokenizer

SMALL = {
    "characters": 6000, "n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 16, "train_batch_size": 8, "lr": 1e-2,
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(prose):
    texts = (document.text for document in prose.documents[:5])
    return ByteLevelBPE.train(texts, vocab_size=300, special_tokens=["<|endoftext|>"])


def test_c002c_learns(prose, tokenizer, capsys):
    trained = gpt2_pretraining(prose, tokenizer=tokenizer, **SMALL)
    assert trained.loss_after < trained.loss_before - 0.5
    assert abs(trained.loss_before - np.log(300)) < 0.1  # it begins knowing nothing
    assert f"after {trained.steps} steps" in capsys.readouterr().out


def test_c002c_block_is_the_context(prose, tokenizer):
    """Every position is trained: none keeps the vector it began with."""
    model = gpt2_pretraining(prose, tokenizer=tokenizer, **SMALL, num_train_epochs=1).model
    assert model.config.n_positions == SMALL["block_size"]
    fresh = tl.models.GPT(model.config, rng=np.random.default_rng(0))
    moved = np.abs(model.transformer.wpe.weight.data - fresh.transformer.wpe.weight.data).max(axis=1)
    assert (moved[:-1] > 1e-3).all()  # the last position of a block predicts nothing that is in it


def test_c002c_parts_documents(prose, tokenizer, capsys):
    """An end-of-text token stands behind each document, and the number of steps is that of the epochs."""
    steps = gpt2_pretraining(prose, tokenizer=tokenizer, **SMALL).steps
    documents = excerpt(prose, 6000).documents
    tokens = sum(len(tokenizer.encode(document.text)) + 1 for document in documents)
    assert f" {tokens:,} tokens\n" in capsys.readouterr().out
    assert steps == 3 * -(-tokens // (8 * 16))


def test_c002c_trains_its_own_tokenizer(prose):
    trained = gpt2_pretraining(prose, **{**SMALL, "characters": 1500}, num_train_epochs=1)
    assert trained.tokenizer.token_to_id("<|endoftext|>") == trained.model.config.eos_token_id
    assert trained.model.config.vocab_size == trained.tokenizer.vocab_size > 257


def test_c002c_leaves_a_folder_to_go_on_from(prose, tokenizer, tmp_path):
    trained = gpt2_pretraining(prose, tokenizer=tokenizer, output_dir=tmp_path / "results", **SMALL)
    assert {"config.json", "model.safetensors", "tokenizer.json", "checkpoint.safetensors", "metrics.jsonl"} <= {
        file.name for file in (tmp_path / "results").iterdir()
    }
    log = [json.loads(line) for line in (tmp_path / "results" / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log if "loss" in record] == list(range(1, trained.steps + 1))
    loaded = tl.models.from_pretrained(tmp_path / "results")
    ids = np.array([[1, 2, 3]])
    np.testing.assert_array_equal(loaded(ids).logits.data, trained.model.eval()(ids).logits.data)

    gone_on = gpt2_pretraining(
        prose, tokenizer=load_tokenizer(tmp_path / "results"), pretrained=tmp_path / "results", **SMALL
    )
    assert gone_on.loss_before == pytest.approx(trained.loss_after, abs=0.2)
    assert gone_on.loss_after < gone_on.loss_before


def test_c002c_pretrained_needs_its_tokenizer(prose, tmp_path):
    with pytest.raises(ConfigError, match="its own tokenizer"):
        gpt2_pretraining(prose, pretrained=tmp_path)


@pytest.mark.slow
def test_c002c_at_the_documents_sizes(prose, data_folder):
    """GPT-2 itself, 124 M parameters less the 896 positions that no block reaches, with its own tokens."""
    folder = data_folder / "gpt2_bpe"
    tokenizer = ByteLevelBPE.from_pair(folder / "encoder.json.gz", folder / "vocab.bpe.gz")
    trained = gpt2_pretraining(prose, characters=6000, tokenizer=tokenizer)
    assert trained.model.num_parameters() == 124_439_808 - 896 * 768
    assert trained.steps == 3 * 3
    assert trained.loss_after < trained.loss_before - 1
