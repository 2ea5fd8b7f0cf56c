"""Every kernel compiled for GPUs that are not there: matrix instructions, no spilled register."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton")

SCRIPT = Path(__file__).with_name("ahead_of_time.py")
WITHOUT_INTERPRETER = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
KIB = 1024
# Triton 3.6 needs five registers more where a bias meets a softcap, which no released model has.
SPILLED_BYTES = 0 if tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 9) else 20
# What a block may use. The tiles of sm_80 serve sm_86, sm_89 and sm_120 too, which have 99 KiB.
SHARED_BYTES = {80: 99 * KIB, 90: 227 * KIB, 100: 227 * KIB}
MATRIX_INSTRUCTION = {80: "mma", 90: "wgmma", 100: "tcgen05"}
HALF_PRECISION = ["row_lse all options", "row_lse_tangent all options", "row_max"]
WITHOUT_OPTIONS = ["row_lse", "row_lse_tangent"]
FLOAT32 = ["row_lse float32", "row_lse_tangent float32", "row_max float32", "row_reach float32"]

each_gpu = pytest.mark.parametrize("capability", MATRIX_INSTRUCTION, ids="sm_{}".format)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """{capability: [what one kernel compiled to]}"""
    ran = subprocess.run(
        [sys.executable, SCRIPT, *map(str, MATRIX_INSTRUCTION)],
        env={**WITHOUT_INTERPRETER, "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    kernels = [json.loads(line) for line in ran.stdout.splitlines()]
    return {sm: [k for k in kernels if k["capability"] == sm] for sm in MATRIX_INSTRUCTION}


def streamed(kernels, case):
    """The kernel of a case that multiplies, not the one that merges its splits."""
    found = [k for k in kernels if k["case"] == case and "merge" not in k["kernel"]]
    assert len(found) == 1, f"{case}: {len(found)} kernels"
    return found[0]


@each_gpu
def test_no_register_spills(compiled, capability):
    spilled = {(k["case"], k["kernel"]): k["spilled_bytes"] for k in compiled[capability]}
    assert None not in spilled.values(), "ptxas said nothing"
    assert {k: v for k, v in spilled.items() if v > SPILLED_BYTES} == {}


@each_gpu
def test_half_precision_runs_on_the_tensor_cores(compiled, capability):
    for case in HALF_PRECISION + WITHOUT_OPTIONS * (capability == 90):
        kernel = streamed(compiled[capability], case)
        assert kernel[MATRIX_INSTRUCTION[capability]] > 0, case
        assert not kernel["serialized"], f"{case}: matrix instructions wait for each other"


@each_gpu
def test_shared_memory_fits(compiled, capability):
    for kernel in compiled[capability]:
        assert kernel["shared_bytes"] <= SHARED_BYTES[capability], kernel


@each_gpu
def test_operands_are_loaded_ahead(compiled, capability):
    """By TMA from sm_90 on, elsewhere by cp.async of 16 bytes."""
    for case in HALF_PRECISION:
        kernel = streamed(compiled[capability], case)
        assert kernel["cp_async" if capability == 80 else "tma"] > 0, case


def test_odd_sizes_use_the_same_instructions(compiled):
    kernel = streamed(compiled[80], "row_lse odd sizes")
    assert kernel["mma"] > 0
    assert kernel["cp_async"] > 0


@pytest.mark.parametrize(
    ("capability", "case"),
    [*((80, case) for case in FLOAT32), (90, "row_lse float32"), (90, "row_reach float32")],
)
def test_float32_is_loaded_ahead_and_not_rounded_to_tf32(compiled, capability, case):
    kernel = streamed(compiled[capability], case)
    assert [kernel[name] for name in MATRIX_INSTRUCTION.values()] == [0, 0, 0]
    assert kernel["cp_async"] > 0


@each_gpu
def test_the_gradient_reads_16_bytes_at_a_time(compiled, capability):
    for case in ("softmax_gradient all options", "softmax_gradient bfloat16"):
        kernel = streamed(compiled[capability], case)
        assert kernel["vector_loads"] > 0, case
        assert kernel["registers"] <= 64, "32 warps leave 64 registers a thread"
