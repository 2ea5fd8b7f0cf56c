"""Python's equality, rules by name, and answers known by their digest."""

from __future__ import annotations

import hashlib
import marshal

import pytest

from codeact.errors import InputError
from codeact.sandbox import Sandbox
from codeact.sandbox.calls.compare import same
from codeact.sandbox.calls.oracles import is_right
from codeact.sandbox.calls.values import decode, encode
from codeact.sandbox.execute import call_outputs, check, execute
from codeact.sandbox.programs.program import Program
from codeact.sandbox.tests import Call, Digest, FunctionTests, Rule

PYTHON = Rule(equality="python")
VALUES = [
    0, 1, True, False, 1.0, 0.5, -0.0, 1 + 0j, 1j, 2**80, float(2**80), "1", b"1", None, [], (),
    [1], [True], [1.0], (1,), [[1], [0]], [(1,), (0,)], {1}, frozenset({1}), {1.0}, {True: [1]},
    {1: [1.0]}, {1: (1,)}, {(1, 2)}, {(1.0, 2)}, "", {}, set(),
]  # fmt: skip


@pytest.mark.parametrize("rule", [PYTHON, Rule(equality="python", order="unordered")], ids=str)
def test_python_equality_is_that_of_the_interpreter(rule: Rule) -> None:
    wrong = [(a, b) for a in VALUES for b in VALUES if same(a, b, rule) is not (a == b)]
    assert wrong == []
    assert same([float("nan")], [float("nan")], rule)  # here we differ from ==


def test_python_equality_with_tolerance() -> None:
    rule = Rule(equality="python", abs_tol=1e-6)
    assert same([1.0, 2], (1.0, 2), Rule(abs_tol=1e-6))
    assert not same([1.0], (1.0,), rule)
    assert same([True, 2.0000005], [1.0000005, 2], rule)
    assert not same([2.0], [2.00001], rule)


ROOT = Rule(abs_tol=1e-4, oracle="polynomial_root")


@pytest.mark.parametrize(
    ("rule", "args", "expected", "right", "wrong"),
    [
        (ROOT, ([-6, 11, -6, 1],), 1.0, [1.0, 2.0, 3, 3.00001], [0, 1.5, 3.01, "1", None, 1e200]),
        (ROOT, ("no numbers",), 1.0, [], [1.0]),
        (ROOT, ([1, 2], 3), 1.0, [], [-0.5]),
        (Rule(oracle="same_set"), (), (4, 5), [[5, 4], {4, 5}, (4, 4, 5)], [[4], [4, 5, 6], 4]),
        (Rule(oracle="or_digit_distance"), (123, 7), 6, [6, 7], [0, 5]),  # 123 and 007: 1 + 2 + 4
        (Rule(oracle="or_digit_distance"), (-1, 7), 6, [6], [7]),
        (Rule(oracle="or_pyramid_surface"), (3, 4), 33, [33, 35], [34]),  # 9 + 6 sqrt(18.25)
    ],
)
def test_named_rules(rule, args, expected, right, wrong) -> None:
    call = Call(args)
    assert [got for got in right if not is_right(call, expected, got, rule)] == []
    assert [got for got in wrong if is_right(call, expected, got, rule)] == []


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match=r"rule.oracle must be one of .*, got 'magic'"):
        Rule(oracle="magic")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"rule.equality must be one of .*, got 'loose'"):
        Rule(equality="loose")  # type: ignore[arg-type]


def run(sandbox: Sandbox, source: str, expected: object, **fields: object) -> str:
    tests = FunctionTests("f", (Call((3,)),), (expected,), **fields)
    return check(sandbox, Program("python", source), tests).status


def test_what_is_no_list_and_what_cannot_cross(sandbox: Sandbox) -> None:
    lazy = "def f(n): return map(int, '210')"
    assert run(sandbox, lazy, [2, 1, 0]) == "passed"
    assert run(sandbox, lazy, [2, 1, 0], rule=PYTHON) == "unsupported_value"
    assert (
        run(sandbox, lazy, [0, 1, 2], rule=Rule(equality="python", oracle="same_set")) == "passed"
    )
    match = "import re\ndef f(n): return re.match('[0-9]', str(n))"
    assert run(sandbox, match, True, result="presence") == "passed"
    assert run(sandbox, match, False, result="presence") == "wrong_answer"
    assert run(sandbox, "def f(n): return False", False, result="presence") == "passed"


def sha256(text: bytes) -> Digest:
    return Digest(hashlib.sha256(text).hexdigest())


def test_large_answers_come_as_digests(sandbox: Sandbox) -> None:
    source = (
        "def f(kind, n):\n"
        "    if kind == 'floats': return [i / 2 for i in range(n)]\n"
        "    return {'list': [*range(n)], 'text': 'x' * n, 'int': 16 ** n, 'tuples': "
        "[('a', str(i)) for i in range(n)]}[kind]"
    )
    names = ["list", "list", "text", "int", "tuples", "floats"]
    calls = [Call((name, 3 if i == 0 else 30_000)) for i, name in enumerate(names)]
    program = Program("python", source)
    found = call_outputs(sandbox, program, "f", calls, rule=PYTHON, digest_above=1000).values
    numbers = [str([*range(at, min(at + 4096, 30_000))]) for at in range(0, 30_000, 4096)]
    pairs = [("a", str(i)) for i in range(30_000)]
    chunks = [marshal.dumps(pairs[at : at + 4096], 2) for at in range(0, 30_000, 4096)]
    assert found[:5] == (
        [0, 1, 2],
        sha256(b"list" + "".join(numbers).encode()),
        sha256(b'"' + b"x" * 30_000 + b'"'),
        sha256(b"0x1" + b"0" * 30_000),
        sha256(b"list" + b"".join(chunks)),
    )
    assert found[5] == [i / 2 for i in range(30_000)]  # halves may need a tolerance
    assert decode(encode(list(found[:5]))) == list(found[:5])

    tests = FunctionTests("f", tuple(calls), found, PYTHON)
    assert execute(sandbox, program, tests, repeats=2).verdict.passed
    # Equal in Python: floats and bools for ints; not so tuples for lists, or another number.
    for body, status in {
        "[0.0, True, *range(2, n)]": "passed",
        "tuple(range(n))": "wrong_answer",
        "[*range(n - 1), n]": "wrong_answer",
        "range(n)": "unsupported_value",
        "'the digest, if one knew it'": "wrong_answer",
    }.items():
        tests = FunctionTests("f", (Call((30_000,)),), (found[1],), PYTHON)
        verdict = check(sandbox, Program("python", f"def f(n): return {body}"), tests)
        assert verdict.status == status, body


def test_digests_are_equal_where_values_are(sandbox: Sandbox) -> None:
    """2**63 is 8000000000000000 in base 16; complex numbers are left out, see `digest.py`."""
    values = [value for value in VALUES if not isinstance(value, complex)]
    values += [2**63, 8 * 10**15, -(2**63), -8 * 10**15, "8", '"', "\ud800", [[]], {"": {}}]
    calls = [Call((i,)) for i in range(len(values))]
    # 5,000 items before each: the value is in a piece of its own.
    program = Program("python", f"def f(i): return [1] * 5000 + [{values!r}[i]]")
    found = call_outputs(sandbox, program, "f", calls, rule=PYTHON, digest_above=100).values
    digests = [each for each in found if type(each) is Digest]
    kept = [value for value, each in zip(values, found, strict=True) if type(each) is Digest]
    assert [each for each in found if type(each) is not Digest] == [[1] * 5000 + [0.5]]
    pairs = [(a, b) for a in range(len(kept)) for b in range(len(kept))]
    wrong = [(a, b) for a, b in pairs if (digests[a] == digests[b]) is not (kept[a] == kept[b])]
    assert [(kept[a], kept[b]) for a, b in wrong] == []
