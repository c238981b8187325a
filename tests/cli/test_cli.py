"""The command line as a user meets it: what it prints, where, and with which exit code."""

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinyllm as tl
from tinyllm import cli, safetensors
from tinyllm.train.report import read_log

SENTENCES = [
    "the cat sat on the mat.",
    "a dog ran after the cat!",
    "who sat on the dog?",
    "the mat lay under a cat;",
]
SMALL = [
    *("--n-layer", "1", "--n-head", "2", "--n-embd", "16", "--block-size", "16", "--batch-size", "4"),
    *("--eval-windows", "4", "--sample-tokens", "8", "--threads", "1"),
]
TWELVE = ["--steps", "12", "--eval-every", "4", *SMALL]


@pytest.fixture(scope="session")
def text(tmp_path_factory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("text") / "cats.txt"
    path.write_text("\n".join(SENTENCES[i] for i in rng.integers(0, len(SENTENCES), 150)))
    return path


@pytest.fixture(scope="session")
def trained(text, tmp_path_factory) -> Path:
    """A finished run, not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "cats"
    assert cli.main(["train", "--data", str(text), "--out", str(run), *TWELVE]) == 0
    return run


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A finished run to be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def fails(capsys, *argv: str | Path) -> str:
    """Run a command that is the user's error: exit code 2, one message, nothing on standard output."""
    assert cli.main([str(a) for a in argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    message = captured.err.splitlines()[-1] if captured.err.count("tinyllm:") == 1 else captured.err
    assert "tinyllm: " in captured.err
    return message


def says(capsys, *argv: str | Path) -> str:
    """Standard output of a command that works."""
    assert cli.main([str(a) for a in argv]) == 0
    return capsys.readouterr().out


def test_a_run_folder_holds_what_it_should(trained):
    names = {path.name for path in trained.iterdir()}
    assert names == {
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        *("checkpoint.safetensors", "settings.toml", "metrics.jsonl", "loss.png"),
    }
    assert (trained / "loss.png").read_bytes().startswith(b"\x89PNG")
    records = read_log(trained)
    assert [r["step"] for r in records if "held_out" in r] == [0, 4, 8, 12]
    assert [r["step"] for r in records if "loss" in r] == list(range(1, 13))
    assert all(len(r["sample"]) <= 8 for r in records if "held_out" in r)
    assert list(records[0]["run"]["baselines"]) == ["uniform", "unigram", "bigram", "trigram", "Witten-Bell 5-gram"]
    assert list(trained.parent.iterdir()) == [trained]


def test_train_prints_a_table_beside_the_baselines(capsys, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = says(capsys, "train", "--data", text, "--steps", "2", *SMALL)
    assert re.search(r"nats/char +bits/char", out)
    losses = [float(line.split()[-2]) for line in re.findall(r"^  .*\d\.\d{4}$", out, re.M)]
    assert len(losses) == 6
    assert losses == sorted(losses, reverse=True)
    assert "runs/cats-1" in out
    says(capsys, "train", "--data", text, "--steps", "1", *SMALL)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["cats-1", "cats-2"]


def test_train_prints_one_json_object(capsys, text, tmp_path):
    result = json.loads(
        says(capsys, "train", "--data", text, "--out", tmp_path / "r", "--steps", "2", "--json", *SMALL)
    )
    assert result["run"] == str(tmp_path / "r")
    assert result["bits_per_char"] == pytest.approx(result["loss"] / np.log(2))
    assert result["perplexity"] == pytest.approx(np.exp(result["loss"]))
    assert result["steps"] == 2
    assert set(result["baselines"]) >= {"uniform", "Witten-Bell 5-gram"}
    assert len(result["sample"]) > 100


def test_averaging_and_recomputing_are_flags(capsys, text, tmp_path):
    before = tl.get_num_threads()
    flags = ["train", "--data", text, "--steps", "4", "--eval-every", "2", *SMALL]
    for name, more in (
        ("plain", []),
        ("recomputed", ["--checkpoint-activations", "yes"]),
        ("averaged", ["--ema", "0.5"]),
    ):
        says(capsys, *flags, "--out", tmp_path / name, *more)
    plain, recomputed, averaged = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "recomputed", "averaged")
    )
    assert recomputed == plain
    assert averaged != plain
    assert tl.get_num_threads() == before
    says(capsys, "resume", tmp_path / "averaged", "--steps", "6")
    facts = json.loads(says(capsys, "info", tmp_path / "averaged", "--json"))
    assert 0 < facts["step_bytes"] < facts["peak_bytes"]


def test_flags_win_over_the_file(capsys, text, tmp_path):
    file = tmp_path / "some.toml"
    file.write_text('steps = 3\nn_embd = 8\nn_head = 2\nn_layer = 1\nblock_size = 16\ndata = "nowhere"\nthreads = 1\n')
    says(capsys, "train", "--config", file, "--data", text, "--out", tmp_path / "r", "--n-embd", "12")
    settings = (tmp_path / "r" / "settings.toml").read_text()
    assert re.search(r"^n_embd = 12 ", settings, re.M)
    assert re.search(r"^steps = 3 ", settings, re.M)
    assert len([r for r in read_log(tmp_path / "r") if "loss" in r]) == 3
    assert json.loads((tmp_path / "r" / "config.json").read_text())["n_embd"] == 12
    # The settings that a run leaves are a file that makes the same run again.
    says(capsys, "train", "--config", tmp_path / "r" / "settings.toml", "--out", tmp_path / "again")
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("r", "again")]
    assert files[0] == files[1]


def test_byte_level_bpe_has_bits_per_character_of_its_own(capsys, text, tmp_path):
    flags = ["--tokenizer", "bpe", "--vocab-size", "300", "--steps", "2", "--out", tmp_path / "r", *SMALL]
    result = json.loads(says(capsys, "train", "--data", text, "--json", *flags))
    held_out = read_log(tmp_path / "r")[0]["run"]["held out"]
    assert held_out["tokens"] < held_out["characters"]
    expected = result["loss"] * held_out["tokens"] / held_out["characters"] / np.log(2)
    assert result["bits_per_char"] == pytest.approx(expected)
    assert json.loads(says(capsys, "eval", tmp_path / "r", "--json"))["loss"] == pytest.approx(result["loss"], rel=1e-6)
    says(capsys, "generate", tmp_path / "r", "--max-new-tokens", "5")


def test_an_interrupted_run_goes_on_to_the_same_end(capsys, text, trained, tmp_path, monkeypatch):
    at = tl.data.Batches.at
    pressed = []

    def press(self, step):
        if step == 6 and not pressed:
            pressed.append(os.kill(os.getpid(), 2))
        return at(self, step)

    monkeypatch.setattr(tl.data.Batches, "at", press)
    out = tmp_path / "r"
    assert cli.main(["train", "--data", str(text), "--out", str(out), *TWELVE]) == 130
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"tinyllm resume {out}" in captured.err
    assert (out / "loss.png").exists()
    result = json.loads(says(capsys, "resume", out, "--json"))
    assert result["steps"] == 12
    assert (out / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    losses = [[(r["step"], r["loss"]) for r in read_log(folder) if "loss" in r] for folder in (out, trained)]
    assert losses[0] == losses[1]


def test_resume_takes_more_steps(capsys, run):
    assert json.loads(says(capsys, "resume", run, "--steps", "15", "--json"))["steps"] == 15
    assert [r["step"] for r in read_log(run) if "loss" in r] == list(range(1, 16))
    assert "fewer" in fails(capsys, "resume", run, "--steps", "5")


def test_resume_refuses_another_text(capsys, run, text, tmp_path):
    moved = tmp_path / "moved.txt"
    shutil.copy(text, moved)
    says(capsys, "resume", run, "--steps", "13", "--data", moved)
    moved.write_text(moved.read_text() + "more")
    assert "not the one" in fails(capsys, "resume", run)
    assert "not the one" in fails(capsys, "eval", run)


def test_the_last_position_learns_too(trained, text):
    # Beyond the context every token is predicted from the last position: untrained, it would write nonsense.
    first = tl.models.GPT(tl.models.GPT.from_pretrained(trained).config, rng=np.random.default_rng(0))
    last = tl.models.GPT.from_pretrained(trained)
    moved = np.abs(last.transformer.wpe.weight.data - first.transformer.wpe.weight.data).mean(axis=-1)
    assert moved[-1] > 0.3 * moved.mean()


def test_generate_streams_the_same_text_that_json_holds(capsys, trained):
    flags = ["--prompt", "the c", "--max-new-tokens", "40", "--seed", "5"]
    shown = says(capsys, "generate", trained, *flags)
    result = json.loads(says(capsys, "generate", trained, *flags, "--json"))
    assert shown == "the c" + result["text"] + "\n"
    assert len(result["text"]) == 40
    assert result["text"] != json.loads(says(capsys, "generate", trained, *flags[:-1], "6", "--json"))["text"]


def test_generate_stops_before_a_stop_string(capsys, trained):
    flags = ["--prompt", "the", "--max-new-tokens", "60", "--seed", "1", "--json"]
    whole = json.loads(says(capsys, "generate", trained, *flags))["text"]
    for stop in (whole[10:12], whole[20:25], whole[:1]):
        short = json.loads(says(capsys, "generate", trained, *flags, "--stop", stop))["text"]
        assert short == whole[: whole.index(stop)]


def test_generate_tells_the_probability_of_each_token(capsys, trained):
    flags = ["--prompt", "the c", "--max-new-tokens", "6", "--temperature", "0"]
    result = json.loads(says(capsys, "generate", trained, *flags, "--logprobs", "3", "--json"))
    assert "".join(t["token"] for t in result["tokens"]) == result["text"]
    for token in result["tokens"]:
        texts, logprobs = zip(*token["top"], strict=True)
        assert (texts[0], logprobs[0]) == (token["token"], token["logprob"])
        assert len(texts) == 3
        assert list(logprobs) == sorted(logprobs, reverse=True)
    shown = says(capsys, "generate", trained, *flags, "--logprobs", "1")
    assert f"{math.exp(result['tokens'][0]['logprob']):.4f}" in shown
    assert len(shown.splitlines()) == 7


def test_generate_with_beams_and_with_a_draft(capsys, trained):
    flags = ["--prompt", "the c", "--max-new-tokens", "8", "--json"]
    greedy = json.loads(says(capsys, "generate", trained, *flags, "--temperature", "0", "--logprobs", "0"))
    drafted = json.loads(says(capsys, "generate", trained, *flags, "--temperature", "0", "--draft", trained))
    assert drafted["text"] == greedy["text"]
    beams = json.loads(says(capsys, "generate", trained, *flags, "--num-beams", "4", "--logprobs", "0"))
    total = [sum(t["logprob"] for t in found["tokens"]) for found in (greedy, beams)]
    assert total[1] >= total[0] - 1e-6


def test_filters_of_the_command_line_change_the_text(capsys, trained):
    flags = ["--prompt", "the c", "--max-new-tokens", "40", "--json", "--temperature", "0"]
    plain = json.loads(says(capsys, "generate", trained, *flags))["text"]
    for more in (
        ["--repetition-penalty", "3.0"],
        ["--frequency-penalty", "1.0"],
        ["--presence-penalty", "2.0"],
        ["--no-repeat-ngram", "3"],
    ):
        assert json.loads(says(capsys, "generate", trained, *flags, *more))["text"] != plain, more


def test_a_prompt_longer_than_the_context_slides(capsys, trained):
    prompt = "the cat sat on the mat. who sat on the dog?"
    flags = ["--max-new-tokens", "5", "--temperature", "0", "--json"]
    whole, end = (
        json.loads(says(capsys, "generate", trained, "--prompt", p, *flags))["text"] for p in (prompt, prompt[-16:])
    )
    assert whole == end


def test_an_unknown_character_in_the_prompt_is_named(capsys, trained):
    message = fails(capsys, "generate", trained, "--prompt", "the \u732b")
    assert "U+732B" in message
    assert "offset 4" in message


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--temperature", "-1"], "temperature"),
        (["--top-p", "1.5"], "top_p"),
        (["--top-k", "0"], "top_k"),
        (["--min-p", "2"], "min_p"),
        (["--repetition-penalty", "0"], "repetition_penalty"),
        (["--num-beams", "0"], "num_beams"),
        (["--num-beams", "2", "--temperature", "1"], "temperature"),
        (["--logprobs", "-1"], "top_logprobs"),
        (["--max-new-tokens", "0"], "max_new_tokens"),
        (["--seed", "-1"], "seed"),
        (["--stop", ""], "stop"),
    ],
)
def test_impossible_ways_of_generating_are_refused(capsys, trained, flags, message):
    assert message in fails(capsys, "generate", trained, "--prompt", "the", *flags)


def test_eval_repeats_the_loss_of_training(capsys, trained, text):
    result = json.loads(says(capsys, "eval", trained, "--json"))
    trained_loss = read_log(trained)[-1]["result"]["loss"]
    assert result["loss"] == pytest.approx(trained_loss, rel=1e-6)
    assert result["bits_per_char"] == pytest.approx(trained_loss / np.log(2), rel=1e-6)
    shown = says(capsys, "eval", trained, "--data", text)
    assert re.search(r"perplexity +\d", shown)


def test_eval_counts_characters_that_the_vocabulary_lacks(capsys, trained, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("the \u732b sat on the \u72ac")
    result = json.loads(says(capsys, "eval", trained, "--data", other, "--json"))
    assert result["replaced"] == 2
    assert result["characters"] == 18


def test_info_tells_sizes(capsys, trained):
    facts = json.loads(says(capsys, "info", trained, "--json"))
    tensors, _ = safetensors.load(trained / "model.safetensors")
    assert facts["parameters"] == sum(array.size for array in tensors.values())
    C, T, V = 16, 16, facts["vocab_size"]
    assert facts["flops_per_token"]["forward"] == 2 * 12 * C * C + 4 * T * C + 2 * C * V
    assert facts["steps"] == facts["steps_planned"] == 12
    assert facts["loss"] == read_log(trained)[-1]["result"]["loss"]
    assert facts["peak_bytes"] > 10**7
    shown = says(capsys, "info", trained)
    assert f"{facts['parameters']:,}" in shown
    assert "peak" in shown


def test_a_folder_of_weights_alone_can_be_used(capsys, run, text):
    for name in ("checkpoint.safetensors", "metrics.jsonl", "settings.toml"):
        (run / name).unlink()
    assert json.loads(says(capsys, "info", run, "--json"))["steps"] is None
    says(capsys, "eval", run, "--data", text)
    assert "--data" in fails(capsys, "eval", run)
    assert "checkpoint.safetensors" in fails(capsys, "resume", run)


# -- what the user gets wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "no character but 'a'"),
        (b"short text", "too few for one block of 16"),
        (b"caf\xe9 au lait", "byte 3 is 0xe9"),
    ],
)
def test_a_text_that_cannot_be_used_leaves_nothing(capsys, tmp_path, content, message):
    (tmp_path / "t.txt").write_bytes(content)
    assert message in fails(capsys, "train", "--data", tmp_path / "t.txt", "--out", tmp_path / "r", *SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["t.txt"]


def test_another_encoding_can_be_named(capsys, tmp_path):
    (tmp_path / "t.txt").write_bytes(("café au lait. " * 50).encode("latin-1"))
    flags = ["--encoding", "latin-1", "--steps", "1", "--out", tmp_path / "r", *SMALL]
    says(capsys, "train", "--data", tmp_path / "t.txt", *flags)
    assert tl.text.load_tokenizer(tmp_path / "r").encode("é")


def test_an_existing_folder_is_never_overwritten(capsys, trained, text):
    before = {path: path.stat().st_mtime_ns for path in trained.iterdir()}
    message = fails(capsys, "train", "--data", text, "--out", trained, *SMALL)
    assert "exists" in message
    assert f"tinyllm resume {trained}" in message
    assert before == {path: path.stat().st_mtime_ns for path in trained.iterdir()}


def test_a_folder_that_cannot_be_made_is_said_before_any_work(capsys, text):
    assert "cannot be made" in fails(capsys, "train", "--data", text, "--out", text / "r", *SMALL)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", "0"], "steps must be at least 1"),
        (["--n-embd", "16", "--n-head", "3"], "3 heads do not divide 16 channels"),
        (["--n-heads", "3"], "did you mean '--n-head'"),
        (["--data", "stdlib-pros"], "did you mean 'stdlib-prose'"),
        (["--encoding", "utf-9"], "unknown encoding"),
        (["--config", "nowhere.toml"], "cannot be read"),
        (["--vocab-size", "3", "--tokenizer", "bpe"], "vocab_size"),
    ],
)
def test_impossible_settings_are_refused(capsys, text, tmp_path, flags, message):
    assert message in fails(capsys, "train", "--data", text, "--out", tmp_path / "r", *flags)
    assert not (tmp_path / "r").exists()


def test_an_unknown_name_in_the_file_names_the_nearest(capsys, tmp_path):
    (tmp_path / "c.toml").write_text("batchsize = 3\n")
    assert "did you mean 'batch_size'" in fails(capsys, "train", "--config", tmp_path / "c.toml")


def test_arguments_that_argparse_refuses_exit_with_2(capsys):
    for argv in (["train", "--steps", "many"], ["generate"], ["frobnicate"], []):
        with pytest.raises(SystemExit) as exit:
            cli.main(argv)
        assert exit.value.code == 2
        assert "tinyllm: " in capsys.readouterr().err


def test_a_learning_rate_that_is_too_high_is_the_user_s_error(capsys, text, tmp_path):
    flags = ["--lr", "1e30", "--final-lr", "1e30", "--warmup", "0", "--clip", "0", "--steps", "8", *SMALL]
    message = fails(capsys, "train", "--data", text, "--out", tmp_path / "r", *flags)
    assert "first made it" in message or "finite" in message
    assert "lower lr" in message
    for name in ("checkpoint.safetensors", "model.safetensors"):
        tensors, _ = safetensors.load(tmp_path / "r" / name)
        assert all(np.isfinite(array).all() for array in tensors.values())


def truncate(run):
    weights = run / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def another_config(run):
    (run / "config.json").write_text('{"model_type": "falcon"}')


def wrong_sizes(run):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"n_embd": 32}))


def another_tokenizer(run):
    tl.text.CharTokenizer.train(["abc"]).save(run)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "model.safetensors.*cut off"),
        (lambda run: (run / "model.safetensors").unlink(), "no model.safetensors"),
        (lambda run: (run / "config.json").unlink(), "no config.json"),
        (lambda run: (run / "config.json").write_text("{"), "config.json.*not valid JSON"),
        (another_config, "falcon"),
        (wrong_sizes, "do not belong together"),
        (lambda run: (run / "tokenizer.json").unlink(), "no tokenizer.json"),
        (another_tokenizer, "belongs to another model"),
        (shutil.rmtree, "no such folder"),
    ],
)
@pytest.mark.parametrize("command", ["generate", "eval", "info"])
def test_a_damaged_folder_is_refused_by_name(capsys, run, damage, message, command):
    damage(run)
    assert re.search(message, fails(capsys, command, run))


def test_resume_refuses_a_damaged_checkpoint_and_another_tokenizer(capsys, run):
    whole = (run / "checkpoint.safetensors").read_bytes()
    (run / "checkpoint.safetensors").write_bytes(whole[:-100])
    assert "cut off" in fails(capsys, "resume", run)
    (run / "checkpoint.safetensors").write_bytes(whole)
    another_tokenizer(run)
    fails(capsys, "resume", run)
    assert (run / "checkpoint.safetensors").read_bytes() == whole


# -- processes ---------------------------------------------------------------------------------------------------------


def start(*argv: str | Path, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "tinyllm", *map(str, argv)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_ctrl_c_saves_and_says_how_to_go_on(text, tmp_path):
    flags = ["--steps", "100000", "--eval-every", "5", *SMALL]
    with start("train", "--data", text, "--out", tmp_path / "r", *flags) as process:
        for line in process.stderr:
            if line.startswith("step 5 "):
                break
        process.send_signal(2)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert f"tinyllm resume {tmp_path / 'r'}" in err
    done = json.loads(err.split("after step ")[1].split(";")[0].replace(",", ""))
    assert [r["step"] for r in read_log(tmp_path / "r") if "loss" in r] == list(range(1, done + 1))


def test_a_full_disk_keeps_the_last_checkpoint(text, tmp_path):
    resource = pytest.importorskip("resource", reason="limits of file size are POSIX's")
    small = tmp_path / "small"
    assert cli.main(["train", "--data", str(text), "--out", str(small), "--steps", "1", *SMALL]) == 0
    # The first checkpoint has no optimiser state yet; the second, with it, is three times as large.
    limit = 2 * (small / "model.safetensors").stat().st_size
    flags = ["--steps", "100000", "--eval-every", "5", *SMALL]
    with start(
        *("train", "--data", text, "--out", tmp_path / "r", *flags),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    ) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert "cannot be written" in err
    assert f"tinyllm resume {tmp_path / 'r'}" in err
    assert cli.main(["resume", str(tmp_path / "r"), "--steps", "6"]) == 0
    assert [r["step"] for r in read_log(tmp_path / "r") if "loss" in r] == [1, 2, 3, 4, 5, 6]


def test_a_fault_of_ours_exits_with_1_and_a_traceback(capsys, monkeypatch, trained):
    def broken(*args, **kwargs):
        raise RuntimeError("surprise")

    monkeypatch.setattr("tinyllm.train.use.describe", broken)
    assert cli.main(["info", str(trained)]) == 1
    err = capsys.readouterr().err
    assert "RuntimeError: surprise" in err
    assert "report" in err.splitlines()[-1]


def test_flags_may_stand_before_and_behind(capsys):
    for argv in (["chapters", "test", "--full", "zz"], ["chapters", "test", "zz", "--full"]):
        assert "there is no chapter 'zz'" in fails(capsys, *argv)
    for argv in (["--json", "test", "zz"], ["test", "--json", "zz"]):
        assert cli._parser().parse_args(["chapters", *argv]).json
    assert "did you mean '--full'" in fails(capsys, "chapters", "test", "--ful")


def test_every_command_has_help():
    def descend(parser):
        assert parser.format_help().startswith(f"usage: {parser.prog}")
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for part in action.choices.values():
                    yield part.prog
                    yield from descend(part)

    commands = list(descend(cli._parser()))
    assert {"tinyllm train", "tinyllm words analogy", "tinyllm course grade"} <= set(commands)


def test_help_loads_neither_numba_nor_matplotlib():
    script = (
        "import sys; from tinyllm.cli import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit: print([m for m in ('numba', 'matplotlib', 'tinyllm.models') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--block-size" in done.stdout


@pytest.mark.slow
def test_the_main_job_on_the_text_inside_python(tmp_path):
    with start("train", "--steps", "20", "--eval-windows", "20", "--json", cwd=tmp_path) as process:
        out, _ = process.communicate(timeout=600)
    result = json.loads(out)
    assert result["run"] == str(Path("runs", "stdlib-prose-1"))
    assert result["loss"] < result["baselines"]["uniform"]
    with start("generate", tmp_path / result["run"], "--prompt", "Return", "--json") as process:
        assert json.loads(process.communicate(timeout=100)[0])["text"]


@pytest.mark.slow
def test_the_command_killed_at_random_moments_ends_as_if_it_had_not_been(text, tmp_path):
    flags = ["--steps", "300", "--eval-every", "7", "--dropout", "0.1", *SMALL]
    assert cli.main(["train", "--data", str(text), "--out", str(tmp_path / "whole"), *flags]) == 0
    rng = np.random.default_rng(0)
    out = tmp_path / "killed"
    kills = 0
    while not (out.exists() and any("result" in record for record in read_log(out))):
        argv = ["resume", out] if out.exists() else ["train", "--data", text, "--out", out, *flags]
        with start(*argv) as process:
            try:
                process.communicate(timeout=rng.uniform(1, 4))
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
    assert kills > 0
    for name in ("model.safetensors", "config.json", "tokenizer.json", "settings.toml"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    losses = [[(r["step"], r["loss"]) for r in read_log(run) if "loss" in r] for run in (out, tmp_path / "whole")]
    assert losses[0] == losses[1]
