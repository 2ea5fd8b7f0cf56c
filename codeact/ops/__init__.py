"""Operations: checks, the choice of a backend, and a reference for each."""

from codeact.ops._backend import Backend
from codeact.ops.device_tokens import DeviceTokens
from codeact.ops.gather import gather_tokens, gather_tokens_reference, pack_layout
from codeact.ops.linear_nll import (
    TokenStats,
    linear_nll,
    linear_nll_reference,
    linear_nll_stats,
)
from codeact.ops.linear_nll_loss import linear_nll_loss
from codeact.ops.masks import PackedBlockMask, block_mask, dense_mask, seq_idx
from codeact.ops.native import native_status
from codeact.ops.nearest import NearestCentroid, log_density, min_distance, nearest_centroid
from codeact.ops.neighbours import (
    NearestK,
    NearestOutside,
    PointCloud,
    nearest_k,
    nearest_outside,
)
from codeact.ops.packing import (
    pack_best_fit,
    pack_best_fit_reference,
    pack_next_fit,
    pack_next_fit_reference,
)
from codeact.ops.segments import segment_means, segment_sums
from codeact.ops.shuffle import shuffled, shuffled_reference
from codeact.ops.streamed import (
    Logits,
    RowLse,
    RowLseTangent,
    RowMax,
    row_lse,
    row_lse_tangent,
    row_max,
)
from codeact.ops.token_nll import token_nll, token_nll_reference
from codeact.ops.varlen import IGNORE_INDEX, PackedBatch, pack_sequences
from codeact.ops.varlen_attention_jvp import (
    AttentionJvp,
    forward_mode_attention,
    varlen_attention_jvp,
)
from codeact.ops.windows import pack_window, pack_windows

__all__ = [
    "IGNORE_INDEX",
    "AttentionJvp",
    "Backend",
    "DeviceTokens",
    "Logits",
    "NearestCentroid",
    "NearestK",
    "NearestOutside",
    "PackedBatch",
    "PackedBlockMask",
    "PointCloud",
    "RowLse",
    "RowLseTangent",
    "RowMax",
    "TokenStats",
    "block_mask",
    "dense_mask",
    "forward_mode_attention",
    "gather_tokens",
    "gather_tokens_reference",
    "linear_nll",
    "linear_nll_loss",
    "linear_nll_reference",
    "linear_nll_stats",
    "log_density",
    "min_distance",
    "native_status",
    "nearest_centroid",
    "nearest_k",
    "nearest_outside",
    "pack_best_fit",
    "pack_best_fit_reference",
    "pack_layout",
    "pack_next_fit",
    "pack_next_fit_reference",
    "pack_sequences",
    "pack_window",
    "pack_windows",
    "row_lse",
    "row_lse_tangent",
    "row_max",
    "segment_means",
    "segment_sums",
    "seq_idx",
    "shuffled",
    "shuffled_reference",
    "token_nll",
    "token_nll_reference",
    "varlen_attention_jvp",
]
