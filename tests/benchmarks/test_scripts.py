"""Both scripts run from end to end in their quick form."""

from __future__ import annotations

import json
from pathlib import Path

import bench_packing
import bench_padding
import bench_training
import numpy as np
import pytest
from harness import output_of_fresh_process
from padding import Step

from codeact.packing.cost import AttentionCost, ModelCost


@pytest.mark.parametrize("section", ["packers", "windows", "balance", "collation", "masks"])
def test_quick_packing(
    section: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CODEACT_DATA", raising=False)
    bench_packing.main(["--quick", "--no-record", "--only", section])
    printed = capsys.readouterr().out
    expected = {
        "packers": "pack_best_fit", "windows": "whole set", "balance": "balanced 0.9",
        "collation": "same input_ids: yes", "masks": "same blocks: yes",
    }  # fmt: skip
    assert expected[section] in printed
    assert "NO" not in printed.replace("NOT", "")


def test_packing_memory_is_measured_in_a_process_of_its_own() -> None:
    # In this process, freed memory of other tests would be taken again and seem to cost nothing.
    script = str(Path(bench_packing.__file__).with_name("memory_cases.py"))
    taken = json.loads(output_of_fresh_process(script, ["pack_best_fit", "2000000"]))
    assert 4 <= taken["kept"] <= 16  # four bytes an index, eight a bin, and what malloc keeps
    assert taken["kept"] <= taken["peak"] <= 24


def test_quick_padding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench_padding.main(["--quick", "--no-record", "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "Dynamic Pack" in printed
    assert "0.0%" in printed
    assert list(tmp_path.iterdir()) == []


def test_padding_leaves_a_result_that_can_be_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    import padding_picture

    monkeypatch.delenv("CODEACT_BENCH_NO_RECORD")
    bench_padding.main(["--quick", "--same-loss", "--output", str(tmp_path)])
    (result,) = tmp_path.glob("padding-*.json")
    (picture,) = tmp_path.glob("padding-*.png")
    picture.unlink()
    monkeypatch.setattr("sys.argv", ["padding_picture.py", str(result)])
    padding_picture.main()
    assert picture.stat().st_size > 10_000
    assert len(list(tmp_path.glob("*.jsonl"))) == 1


def test_quick_training(capsys: pytest.CaptureFixture[str]) -> None:
    bench_training.main(["--quick", "--no-record"])
    printed = capsys.readouterr().out
    assert "Dynamic Pack" in printed
    assert "less time" in printed


def test_a_way_that_does_not_fit_leaves_a_table_of_the_others() -> None:
    epoch = bench_training.Epoch(10.0, 4.0, 100.0, 0.1, 3, 1024.0)
    shown = bench_training.table("a case", {bench_training.BASELINE: epoch})
    assert bench_training.BASELINE in shown
    assert "less time" not in shown


def test_padding_counts_as_work_and_packed_sequences_do_not_see_each_other() -> None:
    cost = ModelCost(10.0, (AttentionCost(1, 1.0),))  # a pair costs 1, a token 10
    seqlens = np.array([2, 4, 3])
    padded = Step([np.array([0]), np.array([1])], 4, 6)
    packed = Step([np.array([0, 1, 2])], 0, 9)
    assert bench_training.flops_of(cost, [padded], seqlens) == 2 * (40 + 10)
    assert bench_training.flops_of(cost, [packed], seqlens) == (20 + 3) + (40 + 10) + (30 + 6)
