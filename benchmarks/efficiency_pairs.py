"""Pairs of programs for real tasks whose work differs by a known share."""

from __future__ import annotations

import textwrap
from dataclasses import replace

from codeact.efficiency.inputs.candidates import Candidate, candidate_id
from codeact.tasks.task_file import Task

# A reference called `count` times on copies of its arguments: 21 is 5 % more than 20.
_WRAPPER = """
import copy as _copy

class Solution(Solution):
    def {method}(self, *args, **kwargs):
        for _ in range({count}):
            answer = _Reference().{method}(*_copy.deepcopy(args), **_copy.deepcopy(kwargs))
        return answer
"""


def repeated(task: Task, count: int) -> str:
    """The task's reference, doing its work ``count`` times a call."""
    method = task.entry_point.partition("().")[2]
    return f"{task.reference}\n_Reference = Solution\n" + textwrap.dedent(
        _WRAPPER.format(method=method, count=count)
    )


def pair_of(task: Task, less: int, more: int) -> tuple[Task, list[Candidate]]:
    """The task without its reference, and two candidates of ``less`` and ``more`` work."""
    candidates = []
    for origin, count in (("less", less), ("more", more)):
        source = repeated(task, count)
        name = candidate_id(origin, task.id, "python", source)
        candidates.append(Candidate(name, task.id, source, "python", origin))
    return replace(task, reference=None), candidates


def wrappable(task: Task) -> bool:
    """Whether the reference is a class ``Solution`` that can be wrapped and answers by return."""
    return (
        task.reference is not None
        and task.entry_point is not None
        and task.entry_point.startswith("Solution().")
        and task.tests.result == "return"
    )
