"""The packed path in bfloat16 on a CUDA device, against float32 on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from codeact.models import assert_isolated, load_model, scored_from, stream_nlls
from codeact.models.attention.packed import packed_attention
from codeact.ops.varlen import pack_sequences

pytestmark = pytest.mark.gpu


def test_isolated(tiny_model: PreTrainedModel) -> None:
    assert_isolated(tiny_model.to("cuda"))
    assert_isolated(tiny_model.to(torch.bfloat16))


def test_losses(make_tiny: Callable[..., PreTrainedModel]) -> None:
    rng = np.random.default_rng(0)
    sequences = [scored_from(rng.integers(3, 97, size=n).astype(np.int32), 2) for n in (9, 40, 77)]

    def losses(model: PreTrainedModel) -> np.ndarray:
        found = dict(pair for pack in stream_nlls(model, sequences) for pair in pack)
        return np.concatenate([found[index] for index in range(len(sequences))])

    truth = losses(make_tiny("llama-gqa"))
    exact = losses(make_tiny("llama-gqa").to("cuda"))
    half = losses(make_tiny("llama-gqa").to("cuda", torch.bfloat16))
    np.testing.assert_allclose(exact, truth, atol=1e-3)
    np.testing.assert_allclose(half, truth, atol=0.05 * truth.max())


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_varlen_kernel(window: int | None, num_kv_heads: int) -> None:
    """PyTorch's or flash-attn's kernel against a sequence at a time in float32."""
    torch.manual_seed(0)
    seqlens = [1, 30, 7, 64]
    ids = [np.arange(n) for n in seqlens]
    batch = pack_sequences(ids, ids)
    q = torch.randn(1, 4, sum(seqlens), 32)
    k, v = torch.randn(2, 1, num_kv_heads, sum(seqlens), 32)

    def attend(device: str, dtype: torch.dtype) -> torch.Tensor:
        cu_seqlens = batch.cu_seqlens.to(device)
        inputs = (x.to(device, dtype) for x in (q, k, v))
        output, _ = packed_attention(
            torch.nn.Module(), *inputs, None,
            cu_seq_lens_q=cu_seqlens, max_length_q=batch.max_seqlen, sliding_window=window,
        )  # fmt: skip
        return output.float().cpu()

    truth = attend("cpu", torch.float32)
    assert (attend("cuda", torch.bfloat16) - truth).abs().max() <= 0.03
    assert (attend("cuda", torch.float32) - truth).abs().max() <= 1e-4


def test_fine_tuning_lowers_the_loss(tiny_model_folder: Path, tmp_path: Path) -> None:
    from codeact.data import load_examples, tokenize_examples
    from codeact.packing import plan_bins
    from codeact.training import TrainConfig, fine_tune

    loaded = load_model(tiny_model_folder, dtype="float32", device="cuda")
    rows = [{"instruction": f"add {i}", "output": f"return x + {i}"} for i in range(16)]
    examples = tokenize_examples(load_examples(rows), loaded.tokenizer, max_length=200)
    config = TrainConfig(epochs=8, learning_rate=1e-2, accumulation=2)
    plan = plan_bins(examples.seqlens, 256)
    result = fine_tune(loaded.model, examples, plan, config, folder=tmp_path)
    assert result.steps[-1].loss < result.steps[0].loss - 0.5
    assert_isolated(loaded.model)  # no autocast is left around forward
