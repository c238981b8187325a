"""Optimisers, learning rates over time, and clipping."""

from tinyllm.optim import schedules
from tinyllm.optim.adam import Adam, AdamW
from tinyllm.optim.clip import clip_grad_norm_, clip_grad_value_
from tinyllm.optim.optimizer import Optimizer
from tinyllm.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "clip_grad_norm_", "clip_grad_value_", "schedules"]
