"""Chat templates: how the messages of a conversation become the one text that the model continues.

A template is a small program in Jinja's language that comes with the weights, from whoever made them: it runs in a
sandbox, and one that reaches for the attributes behind values (``''.__class__``) is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tinyllm.errors import CheckpointError, ConfigError

_LONGEST = 1 << 20  # characters that a template may make of one value by repeating it


class ChatTemplate:
    """A compiled template.

    Parameters
    ----------
    source : str
        In Jinja's language, with what transformers gives templates: `messages`, `add_generation_prompt`, the special
        tokens (`bos_token`, ...), `raise_exception`, `strftime_now`, `tojson`, ``break`` and ``continue``.
    special_tokens : mapping of str to str, optional

    Raises
    ------
    ConfigError
        If Jinja2 is not installed, or the template is damaged.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str] | None = None) -> None:
        self.source, self.special_tokens = source, dict(special_tokens or {})
        try:
            import jinja2
        except ModuleNotFoundError:
            raise ConfigError("a chat template needs Jinja2: pip install 'tinyllm[chat]', or jinja2") from None
        try:
            self._template = _environment().from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            raise ConfigError(f"the chat template is damaged: {error}") from None

    @classmethod
    def load(cls, path: str | Path, special_tokens: Mapping[str, str] | None = None) -> ChatTemplate:
        """The template of a model: in a GGUF file, or in a folder's chat_template.jinja or tokenizer_config.json.

        Raises
        ------
        ConfigError
            If there is none: the model is none for conversations.
        CheckpointError
            If the file that should hold it is damaged.
        """
        path = Path(path)
        source = _in_folder(path) if path.is_dir() else _in_file(path)
        if source is None:
            raise ConfigError(
                f"{path} has no chat template, so it is not known how this model is talked to; "
                f"to have it continue a text: tinyllm generate {path} --prompt TEXT"
            )
        return cls(source, special_tokens)

    def render(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True) -> str:
        """The text of a conversation.

        Parameters
        ----------
        messages : sequence of mappings
            Each with `role` ("system", "user", "assistant") and `content`.
        add_generation_prompt : bool
            Whether the text ends where the assistant's next message begins.

        Raises
        ------
        ConfigError
            If the template refuses them, fails, or reaches for what it may not see.
        """
        from jinja2.exceptions import SecurityError

        try:
            return self._template.render(
                messages=[dict(message) for message in messages],
                add_generation_prompt=add_generation_prompt,
                tools=None,
                documents=None,
                **self.special_tokens,
            )
        except SecurityError as error:
            raise ConfigError(f"the chat template does what a template may not do: {error}") from None
        except Exception as error:  # whatever a program that others wrote may raise
            raise ConfigError(f"the chat template failed: {error}") from None


def _in_folder(folder: Path) -> str | None:
    from tinyllm.models.folder import read_object

    file, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if file.is_file():
        try:
            return file.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{file}: byte {error.start}: not UTF-8") from None
        except OSError as error:
            raise CheckpointError(f"{file}: cannot be read: {error.strerror or error}") from None
    found = read_object(config).get("chat_template") if config.is_file() else None
    if isinstance(found, list):  # several, by name
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default")
    if found is not None and not isinstance(found, str):
        raise CheckpointError(f"{config}: 'chat_template' should be a text")
    return found


def _in_file(path: Path) -> str | None:
    if path.suffix != ".gguf":
        return None
    from tinyllm.text.foreign import chat_template

    return chat_template(path)


def _environment() -> Any:
    """Jinja's sandbox with what templates of the field expect."""
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

    class Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(["*", "**"])

        def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
            """At once, not when the result is used: a template that tries is not to be trusted."""
            raise SecurityError(f"it reaches for the attribute {attribute!r} of a {type(obj).__name__}")

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            size = max(len(x) if hasattr(x, "__len__") else 1 for x in (left, right))
            times = max(abs(x) if isinstance(x, int) else 1 for x in (left, right))
            if size * times > _LONGEST or (operator == "**" and times > 64):
                raise SecurityError(f"it computes something too large: {operator} with {times}")
            return super().call_binop(context, operator, left, right)

    class Generation(Extension):
        """``{% generation %}`` marks the assistant's words for training; here it changes nothing."""

        tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment
