"""What canonical solutions answer, and what that costs: run once in the sandbox, then stored.

A stored file has a line of JSON (version, digest of the rest, cost of the run), then a line an
answer as `codeact.sandbox.calls.values` writes it. Its name is the SHA-256 of the problem's row, of
the rules and of the version of Python; a file that is not whole is made again.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeact.files import write_text
from codeact.sandbox.calls.values import UnsupportedError, decode, encode
from codeact.tasks.evalplus_tasks import RULES_VERSION, PlusRow, expected_outputs

if TYPE_CHECKING:
    from codeact.sandbox.sandbox import Sandbox

logger = logging.getLogger(__name__)

_FORMAT = 2


@dataclass(frozen=True)
class ReferenceRun:
    """One run of a canonical solution on all inputs of a problem.

    Attributes:
        expected: Its answers, those that are too large as digests.
        cpu_seconds: User and system time, start of the interpreter included.
        peak_memory_bytes: Largest resident memory.
        answer_bytes: All answers as text.
    """

    expected: tuple[Any, ...]
    cpu_seconds: float
    peak_memory_bytes: int
    answer_bytes: int


def answers_folder() -> Path:
    """Where answers are stored: ``evaluation`` in CodeACT's cache folder."""
    from codeact.models.packaged import cache_folder

    return cache_folder() / "evaluation"


def stored_path(line: bytes) -> Path:
    """The file for a row, given as the bytes of its line."""
    version = f"{_FORMAT} {RULES_VERSION} {sys.version_info[:2]} ".encode()
    return answers_folder() / f"{sha256(version + line).hexdigest()}.jsonl"


def read_stored(path: Path, num_answers: int) -> ReferenceRun | None:
    """A stored run; None if there is none, or none that is whole."""
    try:
        head, _, body = path.read_bytes().partition(b"\n")
        header = json.loads(head)
        lines = body.splitlines()
        if header["sha256"] != sha256(body).hexdigest() or len(lines) != num_answers:
            raise ValueError("the answers are not those that were written")
        cost = {name: header[name] for name in ("cpu_seconds", "peak_memory_bytes", "answer_bytes")}
        return ReferenceRun(_decoded(lines), **cost)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, UnsupportedError) as error:
        logger.warning("%s: made again, it cannot be used (%s)", path, error)
        return None


def run_reference(row: PlusRow, sandbox: Sandbox, path: Path) -> ReferenceRun:
    """Run a canonical solution and store its answers.

    Raises:
        UnreadableTestError: It does not answer every input.
    """
    outputs = expected_outputs(sandbox, row)
    texts = [encode(value) for value in outputs.values]
    run = ReferenceRun(
        outputs.values,
        outputs.run.cpu_seconds,
        outputs.run.peak_memory_bytes,
        sum(map(len, texts)),
    )
    body = "".join(text + "\n" for text in texts)
    header = {**asdict(run), "sha256": sha256(body.encode()).hexdigest()}
    del header["expected"]
    write_text(path, json.dumps(header) + "\n" + body)
    return run


def _decoded(lines: list[bytes]) -> tuple[Any, ...]:
    """The answers; all at once, which is ten times faster, unless that is one too large value."""
    try:
        return tuple(decode(b"[" + b",".join(lines) + b"]"))
    except UnsupportedError:
        return tuple(map(decode, lines))
