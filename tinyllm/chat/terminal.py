"""The conversation in a terminal: lines in, answers out as they come, and a few commands that begin with a slash."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TextIO

from tinyllm.chat.conversation import Conversation, refuse_broken_text, saved
from tinyllm.errors import TinyLLMError, nearest

HELP = """\
/help        this list
/reset       begin a new conversation
/save FILE   write the conversation to a file, as JSON
/exit        end; so does Ctrl-D. Ctrl-C ends an answer, and the conversation goes on."""
_COMMANDS = ("/help", "/reset", "/save", "/exit")
_PROMPT = "> "


def talk(conversation: Conversation, lines: Callable[[str], str] | None = None, out: TextIO | None = None) -> None:
    """Read messages and print answers until the input ends.

    Parameters
    ----------
    conversation : Conversation
    lines : function of a prompt, optional
        The next line; EOFError where there is none. By default `input`, or the lines of what is piped in.
    out : text stream, optional
        Standard output by default.
    """
    shown = out or sys.stdout
    read = lines or (input if sys.stdin.isatty() else _piped())
    while True:
        try:
            line = read(_PROMPT).strip()
            refuse_broken_text(line)
        except EOFError:
            return
        except KeyboardInterrupt:
            print("\n(/exit or Ctrl-D ends the conversation)", file=shown)
            continue
        except UnicodeDecodeError as error:
            print(f"that line is not UTF-8 (byte 0x{error.object[error.start]:02X}); once more, please", file=shown)
            continue
        except TinyLLMError as error:
            print(error, file=shown)
            continue
        if line == "/exit":
            return
        try:
            if line.startswith("/"):
                print(_command(conversation, line), file=shown)
            elif line:
                _answer(conversation, line, shown)
        except TinyLLMError as error:
            print(error, file=shown)


def _answer(conversation: Conversation, line: str, out: TextIO) -> None:
    pieces = conversation.say(line)
    try:
        for piece in pieces:
            print(piece, end="", file=out, flush=True)
        print(file=out)
    except KeyboardInterrupt:
        pieces.close()  # type: ignore[attr-defined]  # what has come is kept as the answer
        print(" [stopped]", file=out)


def _command(conversation: Conversation, line: str) -> str:
    """Obey a command; what is to be shown."""
    name, _, argument = line.partition(" ")
    if name == "/help":
        return HELP
    if name == "/reset":
        conversation.reset()
        return "A new conversation."
    if name == "/save":
        if not argument.strip():
            return "/save needs the name of a file: /save talk.json"
        return f"Saved in {saved(argument.strip(), conversation.messages)}."
    return f"There is no command {name}{nearest(name, _COMMANDS)}"


def _piped() -> Callable[[str], str]:
    """The lines of standard input, each decoded by itself: one that is no UTF-8 is an error of its own."""
    lines: Iterator[bytes] = iter(sys.stdin.buffer)

    def read(_: str) -> str:
        line = next(lines, None)
        if line is None:
            raise EOFError
        return line.decode("utf-8")

    return read
