"""Operations: checks, the choice of a backend, and a reference for each."""

from codeact.ops._backend import Backend
from codeact.ops.packing import pack_best_fit, pack_best_fit_reference
from codeact.ops.token_nll import token_nll, token_nll_reference

__all__ = [
    "Backend",
    "pack_best_fit",
    "pack_best_fit_reference",
    "token_nll",
    "token_nll_reference",
]
