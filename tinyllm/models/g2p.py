"""How English words sound: the trained weights of the package `g2p-en` in our recurrent encoder-decoder.

The package holds a GRU that reads letters and one that writes phonemes (ARPAbet, with stress), trained on CMUdict.
"""

from __future__ import annotations

import importlib.util
import os
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from tinyllm.autograd import no_grad
from tinyllm.errors import CheckpointError
from tinyllm.generation import generate
from tinyllm.models.loading import NoDraws
from tinyllm.models.rnn_seq2seq import RNNEncoderDecoder, RNNEncoderDecoderConfig

PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<s>", "</s>"
GRAPHEMES = (PAD, UNKNOWN, END, *"abcdefghijklmnopqrstuvwxyz")
_VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
_CONSONANTS = (
    *("B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N", "NG", "P", "R", "S", "SH", "T", "TH", "V"),
    *("W", "Y", "Z", "ZH"),
)
# In alphabetical order; the lists that the weights were trained with have a bare UW, too.
PHONEMES = (
    *(PAD, UNKNOWN, START, END),
    *sorted((*(f"{vowel}{stress}" for vowel in _VOWELS for stress in "012"), "UW", *_CONSONANTS)),
)
# Our names of the arrays in the file.
_NAMES = {
    "src_embedding.weight": "enc_emb",
    "tgt_embedding.weight": "dec_emb",
    "generator.weight": "fc_w",
    "generator.bias": "fc_b",
    **{
        f"{ours}.{kind}_{part}_l0": f"{theirs}_{kind[0]}_{part}"
        for ours, theirs in (("encoder", "enc"), ("decoder", "dec"))
        for kind in ("weight", "bias")
        for part in ("ih", "hh")
    },
}


def installed_weights() -> Path | None:
    """The file of weights of an installed `g2p-en`; None where it is not installed. The package is not imported."""
    found = importlib.util.find_spec("g2p_en")
    if found is None or not found.submodule_search_locations:
        return None
    files = sorted(Path(found.submodule_search_locations[0]).glob("checkpoint*.npz"))
    return files[-1] if files else None


def load_g2p(file: str | os.PathLike[str] | None = None, dtype: DTypeLike = np.float32) -> RNNEncoderDecoder:
    """The model of g2p-en.

    Parameters
    ----------
    file : path, optional
        Its `checkpoint20.npz`; by default that of the installed package.
    dtype : dtype
        float32 or float64.

    Returns
    -------
    RNNEncoderDecoder
        In evaluation mode; its ids are places in `GRAPHEMES` and `PHONEMES`.

    Raises
    ------
    CheckpointError
        If there is no such file, or it holds something else.
    """
    path = installed_weights() if file is None else Path(file)
    if path is None:
        raise CheckpointError("g2p-en is not installed: pip install --no-deps g2p-en, or name its checkpoint20.npz")
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            weights = {ours: arrays[theirs] for ours, theirs in _NAMES.items()}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: not the weights of g2p-en: {error}") from None
    shape = weights["src_embedding.weight"].shape
    config = RNNEncoderDecoderConfig(
        src_vocab_size=len(GRAPHEMES),
        tgt_vocab_size=len(PHONEMES),
        embedding_size=shape[-1] if shape else 1,
        hidden_size=weights["encoder.weight_hh_l0"].shape[-1],
        attention="none",
        plain=True,
        decoder_start_token_id=PHONEMES.index(START),
        eos_token_id=PHONEMES.index(END),
    )
    model = RNNEncoderDecoder(config, rng=NoDraws(), dtype=dtype)  # type: ignore[arg-type]
    try:
        model.load_state_dict(weights)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: not the weights of g2p-en: {error}") from None
    model.eval()
    return model


def pronounce(model: RNNEncoderDecoder, word: str, max_phonemes: int = 20, num_beams: int = 1) -> list[str]:
    """The phonemes of a word.

    Parameters
    ----------
    model : RNNEncoderDecoder
        From `load_g2p`.
    word : str
        Upper case is taken for lower case; whatever is no letter from a to z is an unknown one.
    max_phonemes, num_beams : int

    Returns
    -------
    list of str
    """
    known = {letter: i for i, letter in enumerate(GRAPHEMES)}
    ids = [known.get(letter, known[UNKNOWN]) for letter in word.lower()] + [known[END]]
    with no_grad():
        (written,) = np.asarray(generate(model, [ids], max_new_tokens=max_phonemes, num_beams=num_beams))
    phonemes = [PHONEMES[i] for i in written[1:]]  # without the start
    return phonemes[: phonemes.index(END)] if END in phonemes else phonemes
