"""What training holds: no more after many steps than after a few."""

import os
from pathlib import Path

import numpy as np
import pytest

import tinyllm as tl
from tinyllm.train import Plan, Settings, Trainer
from tinyllm.train.use import step_bytes

STATM = Path("/proc/self/statm")


def gpt(layers: int = 2, channels: int = 64) -> tl.models.GPT:
    config = tl.models.GPTConfig(n_layer=layers, n_head=2, n_embd=channels, n_positions=64, vocab_size=50)
    return tl.models.GPT(config, rng=np.random.default_rng(0))


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="the system does not tell how much memory a process holds")
def test_a_long_run_does_not_grow():
    model = gpt()
    batches = tl.data.Batches(np.random.default_rng(1).integers(0, 50, 10_000), 16, 64)
    plan = Plan(steps=10_000, rate=lambda t: 1e-3, clip=1.0)
    trainer = Trainer(model, batches, tl.optim.AdamW(model.parameters()), plan)
    held = []
    for step in range(600):
        trainer.step()
        if step >= 100:
            held.append(int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    assert max(held[-100:]) < 1.05 * max(held[:100])


def test_the_estimate_of_a_step_follows_what_decides_it():
    model = gpt()
    base = Settings(batch_size=8, block_size=64, threads=1)
    known = 16 * model.num_parameters()  # parameters, gradients, two moments

    def estimate(**options):
        return step_bytes(model, Settings.make(base.as_dict(), options))

    assert estimate() > known
    assert estimate(batch_size=16) - known == pytest.approx(2 * (estimate() - known))
    assert estimate(checkpoint_activations="yes") < estimate()
    assert estimate(accumulate=2) - known < estimate() - known


@pytest.mark.parametrize("checkpointed", ["no", "yes"])
def test_the_estimate_of_a_step_is_near_what_it_needs(checkpointed, peak_of):
    model = gpt(layers=4, channels=128)
    model.transformer.checkpoint_blocks = checkpointed == "yes"
    batches = tl.data.Batches(np.random.default_rng(1).integers(0, 50, 10_000), 8, 64)
    trainer = Trainer(model, batches, tl.optim.AdamW(model.parameters()), Plan(steps=10, rate=lambda t: 1e-3, clip=1.0))
    before = tl.get_num_threads()
    tl.set_num_threads(1)
    try:
        trainer.step()  # the moments are there from now on
        peak = peak_of(trainer.step)
    finally:
        tl.set_num_threads(before)
    settings = Settings(batch_size=8, block_size=64, threads=1, checkpoint_activations=checkpointed)
    assert 0.7 < step_bytes(model, settings) / (peak + 12 * model.num_parameters()) < 1.5
