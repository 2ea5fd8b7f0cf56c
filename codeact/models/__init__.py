"""Models: loading, attention over packed sequences, hidden states, per-token losses."""

from codeact.models.attention.choice import BackendState, attention_backends
from codeact.models.attention.packed import ATTN_IMPLEMENTATION, register_attention
from codeact.models.direction import Direction, along, moved, parameter_names
from codeact.models.fused.forward import ScoredRows
from codeact.models.fused.head_call import NotFusableError
from codeact.models.fused.loss import fuse_loss, fused_loss, unfuse_loss
from codeact.models.generation import eos_ids, generate, room_for_tokens
from codeact.models.generation_choice import Sampling
from codeact.models.generation_loop import Generated, Prompt
from codeact.models.hidden_states import OutputHead, hidden_states, output_head, packed_nll
from codeact.models.isolation import assert_isolated
from codeact.models.loading import (
    LoadedModel,
    load_model,
    load_tokenizer,
    resolve_dtype,
)
from codeact.models.memory import PeakMemory
from codeact.models.packaged import cache_folder, convert_gguf, demo_embedder, demo_model
from codeact.models.stream.embedding_noise import EmbeddingNoise, noise_key, uniform_noise
from codeact.models.stream.losses import (
    PackBudget,
    plan_packs,
    scored_from,
    stream_losses,
    stream_nlls,
)
from codeact.models.stream.pack_pass import ScoredSequence, SequenceLoss
from codeact.ops.device import resolve_device

__all__ = [
    "ATTN_IMPLEMENTATION",
    "BackendState",
    "Direction",
    "EmbeddingNoise",
    "Generated",
    "LoadedModel",
    "NotFusableError",
    "OutputHead",
    "PackBudget",
    "PeakMemory",
    "Prompt",
    "Sampling",
    "ScoredRows",
    "ScoredSequence",
    "SequenceLoss",
    "along",
    "assert_isolated",
    "attention_backends",
    "cache_folder",
    "convert_gguf",
    "demo_embedder",
    "demo_model",
    "eos_ids",
    "fuse_loss",
    "fused_loss",
    "generate",
    "hidden_states",
    "load_model",
    "load_tokenizer",
    "moved",
    "noise_key",
    "output_head",
    "packed_nll",
    "parameter_names",
    "plan_packs",
    "register_attention",
    "resolve_device",
    "resolve_dtype",
    "room_for_tokens",
    "scored_from",
    "stream_losses",
    "stream_nlls",
    "unfuse_loss",
    "uniform_noise",
]
