"""Operations: checks, the choice of a backend, and a reference for each."""

from codeact.ops._backend import Backend
from codeact.ops.linear_nll import linear_nll, linear_nll_reference
from codeact.ops.native import native_status
from codeact.ops.packing import pack_best_fit, pack_best_fit_reference
from codeact.ops.token_nll import token_nll, token_nll_reference
from codeact.ops.varlen import IGNORE_INDEX, PackedBatch, pack_sequences

__all__ = [
    "IGNORE_INDEX",
    "Backend",
    "PackedBatch",
    "linear_nll",
    "linear_nll_reference",
    "native_status",
    "pack_best_fit",
    "pack_best_fit_reference",
    "pack_sequences",
    "token_nll",
    "token_nll_reference",
]
