"""A conversation with a model: what was said, and what the model has computed of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any, Self, TypedDict

import numpy as np

from tinyllm.chat.template import ChatTemplate
from tinyllm.errors import ConfigError, TokenizerError
from tinyllm.generation import generate
from tinyllm.generation.text import text_of
from tinyllm.text import Tokenizer


class Message(TypedDict):
    """One message: who said it ("system", "user" or "assistant"), and what."""

    role: str
    content: str


class Conversation:
    """Messages to and fro. What the model has computed of them is kept, so that a new message alone is read.

    Parameters
    ----------
    model : CausalModel
    tokenizer : Tokenizer
    template : ChatTemplate
    system : str, optional
        What the model is told before everything else.
    max_new_tokens : int
        The longest answer.
    seed : int, optional
        The same one gives the same answers to the same messages.
    **sampling
        As for `tinyllm.generate`: `temperature`, `top_k`, `top_p`, ...
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        system: str | None = None,
        max_new_tokens: int = 512,
        seed: int | None = None,
        **sampling: Any,
    ) -> None:
        limit = model.context_length
        if limit is not None and max_new_tokens >= limit:
            raise ConfigError(f"max_new_tokens={max_new_tokens} leaves no room: the model sees {limit} tokens at once")
        self.model, self.tokenizer, self.template, self.system = model, tokenizer, template, system
        self.max_new_tokens, self.sampling, self.seed = max_new_tokens, sampling, seed
        self.reset()

    @classmethod
    def open(cls, name: str | os.PathLike[str], system: str | None = None, **options: Any) -> Self:
        """A conversation with the model of a folder, a GGUF file, or one of `tinyllm.models.places.PACKAGES`.

        Raises
        ------
        TinyLLMError
            If there is none, it cannot be used, or it has no chat template.
        """
        from tinyllm.models.places import locate
        from tinyllm.train.use import open_run

        path = locate(name)
        template = ChatTemplate.load(path)  # first: a model without one need not be read
        model, tokenizer = open_run(path)
        template.special_tokens |= tokenizer.roles
        return cls(model, tokenizer, template, system, **options)

    def reset(self) -> None:
        """Begin again: nothing has been said."""
        self.messages: list[Message] = [] if self.system is None else [Message(role="system", content=self.system)]
        self._rng = np.random.default_rng(self.seed)
        self._forget()

    def _forget(self) -> None:
        self._cache = self.model.new_cache()
        self._read: list[int] = []  # the tokens in the cache, and perhaps a last one that is not in it yet

    def say(self, content: str) -> Iterator[str]:
        """Say something; the answer comes in pieces.

        Whoever stops listening keeps what has come so far, as the assistant's message: after Ctrl-C too.

        Raises
        ------
        ConfigError
            If the template refuses the message, or it is too long for the model.
        TokenizerError
            If it is no text, as after input of another encoding.
        """
        refuse_broken_text(content)
        asked = [*self.messages, Message(role="user", content=content)]
        ids = self._fitting(asked)
        self.messages = asked
        answer: list[str] = []
        whole = False
        try:
            for piece in text_of(self._steps(ids), self.tokenizer):
                answer.append(piece)
                yield piece
            whole = True
        finally:
            self.messages.append(Message(role="assistant", content="".join(answer)))
            if not whole:  # stopped anywhere, perhaps between two layers
                self._forget()

    def _fitting(self, messages: list[Message]) -> list[int]:
        """The tokens of the conversation, without its oldest messages where it has become too long for the model."""
        limit = self.model.context_length
        first = 0 if self.system is None else 1
        for dropped in range(0, len(messages) - first, 2):
            kept = messages[:first] + messages[first + dropped :]
            ids = self.tokenizer.encode(self.template.render(kept), add_special_tokens=False)
            if limit is None or len(ids) + self.max_new_tokens <= limit:
                return ids
        raise ConfigError(
            f"this message is too long: with the answer's {self.max_new_tokens} tokens it needs "
            f"{len(ids) + self.max_new_tokens}, and the model sees {limit} at once"
        )

    def _steps(self, ids: list[int]) -> Iterator[np.ndarray]:
        """The answer's tokens; the end token is not among them."""
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ids, self._read, strict=False)))
        self._cache.crop(min(same, self._cache.length, len(ids) - 1))  # one token at least is to be read
        self._read = list(ids)
        end = self._ends()
        steps = generate(
            self.model,
            np.array([ids]),
            max_new_tokens=self.max_new_tokens,
            eos_token_id=end,
            rng=self._rng,
            stream=True,
            cache=self._cache,
            **self.sampling,
        )
        for step in steps:
            self._read += step.tolist()
            if step[0] not in end:
                yield step

    def _ends(self) -> list[int]:
        """The tokens that end an answer: the model's and the tokenizer's."""
        named = getattr(self.model.config, "eos_token_id", None)
        found = [*(named if isinstance(named, list) else [named]), self.tokenizer.eos_token_id]
        return sorted({index for index in found if index is not None})


def refuse_broken_text(text: str) -> None:
    """TokenizerError where `text` came from bytes that are no UTF-8, of which Python makes lone surrogates."""
    for place, char in enumerate(text):
        if "\ud800" <= char <= "\udfff":
            byte = f"the byte 0x{ord(char) - 0xDC00:02X}" if 0xDC80 <= ord(char) <= 0xDCFF else "half a character"
            raise TokenizerError(f"the text is not UTF-8: {byte} at character {place}; check the terminal's encoding")


def saved(path: str | Path, messages: list[Message]) -> Path:
    """Write messages as JSON, as chat templates and training data have them; the file's path.

    Raises
    ------
    ConfigError
        If the file cannot be written.
    """
    from tinyllm.text.files import write_json

    try:
        write_json(Path(path), list(messages))
    except (OSError, ValueError) as error:  # the latter for a name that no file can have
        raise ConfigError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
    return Path(path)
