"""Runs of tasks as a user meets them: trained, interrupted, resumed, judged, asked; and what goes wrong."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tinyllm import cli
from tinyllm.tasks.batches import PairBatches
from tinyllm.train.report import read_log

WORDS = {"cat": "chat", "dog": "chien", "house": "maison", "book": "livre", "garden": "jardin", "tree": "arbre"}
SMALL = [
    *("--n-layer", "1", "--n-head", "2", "--n-embd", "16", "--block-size", "24", "--batch-size", "8"),
    *("--tokenizer", "word", "--min-count", "1", "--eval-windows", "6", "--threads", "1", "--held-out", "0.3"),
]
EIGHT = ["--steps", "8", "--eval-every", "4", *SMALL]


@pytest.fixture(scope="session")
def pairs(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    lines = [f"the {a} and a {b}\tle {x} et un {y}" for a, x in WORDS.items() for b, y in WORDS.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def trained(pairs, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "fr"
    assert cli.main(["train", "--task", "translation", "--data", str(pairs), "--out", str(run), *EIGHT]) == 0
    return run


def fails(capsys, *argv) -> str:
    assert cli.main([str(a) for a in argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


def says(capsys, *argv) -> str:
    assert cli.main([str(a) for a in argv]) == 0
    return capsys.readouterr().out


def test_a_run_folder_holds_model_tokenizer_task_log_and_picture(trained):
    names = {path.name for path in trained.iterdir()}
    assert names == {
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "task.json"),
        *("checkpoint.safetensors", "settings.toml", "metrics.jsonl", "loss.png"),
    }
    assert json.loads((trained / "task.json").read_text()) == {"task": "translation", "scripts": ["LATIN"]}
    records = read_log(trained)
    assert [r["step"] for r in records if "held_out" in r] == [0, 4, 8]
    assert set(records[0]["run"]["baselines"]) == {"copy", "word by word (IBM model 1)"}
    assert "->" in records[1]["sample"]


@pytest.mark.parametrize("model", ["transformer", "pointer", "rnn", "rnn-luong"])
def test_every_model_of_two_texts_learns_and_is_interrupted_and_goes_on(capsys, pairs, tmp_path, monkeypatch, model):
    flags = ["train", "--task", "translation", "--model", model, "--data", pairs, "--dropout", "0.1", *EIGHT]
    whole = json.loads(says(capsys, *flags, "--out", tmp_path / "whole", "--json"))
    assert whole["loss"] < read_log(tmp_path / "whole")[1]["held_out"]
    at, pressed = PairBatches.at, []

    def press(self, step):
        if step == 5 and not pressed:
            pressed.append(os.kill(os.getpid(), 2))
        return at(self, step)

    monkeypatch.setattr(PairBatches, "at", press)
    assert cli.main([str(a) for a in (*flags, "--out", tmp_path / "cut")]) == 130
    assert f"tinyllm resume {tmp_path / 'cut'}" in capsys.readouterr().err
    again = json.loads(says(capsys, "resume", tmp_path / "cut", "--json"))
    assert {name: again[name] for name in ("loss", "metrics", "sample")} == {
        name: whole[name] for name in ("loss", "metrics", "sample")
    }
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]
    assert says(capsys, "translate", tmp_path / "cut", "the cat and a dog").endswith("\n")


def test_train_prints_examples_and_a_table_the_worst_first(capsys, pairs, tmp_path):
    out = says(
        capsys, "train", "--task", "translation", "--data", pairs, "--out", tmp_path / "r", "--steps", "2", *SMALL
    )
    assert re.search(r"BLEU +chrF", out)
    scores = [float(line.split()[-2]) for line in re.findall(r"^  \w.*\d\.\d\d$", out, re.M)]
    assert len(scores) == 3
    assert scores == sorted(scores)
    assert "  |   -> " in out


def test_eval_repeats_what_training_measured(capsys, trained):
    result = json.loads(says(capsys, "eval", trained, "--json"))
    last = read_log(trained)[-1]["result"]
    assert result["loss"] == pytest.approx(last["loss"], rel=1e-6)
    assert result["metrics"] == last["metrics"]
    assert result["baselines"] == last["baselines"]
    assert "this run" in says(capsys, "eval", trained)


def test_info_names_the_task_and_the_model(capsys, trained):
    facts = json.loads(says(capsys, "info", trained, "--json"))
    assert facts["task"] == "translation"
    assert facts["model"].startswith("Transformer: ")
    assert facts["steps"] == 8
    assert set(facts["metrics"]) == {"BLEU", "chrF"}
    says(capsys, "info", trained)


def test_translate_gives_the_best_first_and_draws_the_alignment(capsys, trained, tmp_path):
    flags = ["translate", trained, "the cat and a dog", "--n-best", "3", "--json"]
    found = json.loads(says(capsys, *flags, "--picture", tmp_path / "a.png"))
    assert len(found["candidates"]) == 3
    scores = [one["score"] for one in found["candidates"]]
    assert scores == sorted(scores, reverse=True)
    assert len({one["text"] for one in found["candidates"]}) == 3
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert found["candidates"][0]["text"] in says(capsys, "translate", trained, "the cat and a dog")


def test_generate_turns_the_prompt_into_another_text(capsys, trained):
    flags = ["generate", trained, "--prompt", "the cat and a dog", "--temperature", "0", "--json"]
    greedy = json.loads(says(capsys, *flags))["text"]
    best = json.loads(says(capsys, "translate", trained, "the cat and a dog", "--beams", "1", "--json"))
    assert greedy == best["candidates"][0]["text"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["the " * 40], "161 tokens|41 tokens, and the model reads 24 at most"),
        (["  "], "the text is empty"),
        (["Привет"], "a script that this model has never seen (CYRILLIC); it knows LATIN"),
        (["the cat", "--n-best", "9"], "n_best is from 1 to the number of beams, 5; got 9"),
    ],
)
def test_what_cannot_be_translated_is_said(capsys, trained, argv, message):
    err = fails(capsys, "translate", trained, *argv)
    assert any(part in err for part in message.split("|"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--task", "translation", "--model", "gpt"], "model 'gpt' cannot learn the task 'translation'"),
        (["--model", "transformer"], "model 'transformer' cannot learn the task 'language-model'"),
        (["--task", "translate"], "did you mean 'translation'"),
        (["--task", "translation", "--data", "nowhere"], "no file and no embedded data are called 'nowhere'"),
        (["--task", "translation", "--block-size", "2"], "no training pair fits into the model's 2 tokens"),
        (["--tokenizer", "word"], "a language model's tokenizer is char or bpe"),
    ],
)
def test_what_cannot_be_trained_is_said(capsys, pairs, tmp_path, flags, message):
    given = [] if "nowhere" in flags else ["--data", pairs]
    argv = ["train", *given, "--out", tmp_path / "r", "--steps", "1", *SMALL, *flags]
    assert message in fails(capsys, *argv)
    assert not (tmp_path / "r").exists()


def test_files_that_do_not_belong_together_leave_nothing(capsys, tmp_path):
    (tmp_path / "en").write_text("one\ntwo\n")
    (tmp_path / "fr").write_text("un\n")
    flags = ["--task", "translation", "--data", tmp_path / "en", "--target", tmp_path / "fr", "--out", tmp_path / "r"]
    assert "line 2 of" in fails(capsys, "train", *flags)
    assert not (tmp_path / "r").exists()


def test_pairs_that_are_too_long_are_left_out_and_said(capsys, pairs, tmp_path):
    data = tmp_path / "t.tsv"
    data.write_text(pairs.read_text() + "".join(f"{i} {'the ' * 40}\tle\n" for i in range(9)))
    argv = ["train", "--task", "translation", "--data", data, "--out", tmp_path / "r", "--steps", "1", *SMALL]
    assert cli.main([str(a) for a in argv]) == 0
    assert "9 pairs are left out: a side is longer than the model's 24 tokens" in capsys.readouterr().err


def test_resume_refuses_other_pairs(capsys, trained, pairs, tmp_path):
    run = shutil.copytree(trained, tmp_path / "r")
    moved = tmp_path / "moved.tsv"
    moved.write_text(pairs.read_text().replace("chat", "minou"))
    assert "not the one" in fails(capsys, "resume", run, "--steps", "9", "--data", moved)


def test_early_stopping_watches_pairs_that_are_not_held_out(capsys, pairs, tmp_path):
    flags = ["--patience", "2", "--steps", "4", "--eval-every", "2", "--seed", "1", *SMALL]
    says(capsys, "train", "--task", "translation", "--data", pairs, "--out", tmp_path / "r", *flags)
    assert read_log(tmp_path / "r")[0]["run"]["watched"] == "validation"


def test_a_student_of_two_texts_has_a_teacher(capsys, trained, tmp_path):
    says(capsys, "distill", trained, "--out", tmp_path / "s")
    config = json.loads((tmp_path / "s" / "config.json").read_text())
    assert config["d_model"] == 8
    assert read_log(tmp_path / "s")[-1]["result"]["task"] == "translation"


@pytest.mark.slow
@pytest.mark.parametrize("task", ["sort", "reverse", "copy", "addition"])
def test_the_rule_is_learnt_perfectly(capsys, tmp_path, task):
    flags = ["--task", task, "--steps", "2500", "--sample-tokens", "0", "--threads", "1"]
    result = json.loads(says(capsys, "train", "--out", tmp_path / "r", "--json", *flags))
    assert result["metrics"]["exact %"] == 100.0


# -- questions about a text --------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def squad(tmp_path_factory) -> Path:
    """Forty titles, each with a text and the question for its colour."""
    rng = np.random.default_rng(0)
    articles = []
    for number in range(40):
        things = rng.permutation(["ball", "lamp", "door", "boat"])[:2]
        colours = rng.permutation(["red", "blue", "green", "white"])[:2]
        text = " ".join(f"The {thing} is {colour}." for thing, colour in zip(things, colours, strict=True))
        answer = {"text": str(colours[1]), "answer_start": text.rindex(str(colours[1]))}
        qas = [{"question": f"What is the colour of the {things[1]}?", "answers": [answer]}]
        articles.append({"title": str(number), "paragraphs": [{"context": text, "qas": qas}]})
    path = tmp_path_factory.mktemp("squad") / "squad.json"
    path.write_text(json.dumps({"data": articles}))
    return path


def test_questions_are_trained_on_resumed_and_judged(capsys, squad, tmp_path):
    flags = ["--n-layer", "1", "--n-head", "2", "--n-embd", "16", "--block-size", "32", "--batch-size", "8"]
    flags += ["--vocab-size", "300", "--steps", "6", "--eval-every", "3", "--eval-windows", "4", "--threads", "1"]
    flags += ["--dropout", "0.1"]
    argv = ["train", "--task", "question-answering", "--data", squad, "--held-out", "0.2", *flags]
    result = json.loads(says(capsys, *argv, "--out", tmp_path / "r", "--json"))
    assert set(result["metrics"]) == {"exact %", "F1 %"}
    assert set(result["baselines"]) == {"first line", "line with most words of the question"}
    again = json.loads(says(capsys, "eval", tmp_path / "r", "--json"))
    assert again["loss"] == pytest.approx(result["loss"], rel=1e-6)
    says(capsys, "resume", tmp_path / "r", "--steps", "7")
    assert json.loads(says(capsys, "info", tmp_path / "r", "--json"))["task"] == "question-answering"
    answer = json.loads(says(capsys, "answer", tmp_path / "r", "What colour?", "The ball is red.", "--json"))
    assert answer["answer"] in "The ball is red."
    assert "no room" in fails(capsys, "answer", tmp_path / "r", "what " * 40, "The ball is red.")
