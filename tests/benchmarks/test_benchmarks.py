"""The benchmarks' common ground: alternating processes, the object that they print, the tables of the README."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BENCHMARKS = HERE.parents[1] / "benchmarks"
NAMES = (
    "train_step",
    "decode",
    "attention",
    "recurrent",
    "kernels",
    "overhead",
    "threads",
    "memory",
    "tokenizer",
    "word2vec",
)


def python(*arguments):
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_the_object():
    done = python(HERE / "tiny_benchmark.py", "--json")
    result = json.loads(done.stdout)
    assert {"machine", "threads", "sgemm_flops", "copy_bytes", "rows", "notes"} <= set(result)
    assert {"processor", "cores", "versions"} <= set(result["machine"])
    rows = {(row["work"], row["peer"]): row for row in result["rows"]}
    assert set(rows) == {("sleep once", "slow"), ("sleep twice", "slow"), ("sleep twice", "sampled")}
    for row in rows.values():
        assert {"work", "peer", "ours_s", "peer_s", "ratio", "limit_share"} <= set(row)
        assert row["ratio"] == pytest.approx(row["peer_s"] / row["ours_s"])
        assert row["ours_range_s"][0] <= row["ours_s"] <= row["ours_range_s"][1]
        assert row["limit_share"] == pytest.approx(1e-3 / row["ours_s"])  # a million of either at 1e9 per second
    assert rows["sleep once", "slow"]["peer_s"] >= 0.004
    assert rows["sleep twice", "sampled"]["peer_s"] >= 0.010
    assert result["notes"] == ["nobody: skipped, nobody has it"]
    assert done.stderr.index("tinyllm") < done.stderr.index("slow") < done.stderr.rindex("tinyllm")


def test_the_table():
    out = python(HERE / "tiny_benchmark.py", "--rounds", "1", "--together").stdout
    assert "limits measured now: sgemm 1 GFLOP/s, copy 1.0 GB/s" in out
    assert len([line for line in out.splitlines() if line.startswith("sleep ")]) == 3


def test_every_benchmark_says_what_it_does():
    program = "import sys; sys.path.insert(0, {!r}); import all, {}; print(*all.NAMES)"
    names = python("-c", program.format(str(BENCHMARKS), ", ".join(NAMES))).stdout.split()
    assert names == list(NAMES)


def test_a_table_of_the_readme_is_rewritten_and_the_rest_is_left(monkeypatch):
    program = (
        f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); import all\n"
        "row = dict(work='w', peer='p', ours_s=0.5, peer_s=1.0, ratio=2.0, limit_share=0.25,"
        " ours_range_s=[0.4, 0.6], peer_range_s=[1.0, 1.0])\n"
        "kept = dict(work='m', peer=None, ours_s=None, peer_s=None, ratio=None, limit_share=None, ours_bytes=2**21)\n"
        "about = dict(processor='P', cores=2, system='S', versions={'python': '3'})\n"
        "result = dict(benchmark='b.py', date='2026-01-02', machine=about, threads=1, sgemm_flops=1e9, copy_bytes=1e9,"
        " rows=[row, kept], notes=['note'])\n"
        "text = 'before\\n<!-- b -->\\nold\\n<!-- /b -->\\nafter\\n'\n"
        "print(all.written(text, 'b', all.markdown(result)))"
    )
    out = python("-c", program).stdout
    assert out.startswith("before\n<!-- b -->\n`b.py`, 2026-01-02, P, 2 cores, S, 1 thread; python 3;")
    assert "| w | 500 ms [400, 600] | p | 1.00 s | 2.00 | 25% |" in out
    assert "| m | 2 MiB | - | - | - | - |" in out
    assert "old" not in out
    assert out.rstrip().endswith("* note\n<!-- /b -->\nafter")


def test_the_readme_has_a_place_for_every_benchmark():
    text = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    for name in NAMES:
        assert text.index(f"<!-- {name} -->") < text.index(f"<!-- /{name} -->")
