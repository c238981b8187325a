"""P-LOOP: preprocess -> initialise -> train -> predict -> evaluate -> optimise -> train, as one function that ends.

Document 004 (004_860f05fdad413a68.txt), section 2.2, draws it as a flow chart. What is wrong there: after the
evaluation it always goes on, so that no path comes to an end, and the evaluation, drawn as a decision, has one way out.
Here it has more: "good enough", "no better any more" and "enough rounds" end the loop with the best parameters found.

What the chart leaves open is chosen so: to optimise is to set another learning rate by what the evaluation says, and
the training goes on from where it was. If the round helped, the rate rises a little; if not, the best parameters are
put back and the rate falls to a quarter (the bold driver: Battiti 1989, "Accelerated backpropagation learning: two
optimization methods"). A second round in a row that does not help is the end. A text that decides so often
no longer judges: for a verdict on the model, hold out another one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tinyllm.autograd import no_grad
from tinyllm.autograd.fused import cross_entropy
from tinyllm.data import Batches, eval_windows, split, tokenize_corpus
from tinyllm.models import GPT, GPTConfig
from tinyllm.optim import Adam, schedules
from tinyllm.samples.material import Source, excerpt
from tinyllm.text import CharTokenizer
from tinyllm.train import Plan, Trainer

HELPED, NO_HELP = "trains on, faster", "back to the best, slower"
GOOD_ENOUGH, NO_BETTER, ENOUGH_ROUNDS = "end: good enough", "end: no better any more", "end: enough rounds"


@dataclass(frozen=True)
class Round:
    """One way round the chart: the rate it trained with, what the evaluation found, and what was decided."""

    lr: float
    loss: float
    accuracy: float
    decision: str


@dataclass(frozen=True)
class Prediction:
    """The logits (V,) for each token of the held-out text, and the tokens that really came."""

    logits: np.ndarray
    truth: np.ndarray


def improvement_loop(
    data: Source = "stdlib-prose",
    characters: int = 100_000,
    n_layer: int = 2,
    n_embd: int = 64,
    block_size: int = 64,
    batch_size: int = 16,
    steps: int = 100,
    lr: float = 3e-3,
    target: float = 0.0,
    tolerance: float = 0.02,
    max_rounds: int = 12,
    seed: int = 0,
) -> tuple[GPT, list[Round]]:
    """Improve a small GPT round by round until the held-out text says that it is enough, printing a line for each.

    Parameters
    ----------
    data : str, path or Corpus
        Where the text comes from; a tenth of it is held out.
    characters : int
        How much of it is read.
    n_layer, n_embd, block_size, batch_size : int
        Size of the model, tokens in a window, windows in a step.
    steps : int
        Training steps of a round.
    lr : float
        Learning rate of the first round.
    target : float
        A held-out loss, in nats per character, that is good enough.
    tolerance : float
        A round has helped if it lowers the held-out loss by at least this.
    max_rounds : int
        The end if every round helps.
    seed : int

    Returns
    -------
    model : GPT
        With the best parameters found.
    rounds : list of Round
        The last one's decision tells why the loop ended.
    """
    tokenizer, train_ids, held_out_ids = preprocess(data, characters, seed)
    model = initialise(tokenizer, n_layer, n_embd, block_size, seed)
    best, best_loss = model.state_dict(), math.inf
    rounds: list[Round] = []
    while True:
        train(model, Batches(train_ids, batch_size, block_size, seed=seed + len(rounds)), steps, lr)
        loss, accuracy = evaluate(predict(model, held_out_ids, block_size))

        helped = best_loss - loss >= tolerance
        if loss <= target:
            decision = GOOD_ENOUGH
        elif not helped and rounds and rounds[-1].decision == NO_HELP:
            decision = NO_BETTER
        elif len(rounds) + 1 == max_rounds:
            decision = ENOUGH_ROUNDS
        else:
            decision = HELPED if helped else NO_HELP
        rounds.append(Round(lr, loss, accuracy, decision))
        print(f"round {len(rounds)}: lr {lr:.5f}, held-out loss {loss:.4f}, accuracy {accuracy:.3f}; {decision}")

        if loss < best_loss:
            best, best_loss = model.state_dict(), loss
        if decision != HELPED:
            model.load_state_dict(best)
        if decision in (GOOD_ENOUGH, NO_BETTER, ENOUGH_ROUNDS):
            return model, rounds
        lr = optimise(lr, helped)


def preprocess(data: Source, characters: int, seed: int) -> tuple[CharTokenizer, np.ndarray, np.ndarray]:
    """Read and clean the text, hold a part of it out, and number the characters of both."""
    training, held_out = split(excerpt(data, characters), held_out=0.1, seed=seed)
    both = (document.text for part in (training, held_out) for document in part.documents)
    tokenizer = CharTokenizer.train(both)  # the alphabet is known; how often its letters come is learned in training
    return tokenizer, tokenize_corpus(training.documents, tokenizer), tokenize_corpus(held_out.documents, tokenizer)


def initialise(tokenizer: CharTokenizer, n_layer: int, n_embd: int, block_size: int, seed: int) -> GPT:
    """A GPT with random parameters."""
    config = GPTConfig(
        vocab_size=tokenizer.vocab_size, n_positions=block_size, n_embd=n_embd, n_layer=n_layer, n_head=4
    )
    return GPT(config, rng=np.random.default_rng(seed))


def train(model: GPT, batches: Batches, steps: int, lr: float) -> None:
    """A round of training, with Adam started anew."""
    plan = Plan(steps=steps, rate=schedules.constant(lr), clip=1.0, eval_every=steps, seed=batches.seed)
    Trainer(model, batches, Adam(model.parameters(), lr=lr), plan).run()


def predict(model: GPT, ids: np.ndarray, block_size: int) -> Prediction:
    """Score every token of a text but the first from those before it."""
    logits, truth = [], []
    model.eval()
    with no_grad():
        for batch in eval_windows(ids, block_size, batch_size=64):
            windows = batch["input_ids"]  # (B, T)
            scores = model(windows).logits.data[:, :-1]  # (B, T - 1, V)
            logits.append(scores.reshape(-1, scores.shape[-1]))
            truth.append(windows[:, 1:].reshape(-1))
    return Prediction(np.concatenate(logits), np.concatenate(truth))


def evaluate(prediction: Prediction) -> tuple[float, float]:
    """Cross-entropy (F-CE), and the share of tokens whose likeliest prediction came true."""
    with no_grad():
        loss = cross_entropy(prediction.logits, prediction.truth).item()
    return loss, float((prediction.logits.argmax(axis=-1) == prediction.truth).mean())


def optimise(lr: float, helped: bool) -> float:
    """The next learning rate."""
    return 1.2 * lr if helped else lr / 4


if __name__ == "__main__":
    improvement_loop()
