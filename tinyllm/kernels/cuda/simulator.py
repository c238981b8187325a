"""CUDA threads as Python threads, one at a time: what runs a kernel under ``NUMBA_ENABLE_CUDASIM=1``.

Numba's simulator gives kernels their `cuda` module; this file runs the threads of a block in order, each until it
reaches a barrier, so that runs repeat exactly, `print` and `breakpoint` work in any thread, and every access to memory
can be watched. What it finds, and hardware would pass over in silence:

* a race: between two barriers one thread writes what another reads or writes (or two blocks do, which no barrier
  parts);
* an index outside an array, also a negative one, and a vector access that is not aligned;
* a barrier or shuffle that some threads of the block, or lanes of the warp, never reach;
* shared and local memory read before it was written: it is full of NaN.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba.cuda.simulator.kernelapi import Dim3, FakeCUDAModule

WARP = 32
SEVERAL = -1


class RaceError(RuntimeError):
    """Two threads touched the same element, at least one wrote, and no barrier was between."""


class Stopped(BaseException):
    """Unwinds the threads of a block in which another one failed."""


class Access(NamedTuple):
    """Who touched an element last: the thread, and after how many barriers of its block; or SEVERAL."""

    block: int
    epoch: int
    thread: int
    atomic: bool = False


class Memory:
    """An array in a kernel: one element at a time, within bounds, each access held against those before it."""

    def __init__(self, name: str, values: np.ndarray) -> None:
        self.name = name
        self.shape, self.size, self.ndim, self.dtype = values.shape, values.size, values.ndim, values.dtype
        self.flat = values.reshape(-1)
        self.writers: list[Access | None] = [None] * values.size
        self.readers: list[Access | None] = [None] * values.size

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        place = self.place(index)
        self.reading(place)
        return self.flat[place]

    def __setitem__(self, index: Any, value: Any) -> None:
        place = self.place(index)
        self.writing(place)
        self.flat[place] = value

    def add(self, index: Any, value: Any) -> Any:
        """`value` added in one step that nothing comes between; what was there before."""
        place = self.place(index)
        self.writing(place, atomic=True)
        before = self.flat[place]
        self.flat[place] += value
        return before

    def load4(self, index: Any) -> tuple[Any, Any, Any, Any]:
        """The element at `index` and the three after it."""
        place = self.aligned(index)
        for k in range(place, place + 4):
            self.reading(k)
        a, b, c, d = self.flat[place : place + 4]
        return a, b, c, d

    def store4(self, index: Any, values: tuple[Any, Any, Any, Any]) -> None:
        """Put four numbers at `index` and the three places after it."""
        place = self.aligned(index)
        for k in range(place, place + 4):
            self.writing(k)
        self.flat[place : place + 4] = values

    def aligned(self, index: Any) -> int:
        """The place of `index`, which must be a multiple of 16 bytes from the beginning, with three more in its row."""
        place = self.place(index)
        if place % 4 or place % self.shape[-1] + 4 > self.shape[-1]:
            raise IndexError(f"four elements of {self.name} {self.shape} from {index}: not in one row or not aligned")
        return place

    def place(self, index: Any) -> int:
        """Where an element lies, counted from the first; `index` must name one."""
        if type(index) is not tuple:
            index = (index,)
        place = 0
        inside = len(index) == self.ndim
        for i, n in zip(index, self.shape, strict=False):
            inside = inside and 0 <= i < n
            place = place * n + i
        if not inside:
            raise IndexError(f"{self.name}{list(index)} is outside its shape {self.shape}")
        return place

    def reading(self, place: int) -> None:
        """Note a read."""
        me = running.access
        last = self.writers[place]
        if last is not None and last is not me and collide(last, me):
            self.report(place, "reads what", last, "wrote")
        before = self.readers[place]
        if before is me:
            return
        if before is None or (before.block == me.block and before.epoch < me.epoch):
            self.readers[place] = me
        elif before.block != me.block:
            if before.block != SEVERAL:
                self.readers[place] = Access(SEVERAL, me.epoch, SEVERAL)
        elif before.thread != SEVERAL and before.thread != me.thread:
            self.readers[place] = Access(me.block, me.epoch, SEVERAL)

    def writing(self, place: int, atomic: bool = False) -> None:
        """Note a write."""
        me = running.access
        last = self.writers[place]
        if last is not None and last is not me and collide(last, me) and not (atomic and last.atomic):
            self.report(place, "writes what", last, "wrote")
        reader = self.readers[place]
        if reader is not None and reader is not me and collide(reader, me):
            self.report(place, "writes what", reader, "read")
        self.writers[place] = me._replace(atomic=True) if atomic else me

    def report(self, place: int, does: str, other: Access, did: str) -> None:
        """Raise, naming both."""
        where = f"{self.name}{[int(i) for i in np.unravel_index(place, self.shape)]}"
        if other.block != running.access.block:
            raise RaceError(f"{where}: {does} another block {did}")
        whom = "another thread" if other.thread == SEVERAL else f"thread {other.thread}"
        raise RaceError(f"{where}: {does} {whom} {did} since the last barrier")


def collide(a: Access, b: Access) -> bool:
    """Whether no barrier orders two accesses of different threads."""
    return a.block != b.block or (a.epoch == b.epoch and a.thread != b.thread)


# -- the threads of a block --------------------------------------------------------------------------------------------


class Thread(threading.Thread):
    """One CUDA thread; Numba's `FakeCUDAModule` asks the current one for its indices."""

    def __init__(self, block: Block, body: Callable[[], None], number: int) -> None:
        super().__init__(daemon=True)
        x, y, _ = block.shape
        self.block, self.body, self.thread_id = block, body, number
        self.threadIdx = Dim3(number % x, number // x % y, number // (x * y))
        self.blockIdx = block.index
        self.access = Access(block.number, 0, number)
        self.turn = threading.Lock()
        self.turn.acquire()
        self.waits_at: str | None = None  # "syncthreads", "shuffle", or None: ready to go on
        self.done = False
        self.exchanges = 0

    def run(self) -> None:
        """What the Python thread does."""
        self.turn.acquire()
        try:
            if not self.block.stopped:
                with np.errstate(all="ignore"):  # as in hardware, which has no floating-point exceptions
                    self.body()
        except Stopped:
            pass
        except BaseException as error:
            self.block.failed(self, error)
        self.done = True
        self.block.next_turn()

    def wait(self, at: str) -> None:
        """Let others run until all have come here."""
        self.waits_at = at
        self.block.next_turn()
        self.turn.acquire()
        if self.block.stopped:
            raise Stopped

    def syncthreads(self) -> None:
        """The barrier of the block."""
        self.wait("syncthreads")

    def exchange(self, value: Any, combine: Callable[[list[Any]], Any]) -> Any:
        """What `combine` makes of the values that the lanes of this warp hold; the first to go on computes it."""
        # Two sets of slots in turn: a lane may come to its next exchange before others have read this one.
        slots, made = self.block.slots[self.thread_id // WARP][self.exchanges % 2]
        self.exchanges += 1
        slots[self.thread_id % WARP] = value
        made.clear()
        self.wait("shuffle")
        if not made:
            made.append(combine(slots))
        return made[0]


class Block:
    """The threads of one block, and whose turn it is."""

    def __init__(self, body: Callable[[], None], number: int, index: Dim3, shape: tuple[int, int, int]) -> None:
        self.number, self.index, self.shape = number, index, shape
        self.stopped: tuple[Thread, BaseException] | None = None
        self.back = threading.Lock()
        self.back.acquire()
        size = int(np.prod(shape))
        self.slots: list[Any] = [[([None] * WARP, []), ([None] * WARP, [])] for _ in range(-(-size // WARP))]
        self.threads = [Thread(self, body, i) for i in range(size)]
        self.queue: deque[Thread] = deque()

    def failed(self, thread: Thread, error: BaseException) -> None:
        """Keep the first error."""
        self.stopped = self.stopped or (thread, error)

    def run(self) -> None:
        """Give each thread its turn until all are done."""
        for thread in self.threads:
            thread.start()
        while waiting := [t for t in self.threads if not t.done]:
            self.queue.extend(t for t in waiting if t.waits_at is None or self.stopped)
            self.next_turn()
            self.back.acquire()
            if not self.stopped and not self.release():
                self.stopped = (next(t for t in self.threads if not t.done), RuntimeError(self.stuck()))
        if self.stopped:
            thread, error = self.stopped
            error.add_note(f"in thread {tuple(thread.threadIdx)} of block {tuple(self.index)}")
            raise error

    def next_turn(self) -> None:
        """Wake the next thread in the queue; after the last, whoever waits for the block."""
        if self.queue:
            running.thread = self.queue.popleft()
            running.access = running.thread.access
            running.thread.turn.release()
        else:
            self.back.release()

    def release(self) -> bool:
        """Let those go on whose barrier all have reached; whether there was anything to do."""
        if all(t.waits_at == "syncthreads" and not t.done for t in self.threads):
            for t in self.threads:
                t.waits_at = None
                t.access = t.access._replace(epoch=t.access.epoch + 1)
            return True
        moved = all(t.done for t in self.threads)
        for first in range(0, len(self.threads), WARP):
            warp = self.threads[first : first + WARP]
            if all(t.waits_at == "shuffle" and not t.done for t in warp):
                moved = True
                for t in warp:
                    t.waits_at = None
        return moved

    def stuck(self) -> str:
        """What everybody is waiting for."""
        where: dict[str, list[int]] = {}
        for t in self.threads:
            where.setdefault("the end" if t.done else str(t.waits_at), []).append(t.thread_id)
        return "threads part ways at a barrier: " + "; ".join(
            f"{len(ids)} at {place} (first: {ids[0]})" for place, ids in where.items()
        )


class Running:
    """Whose turn it is, and what the kernel knows as `cuda`."""

    access: Access
    thread: Thread
    module: Module | None = None


running = Running()


def exchange(value: Any, combine: Callable[[list[Any]], Any] = list) -> Any:
    """What `combine` makes of the values of all lanes of the running thread's warp: shuffles, and tensor cores."""
    return running.thread.exchange(value, combine)


def lane() -> int:
    """Number of the running thread in its warp."""
    return running.thread.thread_id % WARP


# -- a launch ----------------------------------------------------------------------------------------------------------


class Shared:
    """`cuda.shared`: the n-th array that a thread asks for is the n-th of its block."""

    def __init__(self, dynamic_bytes: int) -> None:
        self.dynamic_bytes = dynamic_bytes
        self.arrays: dict[Any, Memory] = {}
        self.asked: dict[int, int] = {}

    def array(self, shape: Any, dtype: Any, alignment: int | None = None) -> Memory:
        """The array, full of NaN (or of -1) at first; a shape of 0 is what the launch gave."""
        number = self.asked.get(running.thread.thread_id, 0)
        self.asked[running.thread.thread_id] = number + 1
        if number not in self.arrays:
            kind = numpy_dtype(dtype)
            shape = self.dynamic_bytes // kind.itemsize if shape == 0 else shape
            self.arrays[number] = Memory(f"shared array {number}", poison(shape, kind))
        return self.arrays[number]


class Local:
    """`cuda.local`: arrays of one thread, which nobody else can touch."""

    def array(self, shape: Any, dtype: Any, alignment: int | None = None) -> np.ndarray:
        """An array full of NaN (or of -1)."""
        return poison(shape, numpy_dtype(dtype))


class Atomic:
    """`cuda.atomic`, as far as the kernels use it."""

    def add(self, array: Memory, index: Any, value: Any) -> Any:
        """Add to an element; what was there before."""
        return array.add(index, value)


class Module(FakeCUDAModule):
    """Numba's `cuda` within a kernel, with watched memory."""

    def __init__(self, grid: tuple[int, ...], block: tuple[int, ...], dynamic_bytes: int) -> None:
        super().__init__(grid, block, dynamic_bytes)
        replaced: dict[str, Any] = {"_local": Local(), "_atomic": Atomic(), "_shared": Shared(dynamic_bytes)}
        vars(self).update(replaced)


class Cuda:
    """What kernels know as `cuda`: within a launch its `Module`, outside Numba's own."""

    def __getattr__(self, name: str) -> Any:
        if running.module is not None:
            return getattr(running.module, name)
        from numba import cuda

        return getattr(cuda, name)


def numpy_dtype(dtype: Any) -> np.dtype:
    """Of a Numba type or anything that NumPy takes for one."""
    return np.dtype(str(dtype)) if hasattr(dtype, "bitwidth") else np.dtype(dtype)


def poison(shape: Any, dtype: np.dtype) -> np.ndarray:
    """An array that betrays whoever reads before writing."""
    return np.full(shape, np.nan if dtype.kind == "f" else -1, dtype)


def launch(
    function: Callable[..., None], grid: Any, block: Any, dynamic_bytes: int, arguments: tuple[Any, ...]
) -> None:
    """Run a kernel on NumPy arrays, which it changes in place."""
    grid, block = (tuple(np.atleast_1d(d).tolist()) for d in (grid, block))
    grid, block = (d + (1,) * (3 - len(d)) for d in (grid, block))
    names = inspect.signature(function).parameters
    given = [Memory(name, a) if isinstance(a, np.ndarray) else a for name, a in zip(names, arguments, strict=True)]
    running.module = Module(grid, block, dynamic_bytes)
    try:
        for number, (z, y, x) in enumerate(np.ndindex(grid[::-1])):
            vars(running.module)["_shared"] = Shared(dynamic_bytes)
            Block(functools.partial(function, *given), number, Dim3(x, y, z), block).run()
    finally:
        running.module = None
