"""Optimisers, learning rates over time, averages of weights, and clipping."""

from tinyllm.optim import schedules
from tinyllm.optim.adagrad import Adagrad
from tinyllm.optim.adam import Adam, AdamW
from tinyllm.optim.average import EMA
from tinyllm.optim.clip import clip_factor, clip_grad_norm_, clip_grad_value_
from tinyllm.optim.layerwise import LayerwiseAdamW
from tinyllm.optim.muon import Muon
from tinyllm.optim.optimizer import Optimizer
from tinyllm.optim.rmsprop import RMSprop
from tinyllm.optim.sgd import SGD
from tinyllm.optim.together import Together

__all__ = [
    "EMA",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "LayerwiseAdamW",
    "Muon",
    "Optimizer",
    "RMSprop",
    "Together",
    "clip_factor",
    "clip_grad_norm_",
    "clip_grad_value_",
    "schedules",
]
