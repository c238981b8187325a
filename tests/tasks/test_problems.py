"""Several labels to a text, and numbers: what they become in a batch, what a run learns, what is refused."""

import json
import shutil

import numpy as np
import pytest

import tinyllm as tl
from tinyllm import cli
from tinyllm.data.labelled import Example, Labelled, read_labelled
from tinyllm.errors import ConfigError, DataError
from tinyllm.models import BERTForSequenceClassification
from tinyllm.tasks.classification import ClassificationJob, prepare_job
from tinyllm.tasks.predict import Classifier
from tinyllm.tasks.problems import MultiLabel, Regression, SingleLabel
from tinyllm.tasks.use import evaluate
from tinyllm.train import Settings

SMALL = {
    "task": "classification", "n_layer": 1, "n_head": 2, "n_embd": 32, "block_size": 16, "vocab_size": 300,
    "batch_size": 8, "steps": 200, "eval_every": 200, "lr": 5e-3, "dropout": 0.0, "sample_tokens": 0, "threads": 1,
    "held_out": 0.3,
}  # fmt: skip
MULTI, NUMBER = {"problem": "multi_label_classification"}, {"problem": "regression"}
FRUIT, METAL, OTHER = ["apple", "pear", "plum"], ["iron", "zinc", "lead"], ["the", "and", "some"]


def written(path, seed=0, n=150):
    """Texts with words of two kinds, their labels "fruit|metal", and 100 plus ten for each fruit."""
    rng = np.random.default_rng(seed)
    lines = ["text\tlabel\tprice"]
    for i in range(n):
        words = rng.choice(FRUIT + METAL + 2 * OTHER, 4)
        kinds = [k for k, members in (("fruit", FRUIT), ("metal", METAL)) if set(members) & set(words)]
        lines.append(f"{' '.join(words)} {i}\t{'|'.join(kinds)}\t{100 + 10 * sum(w in FRUIT for w in words)}")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A file of texts, and a finished run of each kind that began with a small BERT."""
    folder = tmp_path_factory.mktemp("problems")
    data = str(written(folder / "texts.tsv"))
    flags = [x for name, value in SMALL.items() if name != "task" for x in ("--" + name.replace("_", "-"), str(value))]
    start = ["train", "--task", "classification", "--data", data, "--out", str(folder / "start"), *flags]
    assert cli.main([*start, "--steps", "2", "--eval-every", "2"]) == 0
    command = ["finetune", str(folder / "start"), "--data", data, "--warmup", "10", *flags, "--out"]
    assert cli.main([*command, str(folder / "multi"), "--problem", MULTI["problem"]]) == 0
    assert cli.main([*command, str(folder / "number"), "--problem", "regression", "--label-column", "price"]) == 0
    return folder


def test_several_labels_are_learnt_predicted_and_reported(folder, capsys):
    result = evaluate(folder / "multi")
    assert result["metrics"]["micro F1 %"] > 75
    assert result["unit"] == "nats per text and label"
    found = Classifier.open(folder / "multi")
    new = written(folder / "new.tsv", 1)
    both = found.predict(["plum iron the 1"])[0]
    assert both.label == "fruit|metal"
    assert all(p > 0.5 for p in both.probabilities.values())  # each its own: they need not add up to 1
    assert cli.main(["predict", str(folder / "multi"), "--data", str(new)]) == 0
    shown = capsys.readouterr().out
    assert "micro avg" in shown
    assert shown.count("fruit") == 1
    silent = shutil.copytree(folder / "multi", folder / "silent")
    found.model.classifier.bias.assign_(np.array([-50.0, -50.0]))
    found.model.save_pretrained(silent)
    assert cli.main(["predict", str(silent), "plum"]) == 0
    assert capsys.readouterr().out.startswith("no label  (fruit 0.000, metal 0.000)")


def test_labels_in_a_column_each_pose_the_same_problem(folder, capsys):
    lines = [line.split("\t")[:2] for line in (folder / "texts.tsv").read_text().splitlines()[1:]]
    columns = folder / "columns.csv"
    rows = [f"{text},{int('fruit' in label)},{int('metal' in label)}" for text, label in lines]
    columns.write_text("\n".join(["text,fruit,metal", *rows]))
    jobs = [
        prepare_job(Settings.make(SMALL | MULTI | {"data": str(folder / "texts.tsv")})),
        prepare_job(Settings.make(SMALL | MULTI | {"data": str(columns), "label_column": "fruit,metal"})),
    ]
    assert jobs[0].labels == jobs[1].labels == ["fruit", "metal"]
    assert jobs[0].fingerprint == jobs[1].fingerprint
    command = ["predict", str(folder / "multi"), "--data", str(columns), "--label-column", "fruit,metal"]
    assert cli.main(command) == 0
    assert "micro avg" in capsys.readouterr().out


def test_numbers_are_learnt_predicted_and_reported(folder, capsys):
    found = Classifier.open(folder / "number")
    none, three = (float(p.label) for p in found.predict(["the and some the 7", "plum apple pear the 8"]))
    assert 90 < none < three - 10
    assert three < 140
    new = str(written(folder / "new.tsv", 1))
    assert cli.main(["predict", str(folder / "number"), "--data", new, "--label-column", "price"]) == 0
    words = capsys.readouterr().out.split()
    assert words[0] == "MSE"
    assert float(words[1]) < 40  # the variance is about 80
    assert float(words[3]) > 0.7
    assert cli.main(["predict", str(folder / "number"), "plum", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["predictions"][0]["probabilities"] == {}


def test_the_losses_are_those_of_the_model_itself(folder):
    for name, scale in (("multi", 1.0), ("number", None)):
        job = ClassificationJob(
            Settings.make(SMALL | (MULTI if name == "multi" else NUMBER) | {"start": str(folder / name)}),
            data := read_labelled(folder / "texts.tsv", label_column="" if name == "multi" else "price"),
            data.examples[:60],
            data.examples[60:],
        )
        batch = next(job.watched_batches())
        own = job.model.eval().loss(batch).item()
        variance = 1.0 if scale else job.problem.deviation**2
        job.objective.eval()
        assert job.objective.loss(batch).item() == pytest.approx(own / variance, rel=1e-5)


def test_a_head_is_kept_for_the_same_labels_alone(folder):
    data = read_labelled(folder / "texts.tsv", label_column="price")
    parts = data.examples[:60], data.examples[60:]
    before = BERTForSequenceClassification.from_pretrained(folder / "number").classifier.weight.numpy()
    same = ClassificationJob(Settings.make(SMALL | NUMBER | {"start": str(folder / "number")}), data, *parts)
    np.testing.assert_array_equal(same.model.classifier.weight.numpy(), before)
    data = read_labelled(folder / "texts.tsv")
    other = [Example(e.text, "xy"[i % 2]) for i, e in enumerate(data.examples)]
    new = ClassificationJob(
        Settings.make(SMALL | {"start": str(folder / "multi")}), Labelled("xy", tuple(other)), other[:60], other[60:]
    )
    old = BERTForSequenceClassification.from_pretrained(folder / "multi").classifier.weight.numpy()
    assert old.shape == new.model.classifier.weight.shape
    assert (old != new.model.classifier.weight.numpy()).all()


def test_labels_and_numbers_there_and_back():
    multi = MultiLabel.of(["b|a", "", "c | b"])
    assert multi.labels == ["a", "b", "c"]
    assert multi.row("c|a") == [1, 0, 1]
    assert multi.told(np.array([[1.0, -1.0, 0.0], [-1.0, -1.0, -1.0]])) == ["a|c", ""]
    assert multi.unknown("a|z") == ["z"]
    number = Regression.of(["1", "3"])
    assert (number.mean, number.deviation) == (2, 1)
    assert number.told(np.array([[2.5]])) == ["2.5"]
    assert number.row("1e3") == [1000.0]


@pytest.mark.parametrize(
    "problem", [SingleLabel.of(list("aab")), MultiLabel.of(["a", "a|b", ""]), Regression.of(["1", "4"])]
)
def test_no_constant_scores_have_a_lower_loss(problem, rng):
    given = {"single_label_classification": list("aab"), "multi_label_classification": ["a", "a|b", ""]}
    labels = given.get(problem.name, ["1", "4"])
    rows = np.array([problem.row(label) for label in labels])

    def loss(scores):
        return problem.loss(tl.tensor(np.tile(scores, (len(rows), 1))), rows, 0.0).item()

    best = problem.constant(labels)
    # The halves that keep the log-odds finite move them a little from the minimum.
    slack = 0.02 if problem.name == "multi_label_classification" else 1e-12
    for _ in range(20):
        assert loss(best) <= loss(best + rng.normal(size=best.shape)) + slack


def test_simple_methods_learn_what_words_tell():
    texts = ["plum iron", "plum the", "zinc the", "iron zinc", "pear plum", "the and"] * 3
    kinds = ["fruit|metal", "fruit", "metal", "metal", "fruit", ""] * 3
    guesses = MultiLabel.of(kinds).guesses(texts, kinds, texts)
    assert guesses["commonest labels"][0] == "fruit|metal"  # each is in half of the texts
    assert MultiLabel.of(kinds).measure(kinds, guesses["naive Bayes, words"])["micro F1 %"] > 90
    numbers = [str(t.count("plum") * 2 + 1) for t in texts]
    problem = Regression.of(numbers)
    errors = {
        name: problem.measure(numbers, told)["MSE"] for name, told in problem.guesses(texts, numbers, texts).items()
    }
    assert errors["ridge regression"] < 0.05 * errors["the mean"]
    assert problem.measure(numbers, problem.guesses(texts, numbers, texts)["the mean"])["Spearman"] == 0


def test_what_does_not_fit_the_problem_is_refused(tmp_path, folder, capsys):
    def fails(*argv):
        assert cli.main([str(a) for a in argv]) == 2
        return capsys.readouterr().err

    data = folder / "texts.tsv"
    number = "finetune", folder / "start", "--data", data, "--out", tmp_path / "x", "--problem", "regression"
    message = fails(*number)
    assert "texts.tsv" in message
    assert "is no number" in message
    assert "label_smoothing is for classes" in fails(*number, "--label-smoothing", "0.1")
    assert "did you mean 'regression'" in fails(*number[:-1], "regresion")
    assert "there is nothing to balance" in fails(*number[:-1], MULTI["problem"], "--class-weights", "balanced")
    assert "is no number" in fails("predict", folder / "number", "--data", data)
    with pytest.raises(DataError, match="no training text has a label"):
        MultiLabel.of(["", " | "])
    with pytest.raises(DataError, match="the number 2"):
        Regression.of(["2", "2.0"])
    with pytest.raises(ConfigError, match="single_label"):
        Regression.of(["1", "2"], balanced=True)
    for bad in ("nan", "inf", "1,5", ""):
        with pytest.raises(DataError, match="no number"):
            Regression.of(["1", bad])


def test_a_label_unseen_in_training_is_said(folder, tmp_path):
    path = tmp_path / "new.jsonl"
    path.write_text('{"text": "plum", "label": ["fruit", "wood"]}\n{"text": "iron the", "label": "metal"}\n')
    report, notes = Classifier.open(folder / "multi").report(path)
    assert "'wood': no label of the training data" in notes[0]
    assert report.as_dict()["names"] == ("fruit", "metal", "wood")
