from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from codeact import _C
from codeact.ops import token_nll, token_nll_reference
from codeact.ops._backend import has_triton, resolve_backend

SLACK = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}
INF = float("inf")

needs_triton = pytest.mark.skipif(not has_triton(), reason="Triton is not installed")
BACKENDS = [
    "reference",
    pytest.param("cpu", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="for CPUs")),
    pytest.param("triton", marks=needs_triton),
    pytest.param("cuda", marks=pytest.mark.gpu),
]


def make_inputs(*, num_tokens, vocab_size, dtype, device, scale=4.0):
    generator = torch.Generator().manual_seed(vocab_size)
    logits = scale * torch.randn(num_tokens, vocab_size, generator=generator)
    targets = torch.randint(vocab_size, (num_tokens,), generator=generator)
    targets[::3] = -100
    return logits.to(device, dtype), targets.to(device)


def assert_close_to_truth(logits, targets, backend):
    """No further from float64 than plain PyTorch in float32 is, plus the dtype's slack."""
    truth = F.cross_entropy(logits.double(), targets, reduction="none")
    allowed = (token_nll_reference(logits, targets, -100) - truth).abs() + SLACK[logits.dtype]
    nll = token_nll(logits, targets, backend=backend)
    assert nll.dtype == torch.float32
    error = (nll - truth).abs()
    assert (error <= allowed).all(), f"worst excess {(error - allowed).max():.2e}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", SLACK, ids=str)
@pytest.mark.parametrize("vocab_size", [1, 2, 63, 64, 65, 523, 8193])  # edges of a block, two
def test_matches_float64(backend, dtype, vocab_size, device):
    logits, targets = make_inputs(num_tokens=7, vocab_size=vocab_size, dtype=dtype, device=device)
    assert_close_to_truth(logits, targets, backend)


@pytest.mark.parametrize("dtype", SLACK, ids=str)
def test_the_reference_matches_float64(dtype, device):
    logits, targets = make_inputs(num_tokens=7, vocab_size=523, dtype=dtype, device=device)
    truth = F.cross_entropy(logits.double(), targets, reduction="none")
    torch.testing.assert_close(
        token_nll_reference(logits, targets, -100).double(), truth, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", SLACK, ids=str)
def test_rows_further_apart_than_the_vocabulary(backend, dtype, device):
    """Odd strides put rows at every alignment; the columns between rows must not count."""
    logits, targets = make_inputs(num_tokens=16, vocab_size=101, dtype=dtype, device=device)
    wide = torch.full((16, 107), 1e4, dtype=dtype, device=device)
    wide[:, :101] = logits
    expected = token_nll(logits, targets, backend="reference")
    nll = token_nll(wide[:, :101], targets, backend=backend)
    torch.testing.assert_close(nll, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_transposed_logits(backend, device):
    logits, targets = make_inputs(num_tokens=5, vocab_size=9, dtype=torch.float32, device=device)
    assert_close_to_truth(logits.T.contiguous().T, targets, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_huge_logits_keep_their_digits(backend, device):
    logits, targets = make_inputs(num_tokens=4, vocab_size=70, dtype=torch.float32, device=device)
    logits[0, 3], logits[1, 69], logits[2] = 1e4, -1e4, 1e4
    targets = torch.tensor([3, 69, 0, 1], device=device)
    assert_close_to_truth(logits, targets, backend)
    # All equal: exactly log(vocab_size), however large the logits are.
    all_equal = token_nll(logits, targets, backend=backend)[2]
    assert all_equal.item() == pytest.approx(4.248495242049359, abs=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_minus_infinity_is_a_probability_of_zero(backend, device):
    logits = torch.full((3, 9000), -INF, device=device)  # the first block holds nothing else
    logits[0, 8999], logits[1, 8998:] = 3.0, 3.0
    targets = torch.tensor([8999, 8999, 0], device=device)
    nll = token_nll(logits, targets, backend=backend).tolist()
    assert nll[:2] == pytest.approx([0.0, 0.6931471805599453], abs=1e-6)
    assert nll[2] != nll[2], "a row without any finite logit has no likelihood"
    assert token_nll(logits[:1], targets[2:], backend=backend).item() == INF


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [INF, float("nan")])
def test_a_broken_logit_is_not_hidden(backend, value, device):
    logits, targets = make_inputs(num_tokens=2, vocab_size=33, dtype=torch.float32, device=device)
    logits[1, 7], targets[1] = value, 3
    assert token_nll(logits, targets, backend=backend)[1].isnan()


@pytest.mark.parametrize("backend", BACKENDS)
def test_ignored_rows_score_zero_even_where_they_are_nan(backend, device):
    logits = torch.full((3, 5), float("nan"), device=device)
    targets = torch.full((3,), 7, device=device)
    assert token_nll(logits, targets, ignore_index=7, backend=backend).tolist() == [0.0] * 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_target_that_is_no_column_scores_nan(backend, device):
    logits = torch.zeros(3, 5, device=device)
    nll = token_nll(logits, torch.tensor([5, -1, 4], device=device), backend=backend)
    assert nll.isnan().tolist() == [True, True, False]


@pytest.mark.parametrize("backend", BACKENDS)
def test_zero_rows(backend, device):
    logits, targets = torch.empty(0, 5, device=device), torch.empty(0, device=device).long()
    assert token_nll(logits, targets, backend=backend).shape == (0,)


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        pytest.param(torch.ones(3), torch.ones(3).long(), r"got \(3,\) and \(3,\)", id="1-D"),
        pytest.param(torch.ones(3, 2), torch.ones(4).long(), r"\(3, 2\) and \(4,\)", id="rows"),
        pytest.param(torch.ones(3, 0), torch.ones(3).long(), "at least one column", id="vocab-0"),
        pytest.param(torch.ones(1, 2).double(), torch.ones(1).long(), "float64", id="float64"),
        pytest.param(torch.ones(1, 2), torch.ones(1).int(), "must be int64", id="int32"),
        pytest.param(torch.ones(1, 2), torch.ones(1).long().to("meta"), "on cpu", id="device"),
    ],
)
def test_bad_input_is_named(logits, targets, message):
    with pytest.raises(ValueError, match=message):
        token_nll(logits, targets)


def test_bits_do_not_depend_on_the_number_of_threads(device):
    """Rows of 2**20 elements and more are shared out to threads."""
    logits, targets = make_inputs(
        num_tokens=300, vocab_size=4001, dtype=torch.float32, device="cpu"
    )
    logits.requires_grad_()
    before, found = torch.get_num_threads(), []
    try:
        for num_threads in (1, 3):
            torch.set_num_threads(num_threads)
            nll = token_nll(logits, targets, backend="cpu")
            found.append((nll, torch.autograd.grad(nll.sum(), logits)[0]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_auto_takes_the_cpu_where_the_operation_has_it():
    tensor, meta = torch.ones(1), torch.ones(1, device="meta")
    assert resolve_backend("auto", tensor) == "reference"
    assert resolve_backend("auto", tensor, supported=("triton", "cpu")) == "cpu"
    assert resolve_backend("auto", meta, supported=("triton", "cpu")) == "reference"
    with pytest.raises(RuntimeError, match=r"backend 'cpu' needs a CPU tensor, got a .* meta"):
        resolve_backend("cpu", meta, supported=("cpu",))
    with pytest.raises(ValueError, match="one of auto, reference, triton, cuda, got 'cpu'"):
        resolve_backend("cpu", tensor)


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match="one of auto, reference, triton, cuda, got 'cuda2'"):
        resolve_backend("cuda2", torch.ones(1))  # type: ignore[arg-type]


@pytest.mark.skipif(_C.cuda_usable(), reason="a CUDA kernel can run here")
def test_cuda_says_what_is_missing():
    missing = "needs a CUDA device" if _C.built_with_cuda else "needs codeact built with CUDA"
    with pytest.raises(RuntimeError, match=missing):
        token_nll(torch.ones(1, 2), torch.ones(1).long(), backend="cuda")


WITHOUT_INTERPRETER = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}


@needs_triton
def test_triton_says_what_is_missing():
    code = (
        "import torch; from codeact.ops import token_nll;"
        "token_nll(torch.ones(1, 2), torch.ones(1).long(), backend='triton')"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], env=WITHOUT_INTERPRETER, capture_output=True, text=True
    )
    assert ran.stderr.endswith(
        "RuntimeError: backend 'triton' needs a CUDA tensor or TRITON_INTERPRET=1, "
        "got a tensor on cpu\n"
    )


COMPILE = """
from itertools import product
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from codeact.kernels.token_nll import MAX_BLOCK_SIZE, NUM_WARPS, _token_nll_kernel

# What a launch finds out about aligned logits: address, stride and vocabulary are multiples of 16.
aligned = {(argument,): [["tt.divisibility", 16]] for argument in (0, 3, 4)}
for capability, dtype in product([80, 90], ["fp32", "fp16", "bf16"]):
    signature = {"logits_ptr": "*" + dtype, "targets_ptr": "*i64", "nll_ptr": "*fp32",
                 "logits_stride": "i64", "vocab_size": "i32", "ignore_index": "i32",
                 "BLOCK_SIZE": "constexpr"}
    source = ASTSource(_token_nll_kernel, signature, {"BLOCK_SIZE": MAX_BLOCK_SIZE}, aligned)
    target = GPUTarget("cuda", capability, 32)
    compiled = compile(source, target=target, options={"num_warps": NUM_WARPS})
    ptx = compiled.asm["ptx"]
    assert compiled.asm["cubin"], (capability, dtype)
    assert ".v4.b32" in ptx, (capability, dtype, "no 16-byte loads")
    assert ".local" not in ptx, (capability, dtype, "registers spilled")
print("compiled")
"""


@needs_triton
def test_compiles_ahead_of_time(tmp_path):
    """To machine code without a GPU; in a process of its own, where Triton does not interpret."""
    ran = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env={**WITHOUT_INTERPRETER, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ran.stdout == "compiled\n", ran.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["triton", "cuda"])
@pytest.mark.parametrize("vocab_size", [49_152, 151_936])  # SmolLM2, Qwen2.5
def test_matches_float64_at_real_vocabularies(backend, vocab_size, device):
    logits, targets = make_inputs(
        num_tokens=64, vocab_size=vocab_size, dtype=torch.bfloat16, device=device
    )
    assert_close_to_truth(logits, targets, backend)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("backend", ["triton", "cuda"])
def test_offsets_beyond_int32(backend, device):
    logits = torch.zeros(2**15 + 1, 2**16, dtype=torch.bfloat16, device=device)
    targets = torch.full((2**15 + 1,), -100, device=device)
    logits[-1, 5], targets[-1] = 10.0, 5
    nll = token_nll(logits, targets, backend=backend)
    assert nll[:-1].abs().max().item() == 0.0
    assert nll[-1].item() == pytest.approx(math.log1p((2**16 - 1) * math.exp(-10)), rel=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["triton", "cuda"])
def test_runs_on_the_current_stream(backend, device):
    """The side stream fills the logits first; a launch on the default one would read zeros."""
    targets = torch.zeros(256, dtype=torch.int64, device=device)
    source = torch.zeros(256, 32_768, device=device)
    source[:, 0] = 10.0
    expected = token_nll(source, targets, backend="reference")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        stream.wait_stream(torch.cuda.default_stream())
        logits = torch.zeros_like(source)
        torch.cuda._sleep(20_000_000)
        logits.copy_(source)
        nll = token_nll(logits, targets, backend=backend)
    stream.synchronize()
    torch.testing.assert_close(nll, expected, rtol=1e-5, atol=1e-5)
