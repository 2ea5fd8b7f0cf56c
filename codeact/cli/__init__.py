"""The ``codeact`` command: one module a verb, results on stdout, words and bars on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.main import get_command

from codeact.cli import (
    compare,
    decontaminate,
    deduplicate,
    demo,
    embed,
    env,
    evaluate,
    generate,
    influence,
    measure,
    pack,
    report,
    run,
    score,
    select,
    train,
)
from codeact.errors import InputError

_MODULES = (
    demo, run, score, embed, influence, generate, measure, select, pack, train,
    evaluate, compare, decontaminate, deduplicate, report, env
)  # fmt: skip
_VERBS = {module.__name__.rpartition(".")[2]: module for module in _MODULES}
_NO_SANDBOX = 3
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
        The exit status: 0, 2 for bad input (one line on stderr says what), 3 where untrusted
        programs cannot be run safely (stderr says which check failed and what helps), 130 after
        Ctrl-C. A bug is raised, with its traceback.
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
        if _is_no_sandbox(error):
            return _refuse_to_run(title, error)
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
    if "--no-resume" in words:
        return False
    to_file = any(word.partition("=")[0] in ("--output", "--embeddings") for word in words)
    return words[0] in ("demo", "run", "train", "evaluate") or (
        words[0] in ("score", "influence", "generate", "measure") and to_file
    )


def _is_no_sandbox(error: Exception) -> bool:
    """Whether it is a SandboxUnavailable, without loading that part for every ``--help``."""
    module = sys.modules.get("codeact.sandbox.unavailable")
    return module is not None and isinstance(error, module.SandboxUnavailable)


def _refuse_to_run(title: str, error: Any) -> int:
    """What failed in one line, then one line for each thing that may mend it."""
    print(f"{title}: error: no sandbox here: {error.check}: {error.reason}", file=sys.stderr)
    for number, fix in enumerate(error.fixes):
        print(f"  {'or' if number else 'to mend it'}: {fix}", file=sys.stderr)
    return _NO_SANDBOX


def _refuse(title: str, reason: str) -> int:
    print(f"{title}: error: {' '.join(reason.split())}", file=sys.stderr)
    return 2
