"""The benchmark of the greedy methods runs through."""

from __future__ import annotations

import bench_diverse
import pytest


@pytest.mark.parametrize("method", sorted(bench_diverse.SIZES))
def test_quick_run(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    bench_diverse.main(["--quick", "--no-record", "--only", method])
    printed = capsys.readouterr().out
    assert printed.startswith(f"{method} 600 x 384, 60 kept")
    assert len(printed.splitlines()) >= 4
