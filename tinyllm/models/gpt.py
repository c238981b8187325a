"""GPT-2: a causal Transformer whose blocks norm their input, not their output (Radford et al. 2019, section 2.3).

Parameters bear the names and shapes of the published checkpoints, so that loading one is a copy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from tinyllm.autograd import checkpoint
from tinyllm.autograd.fused import (
    cross_entropy,
    embedding,
    linear,
    linear_cross_entropy,
    scaled_dot_product_attention,
    self_attention,
)
from tinyllm.autograd.ops import dropout, split
from tinyllm.autograd.tensor import Tensor
from tinyllm.errors import CheckpointError, TinyLLMError
from tinyllm.models import folder as files
from tinyllm.models.cache import KVCache
from tinyllm.models.gpt_config import GPTConfig
from tinyllm.models.output import ModelOutput
from tinyllm.nn import LayerNorm, Module, activation, init, merge_heads, split_heads

_IGNORED = -100  # a label that is not predicted


class Table(Module):
    """A matrix `weight` (rows, C): picked from by row on the way in; on the way out, each row scores a token."""

    def __init__(self, rows: int, channels: int, std: float, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.weight = Tensor(init.normal((rows, channels), rng, std=std, dtype=dtype), requires_grad=True)

    def forward(self, ids: np.ndarray) -> Tensor:
        """Integers (...) -> (..., C)."""
        return embedding(ids, self.weight)


class Conv1D(Module):
    """An affine map whose `weight` is (in, out), the transpose of a Linear's: the layout of the checkpoints."""

    def __init__(self, inputs: int, outputs: int, std: float, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.weight = Tensor(init.normal((inputs, outputs), rng, std=std, dtype=dtype), requires_grad=True)
        self.bias = Tensor(init.zeros((outputs,), dtype=dtype), requires_grad=True)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return linear(x, self.weight.mT, self.bias)


class Attention(Module):
    """Causal self-attention (F-ATTN) in H heads."""

    def __init__(self, config: GPTConfig, layer: int, rng: np.random.Generator, dtype: DTypeLike) -> None:
        C, std = config.n_embd, config.initializer_range
        self.config, self.layer = config, layer
        self.c_attn = Conv1D(C, 3 * C, std, rng, dtype)
        self.c_proj = Conv1D(C, C, std / math.sqrt(2 * config.n_layer), rng, dtype)
        self.scale = 1 / math.sqrt(C // config.n_head) if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            self.scale /= layer + 1

    def forward(self, x: Tensor, visible: np.ndarray | None, cache: KVCache | None) -> Tensor:
        """(B, T, C) -> (B, T, C); `visible` (B, 1, 1, S) marks the keys that are not padding."""
        qkv, H, p = self.c_attn(x), self.config.n_head, self.config.attn_pdrop if self.training else 0.0  # (B, T, 3 C)
        if cache is None:
            y = self_attention(qkv, H, visible, p, is_causal=True, scale=self.scale)  # (B, T, C)
        else:
            q, k, v = (split_heads(part, H) for part in split(qkv, 3, axis=-1))  # (B, H, T, D)
            k, v = cache.append(self.layer, k, v)  # (B, H, S, D)
            before = k.shape[-2] - q.shape[-2]
            y = scaled_dot_product_attention(q, k, v, visible, p, is_causal=True, scale=self.scale, offset=before)
            y = merge_heads(y)
        return dropout(self.c_proj(y), self.config.resid_pdrop, self.training)


class MLP(Module):
    """The feed-forward network, at every position alone."""

    def __init__(self, config: GPTConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        std = config.initializer_range
        self.config = config
        self.c_fc = Conv1D(config.n_embd, config.inner, std, rng, dtype)
        self.c_proj = Conv1D(config.inner, config.n_embd, std / math.sqrt(2 * config.n_layer), rng, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        hidden = linear(x, self.c_fc.weight.mT)  # (B, T, inner)
        hidden = activation(self.config.activation_function)(hidden, bias=self.c_fc.bias)
        return dropout(self.c_proj(hidden), self.config.resid_pdrop, self.training)


class Block(Module):
    """Attention, then the network; each adds to the stream that passes by."""

    def __init__(self, config: GPTConfig, layer: int, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.ln_1 = LayerNorm(config.n_embd, config.layer_norm_epsilon, dtype=dtype)
        self.attn = Attention(config, layer, rng, dtype)
        self.ln_2 = LayerNorm(config.n_embd, config.layer_norm_epsilon, dtype=dtype)
        self.mlp = MLP(config, rng, dtype)

    def forward(self, x: Tensor, visible: np.ndarray | None, cache: KVCache | None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.attn(self.ln_1(x), visible, cache)
        return x + self.mlp(self.ln_2(x))


class Transformer(Module):
    """Embeddings, blocks, and a final norm.

    Attributes
    ----------
    checkpoint_blocks : bool
        Keep only the input of each block, and compute the block again in backward: less memory, more time.
    """

    checkpoint_blocks = False

    def __init__(self, config: GPTConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.config = config
        self.wte = Table(config.vocab_size, config.n_embd, config.initializer_range, rng, dtype)
        self.wpe = Table(config.n_positions, config.n_embd, config.initializer_range, rng, dtype)
        self.h = [Block(config, layer, rng, dtype) for layer in range(config.n_layer)]
        self.ln_f = LayerNorm(config.n_embd, config.layer_norm_epsilon, dtype=dtype)

    def forward(
        self, ids: np.ndarray, positions: np.ndarray, visible: np.ndarray | None, cache: KVCache | None
    ) -> list[Tensor]:
        """Ids (B, T), positions (B or 1, T) -> the hidden states, n_layer + 1 times (B, T, C), the last one normed."""
        x = dropout(self.wte(ids) + self.wpe(positions), self.config.embd_pdrop, self.training)
        states = [x]
        for block in self.h:
            if self.checkpoint_blocks and cache is None:
                x = checkpoint(partial(block, visible=visible, cache=None), x)
            else:
                x = block(x, visible, cache)
            states.append(x)
        states[-1] = self.ln_f(x)
        return states


class GPT(Module):
    """A GPT-2 language model: what `GPT2LMHeadModel` is in transformers.

    Parameters
    ----------
    config : GPTConfig
    rng : numpy Generator
        For the first weights: normal with deviation `initializer_range`; where a part adds to the residual stream, that
        over sqrt(2 n_layer), so that the 2 n_layer sums do not add up to more with depth. Biases start at 0.
    dtype : dtype
        float32 or float64.

    Notes
    -----
    Source: Radford et al. 2019, "Language models are unsupervised multitask learners", section 2.3.
    """

    def __init__(self, config: GPTConfig, *, rng: np.random.Generator, dtype: DTypeLike = np.float32) -> None:
        self.config = config
        self.transformer = Transformer(config, rng, dtype)
        if not config.tie_word_embeddings:
            self.lm_head = Table(config.vocab_size, config.n_embd, config.initializer_range, rng, dtype)

    def forward(
        self,
        input_ids: ArrayLike | Tensor,
        attention_mask: ArrayLike | Tensor | None = None,
        position_ids: ArrayLike | Tensor | None = None,
        labels: ArrayLike | Tensor | None = None,
        output_hidden_states: bool = False,
        cache: KVCache | None = None,
    ) -> ModelOutput:
        """Score the next token at every position (F-LM).

        Parameters
        ----------
        input_ids : integers (B, T)
        attention_mask : (B, T), or (B, S + T) where a cache holds S positions, optional
            1 for tokens, 0 for padding, at whichever end.
        position_ids : integers (T,), (1, T) or (B, T), optional
            By default each token's position is the number of unmasked tokens before it, and padding's is 0, as in the
            `generate` of transformers. (Its `forward` alone counts the padding too, unless it is given positions.)
        labels : integers (B, T), optional
            Not shifted: usually `input_ids` themselves. Position t predicts ``labels[t + 1]``; -100 is not predicted.
        output_hidden_states : bool
        cache : KVCache, optional
            From `new_cache`: the ids continue what it holds, and are added to it.

        Returns
        -------
        ModelOutput
            `logits` (B, T, V); `loss` where there are labels, the mean in nats; `hidden_states` where asked for.

        Raises
        ------
        ValueError
            If shapes do not fit, or there are more tokens than positions.
        IndexError
            If an id is outside the vocabulary, or a position outside the model's.
        """
        states = self._states(input_ids, attention_mask, position_ids, cache)
        logits = linear(states[-1], self._head())  # (B, T, V)
        loss = None
        if labels is not None:
            loss = cross_entropy(logits, _targets(labels, logits.shape[:2]), ignore_index=_IGNORED)
        return ModelOutput(logits, loss, tuple(states) if output_hidden_states else None)

    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        """The loss of ``model(**batch)``, whose logits are never stored all at once; the batch has labels."""
        if batch.get("labels") is None:
            raise ValueError(f"a batch needs labels to have a loss; this one has {', '.join(batch)}")
        x = self._states(**{name: array for name, array in batch.items() if name != "labels"})[-1]  # (B, T, C)
        return linear_cross_entropy(x, self._head(), _targets(batch["labels"], x.shape[:2]), ignore_index=_IGNORED)

    def next_token_loss(self, input_ids: ArrayLike | Tensor, targets: ArrayLike | Tensor) -> Tensor:
        """Mean loss where every position, the last one too, predicts a token: ids and targets are (B, T)."""
        x = self._states(input_ids)[-1]  # (B, T, C)
        return linear_cross_entropy(x, self._head(), targets, ignore_index=_IGNORED)

    def _states(
        self,
        input_ids: ArrayLike | Tensor,
        attention_mask: ArrayLike | Tensor | None = None,
        position_ids: ArrayLike | Tensor | None = None,
        cache: KVCache | None = None,
    ) -> list[Tensor]:
        """The transformer's hidden states, for inputs that are checked here."""
        ids = _integers("input_ids", input_ids)
        if ids.ndim != 2 or ids.shape[1] == 0:
            raise ValueError(f"input_ids must have shape (B, T) with T > 0, got {ids.shape}")
        past = 0 if cache is None else cache.length
        if cache is not None and cache.batch not in (None, len(ids)):
            raise ValueError(f"the cache holds {cache.batch} sequences, but input_ids has {len(ids)}")
        mask = _mask(attention_mask, (len(ids), past + ids.shape[1]))
        positions = self._positions(position_ids, ids.shape, past, mask)
        visible = None if mask is None else mask[:, None, None, :]  # (B, 1, 1, S + T)
        return self.transformer(ids, positions, visible, cache)

    @property
    def context_length(self) -> int:
        """The most tokens that the model can see at once."""
        return self.config.n_positions

    def new_cache(self) -> KVCache:
        """An empty cache, for ``model(ids, cache=cache)``."""
        return KVCache(self.config.n_layer)

    def _head(self) -> Tensor:
        return self.transformer.wte.weight if self.config.tie_word_embeddings else self.lm_head.weight

    def _positions(
        self, given: ArrayLike | Tensor | None, shape: tuple[int, ...], past: int, mask: np.ndarray | None
    ) -> np.ndarray:
        """Positions (1 or B, T), each one checked."""
        n_positions = self.config.n_positions
        if given is not None:
            positions = np.atleast_2d(_integers("position_ids", given))
            if positions.shape not in (shape, (1, shape[1])):
                raise ValueError(f"position_ids must have shape ({shape[1]},) or {shape}, got {positions.shape}")
            if positions.min() < 0 or positions.max() >= n_positions:
                bad = positions[(positions < 0) | (positions >= n_positions)][0]
                raise IndexError(f"position_ids: {bad} is outside the model's positions 0..{n_positions - 1}")
            return positions
        if mask is None:
            positions = np.arange(past, past + shape[1])[None]
        else:
            positions = np.maximum(mask.cumsum(axis=1) - 1, 0)[:, past:]
        if positions.max() >= n_positions:
            raise ValueError(
                f"the input is {positions.max() + 1} tokens long, but the model has only n_positions={n_positions}: "
                "cut it, or let tinyllm.generate slide over it"
            )
        return positions

    # -- folders -----------------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: files.Folder) -> None:
        """Write `config.json` and `model.safetensors`, as transformers reads them too.

        Raises
        ------
        CheckpointError
            If they cannot be written; each file is replaced whole or not at all.
        """
        weights = self.state_dict()
        dtype = weights["transformer.wte.weight"].dtype.name
        files.write_folder(folder, self.config.to_dict() | {"dtype": dtype}, weights)

    @classmethod
    def from_pretrained(cls, folder: files.Folder, dtype: DTypeLike | None = None) -> GPT:
        """Load a folder written by `save_pretrained`, here or in transformers.

        Parameters
        ----------
        folder : path
            With `config.json` and `model.safetensors`.
        dtype : dtype, optional
            Of the parameters; by default float64 where the file has that, else float32.

        Returns
        -------
        GPT
            In evaluation mode: dropout does nothing before ``model.train()``.

        Raises
        ------
        CheckpointError
            If a file is missing or damaged, the files do not belong together, or a weight is NaN or infinite.
        ConfigError
            If config.json has a setting that is unknown, impossible, or cannot be obeyed.
        """
        try:
            config = GPTConfig.from_dict(files.read_config(folder))
        except TinyLLMError as error:
            raise type(error)(_within(folder, files.CONFIG, error)) from None
        weights = _named_as_here(files.read_weights(folder), config.tie_word_embeddings, Path(folder) / files.WEIGHTS)
        _check_sizes(config, weights, folder)
        if dtype is None:
            dtype = np.float64 if weights["transformer.wte.weight"].dtype == np.float64 else np.float32
        model = cls(config, rng=_NoDraws(), dtype=dtype)  # type: ignore[arg-type]
        try:
            model.load_state_dict(weights)
        except CheckpointError as error:
            raise CheckpointError(_within(folder, files.WEIGHTS, error)) from None
        model.eval()
        return model


class _NoDraws:
    """In a generator's place where every weight is about to be loaded."""

    def normal(self, mean: float, std: float, shape: tuple[int, ...]) -> np.ndarray:
        return np.zeros(shape, np.float32)


def _within(folder: files.Folder, name: str, error: Exception) -> str:
    """The error's message, with the file if it does not name the folder already."""
    return str(error) if str(folder) in str(error) else f"{Path(folder) / name}: {error}"


def _named_as_here(weights: dict[str, np.ndarray], tied: bool, path: Path) -> dict[str, np.ndarray]:
    """The parameters in a file, under their names here.

    A file of the bare Transformer has no "transformer." before the names. Old files hold the causal masks as buffers.
    A tied head may be there as a copy.
    """
    named = {}
    for name, array in weights.items():
        if name.endswith((".attn.bias", ".attn.masked_bias")):
            continue
        if not name.startswith(("transformer.", "lm_head.")):
            name = f"transformer.{name}"
        if array.dtype.kind != "f":
            raise CheckpointError(f"{path}: {name} holds {array.dtype}, but weights are floating")
        named[name] = array
    table, head = named.get("transformer.wte.weight"), named.get("lm_head.weight")
    if tied and head is not None:
        if table is None or not np.array_equal(head, table):
            raise CheckpointError(
                f"{path}: lm_head.weight differs from transformer.wte.weight, but config.json says that they are one "
                "(tie_word_embeddings: true)"
            )
        del named["lm_head.weight"]
    return named


def _check_sizes(config: GPTConfig, weights: dict[str, np.ndarray], folder: files.Folder) -> None:
    """Hold the configuration's sizes against the weights', before anything of these sizes is made."""
    first = {
        "transformer.wte.weight": ("vocab_size", "n_embd"),
        "transformer.wpe.weight": ("n_positions", "n_embd"),
        "transformer.h.0.mlp.c_fc.weight": ("n_embd", "inner"),
    }
    for name, sizes in first.items():
        expected = tuple(getattr(config, size) for size in sizes)
        if name not in weights:
            raise CheckpointError(f"{Path(folder) / files.WEIGHTS}: {name} is missing; this is no GPT-2")
        if weights[name].shape != expected:
            wants = ", ".join(f"{size}={n}" for size, n in zip(sizes, expected, strict=True))
            raise CheckpointError(
                f"{folder}: {files.CONFIG} says {wants}, but {name} in {files.WEIGHTS} has shape "
                f"{weights[name].shape}: the two files do not belong together"
            )
    blocks = {name.split(".")[2] for name in weights if name.startswith("transformer.h.")}
    if len(blocks) != config.n_layer:
        raise CheckpointError(
            f"{folder}: {files.CONFIG} says n_layer={config.n_layer}, but {files.WEIGHTS} has {len(blocks)} blocks: "
            "the two files do not belong together"
        )


def _integers(name: str, value: ArrayLike | Tensor) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(
            f"{name}: the rows differ in length; pad them, and mark the padding in attention_mask"
        ) from None
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name} must be integers, got {array.dtype}")
    return array


def _mask(given: ArrayLike | Tensor | None, shape: tuple[int, int]) -> np.ndarray | None:
    """True for tokens, (B, S + T); None where there is no padding."""
    if given is None:
        return None
    mask = np.asarray(given)
    if mask.shape != shape:
        raise ValueError(f"attention_mask must have shape {shape}, the ids and what is cached, got {mask.shape}")
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError("attention_mask must be 1 for tokens and 0 for padding")
    return None if mask.all() else mask.astype(bool)


def _targets(labels: ArrayLike | Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """Labels (B, T), moved to the positions that predict them."""
    labels = _integers("labels", labels)
    if labels.shape != shape:
        raise ValueError(f"labels must have the shape of input_ids {shape}, got {labels.shape}")
    if shape[1] < 2:
        raise ValueError("labels need at least 2 tokens: the first one is given, not predicted")
    return np.concatenate([labels[:, 1:].astype(np.int64), np.full((shape[0], 1), _IGNORED)], axis=1)
