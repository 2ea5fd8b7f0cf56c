"""The attention JVP kernel compiles for GPUs that are not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

SCRIPT = Path(__file__).with_name("attention_ahead_of_time.py")
WITHOUT_INTERPRETER = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
# A block's most shared memory: 227 KiB on Hopper and Blackwell; elsewhere the 99 KiB of the
# smallest device that runs what sm_80 runs (sm_86, sm_89, sm_120).
SHARED = {80: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024}
INSTRUCTION = {80: "mma", 90: "wgmma", 100: "tcgen05"}


@pytest.mark.parametrize(
    ("capability", "head_dim", "spill"),
    # The last one trades some registers for half as many computations of the scores.
    [*((sm, dim, 0) for sm in SHARED for dim in (64, 128)), (90, 256, 192)],
)
def test_compiles_without_a_spill(
    capability: int, head_dim: int, spill: int, tmp_path: Path
) -> None:
    ran = subprocess.run(
        [sys.executable, SCRIPT, str(capability), str(head_dim)],
        env={**WITHOUT_INTERPRETER, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    compiled = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(compiled) == (2 if capability == 90 else 1)
    for kernel in compiled:
        assert kernel["spilled_bytes"] <= spill, kernel
        assert kernel["shared_bytes"] <= SHARED[capability], kernel
        assert not kernel["serialized"], kernel
        assert kernel[INSTRUCTION[capability]] > 0, kernel
        assert kernel["tma" if capability >= 90 else "cp_async"] > 0, kernel
        if (capability, head_dim) == (90, 64):
            # Two programs share an SM: half of 228 KiB, less 1 KiB that each is charged.
            assert kernel["shared_bytes"] <= 113 * 1024, kernel
            assert kernel["registers"] * 128 * 2 <= 65536, kernel
