"""The benchmarks of losses run from end to end in their quick form, and count what they claim."""

from __future__ import annotations

import bench_attention_jvp
import bench_linear_nll
import bench_token_nll
import ifd_shapes
import pytest
import roofline
import torch

TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 100,
    "tie_word_embeddings": True,
}


def errors_in(printed: str, contender: str) -> list[float]:
    """The ``max`` of every line of an accuracy table that names the contender."""
    lines = [line for line in printed.splitlines() if contender in line and " max " in line]
    return [float(line.split(" max ")[1].split()[0]) for line in lines]


def test_linear_nll(capsys: pytest.CaptureFixture[str]) -> None:
    bench_linear_nll.main(["--quick", "--no-record"])
    printed = capsys.readouterr().out
    for section in ("forward", "training", "forward mode"):
        assert f"{section}, tiny head" in printed
    ours = errors_in(printed, "linear_nll")
    assert len(ours) == 2
    assert max(ours) < 1e-5
    # Logits in bfloat16 are what the comparison is about: they must be seen to cost digits.
    assert max(errors_in(printed, "all logits")) > 1e-3


def test_token_nll(capsys: pytest.CaptureFixture[str]) -> None:
    bench_token_nll.main(["--quick", "--no-record"])
    printed = capsys.readouterr().out
    assert printed.count("of logits read once") == 6
    lines = [line for line in printed.splitlines() if "token_nll cpu" in line and "max" in line]
    assert all(float(line.rpartition(" ")[2]) < 1e-5 for line in lines)


def test_attention_jvp(capsys: pytest.CaptureFixture[str]) -> None:
    bench_attention_jvp.main(["--quick", "--no-record"])
    printed = capsys.readouterr().out
    assert float(printed.rpartition("tangent: ")[2]) < 1e-5


def test_scoring_of_random_shapes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ifd_shapes, "SHAPES", {"tiny": (TINY, 6)})
    monkeypatch.setattr(ifd_shapes, "LOOP_ROWS", 1)
    monkeypatch.setattr(roofline, "_SIZE", {"cpu": 64})
    monkeypatch.setattr(ifd_shapes, "record", lambda result: None)
    ifd_shapes.run_shape("tiny", torch.device("cpu"))
    printed = capsys.readouterr().out
    assert "tiny with random weights, 6 rows" in printed
    assert "rows a second" in printed


def test_counted_flops_leave_out_unscored_logits() -> None:
    config = ifd_shapes.random_model(TINY, torch.device("cpu")).config
    all_scored = roofline.scoring_flops(config, [10, 20], 30)
    head = 2 * TINY["hidden_size"] * TINY["vocab_size"]
    assert roofline.scoring_flops(config, [10, 20], 12) == all_scored - 18 * head
    weights = 2 * (2 * (32 * 32 * 2 + 2 * 32 * 16) + 2 * 3 * 32 * 64 + 32 * 100)
    pairs = 10 * 11 / 2 + 20 * 21 / 2
    assert all_scored == pytest.approx(30 * weights + 2 * 2 * 2 * 32 * pairs)
