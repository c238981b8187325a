"""More texts out of few: small changes that should leave a label as it is.

References
----------
Wei and Zou 2019, "EDA: easy data augmentation techniques for boosting performance on text classification tasks"
(deletion, swap, replacement); Kobayashi 2018, "Contextual augmentation" (a masked model's words).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

#: From a text to one like it.
Augmentation = Callable[[str, np.random.Generator], str]


def delete_words(text: str, rng: np.random.Generator, share: float = 0.1) -> str:
    """Each word is left out with probability `share`; one stays at least."""
    words = text.split()
    kept = [word for word, u in zip(words, rng.random(len(words)), strict=True) if u >= share]
    return " ".join(kept or words[:1])


def swap_words(text: str, rng: np.random.Generator, share: float = 0.1) -> str:
    """Two words at random change places, for a `share` of the words, at least once."""
    words = text.split()
    if len(words) > 1:
        for _ in range(max(1, round(share * len(words)))):
            i, j = rng.choice(len(words), 2, replace=False)
            words[i], words[j] = words[j], words[i]
    return " ".join(words)


def neighbour_words(
    neighbours: Callable[[str], Sequence[str]], text: str, rng: np.random.Generator, share: float = 0.1
) -> str:
    """Words become one of their neighbours, each with probability `share`.

    Parameters
    ----------
    neighbours : callable
        The words that may take the place of one (in lower case), such as those of word2vec; none where it is unknown.
    text : str
    rng : numpy Generator
    share : float
    """
    words = text.split()
    for i, u in enumerate(rng.random(len(words))):
        found = neighbours(words[i].lower()) if u < share else ()
        if found:
            words[i] = found[int(rng.integers(len(found)))]
    return " ".join(words)


def masked_words(model: Any, tokenizer: Any, text: str, rng: np.random.Generator, share: float = 0.1) -> str:
    """Tokens are hidden, each with probability `share`, one at least, and drawn anew by a masked model (F-MLM).

    Parameters
    ----------
    model : BERTForMaskedLM
    tokenizer : WordPiece
    text : str
    rng : numpy Generator
    share : float
    """
    from tinyllm.autograd import no_grad

    ids = np.array([tokenizer.encode(text)[: model.context_length]])  # (1, T)
    inner = np.arange(1, ids.shape[1] - 1)  # not the tokens around the text
    if not len(inner):
        return text
    hidden = inner[rng.random(len(inner)) < share]
    if not len(hidden):
        hidden = rng.choice(inner, 1)
    ids[0, hidden] = tokenizer.mask_token_id
    with no_grad():
        logits = model(ids).logits.data[0, hidden].astype(np.float64)  # (N, V)
    logits[:, list(tokenizer.special_tokens.values())] = -np.inf
    ids[0, hidden] = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)  # a draw from softmax(logits)
    return str(tokenizer.decode(ids[0].tolist()))
