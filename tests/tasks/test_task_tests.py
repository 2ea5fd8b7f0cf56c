from __future__ import annotations

import pytest

from codeact.sandbox.tests import BinaryTree, Call, LinkedList, Rule
from codeact.tasks.answer_rules import has_several_answers, rule_of_statement
from codeact.tasks.literals import UnreadableTestError
from codeact.tasks.task_tests import called_name, check_crosses, read_asserts


def one(condition: str):
    found = read_asserts(f"def check(candidate):\n    assert {condition}\n", callee="candidate")
    (call,), (expected,) = found.calls, found.expected
    return call, expected, found.abs_tol, found.rel_tol, found.any_order


@pytest.mark.parametrize(
    ("condition", "call", "expected"),
    [
        ("candidate(2, k=-1) == [0, 1]", Call((2,), {"k": -1}), [0, 1]),
        ("[0, 1] == candidate(2)", Call((2,)), [0, 1]),
        ("candidate({'a': {1, 2}}, (1,), b'x', 2j) is None",
         Call(({"a": {1, 2}}, (1,), b"x", 2j)), None),
        ("candidate('a' + 'b', 3 * 19 - 1, 7 / 2, 0 ** 0) == 1", Call(("ab", 56, 3.5, 1)), 1),
        ("candidate(1)", Call((1,)), True),
        ("not candidate(1)", Call((1,)), False),
        ("candidate(1) == 2, 'two'", Call((1,)), 2),
        ("tuple(candidate([1])) == tuple([2, 3])", Call(([1],)), [2, 3]),
        ("candidate(tree_node([1, None, 2])) == 3", Call((BinaryTree((1, None, 2)),)), 3),
        ("is_same_list(candidate(l1=list_node([1, 2])), list_node([]))",
         Call((), {"l1": LinkedList((1, 2))}), LinkedList(())),
        ("is_same_tree(candidate([]), tree_node([5]))", Call(([],)), BinaryTree((5,))),
        ("candidate(set([1, 2]), set()) == frozenset([3])", Call(({1, 2}, set())), frozenset({3})),
        ("candidate([list_node([1]), list_node([])]) == 0",
         Call(([LinkedList((1,)), LinkedList(())],)), 0),
    ],
)  # fmt: skip
def test_asserts_become_calls(condition, call, expected):
    found = one(condition)
    assert found == (call, expected, 0.0, 0.0, False)
    assert type(found[1]) is type(expected)


@pytest.mark.parametrize(
    ("condition", "expected", "abs_tol", "rel_tol", "any_order"),
    [
        ("abs(candidate(1.5) - 2.0 / 3.0) < 1e-6", 2 / 3, 1e-6, 0.0, False),
        ("math.isclose(candidate(1), 0.5, rel_tol=0.001)", 0.5, 0.0, 1e-3, False),
        ("math.isclose(candidate(1), 0.5)", 0.5, 0.0, 1e-9, False),
        ("sorted(candidate(1)) == [1, 2]", [1, 2], 0.0, 0.0, True),
        ("set(candidate(1)) == set([2, 1, 2])", [2, 1], 0.0, 0.0, True),
    ],
)
def test_tolerance_and_order_of_an_assert(condition, expected, abs_tol, rel_tol, any_order):
    assert one(condition)[1:] == (expected, abs_tol, rel_tol, any_order)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("assert f(x) == 1", "not a literal: x"),
        ("assert f(open('/etc/passwd')) == 1", "not a literal: open"),
        ("assert f(1) == f(2)", "not a literal: f\\(2\\)"),
        ("assert f(1) != 2", "cannot be read as an answer of f"),
        ("assert f(1) < 2", "cannot be read as an answer of f"),
        ("assert 0 < abs(f(1) - 2) < 1", "cannot be read as an answer of f"),
        ("assert g(1) == 2", "cannot be read as an answer of f"),
        ("assert f(*[1]) == 2", "not a literal|cannot be read"),
        ("assert f(**{'a': 1}) == 2", "\\* and \\*\\* cannot be read"),
        ("for i in range(3): assert f(i) == i", "not an assert: for"),
        ("x = 1\nassert f(1) == 1", "not an assert: x = 1"),
        ("assert f(10 ** 10 ** 10) == 1", "not a literal: 10 \\*\\* 10"),
        ("assert f(1 / 0) == 1", "not a literal: 1 / 0"),
        ("assert f('a' * 10 ** 9) == 1", "not a literal: 'a'"),
        ("assert f(1) ==", "do not parse"),
        ("assert f(" + "(" * 5000 + ") == 1", "do not parse"),
        ("assert f(" + "-" * 3000 + "1) == 1", "not a literal|do not parse"),
        ("", "no assert calls f"),
        ("assert True", "no assert calls f"),
        ("assert sorted(f(1)) == [1]\nassert f(2) == [2]", "some asserts compare in any order"),
        ("assert f(...) == 1", "test 0: "),
    ],
)
def test_a_test_that_is_not_understood_is_refused(code, reason):
    def read() -> None:
        found = read_asserts(code, callee="f")
        check_crosses(found.calls, found.expected)

    with pytest.raises(UnreadableTestError, match=reason):
        read()


def test_statements_without_effect_are_passed_over():
    code = (
        '"""Tests."""\nimport math\nassert True, "x"\nassert f(1) == 2\nassert f(2) == 3\nprint\n'
    )
    found = read_asserts(code, callee="f")
    assert found.calls == (Call((1,)), Call((2,)))
    assert found.expected == (2, 3)


def test_reading_executes_nothing(tmp_path):
    trace = tmp_path / "trace"
    code = f"open({str(trace)!r}, 'w')\nassert f(open({str(trace)!r}, 'w')) == 1"
    with pytest.raises(UnreadableTestError):
        read_asserts(code, callee="f")
    assert not trace.exists()


def test_called_name():
    assert called_name("assert set(common([1], [1])) == {1}") == "common"
    assert called_name("assert math.isclose(area(1), 2)") == "area"
    assert called_name("assert True") is None
    assert called_name("assert (") is None


STATEMENT = "Return all pairs."


@pytest.mark.parametrize(
    ("sentence", "expected", "order"),
    [
        ("You may return the answer in any order.", [1, 2], "unordered"),
        ("You may return the answer in any order.", [[1, 2], [3, 4]], "unordered"),
        ("Return all subsets. You may return them in any order.", [[1], [2]], "unordered_rows"),
        ("Return the combinations in any order.", ["ab", "ba"], "unordered"),
        ("The output can come in\nany order.", [1, 2], "exact"),  # the line ends the sentence
        ("You can sell the balls in any order.", [1, 2], "exact"),
        ("You may return the answer in any order.", 7, "exact"),
        ("The integers in the lists may be returned in any order.", [[1], [2]], "exact"),
        ("The elements in original may be returned in any order.", [1, 2], "unordered"),
        ("Return the answer.", [1, 2], "exact"),
    ],
)
def test_order_is_read_from_the_statement(sentence, expected, order):
    assert rule_of_statement(f"{STATEMENT} {sentence}", [expected]) == Rule(order=order)


def test_floats_get_the_tolerance_of_leetcode():
    assert rule_of_statement("x", [1, [2.0]]) == Rule(abs_tol=1e-5)
    assert rule_of_statement("x", [{"a": (1, {0.5})}]) == Rule(abs_tol=1e-5)
    assert rule_of_statement("x", [1, [2], "3.0", True]) == Rule()


def test_several_answers():
    assert has_several_answers("If there are multiple valid answers, return any of them.")
    assert has_several_answers("In case the answer is not unique, return any valid array.")
    assert not has_several_answers("If there are multiple answers, return the smallest one.")
