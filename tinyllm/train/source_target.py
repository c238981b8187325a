"""What a model of two texts is trained for: to tell the next token of the target, having read the source."""

from __future__ import annotations

import numpy as np

from tinyllm.autograd import Tensor
from tinyllm.train.task import Wrapped
from tinyllm.train.trainer import Batch


class SourceTarget(Wrapped):
    """An encoder-decoder with the mean loss of the target's tokens.

    Parameters
    ----------
    model : EncoderDecoder
        Whatever has ``loss(batch)`` for batches with ``input_ids``, ``attention_mask`` and ``labels``.
    """

    def loss(self, batch: Batch) -> Tensor:
        """Mean over all labels but those of -100."""
        return self.model.loss(batch)

    def count(self, batch: Batch) -> int:
        """The labels that are predicted."""
        return int((batch["labels"] != -100).sum())

    def logits(self, batch: Batch) -> tuple[Tensor, np.ndarray]:
        """The scores (B, T, V) and the labels (B, T) that they are held against."""
        return self.model(**batch).logits, batch["labels"]
