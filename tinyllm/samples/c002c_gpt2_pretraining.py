"""C-002c: the pre-training of a GPT-2. Document 002 (002_53c33e9b6693ac78.txt), section 5.3.

What is wrong in the original, in the order of its lines, and what is done here:

* It pre-trains a model that is loaded pre-trained. Here it starts from random weights; a folder with a GPT-2 may be
  named instead.
* `TextDataset` cuts across documents, drops the tail, and is gone from transformers since version 5. Here an
  end-of-text token parts the documents, and blocks are drawn from anywhere in the text: `tinyllm.data.Batches`, whose
  batches are the collator's with ``mlm=False``, ``{"input_ids": ids, "labels": ids}``.
* ``block_size=128`` meets a context of 1,024 positions, of which 896 are never trained. Here block and context are one
  number.

The original names no learning rate; the trainer's default there, 5e-5, is one for a model that is trained already. Here
it is 6e-4, with warm-up and a cosine (Brown et al. 2020, table 2.1, the smallest model).
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyllm.data import Batches, tokenize_corpus
from tinyllm.errors import ConfigError
from tinyllm.models import GPT, GPTConfig
from tinyllm.optim import AdamW, schedules
from tinyllm.samples.material import Source, excerpt
from tinyllm.text import ByteLevelBPE, Tokenizer
from tinyllm.train import Plan, Trainer, mean_loss

END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class Pretrained:
    """What the training leaves: model and tokenizer, the number of steps, and the loss on its text before and after."""

    model: GPT
    tokenizer: Tokenizer
    steps: int
    loss_before: float
    loss_after: float


def gpt2_pretraining(
    data: Source = "stdlib-prose",
    characters: int = 10_000,
    tokenizer: Tokenizer | None = None,
    pretrained: str | os.PathLike[str] | None = None,
    output_dir: str | os.PathLike[str] | None = None,
    n_layer: int = 12,
    n_head: int = 12,
    n_embd: int = 768,
    block_size: int = 128,
    num_train_epochs: int = 3,
    train_batch_size: int = 4,
    save_steps: int = 10_000,
    lr: float = 6e-4,
    seed: int = 0,
) -> Pretrained:
    """Pre-train a GPT-2 on a text with the `Trainer`, printing the loss before and after.

    Parameters
    ----------
    data : str, path or Corpus
        The training text.
    characters : int
        How much of it is read.
    tokenizer : Tokenizer, optional
        With an end-of-text token, such as GPT-2's own; without it a byte-level BPE is trained on the text.
    pretrained : path, optional
        A folder with a GPT-2 to go on from, and whose tokenizer is `tokenizer`; its sizes are used.
    output_dir : path, optional
        A folder for checkpoint, log, and the trained model as Hugging Face folder; without it nothing is written.
    n_layer, n_head, n_embd : int
        The smallest GPT-2's by default: 124 M parameters with its 50,257 tokens.
    block_size, num_train_epochs, train_batch_size, save_steps : int
        The document's by default.
    lr : float
        The highest learning rate.
    seed : int

    Returns
    -------
    Pretrained

    Raises
    ------
    ConfigError
        If `pretrained` is given without the tokenizer that belongs to it.
    """
    # Data: documents with an end-of-text token behind each, as one array
    corpus = excerpt(data, characters)
    if tokenizer is None:
        if pretrained is not None:
            raise ConfigError("a pre-trained model knows the tokens of its own tokenizer: give it as tokenizer=")
        texts = (document.text for document in corpus.documents)
        tokenizer = ByteLevelBPE.train(texts, special_tokens=[END_OF_TEXT])
    end = tokenizer.token_to_id(END_OF_TEXT)
    ids = tokenize_corpus(corpus.documents, tokenizer, separator=end)

    # Model
    if pretrained is not None:
        model = GPT.from_pretrained(pretrained)
        block_size = min(block_size, model.context_length)
    else:
        config = GPTConfig(
            vocab_size=tokenizer.vocab_size,
            n_positions=block_size,  # one number
            n_layer=n_layer,
            n_head=n_head,
            n_embd=n_embd,
            embd_pdrop=0.1,
            attn_pdrop=0.1,
            resid_pdrop=0.1,
            bos_token_id=end,
            eos_token_id=end,
        )
        model = GPT(config, rng=np.random.default_rng(seed))
    print(f"{model.num_parameters():,} parameters, {len(ids):,} tokens")

    # Dataset and collator
    train_dataset = Batches(ids, train_batch_size, block_size, seed)

    # Training arguments
    steps = num_train_epochs * math.ceil(len(ids) / (train_batch_size * block_size))
    plan = Plan(
        steps=steps,
        rate=schedules.cosine(lr, warmup=steps // 10, steps=steps, final=lr / 10),
        clip=1.0,
        seed=seed,
        eval_every=save_steps,
    )
    folder = None if output_dir is None else Path(output_dir)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)

    # Trainer
    trainer = Trainer(
        model=model,
        batches=train_dataset,
        optimizer=AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.1),
        plan=plan,
        folder=folder,
    )

    # Train
    probe = train_dataset.at(0)
    before = mean_loss(model, [probe])
    trainer.run()
    after = mean_loss(model, [probe])
    print(f"Loss before: {before:.4f}, after {steps} steps: {after:.4f}")
    if folder:
        model.save_pretrained(folder)
        tokenizer.save(folder)
    return Pretrained(model, tokenizer, steps, before, after)


if __name__ == "__main__":
    gpt2_pretraining()
