"""The script runs, and what it prints of errors holds."""

from __future__ import annotations

import bench_selection_metrics
import pytest


def test_selection_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    bench_selection_metrics.main(["--quick", "--no-record"])
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if "largest difference from float64" in line]
    assert len(lines) == 3
    assert all(float(line.rpartition(" ")[2]) < 1e-6 for line in lines)
    for contender in ("log_density", "scikit-learn", "bare product", "diversity_scores"):
        assert f"\n  {contender} " in printed
