"""What models are given, checked: ids, masks, positions, labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tinyllm.autograd.tensor import Tensor

IGNORED = -100  # a label that is not predicted


def integers(name: str, value: ArrayLike | Tensor) -> np.ndarray:
    """The value as an array of integers.

    Raises
    ------
    ValueError
        If its rows differ in length.
    TypeError
        If it holds something else.
    """
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(
            f"{name}: the rows differ in length; pad them, and mark the padding in attention_mask"
        ) from None
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name} must be integers, got {array.dtype}")
    return array


def ids_of(given: ArrayLike | Tensor, name: str = "input_ids") -> np.ndarray:
    """Token ids (B, T); `name` is for the errors.

    Raises
    ------
    ValueError, TypeError
        If they are not of this shape, or there are none.
    """
    ids = integers(name, given)
    if ids.ndim != 2 or ids.shape[1] == 0:
        raise ValueError(f"{name} must have shape (B, T) with T > 0, got {ids.shape}")
    return ids


def mask_of(given: ArrayLike | Tensor | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """True for tokens, (B, S); None where there is no padding.

    Raises
    ------
    ValueError
        If the mask has another shape, or other values than 0 and 1.
    """
    if given is None:
        return None
    mask = np.asarray(given)
    if mask.shape != shape:
        raise ValueError(f"attention_mask must have shape {shape}, the ids and what is cached, got {mask.shape}")
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError("attention_mask must be 1 for tokens and 0 for padding")
    return None if mask.all() else mask.astype(bool)


def positions_of(
    given: ArrayLike | Tensor | None, shape: tuple[int, ...], past: int, mask: np.ndarray | None
) -> np.ndarray:
    """Positions (1 or B, T) of the ids (B, T), before which `past` tokens stand; by default counted by the mask.

    Raises
    ------
    ValueError
        If those given have another shape.
    IndexError
        If one is negative.
    """
    if given is None:
        if mask is None:
            return np.arange(past, past + shape[1])[None]
        return np.maximum(mask.cumsum(axis=1) - 1, 0)[:, past:]  # 0 for padding before the first token
    positions = np.atleast_2d(integers("position_ids", given))
    if positions.shape not in (shape, (1, shape[1])):
        raise ValueError(f"position_ids must have shape ({shape[1]},) or {shape}, got {positions.shape}")
    if positions.min() < 0:
        raise IndexError(f"position_ids: {positions.min()} is outside the model's positions, which begin with 0")
    return positions


def targets_of(labels: ArrayLike | Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """Labels (B, T), moved to the positions that predict them: the last one predicts nothing.

    Raises
    ------
    ValueError, TypeError
        If they are not integers of the shape of the ids, or there is nothing to predict.
    """
    labels = integers("labels", labels)
    if labels.shape != shape:
        raise ValueError(f"labels must have the shape of input_ids {shape}, got {labels.shape}")
    if shape[1] < 2:
        raise ValueError("labels need at least 2 tokens: the first one is given, not predicted")
    return np.concatenate([labels[:, 1:].astype(np.int64), np.full((shape[0], 1), IGNORED)], axis=1)
