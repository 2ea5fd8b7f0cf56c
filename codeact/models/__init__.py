"""Models: loading, attention over packed sequences, hidden states, per-token losses."""

from codeact.models.attention import ATTN_IMPLEMENTATION, register_attention
from codeact.models.hidden_states import OutputHead, hidden_states, output_head, packed_nll
from codeact.models.isolation import assert_isolated
from codeact.models.loading import (
    LoadedModel,
    load_model,
    load_tokenizer,
    resolve_device,
    resolve_dtype,
)
from codeact.models.memory import PeakMemory
from codeact.models.nll_stream import ScoredSequence, scored_from, stream_nlls
from codeact.models.packaged import cache_folder, convert_gguf, demo_embedder, demo_model

__all__ = [
    "ATTN_IMPLEMENTATION",
    "LoadedModel",
    "OutputHead",
    "PeakMemory",
    "ScoredSequence",
    "assert_isolated",
    "cache_folder",
    "convert_gguf",
    "demo_embedder",
    "demo_model",
    "hidden_states",
    "load_model",
    "load_tokenizer",
    "output_head",
    "packed_nll",
    "register_attention",
    "resolve_device",
    "resolve_dtype",
    "scored_from",
    "stream_nlls",
]
