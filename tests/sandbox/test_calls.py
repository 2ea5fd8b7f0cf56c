"""What the frames of a run prove: verdicts from invented runs, without a sandbox."""

from __future__ import annotations

from typing import Any

import pytest

from codeact.errors import InputError
from codeact.sandbox.calls.function_calls import (
    BadTestError,
    decode_answers,
    driver_bytecode,
    encode_tests,
    judge,
)
from codeact.sandbox.calls.prelude import split_prelude, whole_prelude
from codeact.sandbox.run import Run
from codeact.sandbox.tests import Call, FunctionTests, LinkedList, Rule, StdinTests
from codeact.sandbox.verdict import STATUSES, Verdict, one_line

LOADED = b"L"
TESTS = FunctionTests("f", (Call((1,)), Call((2,)), Call((3,))), (10, [20], "30"))
RIGHT = (b"10", b"[20]", b'"30"')


def answer(index: int, text: bytes) -> bytes:
    return b"A" + index.to_bytes(4, "little") + text


def run_of(*frames: bytes, **fields: Any) -> Run:
    plain: dict[str, Any] = {
        "outcome": "exited",
        "exit_code": 0,
        "signal": None,
        "stdout": b"",
        "stderr": b"",
        "broken_frames": False,
    }
    numbers = dict.fromkeys(
        ("cpu_seconds", "user_seconds", "system_seconds", "wall_seconds", "memory_byte_seconds"),
        0.0,
    )
    rest = {"memory_byte_wall_seconds": 0.0, "peak_memory_bytes": 0, "num_samples": 0}
    return Run(frames=frames, sandbox="bwrap", **{**plain, **numbers, **rest, **fields})


def verdict_of(
    *frames: bytes, repeats: int = 1, tests: FunctionTests = TESTS, **fields: Any
) -> Verdict:
    return judge(run_of(*frames, **fields), tests, encode_tests(tests), repeats)


def all_right(first: int = 0) -> list[bytes]:
    return [answer(first + index, text) for index, text in enumerate(RIGHT)]


def test_all_right() -> None:
    assert verdict_of(LOADED, *all_right()) == Verdict("passed", "", 3, 3, None)


def test_both_repetitions_count() -> None:
    good = [LOADED, *all_right(), *all_right(3)]
    assert verdict_of(*good, repeats=50).passed
    assert verdict_of(*good[:-3], repeats=50).status == "missing_answer"
    good[5] = answer(4, b"[21]")
    wrong = verdict_of(*good, repeats=50)
    assert wrong == Verdict("wrong_answer", "test 1, repeated: expected [20], got [21]", 3, 3, 1)


@pytest.mark.parametrize(
    ("frames", "fields", "status", "num_passed", "first_failed"),
    [
        ([], {}, "missing_answer", 0, None),
        ([], {"outcome": "wall_limit", "exit_code": None}, "time_limit", 0, None),
        ([LOADED], {}, "missing_answer", 0, 0),
        ([LOADED, *all_right()[:2]], {}, "missing_answer", 2, 2),
        ([LOADED, *all_right()[:2]], {"exit_code": 3}, "missing_answer", 2, 2),
        ([LOADED, *all_right()[:1]], {"outcome": "cpu_limit"}, "time_limit", 1, 1),
        ([LOADED, *all_right()[:1]], {"outcome": "memory_limit"}, "memory_limit", 1, 1),
        ([LOADED, *all_right()[:1]], {"outcome": "output_limit"}, "output_limit", 1, 1),
        ([LOADED, *all_right()[:1]], {"outcome": "signalled", "signal": 11}, "crashed", 1, 1),
        ([LOADED], {"exit_code": 1, "stderr": b"\nMemoryError\n"}, "memory_limit", 0, 0),
        ([LOADED, answer(0, b"11")], {"outcome": "wall_limit"}, "wrong_answer", 0, 0),
        ([LOADED, answer(0, b"10.0")], {}, "wrong_answer", 0, 0),
        ([LOADED, answer(0, b"[1")], {}, "unsupported_value", 0, 0),
        ([LOADED, b"Eraised\nValueError: x"], {}, "raised", 0, 0),
        ([LOADED, all_right()[0], b"Eunsupported_value\nx"], {}, "unsupported_value", 1, 1),
        ([b"Esyntax_error\nx"], {}, "syntax_error", 0, None),
        ([b"Eno_entry_point\nx"], {}, "no_entry_point", 0, None),
        # What no honest driver sends.
        ([LOADED, *all_right(), answer(3, b"1")], {}, "broken_protocol", 3, None),
        ([LOADED, *all_right(), all_right()[2]], {}, "broken_protocol", 3, None),
        ([LOADED, answer(1, b"[20]")], {}, "broken_protocol", 0, None),
        ([LOADED, all_right()[0], all_right()[0]], {}, "broken_protocol", 1, None),
        ([LOADED, LOADED, *all_right()], {}, "broken_protocol", 0, None),
        ([*all_right()], {}, "broken_protocol", 0, None),
        ([LOADED, b"Epassed\n"], {}, "broken_protocol", 0, None),
        ([LOADED, b"Esandbox_error\n"], {}, "broken_protocol", 0, None),
        ([LOADED, b"Eraised\nx", *all_right()], {}, "broken_protocol", 0, None),
        ([LOADED, b"", *all_right()], {}, "broken_protocol", 0, None),
        ([LOADED, *all_right()], {"broken_frames": True}, "broken_protocol", 3, None),
        ([LOADED, answer(0, b"11"), b"?"], {}, "broken_protocol", 0, None),
        # Right answers, then an end that an honest program does not have.
        ([LOADED, *all_right()], {"exit_code": 1}, "missing_answer", 3, None),
        ([LOADED, *all_right()], {"outcome": "wall_limit"}, "time_limit", 3, None),
        ([LOADED, *all_right()], {"outcome": "signalled", "signal": 9}, "crashed", 3, None),
        ([LOADED, *all_right()], {"outcome": "failed"}, "sandbox_error", 0, None),
    ],
    ids=range(33),
)
def test_statuses(
    frames: list[bytes],
    fields: dict[str, Any],
    status: str,
    num_passed: int,
    first_failed: int | None,
) -> None:
    verdict = verdict_of(*frames, **fields)
    found = (verdict.status, verdict.num_tests, verdict.num_passed, verdict.first_failed)
    assert found == (status, 3, num_passed, first_failed)
    assert verdict.reason


def test_a_cut_frame_is_not_held_against_a_program_that_was_stopped() -> None:
    verdict = verdict_of(LOADED, outcome="wall_limit", broken_frames=True)
    assert (verdict.status, verdict.first_failed) == ("time_limit", 0)


def test_reasons_are_one_printable_line() -> None:
    words = "E\n\x1b[31mred\0" + "x" * 10_000
    verdict = verdict_of(LOADED, b"Eraised\n" + words.encode())
    assert len(verdict.reason) == 300
    assert verdict.reason.isprintable()
    assert verdict.reason.startswith("test 0: E [31mred x")
    assert one_line("a" * 300) == "a" * 300


def test_tolerance_and_order_reach_the_comparison() -> None:
    rule = Rule(order="unordered", abs_tol=1e-6)
    tests = FunctionTests("f", (Call((1,)),), ([1.0, 2.0],), rule)
    assert verdict_of(LOADED, answer(0, b"[2.0000001, 1.0]"), tests=tests).passed
    assert not verdict_of(LOADED, answer(0, b"[2.1, 1.0]"), tests=tests).passed


def test_an_empty_list_of_nodes_is_none() -> None:
    tests = FunctionTests("f", (Call((1,)),), (LinkedList(()),))
    assert verdict_of(LOADED, answer(0, b"null"), tests=tests).passed
    assert not verdict_of(LOADED, answer(0, b"[]"), tests=tests).passed


def test_answers_as_values() -> None:
    run = run_of(LOADED, answer(0, b"1"), answer(1, b'{"tuple": [2]}'))
    assert decode_answers(run, 2) == (1, (2,))
    short = decode_answers(run, 3)
    assert isinstance(short, Verdict)
    assert (short.status, short.num_passed, short.first_failed) == ("missing_answer", 2, 2)


def test_a_test_that_cannot_cross_is_named() -> None:
    tests = FunctionTests("f", (Call((1,)), Call((object(),))), (1, 2))
    with pytest.raises(BadTestError, match=r"^test 1: a value of type builtins\.object$"):
        encode_tests(tests)


def test_expected_answers_are_in_no_frame() -> None:
    secret = "9f8e7d6c5b4a"
    tests = FunctionTests("f", (Call(("input",)),), (secret,))
    encoded = encode_tests(tests)
    assert all(secret.encode() not in frame for frame in encoded.frames)
    assert secret.encode() in encoded.expected[0]
    assert encode_tests(tests) is encoded


def test_equal_tests_of_two_tasks_are_not_confused() -> None:
    first = FunctionTests("f", (Call((1,)),), (1,))
    second = FunctionTests("f", (Call((1,)),), (True,))
    assert encode_tests(first).expected != encode_tests(second).expected


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"entry_point": "f()"}, "entry_point must be"),
        ({"entry_point": "os.system"}, "entry_point must be"),
        ({"entry_point": "1f"}, "entry_point must be"),
        ({"expected": ()}, "of one length"),
        ({"calls": (), "expected": ()}, "of one length"),
        ({"result": "print"}, "result must be"),
        ({"result": "first_argument", "calls": (Call(),)}, "positional argument"),
    ],
    ids=str,
)
def test_tests_are_checked(fields: dict[str, Any], words: str) -> None:
    good = {"entry_point": "f", "calls": (Call((1,)),), "expected": (1,)}
    with pytest.raises(InputError, match=words):
        FunctionTests(**{**good, **fields})


def test_text_tests_are_checked() -> None:
    with pytest.raises(InputError, match="of one length"):
        StdinTests(("1",), ())
    with pytest.raises(InputError, match='order "exact"'):
        StdinTests(("1",), ("1",), Rule(order="unordered"))


def test_a_prelude_falls_into_statements() -> None:
    prelude = (
        "from typing import *\nimport os.path, math as m\nfrom heapq import heappush as push\n"
        "inf = float('inf')\nx = open('f')\nfrom absent import y\ndef g(): return m.pi + inf\n"
        "if inf:\n    z = 1\n"
    )
    statements = split_prelude(prelude)
    binds = [statement.binds for statement in statements]
    assert "List" in (binds[0] or ())
    assert binds[1:] == [("os", "m"), ("push",), ("inf",), None, None, ("g",), None]
    assert set(statements[6].uses) == {"m", "pi", "inf"}
    assert whole_prelude(prelude)[0] == (prelude, None, ())
    assert split_prelude("def f(:") == whole_prelude("def f(:")
    assert split_prelude("from __future__ import annotations")[0].binds is None
    assert split_prelude(" \n") == ()


def test_statuses_are_listed_once() -> None:
    assert len(STATUSES) == len(set(STATUSES)) == 19


def test_the_driver_s_code_is_small() -> None:
    assert len(driver_bytecode()) < 40_000  # read at every start
