"""`--model llama` and `--model mixtral`: what the settings make, and that it learns."""

import numpy as np
import pytest

import tinyllm as tl
from tinyllm.errors import ConfigError
from tinyllm.text import CharTokenizer
from tinyllm.train.families import make_model, make_objective
from tinyllm.train.settings import Settings

TEXT = "the cat sat on the mat and the dog ran. " * 30


def made(**settings):
    tokenizer = CharTokenizer.train([TEXT])
    settings = Settings.make({"n_layer": 2, "n_head": 2, "n_embd": 24, "block_size": 16} | settings)
    return make_model(settings, tokenizer), tokenizer, settings


@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_it_learns(name):
    model, tokenizer, settings = made(model=name)
    assert type(model).__name__.lower() == name
    assert model.context_length == 16
    task = make_objective(model, tokenizer, settings)
    batches = task.batches(np.array(tokenizer.encode(TEXT)), 4, seed=0)
    optimizer, losses = tl.optim.AdamW(model.parameters(), lr=1e-2), []
    for step in range(12):
        loss = task.loss(batches.at(step))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3


def test_two_experts_do_the_work_of_one_network():
    dense, mixture = (made(model=name)[0].config for name in ("llama", "mixtral"))
    assert mixture.intermediate_size * mixture.num_experts_per_tok == dense.intermediate_size
    assert mixture.router_aux_loss_coef > 0
    assert dense.intermediate_size % 8 == 0
    assert dense.intermediate_size * 3 >= 8 * dense.hidden_size


def test_recomputed_blocks():
    assert made(model="llama", checkpoint_activations="yes")[0].model.checkpoint_blocks
    with pytest.raises(ConfigError, match="checkpoint_activations"):
        made(model="mixtral", checkpoint_activations="yes")
