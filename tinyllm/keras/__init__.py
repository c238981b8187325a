"""Models the way Keras writes them: a stack of layers, `compile`, `fit`, `evaluate`, `predict`.

A thin face over tinyllm's modules, losses, optimisers and its Trainer, so that programs such as sample C-001 run almost
as they are printed: with ``from tinyllm import keras`` in the place of ``tf.keras``.
"""

from tinyllm.keras import layers, losses, optimizers
from tinyllm.keras.sequential import History, Sequential

__all__ = ["History", "Sequential", "layers", "losses", "optimizers"]
