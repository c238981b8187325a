"""What all optimisers share: groups of parameters, the loop over them, and a state that can be saved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tinyllm.autograd.tensor import Array, Tensor
from tinyllm.device import namespace, to_host
from tinyllm.errors import CheckpointError, nearest

Parameters = Iterable[Tensor] | Iterable[dict[str, Any]]
Moved = tuple[Array, Array, dict[str, Any]]  # a parameter, its gradient, and what is remembered of it


class Optimizer:
    """Base of the optimisers. A subclass checks its options in `_check` and changes one parameter in `_update`.

    Where every number moves by its own gradient alone, derive from `Elementwise` instead.

    Parameters
    ----------
    params : iterable of Tensors, or of dicts
        A dict is a group: its ``"params"`` are Tensors, its other keys options that differ from the defaults.
    defaults : dict
        The options of groups that do not set them.

    Attributes
    ----------
    param_groups : list of dicts
        Each with ``"params"`` and every option. Options may be changed between steps.

    Raises
    ------
    ValueError
        If there is no parameter, one is listed twice, or an option has an impossible value.
    """

    def __init__(self, params: Parameters, defaults: dict[str, Any]) -> None:
        if isinstance(params, (Tensor, dict)):
            raise TypeError(
                f"params is an iterable of Tensors or dicts, not one {type(params).__name__}; wrap it in []"
            )
        given = list(params)
        if not given:
            raise ValueError("an optimiser needs at least one parameter, got an empty list")
        self.param_groups: list[dict[str, Any]] = []
        seen: set[int] = set()
        for i, group in enumerate(given if isinstance(given[0], dict) else [{"params": given}]):
            self.param_groups.append(self._group(i, group, defaults, seen))
        # What is remembered of each parameter, in the order of the groups; empty until its first gradient.
        self._state: list[dict[str, Any]] = [{} for _ in seen]

    def _group(self, i: int, group: Any, defaults: dict[str, Any], seen: set[int]) -> dict[str, Any]:
        if not isinstance(group, dict) or "params" not in group:
            raise TypeError(f'group {i} must be a dict with "params", as the first one is; got {type(group).__name__}')
        options = {name: value for name, value in group.items() if name != "params"}
        for name in options:
            if name not in defaults:
                raise ValueError(f"{type(self).__name__} has no option {name!r}{nearest(name, defaults)}")
        params = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        if not params:
            raise ValueError(f"group {i} has no parameters")
        for p in params:
            if not isinstance(p, Tensor) or p.dtype.kind != "f" or not p.is_leaf:
                raise TypeError(f"a parameter is a floating Tensor that was not computed from others, got {p!r}")
            if id(p) in seen:
                raise ValueError(f"the parameter of shape {p.shape} in group {i} is listed twice")
            seen.add(id(p))
        complete = {"params": params, **defaults, **options}
        self._check(complete)
        return complete

    def _check(self, group: dict[str, Any]) -> None:
        """Raise ValueError if an option has an impossible value."""
        not_negative(group, "lr", "weight_decay")

    def _update(self, p: Array, g: Array, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Change the array `p` in place, given its gradient and what `state` remembers of earlier steps."""
        raise NotImplementedError(f"{type(self).__name__} defines no _update")

    def _fresh_state(self, p: Array, group: dict[str, Any]) -> dict[str, Any]:
        """What is remembered of a parameter before its first step: arrays of its shape and dtype, and ints."""
        raise NotImplementedError(f"{type(self).__name__} defines no _fresh_state")

    @property
    def lr(self) -> float:
        """The learning rate; setting it sets that of every group.

        Raises
        ------
        ValueError
            On reading, if the groups have different rates.
        """
        rates = {group["lr"] for group in self.param_groups}
        if len(rates) > 1:
            raise ValueError(f'the groups have different rates {sorted(rates)}; read param_groups[i]["lr"]')
        return rates.pop()

    @lr.setter
    def lr(self, value: float) -> None:
        for group in self.param_groups:
            group["lr"] = float(value)

    def step(self, scale: float = 1.0) -> None:
        """Change every parameter that has a gradient.

        Parameters
        ----------
        scale : float
            What the gradients are multiplied by as they are read: with `clip_factor`, a limit on their norm that needs
            no pass of its own over them.
        """
        states = iter(self._state)
        for group in self.param_groups:
            self._check(group)
            moved: list[Moved] = []
            cells = []
            for p, state in zip(group["params"], states, strict=False):
                if p.grad is None:
                    continue
                array, g = p._storage.array, p.grad._storage.array
                if g.shape != array.shape or g.dtype != array.dtype:
                    raise ValueError(
                        f"a parameter of shape {array.shape} {array.dtype} has a gradient of shape {g.shape} {g.dtype}"
                    )
                if not state:
                    state.update(self._fresh_state(array, group))
                moved.append((array, g, state))
                cells.append(p._storage.cell)
            if moved:
                self._move(moved, group, float(scale))
            for cell in cells:
                cell[0] += 1  # whoever recorded the old value must notice

    def _move(self, moved: list[Moved], group: dict[str, Any], scale: float) -> None:
        """Change the parameters of a group that have gradients, by their gradients times `scale`."""
        for p, g, state in moved:
            self._update(p, g if scale == 1 else scale * g, state, group)

    def zero_grad(self) -> None:
        """Forget the gradient of every parameter."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs, in one flat dict of numbers and copied arrays.

        The keys are ``group.I.OPTION`` (of a pair, such as betas, ``group.I.OPTION.0`` and ``.1``), and
        ``state.N.NAME`` for the N-th parameter. A parameter that never had a gradient has no state.
        """
        flat: dict[str, Any] = {}
        for i, group in enumerate(self.param_groups):
            flat |= _flat(i, group)
        for n, state in enumerate(self._state):
            for name, value in state.items():
                flat[f"state.{n}.{name}"] = value if isinstance(value, int) else to_host(value)
        return flat

    def load_state_dict(self, flat: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave; on an error nothing is changed.

        Raises
        ------
        CheckpointError
            If it belongs to other parameters or to another optimiser, with all that does not fit.
        """
        options = [name for i, group in enumerate(self.param_groups) for name, _ in _flat(i, group)]
        problems = [f"missing: {name}" for name in options if name not in flat]
        groups = self.param_groups if problems else [_filled(i, g, flat) for i, g in enumerate(self.param_groups)]
        known = set(options)
        states: list[dict[str, Any]] = []
        params = [(p, group) for group in groups for p in group["params"]]
        for n, (p, group) in enumerate(params):
            state = self._fresh_state(p._storage.array, group)
            names = {name: f"state.{n}.{name}" for name in state}
            known |= set(names.values())
            if not any(key in flat for key in names.values()):
                states.append({})
                continue
            for name, key in names.items():
                if key not in flat:
                    problems.append(f"missing: {key}")
                elif isinstance(state[name], int):
                    state[name] = int(flat[key])
                elif flat[key].shape != p.shape or flat[key].dtype != p.dtype:
                    problems.append(f"{key}: {flat[key].shape} {flat[key].dtype}, expected {p.shape} {p.dtype}")
                else:
                    state[name][...] = namespace(state[name]).asarray(flat[key])
            states.append(state)
        problems += [f"unexpected: {name}" for name in flat if name not in known]
        if problems:
            raise CheckpointError(f"this state does not fit {type(self).__name__}:\n  " + "\n  ".join(problems))
        for group in groups:
            self._check(group)
        for old, new in zip(self.param_groups, groups, strict=True):
            old.update(new)
        self._state = states


def not_negative(group: Mapping[str, Any], *names: str) -> None:
    """Raise ValueError if one of these options is negative, or no number."""
    for name in names:
        if not group[name] >= 0:
            raise ValueError(f"{name} must not be negative, got {group[name]}")


def _flat(i: int, group: dict[str, Any]) -> list[tuple[str, Any]]:
    """The options of group `i` with their keys in a state_dict, pairs taken apart."""
    options = []
    for name, value in group.items():
        if isinstance(value, tuple):
            options += [(f"group.{i}.{name}.{j}", number) for j, number in enumerate(value)]
        elif name != "params":
            options.append((f"group.{i}.{name}", value))
    return options


def _filled(i: int, group: dict[str, Any], flat: Mapping[str, Any]) -> dict[str, Any]:
    """Group `i` with the options of a state_dict."""
    filled = dict(group)
    for name, value in group.items():
        key = f"group.{i}.{name}"
        if isinstance(value, tuple):
            filled[name] = tuple(flat[f"{key}.{j}"] for j in range(len(value)))
        elif name != "params":
            filled[name] = flat[key]
    return filled
