"""The language model before the Transformer: Embedding -> LSTM -> Dense (C-001), a prediction at every position."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from tinyllm.autograd.fused import linear_cross_entropy
from tinyllm.autograd.tensor import Tensor
from tinyllm.errors import CheckpointError, ConfigError
from tinyllm.models import config
from tinyllm.models.causal import CausalLM, Table
from tinyllm.models.inputs import IGNORED, ids_of
from tinyllm.models.recurrent import Alignment, StateCache, detached, stacked_or_none
from tinyllm.nn import LSTM, Dropout, Linear, Module


@dataclass(frozen=True, kw_only=True)
class LSTMConfig:
    """What an LSTM language model is made of.

    Parameters
    ----------
    vocab_size : int
        V.
    embedding_size : int
        C, the channels of the embeddings.
    hidden_size : int
        H, the units of each layer.
    num_layers : int
    dropout : float
        Probability, for the embeddings, between the layers, and before the head.
    initializer_range : float
        Standard deviation of the first embeddings; where they are the head as well, some ``1 / sqrt(H)`` suits better.
        The head and the LSTM begin as torch's do, but for the biases of the forget gates: see `LSTMLanguageModel`.
    tie_word_embeddings : bool
        Whether the matrix of the embeddings also gives the logits; then C = H.
    bos_token_id, eos_token_id, pad_token_id : int, optional
        The tokens that begin, end and fill up a text.

    Raises
    ------
    ConfigError
        For a value that is impossible.
    """

    vocab_size: int
    embedding_size: int = 128
    hidden_size: int = 256
    num_layers: int = 1
    dropout: float = 0.0
    initializer_range: float = 1.0
    tie_word_embeddings: bool = False
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        for name in ("vocab_size", "embedding_size", "hidden_size", "num_layers"):
            config.whole(name, getattr(self, name))
        config.number("dropout", self.dropout, most=1.0)
        config.number("initializer_range", self.initializer_range)
        config.flag("tie_word_embeddings", self.tie_word_embeddings)
        config.tokens(self)
        if self.tie_word_embeddings and self.embedding_size != self.hidden_size:
            raise ConfigError(
                f"tie_word_embeddings needs one size, but embedding_size={self.embedding_size} and "
                f"hidden_size={self.hidden_size}"
            )

    @property
    def gates(self) -> int:
        """Rows of an LSTM's matrices."""
        return 4 * self.hidden_size

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> LSTMConfig:
        """The settings of a config.json.

        Raises
        ------
        CheckpointError
            If it is the configuration of another kind of model.
        ConfigError
            For a setting that is unknown, missing, impossible, or cannot be obeyed.
        """
        kind = settings.get("model_type")
        if kind != "lstm":
            raise CheckpointError(f"model_type is {kind!r}, but an LSTMLanguageModel is of the model_type 'lstm'")
        found = config.obeyed(settings, {field.name for field in fields(cls)}, {})
        if "vocab_size" not in found:
            raise ConfigError("vocab_size is missing")
        return cls(**found)

    def to_dict(self) -> dict[str, Any]:
        """The settings as a config.json has them."""
        return asdict(self) | {"architectures": ["LSTMLanguageModel"], "model_type": "lstm"}


class Reader(Module):
    """Embeddings, and the LSTM that reads them."""

    def __init__(self, config: LSTMConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        C, H, L = config.embedding_size, config.hidden_size, config.num_layers
        self.embedding = Table(config.vocab_size, C, config.initializer_range, rng, dtype)
        self.lstm = LSTM(C, H, L, dropout=config.dropout, rng=rng, dtype=dtype)
        self.drop = Dropout(config.dropout, rng)
        for layer in range(L):
            bias = self.lstm.parameter("bias_ih", layer)
            values = bias.numpy()
            values[H : 2 * H] = 1
            bias.assign_(values)

    def forward(self, ids: np.ndarray, state: Any = None, visible: np.ndarray | None = None) -> tuple[Any, Tensor, Any]:
        """Ids (B, T), `visible` (B, T) -> embeddings (B, T, C), states (B, T, H), and the pair to go on with."""
        x, aligned = self.embedding(ids), Alignment(visible)
        y, state = self.lstm(aligned.to_left(self.drop(x)), state, aligned.lengths)
        return x, self.drop(aligned.back(y)), state


class LSTMLanguageModel(CausalLM):
    """Embedding, LSTM, and a matrix that scores the next token at every position (C-001 as it was meant; F-LSTM).

    It has no positions and no longest context: what it knows of the past is in its state, of a fixed size. So its cache
    (`new_cache`) does not grow, and a token costs the same after ten others as after ten thousand.

    Parameters
    ----------
    config : LSTMConfig
    rng : numpy Generator
        For the first weights, and for dropout outside a `random_scope`. The forget gates begin with a bias of 1, mostly
        open, so that there is something to be remembered from the start.
    dtype : dtype
        float32 or float64.

    Notes
    -----
    Source: Hochreiter and Schmidhuber 1997; as a language model Sundermeyer, Schlueter and Ney 2012; the bias: Gers,
    Schmidhuber and Cummins 2000, and Jozefowicz, Zaremba and Sutskever 2015, section 2.2.
    """

    config: LSTMConfig
    config_class = LSTMConfig
    published = "LSTM language model"
    prefix, table = "model", "model.embedding.weight"
    sizes: ClassVar = {
        "model.embedding.weight": ("vocab_size", "embedding_size"),
        "model.lstm.weight_hh_l0": ("gates", "hidden_size"),
    }
    lists: ClassVar = {"model.lstm.weight_hh_l": ("num_layers", "layers")}

    def __init__(self, config: LSTMConfig, *, rng: np.random.Generator, dtype: DTypeLike = np.float32) -> None:
        self.config = config
        self.model = Reader(config, rng, dtype)
        if not config.tie_word_embeddings:
            self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False, rng=rng, dtype=dtype)

    def states(
        self, ids: np.ndarray, positions: np.ndarray, visible: np.ndarray | None, cache: Any
    ) -> tuple[list[Tensor], None]:
        """The embeddings, and the states of the last layer."""
        state = None if cache is None else stacked_or_none(cache.state)
        seen = None if visible is None else visible[:, 0, 0, -ids.shape[1] :]
        x, y, state = self.model(ids, state, seen)
        if cache is not None:
            cache.update(state, ids.shape[1])
        return [x, y], None

    def head(self) -> Tensor:
        """The matrix (V, H) whose rows score the tokens."""
        return self.model.embedding.weight if self.config.tie_word_embeddings else self.lm_head.weight

    @property
    def context_length(self) -> None:  # type: ignore[override]
        """None: it can read on for ever."""
        return None

    def new_cache(self) -> StateCache:  # type: ignore[override]
        """An empty cache, for ``model(ids, cache=cache)``: the state."""
        return StateCache()

    def window_loss(
        self, input_ids: ArrayLike | Tensor, targets: ArrayLike | Tensor, state: Any = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The loss of a window of a longer text, and the state that the next window begins with.

        Parameters
        ----------
        input_ids, targets : integers (B, T)
            What is read, and what comes after each.
        state : pair of Tensor (L, B, H), optional
            What the window before has left.

        Returns
        -------
        loss : Tensor, 0-d
            Mean in nats.
        state : pair of Tensor (L, B, H)
            Detached: gradients do not flow back into this window, whose tape is gone by then (truncated
            backpropagation through time; Williams and Peng 1990).
        """
        _, y, state = self.model(ids_of(input_ids), state)
        return linear_cross_entropy(y, self.head(), targets, ignore_index=IGNORED), detached(state)

    def truncated_losses(self, windows: Iterable[Mapping[str, np.ndarray]]) -> Iterator[Tensor]:
        """The loss of each window of consecutive text (`tinyllm.data.consecutive_windows`), the state carried on.

        Take the gradient step of a window before asking for the next one.
        """
        state = None
        for window in windows:
            ids = window["input_ids"]
            loss, state = self.window_loss(ids[:, :-1], ids[:, 1:], state)
            yield loss
