"""GPT-2's way of writing bytes as printable characters, so that a vocabulary of byte strings can be a JSON object.

The 188 bytes that are printable in Latin-1 stand for themselves; the other 68 (space, control characters, ...) take the
characters from U+0100 on, in order: a space is written ``Ġ``, a newline ``Ċ``.
"""

from __future__ import annotations

from tinyllm.errors import TokenizerError

_PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]

#: The bytes in the order of the characters that they are written with.
BYTE_ORDER: list[int] = _PRINTABLE + [b for b in range(256) if b not in _PRINTABLE]

#: ``SYMBOLS[b]`` is the character that the byte `b` is written with.
SYMBOLS: list[str] = [""] * 256
for _place, _byte in enumerate(BYTE_ORDER):
    SYMBOLS[_byte] = chr(_byte) if _byte in _PRINTABLE else chr(0x100 + _place - len(_PRINTABLE))

#: The characters that stand for a byte.
ALPHABET = frozenset(SYMBOLS)

_BYTES = {ord(symbol): byte for byte, symbol in enumerate(SYMBOLS)}


def write_bytes(data: bytes) -> str:
    """The printable form of `data`, one character a byte."""
    return "".join([SYMBOLS[b] for b in data])


def read_bytes(written: str) -> bytes:
    """The bytes that `written` stands for; TokenizerError where it has a character that stands for none."""
    try:
        return bytes([_BYTES[ord(c)] for c in written])
    except KeyError as error:
        raise TokenizerError(
            f"the token {written!r} is not written in the byte alphabet: {chr(error.args[0])!r} stands for no byte"
        ) from None
