"""C-000 and P-TRAIN: the loop trains, lowers its rate, and stops when it has converged."""

import itertools
import math

import numpy as np
import pytest

import tinyllm as tl
from tinyllm.data import tokenize_corpus
from tinyllm.samples import training_loop
from tinyllm.samples.material import excerpt, next_token_loader
from tinyllm.text import CharTokenizer

SMALL = {"characters": 2000, "n_layer": 1, "n_embd": 16, "block_size": 16, "batch_size": 8}


def test_c000_learns_more_than_the_frequencies(prose, capsys):
    """In the end it knows more than how often each character comes (the entropy of the unigrams)."""
    trained = training_loop(prose, **SMALL, num_epochs=25, lr=1e-2, decay=0.95, tolerance=0.0)
    text = "".join(document.text for document in excerpt(prose, 2000).documents)
    _, counts = np.unique(list(text), return_counts=True)
    shares = counts / counts.sum()
    assert trained.losses[0] > -(shares * np.log(shares)).sum() > trained.losses[-1]
    assert trained.model.config.vocab_size == len(shares)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(trained.losses)
    assert lines[-1].endswith(f"Loss: {trained.losses[-1]:.4f}")


def test_c000_stops_when_converged(prose):
    losses = training_loop(prose, **SMALL, num_epochs=50, lr=1e-3, decay=0.5, tolerance=0.05).losses
    falls = [a - b for a, b in itertools.pairwise(losses)]
    assert 1 < len(losses) < 50
    assert falls[-1] < 0.05 <= min(falls[:-1], default=0.05)


def test_c000_lowers_its_rate(prose):
    trained = training_loop(prose, **SMALL, num_epochs=3, lr=1e-3, decay=0.5, tolerance=-math.inf)
    assert len(trained.losses) == 3
    assert trained.lr == pytest.approx(1e-3 * 0.5**3)


def test_c000_is_the_procedure(prose):
    """P-TRAIN written once more, by `tl.grad` and Adam's formula: the same losses."""
    trained = training_loop(prose, **SMALL, num_epochs=2, lr=1e-3, decay=0.5, tolerance=-math.inf, seed=3)
    rng = np.random.default_rng(3)
    corpus = excerpt(prose, 2000)
    tokenizer = CharTokenizer.train(d.text for d in corpus.documents)
    ids = tokenize_corpus(corpus.documents, tokenizer)
    config = tl.models.GPTConfig(vocab_size=tokenizer.vocab_size, n_positions=16, n_embd=16, n_layer=1, n_head=4)
    model = tl.models.GPT(config, rng=rng)
    parameters = list(model.parameters())
    m, v = [np.zeros(p.shape) for p in parameters], [np.zeros(p.shape) for p in parameters]
    t, losses = 0, []
    for lr in (1e-3, 0.5e-3):
        of_epoch = []
        for inputs, labels in next_token_loader(ids, 8, 16, rng):
            model.zero_grad()  # forward, loss, backward
            loss = tl.cross_entropy(model(inputs).logits, labels)
            loss.backward()
            of_epoch.append(loss.item())
            t += 1
            for i, p in enumerate(parameters):  # update
                g = p.grad.numpy().astype(np.float64)
                m[i], v[i] = 0.9 * m[i] + 0.1 * g, 0.999 * v[i] + 0.001 * g * g
                p.assign_(p.data - lr * (m[i] / (1 - 0.9**t)) / (np.sqrt(v[i] / (1 - 0.999**t)) + 1e-8))
        losses.append(np.mean(of_epoch))
    np.testing.assert_allclose(trained.losses, losses, rtol=1e-4)


def test_c000_repeats_itself(prose):
    first, again, other = (training_loop(prose, **SMALL, num_epochs=1, seed=seed).losses for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.slow
def test_c000_with_its_defaults():
    trained = training_loop()
    assert trained.losses[-1] < 2.6
