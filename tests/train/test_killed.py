"""A process that is killed at any moment leaves a folder from which the run goes on as if nothing had been."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from killed_child import plan
from trainees import make_trainer, resumed

from tinyllm.train import checkpoint
from tinyllm.train.trainer import LOG

CHILD = Path(__file__).with_name("killed_child.py")


def run_and_kill(folder: Path, after: float) -> bool:
    """Start the child, kill it so many seconds after it is ready, and say whether it was done by then."""
    with subprocess.Popen([sys.executable, str(CHILD), str(folder)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        time.sleep(after)
        child.kill()
        rest = child.stdout.read()
    assert child.returncode == -signal.SIGKILL or rest == "done\n"
    return rest == "done\n"


def check_kills(folder: Path, kills: int) -> None:
    rng = np.random.default_rng(kills)
    (folder / "killed").mkdir()
    survived = 0
    for _ in range(kills):
        survived += run_and_kill(folder / "killed", rng.uniform(0, 0.25))
    if (folder / "killed" / checkpoint.FILE).exists():
        trainer = resumed(folder / "killed", **plan())
    else:
        trainer = make_trainer(folder / "killed", **plan())
    trainer.run()
    whole = make_trainer(folder / "whole", **plan())
    whole.folder.mkdir()
    whole.run()
    np.testing.assert_array_equal(trainer.model.table.data, whole.model.table.data)
    logs = []
    for run in ("killed", "whole"):
        records = [json.loads(line) for line in (folder / run / LOG).read_text().splitlines()]
        logs.append([{key: value for key, value in record.items() if key != "seconds"} for record in records])
    assert logs[0] == logs[1]
    assert survived < kills, "no kill met a run at work: the test shows nothing"


def test_a_run_killed_at_random_moments_equals_one_never_interrupted(tmp_path):
    check_kills(tmp_path, kills=4)


@pytest.mark.slow
def test_a_run_killed_at_many_random_moments_equals_one_never_interrupted(tmp_path):
    for kills in (10, 20, 30):
        (tmp_path / str(kills)).mkdir()
        check_kills(tmp_path / str(kills), kills)
