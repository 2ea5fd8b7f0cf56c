"""Candidates for `codeact measure` from a task file alone: right ones, slower ones, wrong ones.

    python examples/leetcode_candidates.py leetcode.jsonl.gz candidates.jsonl

Real candidates come from models (`codeact generate`). To see the whole way without one, this takes
each task's published solution, the one in its published answer text, and what rewriting rules make
of them: slower programs that answer the same, and wrong programs that look right. Each rule is an
origin of its own, so that the report compares them like models.
"""

from __future__ import annotations

import ast
import json
import random
import sys
from collections.abc import Callable, Iterator
from typing import ClassVar

from codeact.data.rows import read_rows
from codeact.tasks.code_blocks import extract_code
from codeact.tasks.task_file import Task, load_tasks


class ListsForSets(ast.NodeTransformer):
    """`set(x)` becomes a list of the same items: membership takes a scan."""

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "set" and len(node.args) == 1:
            keys = ast.Attribute(ast.Name("dict", ast.Load()), "fromkeys", ast.Load())
            unique = ast.Call(keys, node.args, [])
            return ast.Call(ast.Name("list", ast.Load()), [unique], [])
        return node


class CopiesBeforeLoops(ast.NodeTransformer):
    """`for x in y` becomes `for x in list(y)`: more memory, a little more time."""

    def visit_For(self, node: ast.For) -> ast.For:
        self.generic_visit(node)
        node.iter = ast.Call(ast.Name("list", ast.Load()), [node.iter], [])
        return node


class OffByOne(ast.NodeTransformer):
    """One comparison, drawn by the task, is strict where it was not, or the other way round."""

    _OTHER: ClassVar = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}

    def __init__(self, which: random.Random, number: int) -> None:
        self._left = which.randrange(number) if number else -1

    def visit_Compare(self, node: ast.Compare) -> ast.Compare:
        self.generic_visit(node)
        other = self._OTHER.get(type(node.ops[0]))
        if other is not None:
            if self._left == 0:
                node.ops[0] = other()
            self._left -= 1
        return node


def off_by_one(tree: ast.Module, task: Task) -> ast.AST:
    number = sum(
        isinstance(node, ast.Compare) and type(node.ops[0]) in OffByOne._OTHER
        for node in ast.walk(tree)
    )
    return OffByOne(random.Random(task.id), number).visit(tree)


RULES: dict[str, Callable[[ast.Module, Task], ast.AST]] = {
    "lists-for-sets": lambda tree, task: ListsForSets().visit(tree),
    "copies-before-loops": lambda tree, task: CopiesBeforeLoops().visit(tree),
    "off-by-one": off_by_one,
}


def twice(source: str, task: Task) -> str | None:
    """Does all of its work twice, on copies."""
    method = (task.entry_point or "").partition("().")[2]
    if not method:
        return None
    return (
        f"{source}\n\n_Once = Solution\n\n\nclass Solution(_Once):\n"
        f"    def {method}(self, *args, **kwargs):\n"
        "        from copy import deepcopy\n\n"
        f"        _Once().{method}(*deepcopy(args), **deepcopy(kwargs))\n"
        f"        return _Once().{method}(*args, **kwargs)\n"
    )


def candidates(task: Task, answer: str) -> Iterator[tuple[str, str]]:
    """(origin, source) of everything that the task gives; ``answer`` is the published text."""
    assert task.reference is not None
    if code := extract_code(answer, entry_point=task.entry_point):
        yield "published-answer", code
    original = ast.unparse(ast.parse(task.reference))
    for origin, rule in RULES.items():
        tree = rule(ast.parse(task.reference), task)
        changed = ast.unparse(ast.fix_missing_locations(tree))
        if changed != original:
            yield origin, changed
    if doubled := twice(task.reference, task):
        yield "twice", doubled


def main(tasks: str, output: str) -> None:
    count = 0
    answers = {row["task_id"]: row.get("response", "") for row in read_rows(tasks, "train").rows}
    with open(output, "w", encoding="utf-8") as lines:
        for task in load_tasks(tasks):
            if task.reference is None:
                continue
            for origin, source in candidates(task, answers[task.id]):
                row = {"task_id": task.id, "origin": origin, "source": source}
                lines.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
    print(f"{count} candidates in {output}", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
