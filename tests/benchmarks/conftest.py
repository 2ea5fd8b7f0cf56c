"""The benchmarks are scripts beside each other: their folder is put on the path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


@pytest.fixture(autouse=True)
def _leave_results_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODEACT_BENCH_NO_RECORD", "1")
