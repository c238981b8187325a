"""The Tensor: an array, the node that made it, and the gradient that reaches it.

A Tensor does no arithmetic. Its operators name operations of `tinyllm.autograd.ops`; `tinyllm.autograd.tape` records
and differentiates them. What is here is ownership: nobody outside the engine ever holds the writable array.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from tinyllm import device as devices
from tinyllm.device import namespace as namespace

if TYPE_CHECKING:
    from tinyllm.autograd.tape import Node

Array: TypeAlias = Any  # numpy.ndarray, cupy.ndarray, or another class with NumPy's functions in its namespace


class Storage:
    """An array that the engine owns, and a version cell that it shares with every view of the same memory."""

    __slots__ = ("array", "cell")

    def __init__(self, array: Array, cell: list[int] | None = None) -> None:
        self.array = array
        self.cell = [0] if cell is None else cell

    @property
    def version(self) -> int:
        """How often this memory has been assigned to."""
        return self.cell[0]


class Tensor:
    """An n-dimensional array that remembers how it was computed.

    Parameters
    ----------
    data : array_like or Tensor
        Copied, so that later changes of the original are never seen.
    dtype : dtype, optional
        Converts; by default the dtype of the data is kept (Python floats are float64).
    requires_grad : bool
        Whether gradients are to be kept in `grad`. Only for floating dtypes.

    Raises
    ------
    TypeError
        If the data are not numbers or booleans, or an integer tensor is to have a gradient.
    """

    __slots__ = ("__weakref__", "_requires_grad", "_storage", "grad", "node")
    _storage: Storage

    # NumPy must never take a Tensor for a sequence of numbers: `array * tensor` is left to the Tensor.
    __array_ufunc__ = None

    def __init__(self, data: ArrayLike | Tensor, dtype: DTypeLike | None = None, requires_grad: bool = False) -> None:
        source = data._storage.array if isinstance(data, Tensor) else data
        its_own = hasattr(source, "__array_namespace__") or hasattr(source, "__cuda_array_interface__")
        xp = namespace(source) if its_own else np
        array = xp.array(source, dtype=dtype, copy=True)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"a Tensor holds real numbers or booleans, not dtype {array.dtype}")
        self._storage = Storage(array)
        self.node: Node | None = None
        self.grad: Tensor | None = None
        self._requires_grad = False
        self.requires_grad = requires_grad

    @staticmethod
    def _wrap(storage: Storage, node: Node | None = None) -> Tensor:
        """A Tensor on a storage that the engine already owns (no copy)."""
        tensor = object.__new__(Tensor)
        tensor._storage = storage
        tensor.node = node
        tensor.grad = None
        tensor._requires_grad = node is not None
        return tensor

    # -- what it is ---------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self._storage.array.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of the elements."""
        return self._storage.array.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._storage.array.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._storage.array.size

    @property
    def requires_grad(self) -> bool:
        """Whether a gradient flows to this tensor."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and self.dtype.kind != "f":
            raise TypeError(
                f"only floating tensors have gradients, and this one is {self.dtype}; "
                "convert it first, e.g. with astype('float64')"
            )
        if self.node is not None:
            raise ValueError("requires_grad is set on leaves only; use detach() to cut a computed tensor off its tape")
        self._requires_grad = bool(value)

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this tensor."""
        return self.node is None

    @property
    def data(self) -> Array:
        """The values, as a read-only view."""
        view = self._storage.array[...]
        if type(view) is np.ndarray:
            view.flags.writeable = False
        return view

    def numpy(self) -> np.ndarray:
        """A copy of the values as a NumPy array."""
        array = self._storage.array
        return array.copy() if type(array) is np.ndarray else array.get()

    def item(self) -> float | int | bool:
        """The value of a tensor with one element, as a Python number."""
        return self._storage.array.item()

    @property
    def device(self) -> str:
        """Where the values are: ``"cpu"`` or ``"cuda"``."""
        return devices.device_of(self._storage.array)

    def to(self, device: str) -> Tensor:
        """The same values on ``"cpu"`` or ``"cuda"``; the tensor itself if they are there. The gradient comes back.

        Raises
        ------
        DeviceError
            If there is no such device, or no GPU that can be used, and why.
        """
        return to(self, device)

    def _move(self, device: str) -> None:
        """Bring a leaf, and its gradient, to a device, in place."""
        self._storage.array = devices.move(self._storage.array, device)
        self._storage.cell[0] += 1
        if self.grad is not None:
            self.grad = self.grad.to(device)

    def _ask(self, question: str) -> Array:
        """The array, of which Python wants to know something that a GPU would have to be waited for."""
        array = self._storage.array
        if type(array) is not np.ndarray:
            devices.silent(f"{question} reads from the GPU; say .item() or .numpy() where that is meant")
        return array

    def detach(self) -> Tensor:
        """The same values without the tape (the memory, and its version, stay shared)."""
        return Tensor._wrap(self._storage)

    def assign_(self, value: ArrayLike | Tensor) -> Tensor:
        """Overwrite the values in place: the only mutation there is. Every view of the memory sees it.

        Raises
        ------
        ValueError
            If the shapes differ.
        """
        new = value._storage.array if isinstance(value, Tensor) else value
        if np.shape(new) != self.shape:
            raise ValueError(f"assign_ needs a value of shape {self.shape}, got {np.shape(new)}")
        array = self._storage.array
        if type(array) is np.ndarray and hasattr(new, "get") and not isinstance(new, np.ndarray):
            new = new.get()
        array[...] = new if type(array) is np.ndarray else namespace(array).asarray(new)
        self._storage.cell[0] += 1
        return self

    def _adopt(self, array: Array) -> bool:
        """Take `array` as this tensor's memory, in place of `assign_`; False where it is not fit for that."""
        own = self._storage.array
        fit = type(own) is type(array) is np.ndarray and (array.dtype, array.shape) == (own.dtype, own.shape)
        if fit and array.flags.carray:  # contiguous, aligned, writeable: as arrays made here are
            self._storage.array = array
            self._storage.cell[0] += 1
            return True
        return False

    def backward(
        self,
        cotangent: ArrayLike | Tensor | None = None,
        *,
        retain_graph: bool = False,
        create_graph: bool = False,
    ) -> None:
        """Add the gradient of this tensor to `grad` of every leaf it was computed from.

        Parameters
        ----------
        cotangent : array_like or Tensor of this tensor's shape, optional
            The gradient arriving at this tensor; 1 when it has a single element.
        retain_graph : bool
            Keep the tape, so that `backward` can be called again.
        create_graph : bool
            Record the backward computation too, so that it can be differentiated in its turn.
        """
        for _ in tape.backward_steps(self, cotangent, retain_graph=retain_graph, create_graph=create_graph):
            pass

    def __repr__(self) -> str:
        array = self._ask("repr(x)")
        xp = namespace(array)
        parts = [f"shape={self.shape}", f"dtype={self.dtype}"]
        if 0 < self.size <= 6:
            parts.insert(0, " ".join(str(array).split()))
        elif self.size:
            finite = array[xp.isfinite(array)] if self.dtype.kind == "f" else array
            if finite.size:
                parts.append(f"range=[{finite.min().item():.4g}, {finite.max().item():.4g}]")
        if self.dtype.kind == "f":
            for name, count in (("NaN", xp.isnan(array).sum()), ("inf", xp.isinf(array).sum())):
                if count:
                    parts.append(f"{name}: {int(count)} of {self.size}")
        if self.node is not None:
            parts.append(f"op={self.node.op.name}")
        elif self.requires_grad:
            parts.append("requires_grad=True")
        return f"Tensor({', '.join(parts)})"

    # -- how Python and NumPy see it ----------------------------------------------------------------------------------

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        if self._requires_grad:
            raise TypeError(
                "this Tensor requires a gradient, and NumPy would lose it: use tinyllm's functions, "
                "or .numpy() for a copy of the values, or .detach()"
            )
        if copy is False:
            raise ValueError("a Tensor's memory is private, so that NumPy can only have a copy of it")
        self._ask("numpy.array(x)")
        return np.array(self.numpy(), dtype=dtype)

    __hash__ = object.__hash__  # by identity; `==` compares element by element, as in NumPy

    def __bool__(self) -> bool:
        return bool(self._ask("bool(x)"))

    def __float__(self) -> float:
        return float(self._ask("float(x)").item())

    def __int__(self) -> int:
        return int(self._ask("int(x)").item())

    def __index__(self) -> int:
        return self._ask("x as an index").__index__()

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def __contains__(self, value: object) -> bool:
        return bool((self == value)._storage.array.any())

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    # -- operators: each is the operation of that name ----------------------------------------------------------------

    def __add__(self, other: Operand) -> Tensor:
        return ops.add(self, other)

    def __radd__(self, other: Operand) -> Tensor:
        return ops.add(other, self)

    def __sub__(self, other: Operand) -> Tensor:
        return ops.subtract(self, other)

    def __rsub__(self, other: Operand) -> Tensor:
        return ops.subtract(other, self)

    def __mul__(self, other: Operand) -> Tensor:
        return ops.multiply(self, other)

    def __rmul__(self, other: Operand) -> Tensor:
        return ops.multiply(other, self)

    def __truediv__(self, other: Operand) -> Tensor:
        return ops.divide(self, other)

    def __rtruediv__(self, other: Operand) -> Tensor:
        return ops.divide(other, self)

    def __pow__(self, other: Operand) -> Tensor:
        return ops.power(self, other)

    def __rpow__(self, other: Operand) -> Tensor:
        return ops.power(other, self)

    def __matmul__(self, other: Operand) -> Tensor:
        return ops.matmul(self, other)

    def __rmatmul__(self, other: Operand) -> Tensor:
        return ops.matmul(other, self)

    def __neg__(self) -> Tensor:
        return ops.negative(self)

    def __abs__(self) -> Tensor:
        return ops.abs(self)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return ops.equal(self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return ops.not_equal(self, other)

    def __lt__(self, other: Operand) -> Tensor:
        return ops.less(self, other)

    def __le__(self, other: Operand) -> Tensor:
        return ops.less_equal(self, other)

    def __gt__(self, other: Operand) -> Tensor:
        return ops.greater(self, other)

    def __ge__(self, other: Operand) -> Tensor:
        return ops.greater_equal(self, other)

    def __and__(self, other: Operand) -> Tensor:
        return ops.bitwise_and(self, other)

    def __or__(self, other: Operand) -> Tensor:
        return ops.bitwise_or(self, other)

    def __rand__(self, other: Operand) -> Tensor:
        return ops.bitwise_and(other, self)

    def __ror__(self, other: Operand) -> Tensor:
        return ops.bitwise_or(other, self)

    def __invert__(self) -> Tensor:
        return ops.invert(self)

    def __getitem__(self, index: Any) -> Tensor:
        return ops.getitem(self, index)

    @property
    def mT(self) -> Tensor:
        """The last two axes exchanged."""
        return ops.swapaxes(self, -1, -2)

    @property
    def T(self) -> Tensor:
        """All axes in reverse order."""
        return ops.transpose(self)

    def astype(self, dtype: DTypeLike) -> Tensor:
        """Converted to another dtype; the gradient is converted back."""
        return ops.astype(self, dtype)

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements in another shape."""
        return ops.reshape(self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Tensor:
        """Axes permuted (reversed when none are named)."""
        return ops.transpose(self, axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes or None)

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Sum over axes."""
        return ops.sum(self, axis, keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Mean over axes."""
        return ops.mean(self, axis, keepdims)

    def var(self, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
        """Variance over axes."""
        return ops.var(self, axis, ddof, keepdims)

    def std(self, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
        """Standard deviation over axes."""
        return ops.std(self, axis, ddof, keepdims)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Largest value over axes."""
        return ops.max(self, axis, keepdims)

    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Smallest value over axes."""
        return ops.min(self, axis, keepdims)

    def argmax(self, axis: int | None = None) -> Tensor:
        """Index of the largest value."""
        return ops.argmax(self, axis)


Operand: TypeAlias = "Tensor | ArrayLike"
Axis: TypeAlias = "int | tuple[int, ...] | None"


def tensor(data: ArrayLike | Tensor, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """A Tensor holding a copy of `data`; see :class:`Tensor`."""
    return Tensor(data, dtype, requires_grad)


# A Tensor's operators need the operations, which are functions of Tensors: the one circle there must be, closed here.
from tinyllm.autograd import ops, tape  # noqa: E402
from tinyllm.autograd.ops.device import to  # noqa: E402
