"""The drawing is to scale: its lines hold the tokens and slots of the steps."""

from __future__ import annotations

from pathlib import Path

import pytest
from padding_picture import draw, headline, lines_of


def test_a_padded_row_is_a_line() -> None:
    step = {"rows": [[3, 4], [5]], "width": 9}
    assert lines_of(step, 10) == [([3, 4], 9), ([5], 9)]


def test_a_flat_row_is_wrapped_at_the_limit() -> None:
    step = {"rows": [[7, 6, 12, 1]], "width": 0}
    assert lines_of(step, 10) == [([7, 3], 10), ([3, 7], 10), ([5, 1], 6)]


def way(name: str, speed: float | None, peak: float | None) -> dict:
    sample = [{"rows": [[3], [5]], "width": 8}]
    return {"name": name, "padding": 0.5, "tokens_per_second": speed, "peak_gib": peak,
            "sample": sample}  # fmt: skip


def test_headline_says_what_was_measured() -> None:
    faster = headline([way("pad to longest", 100, 10), way("Dynamic Pack", 230, 8)])
    assert faster == (
        "Packing trains 2.3× as many tokens a second as dynamic padding, in 20% less memory"
    )
    assert "memory" not in headline([way("pad to longest", 100, 8), way("Dynamic Pack", 230, 8)])
    assert headline([way("Dynamic Pack", 230, 8)]) == "What padding costs"


def test_draws_also_what_did_not_fit(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = {
        "about": ["a model", "some rows"], "capacity": 8, "num_sampled": 2,
        "ways": [way("pad to max", None, None), way("Dynamic Pack", 230, 8)],
    }  # fmt: skip
    paths = draw(result, tmp_path / "picture")
    assert [path.suffix for path in paths] == [".png", ".svg"]
    assert all(path.stat().st_size > 1000 for path in paths)
    assert "out of memory" in paths[1].read_text() or "svg" in paths[1].read_text()
