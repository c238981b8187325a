"""Tokenizers that lie beside weights in formats of their own: within a GGUF file, and llama2.c's."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from tinyllm import gguf
from tinyllm.errors import CheckpointError, TokenizerError
from tinyllm.text.bpe import ByteLevelBPE, read_merges
from tinyllm.text.pretokenize import BYTE_LEVEL, PreTokenizer
from tinyllm.text.sentencepiece import SPACE, SentencePieceBPE
from tinyllm.text.template import Template
from tinyllm.text.tokenizer import AddedToken, Tokenizer

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _sequence(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(parts)}


_BYTES = {**BYTE_LEVEL, "use_regex": False}
# llama.cpp's names for how a text is cut into words, as tokenizer.json writes it.
_CUTS = {
    "gpt-2": BYTE_LEVEL,
    "smollm": _sequence({"type": "Digits", "individual_digits": True}, BYTE_LEVEL),
    "llama-bpe": _sequence(_split(_LLAMA3), _BYTES),
    "qwen2": _sequence(_split(_LLAMA3.replace("{1,3}", "")), _BYTES),
}
_NORMAL, _UNKNOWN, _CONTROL, _USER, _BYTE = 1, 2, 3, 4, 6  # kinds of tokens, by the number in the file


def gguf_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a GGUF file: byte-level BPE ("gpt2") or SentencePiece's ("llama").

    Raises
    ------
    TokenizerError
        If there is none, it is of another kind, or it is damaged.
    """
    try:
        file = gguf.read(path)
        return _from_metadata(file)
    except (CheckpointError, TokenizerError) as error:
        where = "" if str(path) in str(error) else f"{path}: "
        raise TokenizerError(f"{where}{error}") from None


def chat_template(path: Path) -> str | None:
    """The chat template in a GGUF file; None where it has none."""
    return gguf.read(path).get("tokenizer.chat_template", str, None)


def _from_metadata(file: gguf.GGUF) -> Tokenizer:
    kind = file.get("tokenizer.ggml.model", str)
    pieces = file.get("tokenizer.ggml.tokens", list)
    kinds = file.get("tokenizer.ggml.token_type", list, [_NORMAL] * len(pieces))
    if len(kinds) != len(pieces) or not all(isinstance(piece, str) for piece in pieces):
        raise TokenizerError(f"there are {len(pieces)} tokens, but {len(kinds)} kinds of them")
    added = [
        AddedToken(piece, index, special=kind != _USER)
        for index, (piece, kind) in enumerate(zip(pieces, kinds, strict=True))
        if kind in (_UNKNOWN, _CONTROL, _USER) and piece
    ]
    roles = {}
    for role, name in {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}.items():
        index = file.get(f"tokenizer.ggml.{name}_token_id", int, None)
        if index is not None:
            if not 0 <= index < len(pieces):
                raise TokenizerError(f"the {role}_token has the id {index}, but there are {len(pieces)} tokens")
            roles[f"{role}_token"] = pieces[index]
    before = file.get("tokenizer.ggml.add_bos_token", bool, kind == "llama")
    template = _with_bos(roles, pieces) if before else None
    if file.get("tokenizer.ggml.add_eos_token", bool, False):
        raise TokenizerError("tokenizer.ggml.add_eos_token is true, which is not supported")
    if kind == "llama":
        scores = file.get("tokenizer.ggml.scores", list)
        space = file.get("tokenizer.ggml.add_space_prefix", bool, True)
        return SentencePieceBPE.from_scores(pieces, scores, added, template, roles, add_prefix_space=space)
    if kind != "gpt2":
        raise TokenizerError(f"the tokenizer {kind!r} is not supported; known: gpt2, llama")
    cut = file.get("tokenizer.ggml.pre", str, "gpt-2")
    if cut not in _CUTS:
        raise TokenizerError(f"the pre-tokenizer {cut!r} is not supported; known: {', '.join(_CUTS)}")
    return ByteLevelBPE(
        _ids(pieces),
        read_merges(file.get("tokenizer.ggml.merges", list), "tokenizer.ggml.merges"),
        added,
        template,
        roles,
        pre_tokenizer=PreTokenizer.from_spec(_CUTS[cut]),
        ignore_merges=cut == "llama-bpe",
    )


def _ids(pieces: list[str]) -> dict[str, int]:
    ids = {piece: index for index, piece in enumerate(pieces)}
    if len(ids) != len(pieces):
        raise TokenizerError(f"{len(pieces)} tokens have only {len(ids)} different names")
    return ids


def _with_bos(roles: dict[str, str], pieces: list[str]) -> Template:
    """What puts the token that begins a text before it."""
    if "bos_token" not in roles:
        raise TokenizerError("a token shall begin every text, but none is named for that")
    bos = roles["bos_token"]
    special = {"SpecialToken": {"id": bos, "type_id": 0}}
    a, b = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    spec = {
        "type": "TemplateProcessing",
        "single": [special, a],
        "pair": [special, a, special, b],
        "special_tokens": {bos: {"id": bos, "ids": [pieces.index(bos)], "tokens": [bos]}},
    }
    template = Template.from_spec(spec)
    assert template is not None
    return template


def llama2c_tokenizer(path: Path) -> SentencePieceBPE:
    """The tokenizer in a file of llama2.c: the longest piece's length, then a score, a length and bytes for each piece.

    Its pieces are SentencePiece's with spaces in place of U+2581; ids 0, 1, 2 are unknown, begin and end, then 256
    bytes.

    Raises
    ------
    TokenizerError
        If there is no such file, or it is damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read ({error.strerror or error})") from None
    pieces: list[str] = []
    scores: list[float] = []
    at = 4
    try:
        while at < len(data):
            score, length = struct.unpack_from("<fi", data, at)
            at += 8
            if not 0 <= length <= len(data) - at:
                raise TokenizerError(f"{path}: byte {at - 4}: a piece of {length} bytes; the file has {len(data)}")
            pieces.append(data[at : at + length].decode("utf-8"))
            scores.append(score)
            at += length
    except (struct.error, UnicodeDecodeError) as error:
        raise TokenizerError(f"{path}: byte {at}: no tokenizer of llama2.c, or cut off ({error})") from None
    if len(pieces) < 259:
        raise TokenizerError(f"{path}: {len(pieces)} pieces are too few for a tokenizer of llama2.c; was it cut off?")
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    names += [piece.replace(" ", SPACE) for piece in pieces[259:]]
    added = [AddedToken(name, index) for index, name in enumerate(names[:3])]
    try:
        roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        return SentencePieceBPE.from_scores(names, scores, added, _with_bos(roles, names), roles)
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error}") from None
