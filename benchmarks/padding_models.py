"""The model and the rows that ``bench_padding.py`` trains: real ones, or random of a real shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lengths import load_rows, lognormal_of_mean
from numpy.typing import NDArray
from padding import Step
from padding_run import Tokens

from codeact.data import Example, harvest_functions, tokenize_examples
from codeact.errors import InputError
from codeact.models import demo_model, load_model
from codeact.models.loading import load_tokenizer
from codeact.packing import FlatTokens

# config.json of deepseek-ai/deepseek-coder-6.7b-base, the model of CodeACT's own measurements.
DEEPSEEK_6_7B = {
    "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32256,
    "max_position_embeddings": 16384, "tie_word_embeddings": False,
}  # fmt: skip
SMOLLM2_135M = {
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
    "max_position_embeddings": 8192, "tie_word_embeddings": True,
}  # fmt: skip
TINY = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1000,
    "max_position_embeddings": 8192, "tie_word_embeddings": True,
}  # fmt: skip
# config.json of codellama/CodeLlama-7b-Python-hf, the other model of CodeACT's measurements.
CODELLAMA_7B = {**DEEPSEEK_6_7B, "vocab_size": 32000}
# config.json of Qwen/Qwen2.5-Coder-1.5B and -0.5B, without the biases of their projections.
QWEN_1_5B = {
    "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
    "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151936,
    "max_position_embeddings": 32768, "tie_word_embeddings": True,
}  # fmt: skip
QWEN_0_5B = {
    "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936,
    "max_position_embeddings": 32768, "tie_word_embeddings": True,
}  # fmt: skip
# For a CPU, an eighth and two sevenths as wide, with fewer layers. The output projection takes
# 4.1 and 43 % of the layers' multiplications, in the whole models 2.0 and 38 %.
DEEPSEEK_SMALL = {
    "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": 1024,
    "max_position_embeddings": 16384, "tie_word_embeddings": False,
}  # fmt: skip
QWEN_SMALL = {
    "hidden_size": 256, "intermediate_size": 1280, "num_hidden_layers": 6,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 12000,
    "max_position_embeddings": 32768, "tie_word_embeddings": True,
}  # fmt: skip
SHAPES = {
    "6.7b": DEEPSEEK_6_7B, "codellama-7b": CODELLAMA_7B, "1.5b": QWEN_1_5B, "0.5b": QWEN_0_5B,
    "135m": SMOLLM2_135M, "6.7b-small": DEEPSEEK_SMALL, "0.5b-small": QWEN_SMALL, "tiny": TINY,
}  # fmt: skip
SHAPE_NAMES = {
    "6.7b": "DeepSeek-Coder-6.7B", "codellama-7b": "CodeLlama-7B", "1.5b": "Qwen2.5-Coder-1.5B",
    "0.5b": "Qwen2.5-Coder-0.5B", "135m": "SmolLM2-135M", "6.7b-small": "small DeepSeek-Coder",
    "0.5b-small": "small Qwen2.5-Coder", "tiny": "tiny Llama",
}  # fmt: skip
# Mean and sigma of a lognormal that pads as Evol-Instruct does in CodeACT's Table (54.4 %).
EVOL_MEAN, EVOL_SIGMA = 500, 0.49


class Source(NamedTuple):
    """Where a model comes from: a folder or hub id, or one of ``SHAPES`` with random weights."""

    path: str | None
    shape: str | None
    name: str


def choose_model(model: str | None, *, quick: bool) -> Source:
    """The model asked for, else a 6.7B shape on a GPU, else the demo model or its shape."""
    if model is not None and model.lower() not in SHAPES:
        return Source(model, None, model.rstrip("/").rpartition("/")[2])
    shape = model.lower() if model else "tiny" if quick else None
    if shape is None and torch.cuda.is_available():
        shape = "6.7b"
    if shape is None:
        try:
            return Source(str(demo_model()), None, "SmolLM2-135M-Instruct")
        except InputError as error:
            print(f"random weights instead of the demo model: {error}")
            shape = "135m"
    return Source(None, shape, f"{SHAPE_NAMES[shape]} with random weights")


def choose_rows(
    data: str | None, source: Source, *, capacity: int, max_rows: int, quick: bool
) -> tuple[Tokens, str]:
    """Tokenised rows, each cut to ``capacity``, and what they are in words.

    Rows of ``data``, else of ``$CODEACT_DATA``, else functions of installed packages. A model with
    random weights gets random tokens in lengths like Evol-Instruct's unless ``data`` is named; the
    demo model's tokenizer then reads it. ``data`` may also be a ``.npy`` file of lengths.
    """
    vocabulary = int(SHAPES[source.shape or "135m"]["vocab_size"])
    if data is not None and data.endswith(".npy"):
        seqlens = np.random.default_rng(0).permutation(np.load(data))[:max_rows]
        kept = seqlens[seqlens > 0].clip(max=capacity)
        words = f"examples as long as {Path(data).name}'s"
        return random_rows(kept, vocabulary), words + cut_note(seqlens > capacity, capacity)
    if data is None and source.path is None:
        num_rows = 64 if quick else max_rows
        seqlens = lognormal_of_mean(num_rows, EVOL_MEAN, EVOL_SIGMA, capacity)
        return random_rows(seqlens, vocabulary), "examples as long as Evol-Instruct's"
    rows, words = named_rows(data)
    chosen = np.random.default_rng(0).permutation(len(rows))[:max_rows]
    tokenizer = load_tokenizer(source.path or demo_model())
    tokens = tokenize_examples([rows[row] for row in chosen], tokenizer, max_length=capacity)
    kept = np.flatnonzero(tokens.num_response_tokens > 0)  # the others have nothing to learn from
    was_cut = np.array([tokens.status[row] == "truncated" for row in kept])
    tokens = tokens.select(kept)
    if source.path is None:  # the tokenizer of another model: random weights do not mind
        labels = np.where(tokens.labels < 0, tokens.labels, tokens.labels % vocabulary)
        tokens = replace(tokens, input_ids=tokens.input_ids % vocabulary, labels=labels)
    return tokens, words + cut_note(was_cut, capacity)


def named_rows(data: str | None) -> tuple[Sequence[Example], str]:
    """The rows to tokenise, and what they are."""
    try:
        rows = load_rows(data)
    except InputError:
        if data is not None:
            raise
        return harvest_functions(), "functions of installed packages"
    name = "instruction data" if data is None else data.rstrip("/").rpartition("/")[2]
    return rows, f"examples of {name}"


def cut_note(was_cut: NDArray[np.bool_], capacity: int) -> str:
    """How many of the examples are not whole, if any."""
    share = float(was_cut.mean()) if len(was_cut) else 0.0
    return f" ({share:.0%} cut to {capacity:,})" if share else ""


def random_rows(seqlens: NDArray[np.integer[Any]], vocabulary: int) -> FlatTokens:
    """Random ids; the first 30 % of each row carry no loss, as a prompt does."""
    seqlens = seqlens.astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(seqlens)])
    ids = np.random.default_rng(1).integers(0, vocabulary, offsets[-1], dtype=np.int32)
    position = np.arange(offsets[-1]) - np.repeat(offsets[:-1], seqlens)
    is_prompt = position < np.repeat(seqlens * 3 // 10, seqlens)
    return FlatTokens(ids, np.where(is_prompt, -100, ids).astype(np.int32), offsets)


def build_model(source: Source, largest: Step, device: torch.device) -> tuple[Any, str]:
    """The model in training mode, and what had to be left out of it, if anything.

    Weights are bfloat16 on a GPU, with gradient checkpointing, and float32 on a CPU.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    note = ""
    if source.path is not None:
        model: Any = load_model(source.path, device=str(device), attn_implementation="sdpa").model
    else:
        shape = dict(SHAPES[source.shape or "135m"])
        if device.type == "cuda":
            layers = layers_that_fit(shape, largest.num_slots, torch.cuda.mem_get_info()[0])
            if layers < shape["num_hidden_layers"]:
                note = f"{layers} of {shape['num_hidden_layers']} layers: memory is short"
                shape["num_hidden_layers"] = layers
        model = random_model(shape, device)
    if device.type == "cuda":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train(), note


def random_model(shape: dict[str, Any], device: torch.device) -> Any:
    """A Llama of this shape, its weights drawn on the device."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with torch.device(device):
        return AutoModelForCausalLM.from_config(
            LlamaConfig(**shape), dtype=dtype, attn_implementation="sdpa"
        )


def layers_that_fit(shape: dict[str, Any], num_slots: int, free_bytes: int) -> int:
    """How many layers train with AdamW in bfloat16 in this memory, at most all of them.

    A parameter takes 8 bytes (weight, gradient, two moments). A position takes its checkpoint in
    every layer, one layer's activations while that is computed again, and its logits in 16 and
    32 bits with a gradient. One tenth is left for what this does not count.
    """
    hidden, inner, vocabulary = (
        shape[name] for name in ("hidden_size", "intermediate_size", "vocab_size")
    )
    heads = shape["num_key_value_heads"] / shape["num_attention_heads"]
    layer = 8 * (hidden * hidden * (2 + 2 * heads) + 3 * hidden * inner) + 2 * num_slots * hidden
    tables = 1 if shape["tie_word_embeddings"] else 2
    fixed = 8 * tables * vocabulary * hidden
    fixed += num_slots * (vocabulary * (2 + 4 + 4 + 2) + 2 * (12 * hidden + 6 * inner))
    fits = int((0.9 * free_bytes - fixed) // layer)
    return max(1, min(fits, shape["num_hidden_layers"]))
