"""Scoring speed of models of real shapes with random weights: any GPU can run it offline."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from harness import record, time_call
from lengths import lognormal_of_mean
from roofline import product_rate, scoring_flops

from codeact.models import ScoredSequence, register_attention, scored_from, stream_nlls

# config.json of Qwen/Qwen2.5-0.5B, -1.5B and -7B; rows scored by each within the time of a bench.
_COMMON = {"vocab_size": 151936, "max_position_embeddings": 32768, "rope_theta": 1e6}
SHAPES: dict[str, tuple[dict[str, Any], int]] = {
    "Qwen2.5-0.5B": (
        {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
         "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True},
        20_000,
    ),
    "Qwen2.5-1.5B": (
        {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
         "num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": True},
        4_000,
    ),
    "Qwen2.5-7B": (
        {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
         "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
         "tie_word_embeddings": False},
        1_000,
    ),
}  # fmt: skip
# Answers and prompts as long as those of Evol-Instruct rows; a loop is timed on few of them.
MEAN_TOKENS, SIGMA, LONGEST, PROMPT_SHARE = 500, 0.49, 2048, 0.3
LOOP_ROWS = 40


def random_model(shape: dict[str, Any], device: torch.device) -> Any:
    """A Qwen2 of this shape in evaluation mode, its weights drawn on the device."""
    from transformers import AutoModelForCausalLM, Qwen2Config

    register_attention()
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            Qwen2Config(**{**_COMMON, **shape}), dtype=dtype, attn_implementation="codeact"
        )
    return model.eval()


def random_rows(num_rows: int, vocab_size: int) -> list[ScoredSequence]:
    """Two sequences a row, as IFD has them: prompt and answer, and the answer alone."""
    rng = np.random.default_rng(0)
    sequences = []
    for length in lognormal_of_mean(num_rows, MEAN_TOKENS, SIGMA, LONGEST):
        ids = rng.integers(0, vocab_size, max(int(length), 8), dtype=np.int32)
        start = max(1, int(len(ids) * PROMPT_SHARE))
        sequences += [scored_from(ids, start), scored_from(ids[start:], 1)]
    return sequences


@torch.no_grad()
def loop(model: Any, sequences: list[ScoredSequence]) -> None:
    """One sequence at a time, all logits, one wait for the device each, as published."""
    for sequence in sequences:
        ids = torch.from_numpy(sequence.input_ids.astype(np.int64)).to(model.device)
        labels = torch.from_numpy(sequence.labels.astype(np.int64)).to(model.device)
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1].float()
        F.cross_entropy(logits, labels[1:]).item()


def run_shape(name: str, device: torch.device) -> None:
    """Rows a second of the stream and of the loop, and the share of the product's rate."""
    shape, num_rows = SHAPES[name]
    model = random_model(shape, device)
    sequences = random_rows(num_rows, model.config.vocab_size)
    few = sequences[: 2 * LOOP_ROWS]
    seconds = {}
    for way, call in {
        "stream": lambda some: sum(len(pack) for pack in stream_nlls(model, some)),
        "loop": lambda some: loop(model, some),
    }.items():
        call(few)  # kernels are compiled and chosen
        seconds[way] = time_call(lambda c=call, s=sequences if way == "stream" else few: c(s))[1]
    seqlens = [len(sequence.input_ids) for sequence in sequences]
    num_scored = sum(int((sequence.labels[1:] >= 0).sum()) for sequence in sequences)
    rate = scoring_flops(model.config, seqlens, num_scored) / seconds["stream"]
    facts = {
        "rows a second": num_rows / seconds["stream"],
        "loop's rows a second": LOOP_ROWS / seconds["loop"],
        "TFLOP/s": rate / 1e12,
        "of the product's rate": rate / product_rate(device, model.dtype),
    }
    print(f"{name} with random weights, {num_rows} rows, {sum(seqlens)} tokens")
    for key, value in facts.items():
        print(f"  {key}: {value:.3g}")
    print(flush=True)
    record({"script": "bench_ifd", "case": f"{name}, {num_rows} rows", "facts": facts})


def run_shapes() -> None:
    """Every shape that fits the GPU."""
    device = torch.device("cuda")
    for name in SHAPES:
        try:
            run_shape(name, device)
        except torch.OutOfMemoryError:
            print(f"{name} does not fit: left out")
        torch.cuda.empty_cache()
