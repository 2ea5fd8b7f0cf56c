"""Efficient answers: measure correct programs against each other, keep the best, and say why."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Not lazily: the function has the name of its module, which would take its place here as soon as
# anything imports the module. It loads neither torch nor numpy.
from codeact.efficiency.measure import measure

if TYPE_CHECKING:
    from codeact.efficiency.build import build_effi_instruct
    from codeact.efficiency.candidates import Candidate, load_candidates
    from codeact.efficiency.tasks import Task, load_tasks

# Imported when first asked for: `codeact --help` and the command for tasks need none of the rest.
_HOMES = {
    "Candidate": "candidates",
    "Task": "tasks",
    "build_effi_instruct": "build",
    "load_candidates": "candidates",
    "load_tasks": "tasks",
}

__all__ = [
    "Candidate",
    "Task",
    "build_effi_instruct",
    "load_candidates",
    "load_tasks",
    "measure",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
