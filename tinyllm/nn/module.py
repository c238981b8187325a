"""The Module: a function with parameters, and the names by which they are saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tinyllm.autograd.tensor import Tensor
from tinyllm.errors import CheckpointError, nearest


class Mismatch(NamedTuple):
    """What ``load_state_dict(..., strict=False)`` passed over: names it found no value for, names nobody has."""

    missing: list[str]
    unexpected: list[str]


class Module:
    """Base of everything that has parameters. A subclass sets attributes and defines `forward`.

    A Tensor that is assigned to an attribute while it requires a gradient is a parameter, and stays one when it is
    frozen later by ``requires_grad = False``. Any other Tensor is a constant: used, but neither trained nor saved.
    Modules are found in attributes, and in lists, tuples and dicts there; a parameter's name is the path to it, as in
    ``h.0.ln_1.weight``. A module or parameter may be in several places; it is counted and trained once.
    """

    training: bool = True
    _parameter_names: set[str]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """A module without parameters: made here, so that subclasses need not call ``super().__init__()``."""
        module = super().__new__(cls)
        module.__dict__["_parameter_names"] = set()
        return module

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Tensor) and value.requires_grad:
            if not value.is_leaf:
                raise ValueError(
                    f"{type(self).__name__}.{name}: a computed Tensor cannot be a parameter; "
                    "train a copy of it, tensor(value, requires_grad=True), or keep its values, value.detach()"
                )
            self._parameter_names.add(name)
        else:
            self._parameter_names.discard(name)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        self._parameter_names.discard(name)

    if not TYPE_CHECKING:  # a type checker that saw this would accept every name

        def __getattr__(self, name: str) -> Any:
            known = {n for n in (*vars(self), *dir(type(self))) if not n.startswith("_")}
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{nearest(name, known)}")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; every subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """``module(x)`` is ``module.forward(x)``."""
        return self.forward(*args, **kwargs)

    # -- what is in it -------------------------------------------------------------------------------------------------

    def children(self) -> Iterator[tuple[str, Module]]:
        """Each module directly below this one, with its name."""
        for name, value in vars(self).items():
            yield from _modules_in(name, value)

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """The module itself (named ``""``) and every one below it, each once, with the path to it."""
        return _once(self._paths())

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter once, with the path to it, in the order in which they were assigned."""
        return _once(self._parameter_paths())

    def parameters(self) -> Iterator[Tensor]:
        """Every parameter once."""
        return (p for _, p in self.named_parameters())

    def num_parameters(self) -> int:
        """How many numbers the parameters hold, frozen ones included; what is shared is counted once."""
        return sum(p.size for p in self.parameters())

    def _paths(self, path: str = "", above: tuple[Module, ...] = ()) -> Iterator[tuple[str, Module]]:
        """All modules by *all* their paths; a module that is above itself is not entered again."""
        yield path, self
        for name, child in self.children():
            if child is not self and all(child is not m for m in above):
                yield from child._paths(f"{path}.{name}" if path else name, (*above, self))

    def _parameter_paths(self) -> Iterator[tuple[str, Tensor]]:
        """All parameters by *all* their paths."""
        for path, module in self._paths():
            for name, value in vars(module).items():
                if name in module._parameter_names:
                    yield f"{path}.{name}" if path else name, value

    # -- its state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of every parameter, by name. A shared one is there once, under its first name."""
        return {name: p.numpy() for name, p in self.named_parameters()}

    def load_state_dict(
        self, state: Mapping[str, ArrayLike | Tensor], strict: bool = True, copy: bool = True
    ) -> Mismatch:
        """Overwrite the parameters, in place, with the values in `state`; on an error nothing is changed.

        Parameters
        ----------
        state : mapping from name to array
            Shapes as in `state_dict`; other floating or integer dtypes are converted. A shared parameter may come
            under any of its names, and under several if the values are equal.
        strict : bool
            Whether every parameter must have a value and every value a parameter.
        copy : bool
            Without it, an array of a parameter's own dtype becomes the parameter's memory: large weights are there at
            once, and only once. Whoever hands it over must not write to it any more, and views of the parameter that
            were made before keep the old values.

        Returns
        -------
        Mismatch
            The names passed over; both lists are empty if `strict`.

        Raises
        ------
        CheckpointError
            With all that is missing, unexpected, of a wrong shape or dtype, or contradictory.
        """
        names: dict[int, list[str]] = {}
        parameters: dict[int, Tensor] = {}
        for name, p in self._parameter_paths():
            names.setdefault(id(p), []).append(name)
            parameters[id(p)] = p
        given = {name: v._storage.array if isinstance(v, Tensor) else np.asarray(v) for name, v in state.items()}
        known = {name for aliases in names.values() for name in aliases}
        missing: list[str] = []
        unexpected = [name for name in given if name not in known]
        wrong: list[str] = []
        for key, p in parameters.items():
            found = [name for name in names[key] if name in given]
            if not found:
                missing.append(names[key][0])
            for name in found:
                if given[name].shape != p.shape:
                    wrong.append(f"{name}: shape {given[name].shape}, expected {p.shape}")
                elif given[name].dtype.kind not in "fiub":
                    wrong.append(f"{name}: dtype {given[name].dtype} cannot become {p.dtype}")
                elif given[name] is not given[found[0]] and not np.array_equal(
                    given[name], given[found[0]], equal_nan=True
                ):
                    wrong.append(f"{name} and {found[0]} are one parameter, but their values differ")
        problems = []
        if strict and missing:
            problems.append(f"missing: {', '.join(missing)}")
        if strict and unexpected:
            problems.append(f"unexpected: {', '.join(unexpected)}")
        problems += wrong
        if problems:
            raise CheckpointError(f"these values do not fit {type(self).__name__}:\n  " + "\n  ".join(problems))
        for key, p in parameters.items():
            for name in names[key]:
                if name in given:
                    if copy or isinstance(state[name], Tensor) or not p._adopt(given[name]):
                        p.assign_(given[name])
                    break
        return Mismatch(missing, unexpected)

    def to(self, device: str) -> Module:
        """Bring every parameter and constant Tensor to ``"cpu"`` or ``"cuda"``, in place, and return the module.

        What an optimiser remembers is made where the parameters are at its first step: move the module before.

        Raises
        ------
        DeviceError
            If there is no such device, or no GPU that can be used, and why.
        """
        values = [v for _, module in self.named_modules() for v in vars(module).values() if isinstance(v, Tensor)]
        for value in {id(v): v for v in values}.values():
            value._move(device)
        return self

    def zero_grad(self) -> None:
        """Forget the gradient of every parameter."""
        for p in self.parameters():
            p.grad = None

    def train(self, mode: bool = True) -> Module:
        """Put this module and all below it in training mode (dropout works) and return it."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Put this module and all below it in evaluation mode (dropout does nothing) and return it."""
        return self.train(False)

    def __repr__(self) -> str:
        return "\n".join(self._lines("", ()))

    def _lines(self, label: str, above: tuple[Module, ...]) -> Iterator[str]:
        settings = ", ".join(
            f"{name}={value!r}"
            for name, value in vars(self).items()
            if isinstance(value, (bool, int, float, str, tuple)) and name != "training" and not name.startswith("_")
            if not any(_modules_in(name, value))
        )
        yield f"{'  ' * len(above)}{label}{type(self).__name__}({settings})  {self.num_parameters():,} parameters"
        for name, child in self.children():
            if child is not self and all(child is not m for m in above):
                yield from child._lines(f"{name}: ", (*above, self))


def _modules_in(name: str, value: Any) -> Iterator[tuple[str, Module]]:
    """The modules in an attribute: itself, or those in a list, tuple or dict, named by their index or key."""
    if isinstance(value, Module):
        yield name, value
    elif isinstance(value, (list, tuple, dict)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(item, Tensor) and item.requires_grad and item.is_leaf:
                raise TypeError(
                    f"{name}.{key}: a parameter in a {type(value).__name__} would be forgotten when it is frozen; "
                    "make it an attribute of a Module"
                )
            yield from _modules_in(f"{name}.{key}", item)


def _once(pairs: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Each object under the first of its names."""
    seen: set[int] = set()
    for name, value in pairs:
        if id(value) not in seen:
            seen.add(id(value))
            yield name, value
