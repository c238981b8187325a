"""Files that hang, crash, exit, flood or interfere are reported, and the other functions keep their results."""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tinyllm.errors import ConfigError
from tinyllm.testing.suite import config, main
from tinyllm.testing.suite.run import FileError, check_file

RELU = """
import numpy as np

def relu(x):
    return np.maximum(x, 0)

def relu_backward(g, x):
    return g * (x > 0)
"""


@pytest.fixture
def check(tmp_path):
    """Check source code under short limits; only what `only` names."""

    def run(source: str, *, timeout: float = 4.0, memory: float = 256.0, **settings):
        path = tmp_path / "answers.py"
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        return check_file(path, config.Config(timeout=timeout, memory=memory, folder=tmp_path, **settings))

    return run


def by_name(result) -> dict:
    return {c.name: c for c in result.checks}


HOSTILE = {
    "exit": ("import sys; sys.exit(0)", "it calls exit(0)"),
    "os_exit": ("import os; os._exit(0)", "it ended the process (exit code 0)"),
    "crash": ("import ctypes; ctypes.string_at(0)", "the process crashed (SIGSEGV)"),
    "killed": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "the process crashed (SIGKILL)"),
    "interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "recursion": ("return sigmoid(x)", "it calls itself without end"),
    "memory": ("return np.ones((2**31,)) + x.sum()", "it ran out of memory"),
    "fork": ("import os; os.fork(); return x", "must not start other processes (os.fork)"),
    "system": ("import os; os.system('true')", "must not start other processes"),
    "popen": ("import subprocess; subprocess.run(['true'])", "must not start other processes"),
    "close": ("import os; os.closerange(0, 256)", "closed the pipe"),
    "input": ("input()", "EOFError"),
    "error": ("return x.sum(axis=17)", "axis 17 is out of bounds"),
    "none": ("pass", "it returned None"),
    "strings": ("return np.array(['a'] * x.size)", "floating numbers are expected"),
}


@pytest.mark.skipif(os.name != "posix", reason="signals and limits are those of POSIX")
def test_hostile_functions_are_reported_and_lose_no_others(check):
    """One file with every kind, each in a function of its own."""
    source = [RELU]
    only = ["relu.values"]
    laws = []
    names = dict(zip(HOSTILE, ("sigmoid", "tanh", "gelu", "silu", "softplus", "softmax", "log_softmax", "logsumexp",
                               "layer_norm", "rms_norm", "linear", "matmul", "mse_loss", "cross_entropy", "embedding"),
                     strict=True))  # fmt: skip
    for kind, name in names.items():
        body = HOSTILE[kind][0].replace("sigmoid", name)
        source.append(f"def {name}(x, *rest):\n    {body}\n")
        laws.append(f"{name}.unchanged")
    found = by_name(check("\n".join(source), only=(*only, *laws)))
    assert found["relu.values"].status == "passed"
    for kind, name in names.items():
        outcome = found[f"{name}.unchanged"]
        assert outcome.status in ("error", "failed"), kind
        assert HOSTILE[kind][1] in outcome.message, kind


def test_an_endless_loop_loses_no_other_result(check):
    start = time.monotonic()
    result = check("def sigmoid(x):\n    while True: pass\n" + RELU, timeout=1.0)
    found = by_name(result)
    assert found["sigmoid.values"].message == "it took longer than 1 s"
    assert found["sigmoid.shapes"].message == "it took longer than 1 s"
    assert {c.status for c in result.checks if c.function == "sigmoid"} == {"error", "blocked"}
    assert {c.status for c in result.checks if c.function == "relu"} == {"passed"}
    assert time.monotonic() - start < 40


def test_a_loop_that_floods_the_output_is_ended(check):
    source = "def sigmoid(x):\n    while True: print('x' * 100_000)\n" + RELU
    result = check(source, timeout=1.0, only=("sigmoid.values", "relu.values"))
    assert [c.status for c in result.checks] == ["error", "passed"]
    assert result.printed > 1_000_000
    assert len(result.output) <= 2000


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def relu(x) return x", "SyntaxError"),
        ("import torch_of_nobody", "ModuleNotFoundError"),
        ("import sys; sys.exit('done')", "it calls exit('done')"),
        ("1 / 0", "ZeroDivisionError: division by zero\n    answers.py, line 1, in <module>: 1 / 0"),
        ("while True: pass", "while the file was imported, it took longer than 1 s"),
        ("import os; os._exit(5)", "while the file was imported, it ended the process (exit code 5)"),
        ("print('y' * 10_000_000); raise ValueError('z' * 10_000)", "(10012 characters)"),
        ("x = '\0'", "SyntaxError"),
        ("import os; os.fork()", "PermissionError"),
    ],
)
def test_a_file_that_cannot_be_loaded(check, source, words):
    result = check(source, timeout=1.0)
    assert [c.name for c in result.checks] == ["answers.py.load"]
    assert result.checks[0].status == "error"
    assert words.replace("'z' * 10_000", "") in result.checks[0].message
    assert not result.ok


def test_stray_writes_to_every_descriptor_are_not_taken_for_results(check):
    source = """
        import os
        for d in range(20):
            try:
                os.write(d, b'{"event": "done"}\\n[1]\\nnull\\n' + b"x" * 5000 + b"\\n")
            except OSError:
                pass
    """
    result = check(textwrap.dedent(source) + RELU, only=("relu",))
    assert {c.status for c in result.checks} == {"passed"}


def test_threads_and_exit_handlers_are_not_waited_for(check):
    source = """
        import atexit, threading, time
        threading.Thread(target=time.sleep, args=(1000,)).start()
        atexit.register(time.sleep, 1000)
    """
    start = time.monotonic()
    assert check(textwrap.dedent(source) + RELU, only=("relu.values",)).ok
    assert time.monotonic() - start < 20


def test_it_runs_in_a_clean_folder_without_our_environment(check, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_SECRET", "1234")
    (tmp_path / "helper.py").write_text("SLOPE = 0.0")
    source = """
        import os
        assert "SOME_SECRET" not in os.environ
        assert sorted(os.listdir(".")) == ["answers.py", "helper.py"], os.listdir(".")
        from helper import SLOPE
        open("left behind", "w").write("x")
    """
    assert check(textwrap.dedent(source) + RELU, only=("relu.values",), files=("helper.py",)).ok
    assert sorted(p.name for p in tmp_path.iterdir()) == ["answers.py", "helper.py"]


def test_a_file_named_like_a_module_shadows_nothing(tmp_path):
    path = tmp_path / "random.py"
    path.write_text(RELU)
    assert check_file(path, config.Config(only=("relu.values",))).ok


# -- what the user gets ------------------------------------------------------------------------------------------------


@pytest.fixture
def answers(tmp_path) -> Path:
    path = tmp_path / "answers.py"
    wrong = "\ndef sigmoid(x):\n    print('\\x1b[31m<&>')\n    return 1 / (1 + np.exp(x))\n"
    path.write_text(RELU + wrong)
    return path


def toml(folder: Path, text: str) -> Path:
    path = folder / "check.toml"
    path.write_text(textwrap.dedent(text))
    return path


def test_exit_code_table_json_and_junit(answers, tmp_path, capsys):
    settings = toml(tmp_path, '[check]\nonly = ["*.values", "*.both_kinds"]\n[weights]\n"sigmoid" = 3\n')
    assert main(answers, config=settings, junit=tmp_path / "out.xml") == 1
    said = capsys.readouterr().out
    assert "relu.values     ok" in said
    assert "likely mistake: the sign of the exponent is wrong" in said
    assert "1 passed, 1 failed, 0 skipped; 1 of 4 points" in said

    root = ElementTree.parse(tmp_path / "out.xml").getroot()
    cases = {f"{c.get('classname')}.{c.get('name')}": c for c in root.iter("testcase")}
    assert set(cases) == {"relu.values", "sigmoid.values"}
    assert cases["relu.values"].find("failure") is None
    assert "sign of the exponent" in cases["sigmoid.values"].find("failure").text
    assert root.find("testsuite").get("failures") == "1"
    assert "<&>" in root.find("testsuite/system-out").text

    assert main(answers, json=True, config=settings) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["passed"], found["failed"], found["points"], found["of"]) == (1, 1, 1, 4)
    assert [c["status"] for c in found["checks"]] == ["passed", "failed"]

    assert main(answers, config=toml(tmp_path, '[check]\nonly = ["relu"]\n')) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[check]\nonly = ['reluu']", "'reluu' names no check; did you mean 'relu'?"),
        ("[check]\nskip = ['relu.gradeint']", "did you mean 'relu.gradient'?"),
        ("[check]\nonyl = []", "unknown setting 'onyl' in [check]; did you mean 'only'?"),
        ("[chek]", "unknown table [chek]; did you mean 'check'?"),
        ("[check]\ntimeout = 'long'", "must be a number above 0"),
        ("[check]\nonly = 'relu'", "must be a list of strings"),
        ("[weights]\nrelu.values = 2", 'write "function.law" in quotes'),
        ("[check]\nlaws = ['absent.py']", "the laws absent.py cannot be loaded"),
        ("[check]\nfiles = ['absent.py']", "absent.py does not exist"),
        ("[check]\nonly = ['tanh']", "leave nothing to check"),
        ("[check", "is not a TOML file"),
    ],
)
def test_errors_of_the_users(answers, tmp_path, capsys, text, words):
    assert main(answers, config=toml(tmp_path, text)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert captured.err.startswith("tinyllm: ")


def test_files_that_are_not_there_or_have_nothing_to_check(tmp_path, capsys):
    assert main(tmp_path / "absent.py") == 2
    assert main(tmp_path) == 2
    assert "does not exist" in capsys.readouterr().err
    (tmp_path / "empty.py").write_text("def softmaxx(x): return x")
    with pytest.raises(FileError, match="no function that there are laws for"):
        check_file(tmp_path / "empty.py", config.Config())
    assert main(tmp_path / "empty.py", timeout=-1) == 2
    with pytest.raises(ConfigError):
        config.read(tmp_path / "absent.toml")


def test_required_functions_and_laws_of_a_teachers_own(answers, tmp_path, capsys):
    (tmp_path / "more.py").write_text(
        textwrap.dedent("""
        import numpy as np
        from tinyllm.testing.suite import Broken, law

        @law("relu")
        def is_homogeneous(answer):
            "relu(2 x) is 2 relu(x)."
            x = np.array([-1.0, 2.0])
            if not np.array_equal(answer(x=2 * x), 2 * answer(x=x)):
                raise Broken("it is not", ["..."])

        @law("double")
        def doubles(answer):
            "Twice the input."
            if answer(number=np.array([2.0]))[0] != 4:
                raise Broken(f"double(2) is {answer(number=np.array([2.0]))[0]}", ["it adds 1"])
        """)
    )
    answers.write_text(answers.read_text() + "\ndef double(number):\n    return number + 1\n")
    settings = toml(
        tmp_path,
        """
        [check]
        laws = ["more.py"]
        only = ["*.is_homogeneous", "double"]
        required = ["relu", "relu_backward", "softmax", "sigmoid_backward"]
        """,
    )
    assert main(answers, json=True, config=settings) == 1
    found = {f"{c['function']}.{c['law']}": c for c in json.loads(capsys.readouterr().out)["checks"]}
    assert found["relu.is_homogeneous"]["status"] == "passed"
    assert found["double.doubles"]["likely"] == ["it adds 1"]
    assert found["softmax.found"]["status"] == found["sigmoid_backward.found"]["status"] == "failed"
    assert len(found) == 4


def test_the_pytest_module(answers, tmp_path):
    settings = toml(tmp_path, '[check]\nonly = ["*.values", "relu.at_zero", "relu.gradient"]\n')
    environment = {
        **os.environ,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "TINYLLM_CHECK": str(answers),
        "TINYLLM_CHECK_CONFIG": str(settings),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs",
               "tinyllm.testing.suite.pytest_module"]  # fmt: skip
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), environment.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert "3 passed" in done.stdout
    assert "1 failed" in done.stdout
    assert "sign of the exponent" in done.stdout
    assert done.returncode == 1
    environment.pop("TINYLLM_CHECK")
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert "set TINYLLM_CHECK" in done.stdout + done.stderr
    assert done.returncode != 0


def test_a_file_that_changes_between_two_loads_ends(check):
    """The first function ends the process; at the second load the other one is gone."""
    source = """
        import os
        first = not os.path.exists("seen")
        open("seen", "w").close()
        def relu(x):
            os._exit(1)
        if first:
            def sigmoid(x):
                return x
    """
    found = by_name(check(source, only=("relu.values", "sigmoid.values")))
    assert "ended the process" in found["relu.values"].message
    assert "the file lacks it" in found["sigmoid.values"].message
