"""tinyllm: large language models from the chain rule up, in NumPy.

`import tinyllm` loads the engine (NumPy alone); everything else is loaded when it is first named.
"""

import importlib
from typing import Any

from tinyllm.autograd import *  # noqa: F403
from tinyllm.autograd import __all__ as _engine
from tinyllm.autograd.fused import *  # noqa: F403
from tinyllm.autograd.fused import __all__ as _fused
from tinyllm.autograd.ops import *  # noqa: F403
from tinyllm.autograd.ops import __all__ as _ops
from tinyllm.errors import TinyLLMError
from tinyllm.threads import get_num_threads, set_num_threads

__version__ = "0.1.0"

_ROOMS = (
    "autograd",
    "data",
    "formulas",
    "generation",
    "keras",
    "kernels",
    "metrics",
    "models",
    "nn",
    "optim",
    "profile",
    "samples",
    "testing",
    "text",
    "train",
    "viz",
)

__all__ = ["TinyLLMError", "__version__", "generate", "get_num_threads", "set_num_threads"]  # noqa: F405
__all__ += [*_ROOMS, *_engine, *_ops, *_fused]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"tinyllm.{name}")
    if name == "generate":
        return importlib.import_module("tinyllm.generation").generate
    raise AttributeError(f"module 'tinyllm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
