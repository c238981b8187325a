"""Pictures. Matplotlib is loaded when the first one is drawn."""

from tinyllm.viz.loss import loss_curve
from tinyllm.viz.save import save_figure

__all__ = ["loss_curve", "save_figure"]
