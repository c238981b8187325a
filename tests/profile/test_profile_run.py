"""`tinyllm profile`: what the steps cost, that nothing is forgotten, what is printed and drawn."""

import json

import numpy as np
import pytest

import tinyllm as tl
from tinyllm import cli
from tinyllm.profile import Limits, profile

C, T, B, V, LAYERS = 64, 16, 4, 50, 2
LIMITS = Limits(1e11, 1e10, 2)


def make_trainer():
    rng = np.random.default_rng(0)
    config = tl.models.GPTConfig(n_layer=LAYERS, n_head=2, n_embd=C, n_positions=T, vocab_size=V)
    model = tl.models.GPT(config, rng=rng)
    batches = tl.data.Batches(rng.integers(0, V, 1000), B, T)
    plan = tl.train.Plan(steps=100, rate=lambda t: 1e-3, clip=1.0)
    return tl.train.Trainer(model, batches, tl.optim.AdamW(model.parameters(), lr=1e-3), plan)


@pytest.fixture(params=[1, 2])
def threads(request):
    before = tl.get_num_threads()
    tl.set_num_threads(request.param)
    yield request.param
    tl.set_num_threads(before)


def test_the_products_of_a_step_are_those_of_the_model(threads):
    found = profile(make_trainer(), steps=2, warm=1, limits=LIMITS)
    products = [row for row in found.rows if row.op in ("linear", "matmul", "linear_cross_entropy")]
    expected = 3 * 2 * B * T * (LAYERS * 12 * C * C + V * C)
    assert sum(row.flops for row in products) == pytest.approx(expected, rel=0.06)  # biases and softmax beside them


def test_the_parts_add_up_to_the_step(threads):
    found = profile(make_trainer(), steps=3, warm=1, limits=LIMITS)
    parts = sum(row.seconds for row in found.rows) + sum(found.other.values())
    assert parts >= found.step_s * 0.999  # what is not accounted is the rest
    assert all(seconds > 0 for name, seconds in found.other.items() if name != "not accounted")
    assert found.rows == sorted(found.rows, key=lambda row: row.seconds, reverse=True)
    assert found.tokens in (B * T, B * (T - 1))
    for row in found.rows:
        assert row.step_share == pytest.approx(row.seconds / found.step_s)
        assert row.bound in ("sgemm", "copy")


def test_profiling_changes_no_step():
    trainers = [make_trainer() for _ in range(2)]
    profile(trainers[0], steps=2, warm=1, limits=LIMITS)
    for _ in range(3):
        trainers[1].step()
    for (_, a), (_, b) in zip(*(t.model.named_parameters() for t in trainers), strict=True):
        np.testing.assert_array_equal(a.data, b.data)
    assert "at" not in vars(trainers[0].batches)
    assert "step" not in vars(trainers[0].optimizer)


@pytest.fixture(scope="session")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profile")
    (folder / "text.txt").write_text("the cat sat on the mat. " * 100)
    file = folder / "small.toml"
    file.write_text(
        f'data = "{(folder / "text.txt").as_posix()}"\nn_layer = 1\nn_head = 2\nn_embd = 16\nblock_size = 16\n'
        "batch_size = 4\nthreads = 2\nsteps = 2\nsample_tokens = 0\neval_windows = 4\n"
    )
    return file


def test_the_command_prints_a_table_and_leaves_a_picture(capsys, settings):
    before = tl.get_num_threads()
    assert cli.main(["profile", str(settings), "--steps", "2"]) == 0
    out = capsys.readouterr().out
    assert "attention" in out
    assert "optimiser" in out
    assert "not accounted" in out
    assert "GFLOP/s" in out
    assert (settings.parent / "roofline.png").read_bytes().startswith(b"\x89PNG")
    assert tl.get_num_threads() == before


def test_a_run_is_profiled_with_its_own_settings(capsys, settings, tmp_path):
    run, picture = tmp_path / "run", tmp_path / "here.png"
    assert cli.main(["train", "--config", str(settings), "--out", str(run)]) == 0
    files = sorted(path.name for path in run.iterdir())
    capsys.readouterr()
    assert cli.main(["profile", str(run), "--steps", "1", "--json", "--out", str(picture)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["threads"] == 2
    assert "C=16" in result["model"]
    assert result["picture"] == str(picture)
    assert {"op", "kernel", "calls", "forward_s", "backward_s", "flops", "bytes", "limit_share"} <= set(
        result["rows"][0]
    )
    assert picture.exists()
    assert sorted(path.name for path in run.iterdir()) == files  # nothing of the run was touched


@pytest.mark.parametrize(("arguments", "message"), [(["no/such"], "no/such"), (["--steps", "0"], "at least 1")])
def test_errors_of_the_users(capsys, arguments, message):
    assert cli.main(["profile", *arguments]) == 2
    assert message in capsys.readouterr().err
