"""Operations: checks, the choice of a backend, and a reference for each."""

from codeact.ops._backend import Backend
from codeact.ops.device_tokens import DeviceTokens
from codeact.ops.gather import gather_tokens, gather_tokens_reference, pack_layout
from codeact.ops.linear_nll import linear_nll, linear_nll_reference
from codeact.ops.masks import PackedBlockMask, block_mask, dense_mask, seq_idx
from codeact.ops.native import native_status
from codeact.ops.packing import (
    pack_best_fit,
    pack_best_fit_reference,
    pack_next_fit,
    pack_next_fit_reference,
)
from codeact.ops.shuffle import shuffled, shuffled_reference
from codeact.ops.token_nll import token_nll, token_nll_reference
from codeact.ops.varlen import IGNORE_INDEX, PackedBatch, pack_sequences
from codeact.ops.windows import pack_window, pack_windows

__all__ = [
    "IGNORE_INDEX",
    "Backend",
    "DeviceTokens",
    "PackedBatch",
    "PackedBlockMask",
    "block_mask",
    "dense_mask",
    "gather_tokens",
    "gather_tokens_reference",
    "linear_nll",
    "linear_nll_reference",
    "native_status",
    "pack_best_fit",
    "pack_best_fit_reference",
    "pack_layout",
    "pack_next_fit",
    "pack_next_fit_reference",
    "pack_sequences",
    "pack_window",
    "pack_windows",
    "seq_idx",
    "shuffled",
    "shuffled_reference",
    "token_nll",
    "token_nll_reference",
]
