"""Pictures. Matplotlib is loaded when the first one is drawn."""

from tinyllm.viz.attention import attention_map
from tinyllm.viz.backward import BackwardSteps, step_backward
from tinyllm.viz.distributions import distributions
from tinyllm.viz.loss import loss_curve
from tinyllm.viz.save import save_figure
from tinyllm.viz.tape import draw_tape
from tinyllm.viz.words import word_map

__all__ = [
    "BackwardSteps",
    "attention_map",
    "distributions",
    "draw_tape",
    "loss_curve",
    "save_figure",
    "step_backward",
    "word_map",
]
