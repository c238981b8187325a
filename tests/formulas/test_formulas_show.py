"""The ladder shows every rung of every entry, from the sources as they are."""

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from tinyllm.formulas import FormulaError, all_formulas, get, ladder, listing, resolve, show
from tinyllm.formulas.show import operations

ROOT = Path(__file__).parents[2]
entries = pytest.mark.parametrize("entry", all_formulas(), ids=lambda entry: entry.id)


def rung(id, name):
    """The text of one rung."""
    lines = ladder(id).split("\n")
    [start] = [i for i, line in enumerate(lines) if line.endswith(". " + name) and line[0].isdigit()]
    rest = lines[start + 3 :]
    ends = [i for i, line in enumerate(rest[1:]) if line and set(line) == {"-"} and rest[i][:1].isdigit()]
    return "\n".join(rest[: ends[0] if ends else None]).strip()


def source(function):
    return inspect.getsource(function).rstrip()


def test_listing_has_a_line_for_each():
    lines = listing().split("\n")
    assert [line.split()[0] for line in lines] == [entry.id for entry in all_formulas()]
    for line, entry in zip(lines, all_formulas(), strict=True):
        assert entry.title in line
        assert (" open " in line) == (entry.status == "open")
        assert len(line) < 160


@entries
def test_ladder_has_all_of_the_entry(entry):
    text = ladder(entry.id)
    assert text.startswith(f"{entry.id}  {entry.title}\n=")
    unfolded = " ".join(text.split())
    for said in (entry.latex, entry.printed, entry.meaning, entry.axes, entry.reason, *entry.tests, *entry.where[0]):
        assert " ".join(said.split()) in unfolded
    for erratum in entry.errata:
        for said in (erratum.fault, erratum.remedy, erratum.show() if erratum.show else ""):
            assert " ".join(said.split()) in unfolded
    for function in (*entry.loops, *entry.as_printed):
        assert source(function) in text
    assert ("not written yet" in rung(entry.id, "Library")) == (entry.status == "open")
    assert rung(entry.id, "Chapter") == (entry.chapter or "none")


def test_ladder_shows_a_primitive_by_its_line_of_the_table():
    library = rung("F-ACT", "Library")
    table = (ROOT / "tinyllm/autograd/ops/activations.py").read_text(encoding="utf-8")
    [line] = [line for line in table.split("\n") if line.startswith("_relu = ")]
    assert line in library
    assert line.endswith(
        'primitive("relu", lambda g, y, x: where(x > 0, g, 0.0), forward=lambda xp, x: xp.maximum(x, 0))'
    )
    number = table.split("\n").index(line) + 1
    assert f"--- _relu  tinyllm/autograd/ops/activations.py:{number}  (rule: g arrives at y)" in library
    assert "lambda g, y, x: g * (1 - y * y)" in library  # tanh
    assert source(sys.modules["tinyllm.autograd.ops.activations"].sigmoid_values) in library


def test_ladder_shows_a_fused_operation_with_its_kernels():
    attention, softmax = (sys.modules[f"tinyllm.autograd.fused.{name}"] for name in ("attention", "softmax"))
    from tinyllm.kernels.cpu import attention as kernels

    library = rung("F-ATTN", "Library")
    for function in (
        attention.scaled_dot_product_attention, attention._ref, attention._forward, attention._vjp, attention._weights,
        softmax.softmax, softmax._softmax_ref, softmax._softmax, softmax._softmax_vjp, softmax._shifted,
    ):  # fmt: skip
        assert library.count(source(function)) == 1
    assert library.count("(NumPy, forward)") == library.count("(NumPy, backward)") == 2
    for kernel in (kernels.attention, kernels.attention_vjp):
        assert source(getattr(kernel, "py_func", kernel)) in rung("F-ATTN", "Numba kernels")


def test_ladder_shows_the_method_of_a_class():
    from tinyllm.nn import FeedForward
    from tinyllm.optim.adam import adam_step

    assert "return self.down(self.drop(hidden))" in rung("F-MLP-004", "Library")
    assert source(FeedForward.__init__) not in rung("F-MLP-004", "Library")
    assert source(adam_step) in rung("F-ADAM", "Library")
    assert "def _update(" in rung("F-ADAM", "Library")
    assert "tinyllm.kernels.cpu.adamw.adam" in rung("F-ADAM", "Numba kernels")


def test_ladder_shows_a_sample_whole():
    from tinyllm.samples import c004_transformer_language_model

    assert inspect.getsource(c004_transformer_language_model).rstrip() in rung("C-004", "Library")
    assert "kernels" not in ladder("C-004").lower().split("library")[0]
    assert rung("F-PE", "Numba kernels") == "none: NumPy computes it"


def test_ladder_shows_the_cuda_file_beside_the_numba_kernels(tmp_path, monkeypatch):
    """The rung is there as soon as the file is; it is read, so that no CUDA package is needed."""
    for name in ("attention", "softmax"):
        file = ROOT / f"tinyllm/kernels/cuda/{name}.py"
        assert not file.exists() or file.read_text(encoding="utf-8").rstrip() in rung("F-ATTN", "CUDA kernels")
    folder = tmp_path / "tinyllm" / "kernels" / "cuda"
    folder.mkdir(parents=True)
    (folder / "adamw.py").write_text("raise RuntimeError\n", encoding="utf-8")
    entry = get("F-ADAM")
    monkeypatch.setattr(show, "ROOT", tmp_path)
    assert list(show._cuda_files(entry)) == ["--- tinyllm/kernels/cuda/adamw.py\nraise RuntimeError"]
    assert list(show._cuda_files(dataclasses.replace(entry, kernels=()))) == []


def test_ladder_names_the_nearest_id():
    with pytest.raises(FormulaError, match="did you mean 'F-ATTN'"):
        ladder("F-ATN")


@entries
def test_compiled_operations_have_their_kernels_named(entry):
    """An entry whose operation has a Numba kernel names it, and what it names is imported by that operation."""
    compiled = {}
    for dotted in entry.library:
        try:
            found = resolve(dotted)
        except (ImportError, AttributeError):
            continue
        if inspect.isfunction(found):
            compiled |= {op.name: op for op in operations(found).values() if "numba" in op.impls}
    assert compiled == {} or entry.kernels
    for kernel in entry.kernels:
        assert kernel.startswith("tinyllm.kernels.cpu.")


def test_listing_loads_no_compiler():
    code = (
        "import sys, tinyllm.formulas as f; f.listing(); f.all_formulas();"
        "print([m for m in ('numba', 'matplotlib') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
