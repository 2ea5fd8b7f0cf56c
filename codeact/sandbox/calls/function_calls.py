"""Function tests as frames for the driver, and what its answers prove."""

from __future__ import annotations

import marshal
import signal
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import Any, cast

from codeact.sandbox.calls.brief import brief
from codeact.sandbox.calls.oracles import is_right
from codeact.sandbox.calls.prelude import split_prelude, whole_prelude
from codeact.sandbox.calls.values import UnsupportedError, decode, encode, encode_call, has_node
from codeact.sandbox.run import Outcome, Run
from codeact.sandbox.tests import Digest, FunctionTests
from codeact.sandbox.verdict import Status, Verdict

_DRIVER_FILES = ("encoding.py", "stand_ins.py", "driver.py")
_INDEX_BYTES = 4
_NODE_CLASSES = ("ListNode", "TreeNode")
_CACHED_TESTS = 64  # candidates of one task come one after the other

# What the driver may say of itself; anything else in its place was written by the candidate.
_SAID: frozenset[Status] = frozenset(
    {
        "syntax_error",
        "load_error",
        "no_entry_point",
        "raised",
        "memory_limit",
        "unsupported_value",
        "bad_test",
    }
)
_ENDED: dict[Outcome, tuple[Status, str]] = {
    "wall_limit": ("time_limit", "the wall-clock limit was reached"),
    "cpu_limit": ("time_limit", "the CPU time limit was reached"),
    "memory_limit": ("memory_limit", "the memory limit was reached"),
    "output_limit": ("output_limit", "the limit on output was reached"),
}


class BadTestError(ValueError):
    """A test whose arguments or expected answer cannot be written down."""


@dataclass(frozen=True)
class EncodedTests:
    """Tests ready to send: a frame a call, the canonical text of each expected answer."""

    frames: tuple[bytes, ...]
    expected: tuple[bytes, ...]
    has_nodes: bool
    digests: frozenset[int] = frozenset()  # calls whose answer is known by its digest alone


@dataclass(frozen=True)
class Answers:
    """What came out of a run, in order: JSON texts, then why there are no more."""

    texts: tuple[bytes, ...]
    is_loaded: bool
    status: Status | None
    reason: str


_recent: OrderedDict[int, tuple[FunctionTests, EncodedTests]] = OrderedDict()
_lock = threading.Lock()


@cache
def driver_bytecode() -> bytes:
    """The driver as the content of a ``.pyc`` file (PEP 552) for this interpreter."""
    return MAGIC_NUMBER + bytes(12) + _bytecode(*_DRIVER_FILES)


@cache
def _bytecode(*names: str) -> bytes:
    folder = Path(__file__).parent
    source = "\n".join((folder / name).read_text("utf-8") for name in names)
    return marshal.dumps(compile(source, names[-1], "exec", dont_inherit=True, optimize=2))


def encode_tests(tests: FunctionTests) -> EncodedTests:
    """The frames of the calls; kept for the next candidate of the same task.

    Raises:
        BadTestError: A value cannot cross; says which test.
    """
    with _lock:
        if id(tests) in _recent:
            _recent.move_to_end(id(tests))
            return _recent[id(tests)][1]
    frames, expected = [], []
    for index, (call, answer) in enumerate(zip(tests.calls, tests.expected, strict=True)):
        try:
            frames.append(encode_call(call))
            expected.append(encode(answer).encode())
        except UnsupportedError as error:
            raise BadTestError(f"test {index}: {error}") from None
    values = [*tests.expected, *(v for call in tests.calls for v in call.args)]
    values += [v for call in tests.calls for v in call.kwargs.values()]
    digests = [i for i, answer in enumerate(tests.expected) if type(answer) is Digest]
    encoded = EncodedTests(
        tuple(frames), tuple(expected), any(map(has_node, values)), frozenset(digests)
    )
    with _lock:
        _recent[id(tests)] = (tests, encoded)  # holding the tests keeps their id theirs
        while len(_recent) > _CACHED_TESTS:
            _recent.popitem(last=False)
    return encoded


def header_frame(
    source: str,
    tests: FunctionTests,
    encoded: EncodedTests,
    *,
    repeats: int,
    is_baseline: bool,
    is_split: bool,
    digest_above: int = 0,
) -> bytes:
    """The first frame: the candidate and all that the driver does with it.

    Args:
        source: The candidate.
        tests: Its entry point, prelude and kind of result.
        encoded: The same tests, encoded.
        repeats: How often all calls are made.
        is_baseline: Leave the candidate out.
        is_split: Run only those statements of the prelude that seem to be needed.
        digest_above: Answers of more characters come as their digest; 0 for none but those
            that are expected as one.
    """
    split = split_prelude if is_split else whole_prelude
    fields = (
        "" if is_baseline else source,
        tuple(map(tuple, split(tests.prelude))),
        tests.entry_point,
        tests.result,
        is_baseline,
        _NODE_CLASSES if encoded.has_nodes else (),
        encoded.digests | {index + len(encoded.frames) for index in encoded.digests},
        digest_above,
        _bytecode("digest.py") if encoded.digests or digest_above else b"",  # seldom needed
        tests.rule.equality == "python" and tests.rule.oracle != "same_set",
        len(encoded.frames),
        repeats,
    )
    return marshal.dumps(fields, 2)


def read_answers(run: Run, num_answers: int) -> Answers:
    """The frames of a run, held against the order they must have."""
    if run.outcome == "failed":
        reason = run.stderr.decode("utf-8", "replace") or "the sandbox did not start"
        return Answers((), False, "sandbox_error", reason)
    texts: list[bytes] = []
    is_loaded = False
    for position, frame in enumerate(run.frames):
        said = _said(frame) if position == len(run.frames) - 1 else None
        if said is not None:
            return Answers(tuple(texts), is_loaded, *said)
        if position == 0 and frame == b"L":
            is_loaded = True
        elif position == 0 or position > num_answers or frame[:5] != _answer_mark(position - 1):
            reason = f"frame {position} is not the one that is due: extra, duplicate or forged"
            return Answers(tuple(texts), is_loaded, "broken_protocol", reason)
        else:
            texts.append(frame[5:])
    status, reason = _ending(run, texts, num_answers, is_loaded)
    return Answers(tuple(texts), is_loaded, status, reason)


def judge(run: Run, tests: FunctionTests, encoded: EncodedTests, repeats: int) -> Verdict:
    """The verdict: answers compared here, in order, with what was expected.

    The first event in the order of the tests decides, except that frames which no honest driver
    sends are ``broken_protocol`` whatever they hold.
    """
    num_tests = len(tests.calls)
    answers = read_answers(run, num_tests * min(repeats, 2))
    status, reason, num_right = answers.status, answers.reason, 0
    for position, text in enumerate(answers.texts):
        wrong = _wrong(text, position % num_tests, tests, encoded)
        if wrong is not None:
            if status != "broken_protocol":
                status, reason = wrong
            break
        num_right += 1
    if status is None:
        return Verdict("passed", "", num_tests, num_tests, None)
    if status in ("broken_protocol", "sandbox_error") or not answers.is_loaded:
        first_failed = None
    elif num_right == num_tests * min(repeats, 2):
        first_failed = None  # all answered rightly, then the program did not end well
    else:
        first_failed = num_right % num_tests
        again = "" if num_right < num_tests else ", repeated"
        reason = f"test {first_failed}{again}: {reason}"
    return Verdict(status, reason, num_tests, min(num_right, num_tests), first_failed)


def decode_answers(run: Run, num_answers: int) -> tuple[Any, ...] | Verdict:
    """The answers as values, for calls whose answers are not known yet."""
    answers = read_answers(run, num_answers)
    values: list[Any] = []
    status, reason = answers.status, answers.reason
    for text in answers.texts:
        try:
            values.append(decode(text))
        except UnsupportedError as error:
            status, reason = "unsupported_value", str(error)
            break
    if status is None:
        return tuple(values)
    return Verdict(status, reason, num_answers, len(values), len(values) % num_answers)


def _wrong(
    text: bytes, index: int, tests: FunctionTests, encoded: EncodedTests
) -> tuple[Status, str] | None:
    if text == encoded.expected[index]:  # canonical: equal text is the same value
        return None
    try:
        answer = decode(text)
    except UnsupportedError as error:
        return "unsupported_value", str(error)
    expected = tests.expected[index]
    if is_right(tests.calls[index], expected, answer, tests.rule):
        return None
    return "wrong_answer", f"expected {brief(expected)}, got {brief(answer)}"


def _answer_mark(index: int) -> bytes:
    return b"A" + index.to_bytes(_INDEX_BYTES, "little")


def _said(frame: bytes) -> tuple[Status, str] | None:
    """Status and message of an ``E`` frame that the driver may send."""
    status, newline, message = frame[1:].partition(b"\n")
    name = cast(Status, status.decode("ascii", "replace"))
    if frame[:1] != b"E" or not newline or name not in _SAID:
        return None
    return name, message.decode("utf-8", "replace")


def _ending(
    run: Run, texts: list[bytes], num_answers: int, is_loaded: bool
) -> tuple[Status | None, str]:
    """Why no further frame came; None if none was due and the program ended by itself."""
    is_complete = is_loaded and len(texts) == num_answers
    place = "after the last answer" if is_complete else ""
    if not is_loaded:
        place = "while the candidate was loaded"
    if run.outcome in _ENDED:
        status, reason = _ENDED[run.outcome]
        return status, f"{reason} {place}".rstrip()
    if run.outcome == "signalled":
        return "crashed", f"ended by {_signal_name(run.signal)} {place}".rstrip()
    if run.broken_frames:
        return "broken_protocol", "bytes that are no whole frame follow the answers"
    if run.exit_code == 1 and b"MemoryError" in run.stderr[-300:]:
        return "memory_limit", f"the memory limit was reached {place}".rstrip()
    if is_complete and run.exit_code == 0:
        return None, ""
    answered = f"{len(texts)} of {num_answers} answers"
    return "missing_answer", f"ended with exit status {run.exit_code} after {answered}"


def _signal_name(number: int | None) -> str:
    try:
        return signal.Signals(number or 0).name
    except ValueError:
        return f"signal {number}"
