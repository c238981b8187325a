"""Settings from a config.json: each one obeyed, known to change nothing, or refused by name."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from tinyllm.errors import ConfigError, nearest

# Keys of Hugging Face's configurations that do not change what a language model computes: notes on where it came from,
# how its outputs are returned, defaults of its `generate`, and heads for other tasks.
_HARMLESS = frozenset(
    {
        "architectures",
        "bad_words_ids",
        "begin_suppress_tokens",
        "chunk_size_feed_forward",
        "decoder_start_token_id",
        "diversity_penalty",
        "do_sample",
        "dtype",
        "early_stopping",
        "encoder_no_repeat_ngram_size",
        "exponential_decay_length_penalty",
        "finetuning_task",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "gradient_checkpointing",
        "id2label",
        "is_decoder",
        "label2id",
        "length_penalty",
        "max_length",
        "min_length",
        "model_type",
        "no_repeat_ngram_size",
        "num_beam_groups",
        "num_beams",
        "num_labels",
        "num_return_sequences",
        "output_attentions",
        "output_hidden_states",
        "output_scores",
        "prefix",
        "problem_type",
        "remove_invalid_values",
        "repetition_penalty",
        "return_dict",
        "return_dict_in_generate",
        "sep_token_id",
        "suppress_tokens",
        "task_specific_params",
        "temperature",
        "tf_legacy_loss",
        "tie_encoder_decoder",
        "tokenizer_class",
        "top_k",
        "top_p",
        "torch_dtype",
        "torchscript",
        "transformers_version",
        "typical_p",
        "use_bfloat16",
        "use_cache",
    }
)

# Keys that would change it, with the values under which they do not.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "per_layer_config": (None, {}),
}


def obeyed(
    settings: Mapping[str, Any],
    known: Collection[str],
    aliases: Mapping[str, str],
    harmless: Collection[str] = (),
    neutral: Mapping[str, tuple[Any, ...]] | None = None,
) -> dict[str, Any]:
    """The settings that a model obeys, under their own names.

    Parameters
    ----------
    settings : mapping
        A config.json.
    known : names
        What the model obeys.
    aliases : mapping of str to str
        Other names for some of them.
    harmless : names
        Keys of this family of models that do not matter to it, besides those that never do.
    neutral : mapping of names to values, optional
        Keys that would change what it computes, with the values under which they do not: first of all the usual one.

    Raises
    ------
    ConfigError
        For a setting that cannot be obeyed, one that nobody knows, and two that contradict each other.
    """
    found: dict[str, Any] = {}
    neutral = {**_NEUTRAL, **(neutral or {})}
    for key, value in settings.items():
        name = aliases.get(key, key)
        if name in known:
            if name in found and found[name] != value:
                raise ConfigError(f"{key}={value!r} contradicts {name}={found[name]!r}")
            found[name] = value
        elif key in neutral:
            if value not in neutral[key]:
                raise ConfigError(f"{key}={value!r} cannot be obeyed; only {neutral[key][0]!r} can")
        elif not (key in _HARMLESS or key in harmless or key.startswith("_")):
            raise ConfigError(f"unknown setting {key!r}{nearest(key, {*known, *aliases})}")
    return found


def whole(name: str, value: Any, least: int = 1) -> None:
    """Refuse what is not a whole number of at least `least`."""
    if type(value) is not int or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, got {value!r}")


def number(name: str, value: Any, least: float = 0.0, most: float = math.inf) -> None:
    """Refuse what is not a finite number from `least` to `most`."""
    if type(value) not in (int, float) or not (math.isfinite(value) and least <= value <= most):
        bounds = f"from {least:g} to {most:g}" if most < math.inf else f"of at least {least:g}"
        raise ConfigError(f"{name} must be a number {bounds}, got {value!r}")


def flag(name: str, value: Any) -> None:
    """Refuse what is neither true nor false."""
    if type(value) is not bool:
        raise ConfigError(f"{name} must be true or false, got {value!r}")


def tokens(settings: Any) -> None:
    """Refuse special tokens that are no ids; several may end a text."""
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(settings, name)
        for one in value if name == "eos_token_id" and isinstance(value, list) else [value]:
            if one is not None:
                whole(name, one, least=0)
