"""Trains, or goes on, in the folder named by the first argument, saving after every step; to be killed from outside."""

import sys
from pathlib import Path

from trainees import make_trainer, resumed

from tinyllm.train import checkpoint

STEPS = 400


def plan() -> dict:
    return {"steps": STEPS, "eval_every": 1}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    begun = (folder / checkpoint.FILE).exists()
    trainer = resumed(folder, **plan()) if begun else make_trainer(folder, **plan())
    print("ready", flush=True)
    trainer.run()
    print("done", flush=True)
