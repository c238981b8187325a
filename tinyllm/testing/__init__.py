"""Checks for derivatives and kernels, the library's own and other people's.

See the page "Check your own backward pass", `README.md` beside this file.
"""

from tinyllm.testing.gradcheck import gradcheck
from tinyllm.testing.implements import implements
from tinyllm.testing.kernelcheck import kernelcheck
from tinyllm.testing.numerical import numerical_vjp
from tinyllm.testing.report import GradCheckError, GradCheckReport
from tinyllm.testing.strategies import tensors
from tinyllm.testing.taylor import taylor_order

__all__ = [
    "GradCheckError",
    "GradCheckReport",
    "gradcheck",
    "implements",
    "kernelcheck",
    "numerical_vjp",
    "taylor_order",
    "tensors",
]
