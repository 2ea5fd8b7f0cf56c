"""The ``codeact`` command: one module a verb, results on stdout, words and bars on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer
from typer.main import get_command

from codeact.cli import (
    decontaminate,
    deduplicate,
    demo,
    embed,
    env,
    influence,
    pack,
    report,
    run,
    score,
    select,
    train,
)
from codeact.errors import InputError

_MODULES = (
    demo, run, score, embed, influence, select, pack, train, decontaminate, deduplicate, report, env
)  # fmt: skip
_VERBS = {module.__name__.rpartition(".")[2]: module for module in _MODULES}
_INTERRUPTED = 130  # what a shell reports for a command that Ctrl-C ended

app = typer.Typer(
    name="codeact",
    help="Which code-instruction data is worth training on, packed without waste, judged honestly.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing rich would triple the time of --help
)
for name, verb in _VERBS.items():
    app.command()(getattr(verb, name))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after ``codeact``; those of the process by default. None at all show
            the help.

    Returns:
        The exit status: 0, 2 for bad input (one line on stderr says what), 130 after Ctrl-C. A bug
        is raised, with its traceback.
    """
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    title = f"codeact {words[0]}" if words[0] in _VERBS else "codeact"
    try:
        status = get_command(app).main(words, prog_name="codeact", standalone_mode=False)
        sys.stdout.flush()
    except InputError as error:
        return _refuse(title, str(error))
    except (KeyboardInterrupt, typer.Abort):
        status = _INTERRUPTED
    except BrokenPipeError:  # the reader went away, as head does; Python flushes again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        # Wrong options and arguments: their class has moved between versions of typer.
        if not hasattr(error, "format_message"):
            raise
        return _refuse(title, error.format_message())
    if status == _INTERRUPTED:  # newer versions of typer turn KeyboardInterrupt into this
        hint = "; the same command goes on from here" if _resumes(words) else ""
        print(f"{title}: interrupted{hint}", file=sys.stderr)
    return int(status or 0)


def _resumes(words: Sequence[str]) -> bool:
    """Whether a command keeps what it has done; scores are kept beside their output."""
    to_file = any(word.partition("=")[0] in ("--output", "--embeddings") for word in words)
    return words[0] in ("demo", "run") or (words[0] in ("score", "influence") and to_file)


def _refuse(title: str, reason: str) -> int:
    print(f"{title}: error: {' '.join(reason.split())}", file=sys.stderr)
    return 2
