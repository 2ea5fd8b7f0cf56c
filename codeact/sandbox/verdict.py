"""What became of a candidate: one list of statuses for the whole project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Status = Literal[
    "passed",
    "wrong_answer",
    "missing_answer",  # ended without answering every test
    "raised",  # an exception in a call, or an exit status other than 0
    "syntax_error",
    "compile_error",
    "load_error",  # raises while its module is loaded
    "no_entry_point",
    "time_limit",
    "memory_limit",
    "output_limit",
    "crashed",  # ended by a signal that was not ours
    "broken_protocol",  # extra, duplicate or broken frames
    "unsupported_value",  # an answer that `values.py` cannot carry
    "no_compiler",
    "bad_test",  # the test itself cannot be read or sent
    "unsafe",  # marked by a filter of `codeact.efficiency`
    "not_algorithmic",  # marked by a filter of `codeact.efficiency`
    "sandbox_error",  # the sandbox did not start, nothing is known of the candidate
]
STATUSES: tuple[Status, ...] = get_args(Status)

MAX_REASON_CHARS = 300


@dataclass(frozen=True)
class Verdict:
    """The outcome of all tests of one candidate.

    Args:
        status: ``"passed"`` only if every test was answered rightly.
        reason: One printable line of at most 300 characters; empty when passed.
        num_tests: Tests that there are.
        num_passed: Tests answered rightly before the first failure.
        first_failed: Index of the first test not passed, None if all passed or if the failure
            belongs to no test (a syntax error, say).
    """

    status: Status
    reason: str
    num_tests: int
    num_passed: int
    first_failed: int | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", one_line(self.reason))

    @property
    def passed(self) -> bool:
        """Whether every test was answered rightly."""
        return self.status == "passed"


def one_line(text: str) -> str:
    """``text`` as one printable line of at most 300 characters: it may be a candidate's words."""
    head = text[: 4 * MAX_REASON_CHARS]  # text may be megabytes long
    line = " ".join("".join(c if c.isprintable() else " " for c in head).split())
    if len(line) <= MAX_REASON_CHARS and len(head) == len(text):
        return line
    return line[: MAX_REASON_CHARS - 3] + "..."
