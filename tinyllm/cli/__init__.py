"""The command line: `tinyllm train | generate | chat | eval | info | ...`; `tinyllm --help` lists all commands.

Results go to standard output, progress to standard error. Exit codes: 0 done; 1 something that was checked failed, or
an error of ours, with its traceback; 2 an error of the user's, with its message alone; 130 after Ctrl-C.

Each command has its arguments and its function beside each other, in the file of its family; what it needs is imported
when it runs, so that no command waits for the imports of another.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import traceback
from collections.abc import Sequence

from tinyllm.cli import answering, meaning, measuring, proving, teaching, training
from tinyllm.cli.parser import DONE, INTERRUPTED, OURS, USERS, Parser, flags
from tinyllm.errors import ConfigError, TinyLLMError, nearest

COMMANDS = (  # in the order in which the help lists them
    training.add_train,
    training.add_distill,
    training.add_finetune,
    answering.add_predict,
    answering.add_generate,
    answering.add_translate,
    answering.add_chat,
    answering.add_answer,
    measuring.add_eval,
    measuring.add_info,
    training.add_resume,
    measuring.add_explain,
    training.add_study,
    meaning.add_embed,
    meaning.add_search,
    meaning.add_words,
    measuring.add_profile,
    proving.add_check,
    proving.add_mutants,
    proving.add_proofs,
    proving.add_formulas,
    teaching.add_chapters,
    teaching.add_course,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows a question mark
    parser = _parser()
    try:
        options, unknown = parser.parse_known_args(argv)
        if unknown:
            commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
            known = flags(commands.choices[options.command])
            hint = nearest(unknown[0], known) if unknown[0].startswith("-") else ""
            raise ConfigError(f"{unknown[0]!r} is not an argument of `tinyllm {options.command}`{hint}")
        code = options.run(options) or DONE
        sys.stdout.flush()
    except TinyLLMError as error:
        return _leave(USERS, f"tinyllm: {error}")
    except BrokenPipeError:  # whoever read the output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt as error:
        return _leave(INTERRUPTED, f"\ntinyllm: {error or 'interrupted'}")
    except Exception as error:
        traceback.print_exc()
        return _leave(
            OURS,
            f"tinyllm: {type(error).__name__}: this is a fault of tinyllm's; please report it with the lines above",
        )
    return code


def _leave(code: int, message: str) -> int:
    print(message, file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="tinyllm", description="Language models, from the chain rule to a GPT.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    return parser
