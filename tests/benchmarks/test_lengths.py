"""Length sets are the published ones, and the same for everybody."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from lengths import code4k, load_rows, lognormal_of_mean, mix32k, resample

from codeact.errors import InputError


def test_synthetic_sets_have_their_published_means() -> None:
    short, mixed = code4k(200_000), mix32k(200_000)
    assert abs(short.mean() - 615) < 10
    assert abs(mixed.mean() - 1730) < 30
    assert (short.min(), short.max()) == (16, 4096)
    assert (mixed.min(), mixed.max()) == (16, 32768)
    assert np.array_equal(code4k(100), code4k(100))


def test_lognormal_has_the_mean_asked_for() -> None:
    assert abs(lognormal_of_mean(100_000, 450, 0.49, 2048).mean() - 450) < 5


def test_resampled_rows_are_real_lengths() -> None:
    lengths = np.array([3, 5, 9], dtype=np.int32)
    assert sorted(resample(lengths, 3)) == [3, 5, 9]
    assert set(resample(lengths, 1000)) == {3, 5, 9}


def test_rows_of_a_folder_leave_out_what_has_no_answers(tmp_path: Path) -> None:
    good, other = {"instruction": "a", "output": "b"}, {"puzzle": "x"}
    (tmp_path / "a.jsonl").write_text(json.dumps(good) + "\n")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress((json.dumps(good) + "\n").encode()))
    (tmp_path / "c.jsonl").write_text(json.dumps(other) + "\n")
    assert [row.response for row in load_rows(str(tmp_path))] == ["b", "b"]


def test_rows_of_nowhere_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CODEACT_DATA", raising=False)
    with pytest.raises(InputError, match="CODEACT_DATA is not set"):
        load_rows()
    with pytest.raises(InputError, match="no JSON Lines"):
        load_rows(str(tmp_path))
