"""Reading a tokenizer back: our own files, and the field's tokenizer.json with BPE over bytes or characters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinyllm.errors import TokenizerError
from tinyllm.text.bpe import ByteLevelBPE
from tinyllm.text.characters import CharTokenizer
from tinyllm.text.files import expect, field, only_known, read_json_object
from tinyllm.text.foreign import gguf_tokenizer, llama2c_tokenizer
from tinyllm.text.pretokenize import parts_of
from tinyllm.text.sentencepiece import SentencePieceBPE
from tinyllm.text.template import Template
from tinyllm.text.tokenizer import ROLES, AddedToken, Tokenizer
from tinyllm.text.vocabulary import VocabularyTokenizer
from tinyllm.text.wordpiece import WordPiece
from tinyllm.text.words import WordTokenizer

_PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))


def load_tokenizer(folder_or_file: str | Path) -> Tokenizer:
    """Read a tokenizer from a tokenizer.json, or from a folder that has one.

    A folder's ``tokenizer_config.json`` says which tokens begin, end and fill up texts. A folder without tokenizer.json
    may have GPT-2's pair, ``vocab.json`` and ``merges.txt``, or BERT's ``vocab.txt``. A GGUF file has its tokenizer
    within; llama2.c's lies in a ``.bin`` file of its own.

    Parameters
    ----------
    folder_or_file : path
        A run folder, a Hugging Face folder, or the file itself.

    Returns
    -------
    Tokenizer
        A `ByteLevelBPE`, `SentencePieceBPE`, `WordPiece`, `CharTokenizer` or `WordTokenizer`.

    Raises
    ------
    TokenizerError
        For a file that is missing, empty, damaged or foreign; a feature that is not supported is named, never ignored.
    """
    path = Path(folder_or_file)
    if path.suffix == ".gguf" and not path.is_dir():
        return gguf_tokenizer(path)
    if path.suffix == ".bin" and not path.is_dir():
        return llama2c_tokenizer(path)
    if not path.is_dir():
        return _load_file(path, {})
    file = path / "tokenizer.json"
    if file.exists():
        return _load_file(file, _read_roles(path / "tokenizer_config.json"))
    for encoder, merges in _PAIRS:
        if (path / encoder).exists() and (path / merges).exists():
            return ByteLevelBPE.from_pair(path / encoder, path / merges)
    if (path / "vocab.txt").exists():
        return _from_vocab(path / "vocab.txt", path / "tokenizer_config.json")
    raise TokenizerError(
        f"{path}: no tokenizer.json in this folder, nor GPT-2's vocab.json and merges.txt, nor BERT's vocab.txt"
    )


def _from_vocab(vocab: Path, config: Path) -> WordPiece:
    """BERT's vocabulary with the settings beside it."""
    settings = read_json_object(config) if config.exists() else {}
    lowercase, chinese = (settings.get(name, True) for name in ("do_lower_case", "tokenize_chinese_chars"))
    return WordPiece.from_vocab(vocab, lowercase, settings.get("strip_accents"), chinese)


def _load_file(file: Path, roles: dict[str, str]) -> Tokenizer:
    spec = read_json_object(file)
    try:
        return _from_spec(spec, roles)
    except TokenizerError as error:
        raise TokenizerError(f"{file}: {error}") from None


def _from_spec(spec: dict[str, Any], roles: dict[str, str]) -> Tokenizer:
    if "model" not in spec:
        raise TokenizerError("there is no 'model' in it; is it a tokenizer.json?")
    only_known(spec, _KEYS | {"model"}, "tokenizer")
    # BERT's files often say how batches are cut and filled, which transformers passes over, as `encode` makes none.
    cuts = spec["model"].get("type") == "WordPiece" if isinstance(spec["model"], dict) else False
    for name in ("truncation", "padding"):
        if spec.get(name) is not None and not cuts:
            raise TokenizerError(f"the {name} {spec[name]!r} is not supported; known: none (null)")
    if spec.get("normalizer") is not None:
        expect(spec["normalizer"], dict, "normalizer")
    added = _read_added(spec.get("added_tokens", []))
    post_processor = spec.get("post_processor")
    template = Template.from_spec(None if post_processor is None else expect(post_processor, dict, "post_processor"))
    return _class_for(spec).from_spec(spec, added, template, roles)


def _class_for(
    spec: dict[str, Any],
) -> type[ByteLevelBPE] | type[SentencePieceBPE] | type[WordPiece] | type[VocabularyTokenizer]:
    """The class that tokenizes as the model and the pre-tokenizer of the file say."""
    model = field(spec, "model", dict)
    # Older files leave the type of a BPE model out.
    kind = model.get("type", "BPE" if "merges" in model else None)
    pre_tokenizer = spec.get("pre_tokenizer")
    cut = pre_tokenizer.get("type") if isinstance(pre_tokenizer, dict) else pre_tokenizer
    if kind == "BPE":
        if field(spec, "decoder", dict).get("type") != "ByteLevel":
            return SentencePieceBPE
        parts = [] if pre_tokenizer is None else parts_of(expect(pre_tokenizer, dict, "pre_tokenizer"))
        if not parts or parts[-1].get("type") != "ByteLevel":
            raise TokenizerError(f"the pre-tokenizer {cut!r} does not end with ByteLevel, but the decoder is ByteLevel")
        return ByteLevelBPE
    if kind == "WordPiece":
        return WordPiece
    if spec.get("normalizer") is not None:
        raise TokenizerError(f"the normalizer {spec['normalizer'].get('type')!r} of a {kind} model is not supported")
    if kind == "WordLevel":
        for candidate in (CharTokenizer, WordTokenizer):
            if pre_tokenizer == candidate.pre_tokenizer() and spec.get("decoder") == candidate.decoder():
                return candidate
        raise TokenizerError(
            f"the pre-tokenizer {cut!r} of a WordLevel model, or its decoder, is not supported; known: cutting into "
            f"characters or words as tinyllm writes it"
        )
    raise TokenizerError(f"the model {kind!r} is not supported; known: BPE, WordLevel, WordPiece")


def _read_added(entries: Any) -> list[AddedToken]:
    added = []
    for number, entry in enumerate(expect(entries, list, "added_tokens")):
        where = f"added_tokens[{number}]"
        only_known(expect(entry, dict, where), _ADDED_KEYS, where)
        content = field(entry, "content", str, where)
        flags = {name: expect(entry.get(name, False), bool, f"{where}.{name}") for name in _FLAGS}
        if "normalized" not in entry:  # as old files left it out
            flags["normalized"] = not flags["special"]
        if not content:
            raise TokenizerError(f"'{where}.content' is empty")
        added.append(AddedToken(content, field(entry, "id", int, where), **flags))
    return added


_FLAGS = ("special", "lstrip", "rstrip", "single_word", "normalized")
_ADDED_KEYS = {"id", "content", *_FLAGS}
_KEYS = {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder"}


def _read_roles(file: Path) -> dict[str, str]:
    """The special tokens' roles in a tokenizer_config.json; none where there is no such file."""
    if not file.exists():
        return {}
    config = read_json_object(file)
    roles = {}
    for role in ROLES:
        token = config.get(role)
        if isinstance(token, dict):  # an added token written out
            token = token.get("content")
        if token is not None:
            try:
                roles[role] = expect(token, str, role)
            except TokenizerError as error:
                raise TokenizerError(f"{file}: {error}") from None
    return roles
