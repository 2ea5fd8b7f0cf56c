"""Efficient answers: measure correct programs against each other, keep the best, and say why."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codeact.efficiency.comparing.comparison import compare_efficiency, compare_origins
    from codeact.efficiency.comparing.origin_metrics import origin_metrics
    from codeact.efficiency.generation.generate import generate_candidates
    from codeact.efficiency.inputs.candidates import Candidate, load_candidates
    from codeact.efficiency.instruct.build import build_effi_instruct
    from codeact.efficiency.instruct.choose import choose
    from codeact.efficiency.racing.measure import measure
    from codeact.efficiency.racing.measurements import Measurements

# Imported when first asked for: rows of data bring PyTorch, and a command may need none of it.
_HOMES = {
    "Candidate": "inputs.candidates",
    "Measurements": "racing.measurements",
    "build_effi_instruct": "instruct.build",
    "choose": "instruct.choose",
    "compare_efficiency": "comparing.comparison",
    "compare_origins": "comparing.comparison",
    "generate_candidates": "generation.generate",
    "load_candidates": "inputs.candidates",
    "measure": "racing.measure",
    "origin_metrics": "comparing.origin_metrics",
}

__all__ = [
    "Candidate",
    "Measurements",
    "build_effi_instruct",
    "choose",
    "compare_efficiency",
    "compare_origins",
    "generate_candidates",
    "load_candidates",
    "measure",
    "origin_metrics",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
