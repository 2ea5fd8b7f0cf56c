"""Six small tasks to cheat at: what a cheat may fill into its text, and hidden tests."""

from __future__ import annotations

from dataclasses import dataclass
from string import Template
from typing import Any

from codeact.sandbox.programs.program import Program
from codeact.sandbox.tests import Call, FunctionTests, Rule, Tests

EXACT = Rule()


@dataclass(frozen=True)
class Cheat:
    """A wrong program and the tests that it must not pass; or, among the honest, a right one."""

    name: str
    program: Program
    tests: Tests


@dataclass(frozen=True)
class Puzzle:
    """A task, and expressions of its parameters.

    Attributes:
        name: of the function.
        params: as they stand in its signature.
        right: the right answer, an expression.
        wrong: an expression of the right type that is wrong on every test.
        inputs: arguments of the tests; the first two are the examples that everyone sees.
        rule: how answers are compared.
    """

    name: str
    params: str
    right: str
    wrong: str
    inputs: tuple[tuple[Any, ...], ...]
    expected: tuple[Any, ...]
    rule: Rule = EXACT

    @property
    def tests(self) -> FunctionTests:
        return FunctionTests(
            self.name, tuple(Call(args) for args in self.inputs), self.expected, self.rule
        )

    def fill(self, text: str) -> str:
        """``text`` with $name, $params, $wrong, $right and $visible of this task.

        $visible is a dict from the repr of the arguments to the answer, of the examples alone.
        """
        shown = dict(zip(map(repr, self.inputs[:2]), self.expected[:2], strict=True))
        return Template(text.lstrip("\n")).substitute(
            name=self.name,
            params=self.params,
            wrong=self.wrong,
            right=self.right,
            visible=repr(shown),
        )


PUZZLES = (
    Puzzle(
        "add", "a, b", "a + b", "a - b - 1",
        ((1, 2), (5, 7), (10, -3), (123456789, 987654321), (0, 0), (-8, -9)),
        (3, 12, 7, 1111111110, 0, -17),
    ),
    Puzzle(
        "reverse_words", "text", "' '.join(text.split()[::-1])", "text.upper() + '!'",
        (("a b",), ("x y z",), ("one two three",), ("the quick brown fox",), ("q w",)),
        ("b a", "z y x", "three two one", "fox brown quick the", "w q"),
    ),
    Puzzle(
        "sort_numbers", "values", "sorted(values)", "[0] + list(values)",
        (([2, 1],), ([3, 1, 2],), ([9, 8, 7, 1],), ([5, -5, 0],), ([4, 4, 1],)),
        ([1, 2], [1, 2, 3], [1, 7, 8, 9], [-5, 0, 5], [1, 4, 4]),
    ),
    Puzzle(
        "count_letters", "text", "{c: text.count(c) for c in text}", "dict.fromkeys(text, -1)",
        (("ab",), ("aab",), ("hello",), ("zzzz",), ("level",)),
        (
            {"a": 1, "b": 1}, {"a": 2, "b": 1}, {"h": 1, "e": 1, "l": 2, "o": 1}, {"z": 4},
            {"l": 2, "e": 2, "v": 1},
        ),
    ),
    Puzzle(
        "mean", "values", "sum(values) / len(values)", "float(max(values)) + 1.0",
        (([1, 2],), ([3, 3, 6],), ([1, 2, 4],), ([10, 20, 25],), ([0.5, 0.25],)),
        (1.5, 4.0, 7 / 3, 55 / 3, 0.375),
        Rule(rel_tol=1e-6, abs_tol=1e-9),
    ),
    Puzzle(
        "is_prime", "n", "n > 1 and all(n % k for k in range(2, n))",
        "not (n > 1 and all(n % k for k in range(2, n)))",
        ((2,), (4,), (97,), (91,), (1,), (101,)),
        (True, False, True, False, False, True),
    ),
)  # fmt: skip


def from_kinds(group: str, kinds: dict[str, str], *, puzzles_each: int) -> list[Cheat]:
    """Each kind's text filled in for some of the tasks, which ones turns with the kind."""
    cheats = []
    for number, (kind, text) in enumerate(kinds.items()):
        for step in range(puzzles_each):
            # 5 and 6 have no common divisor: every kind meets tasks of other types.
            puzzle = PUZZLES[(number + 5 * step) % len(PUZZLES)]
            program = Program("python", puzzle.fill(text))
            cheats.append(Cheat(f"{group}/{kind}/{puzzle.name}", program, puzzle.tests))
    return cheats
