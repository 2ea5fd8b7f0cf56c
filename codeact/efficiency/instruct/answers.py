"""From a measured record back to its task and its program."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from codeact.efficiency.inputs.candidates import Candidate
from codeact.efficiency.racing.measurements import REFERENCE, MeasuredCandidate
from codeact.errors import InputError
from codeact.tasks.task_file import Task


class AnswerBook:
    """The programs behind measurements; a task's own solution is one of them."""

    def __init__(self, tasks: Sequence[Task], candidates: Sequence[Candidate]) -> None:
        self._tasks = {task.id: task for task in tasks}
        self._answers = {(one.task_id, one.id): one for one in candidates}

    def task(self, task_id: str) -> Task:
        """InputError if it is not among the tasks."""
        if task_id not in self._tasks:
            raise InputError(
                f"tasks must hold every measured task, {task_id!r} is not among {len(self._tasks)}"
            )
        return self._tasks[task_id]

    def answer(self, record: MeasuredCandidate) -> Candidate:
        """InputError unless the candidate is there with the very source that was measured."""
        answer = self._answers.get((record.task_id, record.candidate_id))
        if answer is None and record.origin == REFERENCE:
            answer = self._reference(record)
        if answer is None:
            raise InputError(
                f"candidates must hold every measured one, {record.candidate_id!r} of task "
                f"{record.task_id!r} is not among {len(self._answers)}"
            )
        digest = hashlib.sha256(answer.source.encode("utf-8", "surrogatepass")).hexdigest()
        if digest != record.source_sha256:
            raise InputError(
                f"candidate {record.candidate_id!r} of task {record.task_id!r} has another source "
                "than the one that was measured; measure anew"
            )
        return answer

    def _reference(self, record: MeasuredCandidate) -> Candidate | None:
        task = self.task(record.task_id)
        if task.reference is None:
            return None
        return Candidate(record.candidate_id, task.id, task.reference, task.language, REFERENCE)
