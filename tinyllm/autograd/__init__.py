"""The engine: tensors, the tape, the operations and their derivatives."""

from tinyllm.autograd import tensor as _first  # isort: skip  # noqa: F401  (tensor opens the circle tensor, tape, ops)
from tinyllm.autograd import ops
from tinyllm.autograd.functional import checkpoint, grad, hessian_vector_product, jvp, value_and_grad, vjp
from tinyllm.autograd.random import Key, random_scope
from tinyllm.autograd.settings import backend, enable_grad, is_recording, no_grad
from tinyllm.autograd.tape import Node, Op, Step, backward_steps
from tinyllm.autograd.tensor import Tensor, tensor
from tinyllm.autograd.trace import print_tape

__all__ = [
    "Key",
    "Node",
    "Op",
    "Step",
    "Tensor",
    "backend",
    "backward_steps",
    "checkpoint",
    "enable_grad",
    "grad",
    "hessian_vector_product",
    "is_recording",
    "jvp",
    "no_grad",
    "ops",
    "print_tape",
    "random_scope",
    "tensor",
    "value_and_grad",
    "vjp",
]
