"""Telling classes: a run from texts to predictions, what freezes, what weighs, and what a label unseen does."""

import numpy as np
import pytest

from tinyllm import cli, models
from tinyllm.data.labelled import Example, Labelled
from tinyllm.errors import CheckpointError, ConfigError, DataError
from tinyllm.tasks.classification import ClassificationJob
from tinyllm.tasks.predict import Classifier
from tinyllm.tasks.topics import PACKAGES, chatterbot_news, stdlib_packages
from tinyllm.train import Settings, resume, train
from tinyllm.train.run import make_trainer

SMALL = {
    "task": "classification", "n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 16, "vocab_size": 300,
    "batch_size": 8, "steps": 60, "eval_every": 30, "lr": 1e-2, "dropout": 0.0, "sample_tokens": 0, "threads": 1,
    "held_out": 0.3,
}  # fmt: skip
FRUIT, METAL = ["apple", "pear", "plum", "cherry", "grape"], ["iron", "zinc", "lead", "copper", "tin"]


def examples(n=60):
    rng = np.random.default_rng(0)
    words = {"fruit": FRUIT, "metal": METAL}
    return [
        Example(" ".join(rng.choice(words[label], 4)) + f" {i}", label)
        for i, label in enumerate(["fruit", "metal"] * (n // 2))
    ]


def job(train=None, held_out=None, **settings):
    train = examples() if train is None else train
    held_out = examples(8) if held_out is None else held_out
    return ClassificationJob(Settings.make(SMALL | settings), Labelled("texts", tuple(train)), train, held_out)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on a file."""
    folder = tmp_path_factory.mktemp("classes")
    data = folder / "texts.tsv"
    data.write_text("text\tlabel\n" + "\n".join(f"{e.text}\t{e.label}" for e in examples()), encoding="utf-8")
    return folder, data, train(Settings.make(SMALL | {"data": str(data)}), folder / "run")


def test_a_run_learns_and_its_folder_predicts(run):
    folder, data, result = run
    assert result["metrics"]["accuracy %"] == 100
    assert result["baselines"]["commonest label"]["accuracy %"] < 90
    assert (folder / "run" / "confusion.png").stat().st_size > 5000
    assert np.sum(result["confusions"]["counts"]) == result["sources"]
    classifier = Classifier.open(folder / "run")
    fruit, metal = classifier.predict(["plum and grape", "tin or zinc"])
    assert (fruit.label, metal.label) == ("fruit", "metal")
    assert sum(fruit.probabilities.values()) == pytest.approx(1)
    report, notes = classifier.report(data)
    assert report.averages["accuracy"][0] > 0.9
    assert notes == []


def test_a_resumed_run_is_the_run(run, tmp_path):
    settings = SMALL | {"data": str(run[1]), "eval_every": 10, "warmup": 0, "final_lr": SMALL["lr"], "freeze": 1}
    train(Settings.make(settings | {"steps": 20, "unfreeze": 15}), tmp_path / "whole")
    train(Settings.make(settings | {"steps": 10, "unfreeze": 15}), tmp_path / "half")
    assert resume(tmp_path / "half", steps=20)["steps"] == 20
    whole, half = (Classifier.open(tmp_path / name).model.state_dict() for name in ("whole", "half"))
    for name, array in whole.items():
        np.testing.assert_array_equal(array, half[name], err_msg=name)


def test_a_label_seen_only_at_prediction_is_wrong_and_said(run, tmp_path):
    path = tmp_path / "new.csv"
    path.write_text("text,label\nplum grape,fruit\noak ash,wood\n")
    report, notes = Classifier.open(run[0] / "run").report(path)
    assert "'wood': no label of the training data (fruit, metal)" in notes[0]
    assert report.averages["accuracy"][0] == 0.5
    found = job(held_out=[*examples(8), Example("oak", "wood")])
    assert "label 'wood', which no training text has" in found.about()
    assert found.judge({})["metrics"]["accuracy %"] < 100


def test_starting_from_another_classifier_keeps_its_body(run):
    folder, _, _ = run
    new = job(start=str(folder / "run"))
    old = Classifier.open(folder / "run").model
    np.testing.assert_array_equal(
        new.model.bert.embeddings.word_embeddings.weight.numpy(), old.bert.embeddings.word_embeddings.weight.numpy()
    )


def test_frozen_parts_stay_until_they_are_unfrozen():
    found = job(freeze=2, unfreeze=3, steps=5, eval_every=5)
    trainer = make_trainer(found)
    before = [[p.numpy() for p in part] for part in found._parts]
    head = found.model.classifier.weight.numpy()

    def moved():
        return [any((p.numpy() != q).any() for p, q in zip(part, old, strict=True))
                for part, old in zip(found._parts, before, strict=True)]  # fmt: skip

    for _ in range(3):
        trainer.step()
    assert moved() == [False, False]
    assert (found.model.classifier.weight.numpy() != head).any()
    trainer.step()
    assert moved() == [True, True]
    with pytest.raises(ConfigError, match="2 parts below its head"):
        job(freeze=3)


def test_lower_parts_move_at_a_share_of_the_rate():
    optimizer = job(layer_decay=0.5).optimizer()
    assert sorted(set(optimizer.shares), reverse=True) == [1.0, 0.5, 0.25]  # head and pooler, block, embeddings
    new = job(lr=0.5, head_lr=4.5)
    optimizer = new.optimizer()
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(new.model.parameters()))
    fast = [g["params"] for g, share in zip(optimizer.param_groups, optimizer.shares, strict=True) if share == 9]
    assert fast == [[new.model.classifier.weight], [new.model.classifier.bias]]
    with pytest.raises(ConfigError, match="head_lr rises and falls with lr, which is 0"):
        job(lr=0.0, head_lr=1.0).optimizer()


def test_what_a_classifier_reads_is_what_its_start_was_trained_with(tmp_path):
    models.BERT(job().model.config, rng=np.random.default_rng(0)).save_pretrained(tmp_path)
    job().tokenizer.save(tmp_path)

    def pooling(**settings):
        return job(**settings).model.config.classifier_pooling

    assert pooling() == pooling(start=str(tmp_path)) == "cls"
    (tmp_path / "1_Pooling").mkdir()  # as sentence-transformers says it
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    assert pooling(start=str(tmp_path)) == pooling(classifier_pooling="mean") == "mean"
    assert pooling(start=str(tmp_path), classifier_pooling="cls") == "cls"


def test_a_run_that_reads_the_mean_goes_on_reading_it(tmp_path, run):
    settings = SMALL | {"data": str(run[1]), "classifier_pooling": "mean", "head_lr": 0.03}
    result = train(Settings.make(settings), tmp_path / "mean")
    assert result["metrics"]["accuracy %"] == 100
    model = Classifier.open(tmp_path / "mean").model
    assert (model.config.classifier_pooling, model.bert.pooler) == ("mean", None)
    assert job(start=str(tmp_path / "mean")).model.config.classifier_pooling == "mean"


def test_balanced_classes_weigh_alike():
    rare = [e for e in examples() if e.label == "fruit"][:6] + [e for e in examples() if e.label == "metal"]
    weights = job(train=rare, class_weights="balanced").problem.weights
    np.testing.assert_allclose(weights, [36 / 12, 36 / 60])
    assert np.mean(job(train=rare).problem.weights) == 1


def test_early_stopping_watches_texts_set_aside():
    found = job(patience=1)
    assert found.watched == "validation"
    assert not {e.text for e in found.train} & {e.text for e in found.validation}
    assert {e.text for e in found.validation} <= {e.text for e in examples()}


def test_long_texts_are_cut_and_said():
    found = job(train=[*examples(), Example("pear " * 50, "fruit")])
    assert "1 training texts are longer than 16 tokens" in found.about()
    assert max(len(ids) for ids, _ in found.rows(found.train)) == 16


def test_a_long_text_is_cut_and_said_at_prediction_too(run, tmp_path, capsys):
    folder = str(run[0] / "run")
    assert cli.main(["predict", folder, "plum", "pear " * 50]) == 0
    assert capsys.readouterr().err == "warning: text 2 is longer than 16 tokens: cut there\n"
    path = tmp_path / "long.csv"
    path.write_text(f"text,label\n{'pear ' * 50},fruit\ntin,metal\n")
    assert "1 texts are longer than 16 tokens" in Classifier.open(folder).report(path)[1][0]


def test_what_cannot_be_classified_is_refused(tmp_path, run):
    with pytest.raises(DataError, match="two or more"):
        job(train=[Example("a", "x"), Example("b", "x")])
    with pytest.raises(ConfigError, match="model 'bert'"):
        train(Settings.make(SMALL | {"model": "gpt"}), tmp_path / "x")
    with pytest.raises(DataError, match="text 2 of 2 is empty"):
        Classifier.open(run[0] / "run").predict(["a", " "])
    with pytest.raises(CheckpointError, match="no such folder"):
        Classifier.open(tmp_path / "nothing")


def test_docstrings_have_the_names_of_packages():
    data = stdlib_packages()
    assert len(data.labels) == PACKAGES
    assert "asyncio" in data.labels or "email" in data.labels
    assert min(len(e.text) for e in data.examples) > 30


def test_the_documents_classes_are_learnt_from_dialogues(tmp_path):
    pytest.importorskip("chatterbot_corpus", reason="chatterbot-corpus is not installed")
    pytest.importorskip("yaml", reason="PyYAML is not installed")
    data = chatterbot_news()
    assert data.labels == ["economy", "politics", "sports"]
    assert len(data.examples) > 50
    result = train(Settings.make(SMALL | {"data": "chatterbot-news", "block_size": 48}), tmp_path / "news")
    assert result["loss"] < np.log(3)
    assert Classifier.open(tmp_path / "news").labels == data.labels
