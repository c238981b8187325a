"""Damage for files: bytes changed, sizes made absurd, parts cut out or doubled, values of a JSON replaced by junk."""

import copy
import json
import signal
from contextlib import contextmanager

ABSURD = [
    0,
    1,
    2,
    7,
    8,
    255,
    1 << 16,
    1 << 31,
    (1 << 31) - 1,
    1 << 32,
    1 << 40,
    (1 << 62) + 1,
    (1 << 63) - 1,
    (1 << 64) - 1,
]
JUNK = [
    *(
        None,
        True,
        False,
        -1,
        0,
        1,
        3,
        1 << 40,
        10**12,
        1e308,
        -0.5,
        float("nan"),
        float("inf"),
        "",
        "x",
        "\ud800",
        "a" * 999,
    ),
    *(
        [],
        {},
        [None],
        [[]],
        {"type": "BPE"},
        {"": 0},
        "../x",
        "/",
        "\0",
        "(a+)+",
        "[",
        r"\p{L}+",
        "Sequence",
        "ByteLevel",
    ),
]


def damaged_bytes(rng, data):
    """`data` with one to four places damaged."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, len(out))) if out else 0
        if rng.integers(0, 3) == 0:  # in most files what counts is at the beginning
            at = min(at, int(rng.integers(0, 64)))
        match rng.integers(0, 8):
            case 0 | 1:
                out[at : at + 1] = rng.bytes(1)
            case 2:
                if out:
                    out[at % len(out)] ^= 1 << int(rng.integers(0, 8))
            case 3:
                width = int(rng.choice([1, 2, 4, 8]))
                number = ABSURD[rng.integers(0, len(ABSURD))] % (1 << (8 * width))
                out[at : at + width] = number.to_bytes(width, "little")
            case 4:
                del out[at : at + int(rng.integers(1, 9))]
            case 5:
                out[at:at] = rng.bytes(int(rng.integers(1, 9)))
            case 6:
                out[at:at] = out[at : at + int(rng.integers(1, 65))]
            case 7:
                del out[at:]
    return bytes(out)


def damaged_json(rng, data):
    """The bytes of a JSON with a few values replaced, removed, or put in another's place; or with damaged bytes."""
    if rng.integers(0, 4) == 0:
        return damaged_bytes(rng, data)
    value = json.loads(data)
    for _ in range(rng.integers(1, 4)):
        holder, key = _place(rng, value)
        if holder is None:
            break
        match rng.integers(0, 4):
            case 0:
                del holder[key]
            case 1:
                other, name = _place(rng, value)
                holder[key] = copy.deepcopy(other[name]) if other is not None else 0
            case _:
                holder[key] = copy.deepcopy(JUNK[rng.integers(0, len(JUNK))])
    return json.dumps(value).encode()


def _place(rng, value):
    """Some object or list within `value`, and a key in it; (None, None) where there is none."""
    found = None, None
    while isinstance(value, dict | list) and value:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = keys[int(rng.integers(0, len(keys)))]
        found = value, key
        if rng.integers(0, 4) == 0:
            break
        value = value[key]
    return found


@contextmanager
def deadline(seconds):
    """TimeoutError in the block after this much of the processor's time, where the system has such alarms."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_):
        raise TimeoutError(f"more than {seconds} s for one small file")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
