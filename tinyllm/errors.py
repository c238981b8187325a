"""The errors that are the user's to mend: a wrong setting, a damaged file, text of an unknown encoding.

The command line prints their message alone and leaves with exit code 2; every other exception is a fault of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TinyLLMError(Exception):
    """Base of the errors whose message alone tells the user what came, what was expected and what to do."""


class DataError(TinyLLMError, ValueError):
    """A corpus, file or text that cannot be used as it is."""


class TokenizerError(TinyLLMError, ValueError):
    """A tokenizer that cannot be read or trained, or text that it cannot encode."""


class CheckpointError(TinyLLMError, ValueError):
    """A run folder, checkpoint or weight file that is damaged, foreign or incomplete."""


class ConfigError(TinyLLMError, ValueError):
    """A setting that does not exist or has an impossible value."""


class DeviceError(TinyLLMError, RuntimeError):
    """A GPU that cannot be computed on: no driver, a package missing, or versions that do not fit together."""


def nearest(name: object, valid: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` with the closest of `valid`, or the list of them when none is close."""
    names = sorted(valid)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names)}"
