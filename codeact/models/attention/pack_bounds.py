"""What the host needs to know of a pack's boundaries, read from the GPU once a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

_Value = TypeVar("_Value")

# Every layer of a model is handed the same tensor. Without this each of them would wait for the
# device. On a CPU there is nothing to wait for, and NumPy may write to the memory unnoticed.
_REMEMBERED_ON = ("cuda",)
_KNOWN: Any = WeakIdKeyDictionary()


def once_per_tensor(tensor: Tensor, what: object, compute: Callable[[Tensor], _Value]) -> _Value:
    """``compute(tensor)``; on a GPU remembered while the tensor lives and nobody writes to it.

    Args:
        tensor: integers that say where sequences begin. Writes through PyTorch are noticed.
        what: names the result among others of the same tensor.
        compute: its result must not hold ``tensor``, which would then live for ever.
    """
    # A tensor of inference mode has no counter of writes.
    if tensor.device.type not in _REMEMBERED_ON or tensor.is_inference():
        return compute(tensor)
    known = _KNOWN.get(tensor)
    if known is None or known[0] != tensor._version:
        known = _KNOWN[tensor] = (tensor._version, {})
    results: dict[object, _Value] = known[1]
    if what not in results:
        results[what] = compute(tensor)
    return results[what]


def bounds_of(cu_seqlens: Tensor) -> list[int]:
    """``cu_seqlens`` as a list."""
    return once_per_tensor(cu_seqlens, "bounds", Tensor.tolist)


def max_seqlen_of(cu_seqlens: Tensor, max_seqlen: int | None) -> int:
    """The longest sequence, as given or as the boundaries say."""
    if max_seqlen is not None:
        return max_seqlen
    return once_per_tensor(cu_seqlens, "max_seqlen", lambda bounds: int(bounds.diff().max()))
