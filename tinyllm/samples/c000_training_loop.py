"""C-000: the training of a Transformer. Document 000 (000_4ac81f9a075b5a99.txt), section 5.

What is wrong in the original, in the order of its lines, and what is done here:

* The class's body is a comment, which is a syntax error: the model is `tinyllm.models.GPT`.
* `train_dataset` is an ellipsis: here it is real text, one token per character.
* `model`, `num_epochs` and `train_dataloader` are used and never made: here they are.
* The loop breaks off in a comment, ``# ...``: the procedure of its section 3.1 (P-TRAIN, with 004's section 3.2.2) goes
  on there by adjusting the learning rate and repeating *until the model converges*, so that is what stands here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinyllm.data import tokenize_corpus
from tinyllm.models import GPT, GPTConfig
from tinyllm.nn import CrossEntropyLoss
from tinyllm.optim import Adam
from tinyllm.samples.material import Source, excerpt, next_token_loader
from tinyllm.text import CharTokenizer


@dataclass(frozen=True)
class Trained:
    """What the loop leaves: the model, the mean loss of each epoch, and the learning rate that came next."""

    model: GPT
    losses: list[float]
    lr: float


def training_loop(
    data: Source = "stdlib-prose",
    characters: int = 20_000,
    n_layer: int = 2,
    n_embd: int = 64,
    block_size: int = 64,
    batch_size: int = 16,
    num_epochs: int = 20,
    lr: float = 3e-3,
    decay: float = 0.9,
    tolerance: float = 0.02,
    seed: int = 0,
) -> Trained:
    """Train a small GPT to predict the next character (P-TRAIN), printing the loss of each epoch.

    Parameters
    ----------
    data : str, path or Corpus
        Where the text comes from.
    characters : int
        How much of it is read.
    n_layer, n_embd : int
        Size of the model; the document gives none.
    block_size, batch_size : int
        Tokens in a window, windows in a step.
    num_epochs : int
        The most passes over the text.
    lr, decay : float
        Learning rate of Adam, and what it is multiplied by after each pass.
    tolerance : float
        Converged when a pass lowers the loss by less than this, in nats.
    seed : int

    Returns
    -------
    Trained
    """
    rng = np.random.default_rng(seed)

    # The data: cleaned, cut into characters, numbered
    train_dataset = excerpt(data, characters)
    tokenizer = CharTokenizer.train(document.text for document in train_dataset.documents)
    ids = tokenize_corpus(train_dataset.documents, tokenizer)

    # The Transformer, its parameters initialised
    config = GPTConfig(
        vocab_size=tokenizer.vocab_size, n_positions=block_size, n_embd=n_embd, n_layer=n_layer, n_head=4
    )
    model = GPT(config, rng=rng)

    # Optimiser and loss function
    optimizer = Adam(model.parameters(), lr=lr)
    loss_fn = CrossEntropyLoss()

    # The training loop
    losses: list[float] = []
    for epoch in range(num_epochs):
        train_dataloader = next_token_loader(ids, batch_size, block_size, rng)
        steps = []
        for inputs, labels in train_dataloader:
            # Forward
            outputs = model(inputs).logits  # (B, T, V)
            loss = loss_fn(outputs, labels)

            # Backward
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps.append(loss.item())

        losses.append(float(np.mean(steps)))
        print(f"Epoch [{epoch + 1}/{num_epochs}], lr {optimizer.lr:.5f}, Loss: {losses[-1]:.4f}")
        # Adjust the learning rate; repeat until converged
        optimizer.lr *= decay
        if len(losses) > 1 and losses[-2] - losses[-1] < tolerance:
            break
    return Trained(model, losses, optimizer.lr)


if __name__ == "__main__":
    training_loop()
