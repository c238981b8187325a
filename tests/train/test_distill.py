"""Distillation: the loss by its formula, whose parameters move, and runs that have a teacher."""

import json
import shutil

import numpy as np
import pytest

import tinyllm as tl
from tinyllm import cli
from tinyllm.errors import ConfigError
from tinyllm.train.distill import Distilled
from tinyllm.train.task import NextToken

SIZES = {"n_head": 2, "n_embd": 8, "n_positions": 6, "vocab_size": 7}
BATCH = {"input_ids": np.random.default_rng(0).integers(0, 7, (3, 7))}


def gpt(seed: int, layers: int = 1, **changed) -> NextToken:
    config = tl.models.GPTConfig(**{"n_layer": layers, **SIZES, **changed}, initializer_range=0.5)
    return NextToken(tl.models.GPT(config, rng=np.random.default_rng(seed), dtype="float64"))


def log_softmax(x):
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize(("tau", "weight"), [(1.0, 0.3), (3.0, 0.5), (2.0, 1.0), (2.0, 0.0)])
def test_the_loss_is_the_mixture_of_both_cross_entropies(tau, weight):
    student, teacher = gpt(0), gpt(1, layers=2)
    both = Distilled(student, teacher, tau, weight)
    ids, labels = BATCH["input_ids"][:, :-1], BATCH["input_ids"][:, 1:]
    ours, theirs = (one.model(ids).logits.numpy() for one in (student, teacher))
    told = -np.take_along_axis(log_softmax(ours), labels[..., None], axis=-1).mean()
    shown = -(np.exp(log_softmax(theirs / tau)) * log_softmax(ours / tau)).sum(axis=-1).mean()
    assert both.loss(BATCH).item() == pytest.approx((1 - weight) * told + weight * tau**2 * shown)


def test_evaluated_it_is_the_students_loss():
    student = gpt(0)
    both = Distilled(student, gpt(1), 2.0, 0.5)
    both.eval()
    assert both.loss(BATCH).item() == student.loss(BATCH).item()
    both.train()
    assert both.loss(BATCH).item() != student.loss(BATCH).item()


def test_the_teacher_gets_no_gradient():
    student, teacher = gpt(0), gpt(1)
    both = Distilled(student, teacher, 2.0, 0.5)
    both.loss(BATCH).backward()
    assert all(p.grad is None for p in teacher.model.parameters())
    assert all(p.grad is not None for p in student.model.parameters())
    assert dict(both.named_parameters()).keys() == dict(student.named_parameters()).keys()


def test_a_student_that_equals_its_teacher_has_nothing_to_learn_from_it():
    student, teacher = gpt(0), gpt(0)
    Distilled(student, teacher, 2.0, 1.0).loss(BATCH).backward()
    assert max(np.abs(p.grad.numpy()).max() for p in student.model.parameters()) < 1e-12


def test_two_vocabularies_are_refused():
    with pytest.raises(ConfigError, match="student has 9 tokens and the teacher 7"):
        Distilled(gpt(0, vocab_size=9), gpt(1), 2.0, 0.5)


SMALL = [
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
    "--threads",
    "1",
]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distill")
    (folder / "text.txt").write_text("the cat sat on the mat. " * 200)
    run = folder / "teacher"
    flags = ["--steps", "4", "--eval-every", "2", "--eval-windows", "4", "--sample-tokens", "0", *SMALL]
    assert cli.main(["train", "--data", str(folder / "text.txt"), "--out", str(run), *flags]) == 0
    return run


def test_a_run_is_distilled_into_a_smaller_one(capsys, teacher, tmp_path):
    assert cli.main(["distill", str(teacher), "--out", str(tmp_path / "s"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["steps"] == 4
    config = json.loads((tmp_path / "s" / "config.json").read_text())
    assert (config["n_embd"], config["n_layer"]) == (8, 1)
    assert (tmp_path / "s" / "tokenizer.json").read_bytes() == (teacher / "tokenizer.json").read_bytes()
    assert cli.main(["resume", str(tmp_path / "s"), "--steps", "6"]) == 0
    assert cli.main(["eval", str(tmp_path / "s"), "--json"]) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--block-size", "32"], "teacher reads 16 tokens at most"),
        (["--model", "mixtral"], "a mixtral cannot be taught"),
        (["--teacher", "nowhere"], "nowhere"),
    ],
)
def test_a_student_that_cannot_be_taught_is_refused(capsys, teacher, tmp_path, flags, message):
    assert cli.main(["distill", str(teacher), "--out", str(tmp_path / "s"), *flags]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_another_teacher_would_make_another_run(capsys, teacher, tmp_path):
    moved = shutil.copytree(teacher, tmp_path / "teacher")
    assert cli.main(["distill", str(moved), "--out", str(tmp_path / "s")]) == 0
    weights = (moved / "model.safetensors").read_bytes()
    (moved / "model.safetensors").write_bytes(weights[:-4] + b"\0\0\0\0")
    capsys.readouterr()
    assert cli.main(["resume", str(tmp_path / "s"), "--steps", "6"]) == 2
    assert "or the teacher" in capsys.readouterr().err
