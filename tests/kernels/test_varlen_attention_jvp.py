"""The attention JVP kernel compiles for GPUs that are not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

SCRIPT = Path(__file__).with_name("attention_ahead_of_time.py")
WITHOUT_INTERPRETER = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
# A block's most shared memory: 227 KiB on Hopper and Blackwell; elsewhere the 99 KiB of the
# smallest device that runs what sm_80 runs (sm_86, sm_89, sm_120).
SHARED = {80: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024}
INSTRUCTION = {80: "mma", 90: "wgmma", 100: "tcgen05"}


def compiled(cases: list[str], cache: Path) -> dict[str, dict[str, Any]]:
    ran = subprocess.run(
        [sys.executable, SCRIPT, *cases],
        env={**WITHOUT_INTERPRETER, "TRITON_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    kernels = [json.loads(line) for line in ran.stdout.splitlines()]
    return {kernel["case"]: kernel for kernel in kernels}


def assert_fits(kernel: dict[str, Any], capability: int, *, spill: int = 0) -> None:
    assert kernel["spilled_bytes"] <= spill, kernel
    assert kernel["shared_bytes"] <= SHARED[capability], kernel
    assert not kernel["serialized"], kernel
    assert kernel[INSTRUCTION[capability]] > 0, kernel
    assert kernel["tma" if capability >= 90 else "cp_async"] > 0, kernel


def test_compiles_without_a_spill(tmp_path: Path) -> None:
    kernels = compiled([f"{sm}x{dim}" for sm in SHARED for dim in (64, 128)], tmp_path)
    assert len(kernels) == 6
    for case, kernel in kernels.items():
        assert_fits(kernel, int(case.split("x")[0]))
    # Two programs share an SM of Hopper: half of 228 KiB, less 1 KiB that each is charged.
    assert kernels["90x64"]["shared_bytes"] <= 113 * 1024
    assert kernels["90x64"]["registers"] * 128 * 2 <= 65536


@pytest.mark.slow
def test_widest_heads_spill_little(tmp_path: Path) -> None:
    """Some registers are traded for half as many computations of the scores."""
    assert_fits(compiled(["90x256"], tmp_path)["90x256"], 90, spill=192)
