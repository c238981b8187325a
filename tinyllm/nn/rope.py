"""Frequencies of rotary positions, and how they are stretched over texts longer than those of training.

A pair of channels i of D/2 turns by ``base^(-2i/D)`` radians per position: the first pairs quickly, so that they tell
neighbours apart, the last ones hardly at all within a text. Beyond the length of training the slow pairs come to angles
that they have never had. Each scaling says which pairs turn more slowly, so that they do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tinyllm.autograd.fused.rotary import rotary_tables
from tinyllm.errors import ConfigError, nearest

Array = np.ndarray[Any, Any]
Tables = tuple[Array, Array]

# The keys of each type, and the values of those that may be left out; None where it may not. What a type reads beyond
# them is checked where it is read.
_KEYS: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": None},
    "dynamic": {"factor": None},
    "llama3": {
        "factor": None,
        "low_freq_factor": None,
        "high_freq_factor": None,
        "original_max_position_embeddings": None,
    },
    "yarn": {
        "factor": None,
        "original_max_position_embeddings": None,
        "attention_factor": 0.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 0.0,
        "mscale_all_dim": 0.0,
        "truncate": True,
    },
}
_NEUTRAL = {"partial_rotary_factor": 1.0, "finetuned": None}  # keys that change nothing with this value (None: any)


def rope_parameters(given: Mapping[str, Any], theta: float, max_positions: int) -> dict[str, Any]:
    """The settings of rotary positions, complete and checked.

    Parameters
    ----------
    given : mapping
        `rope_type` ("default", "linear", "dynamic", "llama3" or "yarn"; old files say `type`), `rope_theta` (the base)
        and what the type needs, as in transformers.
    theta : float
        The base where it is not given.
    max_positions : int
        The length of training where that is not given.

    Raises
    ------
    ConfigError
        For a type or a key that is unknown, missing, or impossible, by name.
    """
    settings = {key: value for key, value in given.items() if value is not None}
    kind = settings.pop("rope_type", None) or settings.get("type", "default")
    settings.pop("type", None)
    if not isinstance(kind, str) or kind not in _KEYS:
        raise ConfigError(f"rope_type {kind!r} cannot be obeyed{nearest(str(kind), _KEYS)}")
    keys = _KEYS[kind]
    found: dict[str, Any] = {"rope_type": kind, "rope_theta": settings.pop("rope_theta", theta)}
    for key, neutral in _NEUTRAL.items():
        value = settings.pop(key, neutral)
        if neutral is not None and value != neutral:
            raise ConfigError(f"rope_parameters: {key}={value!r} cannot be obeyed; only {neutral!r} can")
    if "original_max_position_embeddings" in keys:
        settings.setdefault("original_max_position_embeddings", max_positions)
    for key, value in settings.items():
        if key not in keys:
            raise ConfigError(f"rope_parameters: {key!r} means nothing to rope_type {kind!r}{nearest(key, keys)}")
        found[key] = value
    missing = [key for key, default in keys.items() if default is None and key not in found]
    if missing:
        raise ConfigError(f"rope_parameters: rope_type {kind!r} needs {', '.join(missing)}")
    for key, value in found.items():
        if key == "truncate":
            if type(value) is not bool:
                raise ConfigError(f"rope_parameters: truncate must be true or false, got {value!r}")
        elif key != "rope_type" and not (type(value) in (int, float) and math.isfinite(value) and value >= 0):
            raise ConfigError(f"rope_parameters: {key} must be a number of at least 0, got {value!r}")
    for key in ("rope_theta", "factor", "original_max_position_embeddings", "high_freq_factor", "low_freq_factor"):
        if key in found and found[key] <= 0:
            raise ConfigError(f"rope_parameters: {key} must be above 0, got {found[key]!r}")
    if kind == "llama3" and found["high_freq_factor"] <= found["low_freq_factor"]:
        raise ConfigError("rope_parameters: high_freq_factor must be above low_freq_factor")
    return found


class Rope:
    """The angles of rotary positions.

    Parameters
    ----------
    head_dim : int
        D, even.
    parameters : mapping
        Complete, from `rope_parameters`.
    max_positions : int
        The length of training.

    Attributes
    ----------
    dynamic : bool
        Whether the frequencies depend on the length of a text that is longer than those of training.
    """

    def __init__(self, head_dim: int, parameters: Mapping[str, Any], max_positions: int) -> None:
        self.head_dim, self.parameters, self.max_positions = head_dim, dict(parameters), max_positions
        self.dynamic = parameters["rope_type"] == "dynamic"
        self.scale = _yarn_scale(self._values()) if parameters["rope_type"] == "yarn" else 1.0

    def tables(self, positions: Array, dtype: DTypeLike) -> Tables:
        """Cosines and sines (..., T, D/2) of positions (..., T), for `rotate`."""
        length = int(positions.max()) + 1 if positions.size else 0
        return rotary_tables(positions, self.frequencies(length), self.scale, dtype=dtype)

    def frequencies(self, length: int = 0) -> Array:
        """Radians per position (D/2,), in a text of so many positions."""
        p, D = self._values(), self.head_dim
        kind, base = p["rope_type"], float(p["rope_theta"])
        if kind == "dynamic":
            base = _dynamic_base(base, p["factor"], D, max(length, self.max_positions) / self.max_positions)
        frequencies = base ** (-np.arange(0, D, 2) / D)
        if kind == "linear":
            return frequencies / p["factor"]
        if kind == "llama3":
            return _llama3(frequencies, p)
        if kind == "yarn":
            return _yarn(frequencies, p, D)
        return frequencies

    def _values(self) -> dict[str, Any]:
        return _KEYS[self.parameters["rope_type"]] | self.parameters


def _dynamic_base(base: float, factor: float, D: int, times: float) -> float:
    """A larger base in a text that is `times` as long as those of training: the last pair turns as far as it did there.

    Source: "NTK-aware" scaling, as transformers' `dynamic` has it; described in Peng et al. 2023, section 3.1 and
    appendix A.1.
    """
    return base * (factor * times - (factor - 1)) ** (D / (D - 2)) if D > 2 else base


def _llama3(frequencies: Array, p: Mapping[str, Any]) -> Array:
    """Pairs of few turns within the texts of training are slowed by `factor`, quick ones are left; a ramp between.

    Source: the code of Llama 3.1 (Grattafiori et al. 2024, section 3.2 gives the base alone).
    """
    turns = p["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    ramp = np.clip((turns - p["low_freq_factor"]) / (p["high_freq_factor"] - p["low_freq_factor"]), 0, 1)
    return frequencies * (ramp + (1 - ramp) / p["factor"])


def _yarn(frequencies: Array, p: Mapping[str, Any], D: int) -> Array:
    """As in Llama 3, with a ramp over the numbers of the pairs instead of their turns.

    Source: Peng et al. 2023 (YaRN), section 3.2, equations 19 to 22; the ramp is in i, as in the authors' code.
    """

    def pair_with(turns: float) -> float:
        """The (fractional) number of the pair that turns so often within the texts of training."""
        length = p["original_max_position_embeddings"]
        return D * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(p["rope_theta"]))

    low, high = pair_with(p["beta_fast"]), pair_with(p["beta_slow"])
    if p["truncate"]:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, D - 1)
    ramp = np.clip((np.arange(D // 2) - low) / (high - low if high != low else 0.001), 0, 1)
    return frequencies * (1 - ramp + ramp / p["factor"])


def _yarn_scale(p: Mapping[str, Any]) -> float:
    """How much longer queries and keys become, so that attention stays sharp among more tokens (YaRN, equation 22)."""

    def grown(by: float) -> float:
        return 0.1 * by * math.log(p["factor"]) + 1 if p["factor"] > 1 else 1.0

    if p["attention_factor"]:
        return float(p["attention_factor"])
    if p["mscale"] and p["mscale_all_dim"]:
        return grown(p["mscale"]) / grown(p["mscale_all_dim"])
    return grown(1)
