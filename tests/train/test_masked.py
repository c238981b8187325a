"""Training a BERT: what it is asked, what it is held against, and that it learns."""

import json

import numpy as np
import pytest

from tinyllm.errors import TokenizerError
from tinyllm.models import BERTConfig, BERTForMaskedLM, from_pretrained
from tinyllm.optim import AdamW
from tinyllm.text import CharTokenizer, WordPiece, load_tokenizer
from tinyllm.train import Settings, evaluate, train
from tinyllm.train.masked import HiddenTokens
from tinyllm.train.trainer import Plan, Trainer, mean_loss

TEXT = "the cat sat on the mat and the dog sat on the log . " * 60


@pytest.fixture(scope="module")
def tok():
    return WordPiece.train([TEXT], vocab_size=60)


def objective(tok, T=16, **settings):
    config = BERTConfig(
        vocab_size=tok.vocab_size,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=T,
        initializer_range=0.15,
    )
    return HiddenTokens(BERTForMaskedLM(config, rng=np.random.default_rng(0)), tok, T, **settings)


def tokens_of(tok, text=TEXT):
    return np.array(tok.encode(text, add_special_tokens=False), np.uint16)


def test_in_training_tokens_are_hidden_as_in_the_paper_and_held_out_ones_all_by_the_mask(tok):
    own = objective(tok)
    tokens = tokens_of(tok)
    batch = own.batches(tokens, 64, seed=0).at(0)
    chosen = batch["labels"] != -100
    assert own.count(batch) == chosen.sum()
    assert 0.5 < (batch["input_ids"][chosen] == tok.mask_token_id).mean() < 0.97
    for batch in own.windows(tokens, 8):
        chosen = batch["labels"] != -100
        assert (batch["input_ids"][chosen] == tok.mask_token_id).all()
        assert (batch["input_ids"][:, 0] == tok.cls_token_id).all()


def test_it_learns_what_neighbours_tell(tok):
    own, tokens = objective(tok), tokens_of(tok)
    trainer = Trainer(
        own,
        own.batches(tokens, 32, seed=0),
        AdamW(list(own.model.parameters()), lr=6e-3),
        Plan(steps=100, rate=lambda t: 6e-3 * min(1.0, (t + 1) / 20), count=own.count, eval_every=1000),
    )
    trainer.run()
    own.eval()
    loss = mean_loss(own, own.windows(tokens, 16), own.count)
    baselines = own.judged_baselines(tokens, tokens)
    assert baselines["both neighbours"][0] < baselines["unigram"][0] < baselines["uniform"][0]
    assert loss < 0.7 * baselines["unigram"][0]
    assert own.accuracy(tokens, 16) > baselines["unigram"][1]
    np.testing.assert_allclose(own.also(tokens, tokens)["accuracy"], own.accuracy(tokens, 16))
    sample = own.sample(tok, 10, seed=(0, 0))
    assert sample
    assert sample == own.sample(tok, 10, seed=(0, 0))


def test_whole_words_need_to_know_where_words_begin(tok):
    assert objective(tok, whole_words=True).masking.goes_on.sum() == sum(
        tok.id_to_token(i).startswith("##") for i in range(tok.vocab_size)
    )
    letters = CharTokenizer.train(["abc"], special_tokens=["[MASK]"])
    with pytest.raises(TokenizerError, match="WordPiece"):
        HiddenTokens(None, letters, 8, whole_words=True)
    with pytest.raises(TokenizerError, match=r"no \[MASK\]"):
        HiddenTokens(None, CharTokenizer.train(["abc"]), 8)


def test_a_run_from_text_to_folder(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT * 3)
    settings = Settings.make(
        {
            "model": "bert",
            "data": str(tmp_path / "text.txt"),
            "vocab_size": 257,
            "n_layer": 1,
            "n_embd": 16,
            "n_head": 2,
            "block_size": 16,
            "steps": 4,
            "eval_every": 2,
            "sample_tokens": 5,
            "threads": 1,
        }
    )
    assert settings.tokenizer == "wordpiece"
    result = train(settings, tmp_path / "run")
    assert result["model"] == "BERTForMaskedLM"
    assert set(result["baseline_accuracies"]) == set(result["baselines"])
    assert 0 <= result["accuracy"] <= 1
    assert type(from_pretrained(tmp_path / "run")) is BERTForMaskedLM
    assert type(load_tokenizer(tmp_path / "run")) is WordPiece
    np.testing.assert_allclose(evaluate(tmp_path / "run")["loss"], result["loss"], rtol=1e-5)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["architectures"] == ["BertForMaskedLM"]


@pytest.mark.parametrize("tokenizer", ["char", "bpe"])
def test_other_tokenizers_get_a_mask(tmp_path, tokenizer):
    (tmp_path / "text.txt").write_text(TEXT)
    sizes = {"n_layer": 1, "n_embd": 8, "n_head": 1, "block_size": 8, "steps": 1, "sample_tokens": 2, "threads": 1}
    settings = {"model": "bert", "data": str(tmp_path / "text.txt"), "tokenizer": tokenizer, "vocab_size": 300}
    train(Settings.make(settings | sizes), tmp_path / "run")
    assert load_tokenizer(tmp_path / "run").mask_token_id is not None
