"""Moving a tensor between the host and a GPU: a copy, whose derivative is the copy back."""

from __future__ import annotations

from tinyllm import device as devices
from tinyllm.autograd.settings import settings
from tinyllm.autograd.tape import Node, Op
from tinyllm.autograd.tensor import Storage, Tensor

_to = Op("to", vjps=(lambda g, y, x, device: to(g, devices.device_of(x._storage.array)),))


def to(x: Tensor, device: str) -> Tensor:
    """`x` on ``"cpu"`` or ``"cuda"``; itself if it is there."""
    array = x._storage.array
    moved = devices.move(array, device)
    if moved is array:
        return x
    storage = Storage(moved)
    if settings.recording and x._requires_grad:
        return Tensor._wrap(storage, Node(_to, (x,), storage, {"device": device}, device, None))
    return Tensor._wrap(storage)
