"""Looking inside a model: where it looks, which tokens count, what its layers think, which heads it needs."""

from tinyllm.explain.measures import (
    attention_maps,
    gradient_times_input,
    heads_ablated,
    integrated_gradients,
    logit_lens,
    rollout,
)
from tinyllm.explain.replay import recompute
from tinyllm.explain.report import explain
from tinyllm.explain.subject import Subject, look_at

__all__ = [
    "Subject",
    "attention_maps",
    "explain",
    "gradient_times_input",
    "heads_ablated",
    "integrated_gradients",
    "logit_lens",
    "look_at",
    "recompute",
    "rollout",
]
