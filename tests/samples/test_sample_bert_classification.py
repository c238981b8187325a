"""C-002d: each fault of the original is mended, with a small BERT in the place of the large one."""

import numpy as np
import pytest

from tinyllm.data import Corpus, Document
from tinyllm.models import BERT, BERTConfig, from_pretrained
from tinyllm.samples import bert_classification
from tinyllm.text import WordPiece, load_tokenizer

TOPICS = {"sports": "ball goal team", "politics": "vote law party", "economy": "bank price market", "rest": "x"}


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(0)
    documents = []
    for group, words in TOPICS.items():
        texts = [" ".join(rng.choice(words.split(), size=6)) for _ in range(40 if group != "rest" else 3)]
        documents += [Document(text, f"{group}:{i}", group) for i, text in enumerate(texts)]
    return Corpus("news", tuple(documents))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, corpus):
    path = tmp_path_factory.mktemp("bert")
    tok = WordPiece.train([document.text for document in corpus.documents], vocab_size=100, min_frequency=1)
    tok.save(path)
    config = BERTConfig(
        vocab_size=tok.vocab_size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    BERT(config, rng=np.random.default_rng(0)).save_pretrained(path)
    return path


def test_c002d_learns_three_classes(folder, corpus, tmp_path, capsys):
    tuned = bert_classification(folder, corpus, lr=1e-2, output_dir=tmp_path / "results")
    assert tuned.classes == ("sports", "politics", "economy")  # not the group of three documents
    assert tuned.model.classifier.weight.shape == (3, 16)  # the documents' head would have two
    assert tuned.accuracy_before < 0.9 < tuned.accuracy
    assert "108 texts of sports, politics, economy; 12 held out" in capsys.readouterr().out
    again = from_pretrained(tmp_path / "results")
    assert again.config.labels == tuned.classes
    ids = load_tokenizer(tmp_path / "results").encode("vote party law")
    assert again([ids]).logits.data.argmax() == 1


def test_c002d_the_body_is_the_pre_trained_one(folder, corpus):
    tuned = bert_classification(folder, corpus, num_train_epochs=1, lr=0.0)
    body = BERT.from_pretrained(folder).state_dict()
    for name, value in tuned.model.bert.state_dict().items():
        np.testing.assert_array_equal(value, body[name])
