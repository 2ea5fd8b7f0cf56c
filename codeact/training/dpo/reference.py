"""Log-probabilities of answers under the reference model: once, before training, kept on disk."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from codeact.data.pairs import TokenizedPairs
from codeact.files import replacing
from codeact.models import ScoredSequence, stream_losses
from codeact.models.fused.loss import find_causal_lm
from codeact.training.loss import num_ranks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FILE = "reference.npz"
# Of each parameter so many bytes from all over it tell two models apart.
_SAMPLED = 4096


def reference_log_probs(
    model: PreTrainedModel, pairs: TokenizedPairs, *, autocast: bool = False
) -> NDArray[np.float64]:
    """Sums of log-probabilities of the answers' tokens under ``model`` as it stands.

    Streamed in full packs without gradients or logits; the ranks share the pairs, and all of them
    must call this. The reference of a fresh adapter is the model before it was added, or with it
    switched off (``model.disable_adapter()`` of PEFT), which is the same.

    Args:
        model: loaded with ``attn_implementation="codeact"``, or PEFT's around it; it is in
            evaluation mode meanwhile.
        pairs: of ``tokenize_pairs``.
        autocast: compute in bfloat16 where the model is on a GPU, as training will.

    Returns:
        (num_pairs, 2) float64 in nats, of the chosen and the rejected answer; NaN where a pair has
        no token.

    Raises:
        RuntimeError: the model does not keep packed sequences apart.
    """
    rank, world_size = (dist.get_rank(), num_ranks()) if num_ranks() > 1 else (0, 1)
    used = np.flatnonzero(pairs.seqlens > 0)
    found = np.full((len(pairs), 2), np.nan)
    # Dealt out by length, so that no rank gets all the long ones.
    mine = used[np.argsort(pairs.seqlens[used], kind="stable")][rank::world_size]
    sequences = [ScoredSequence(*row) for index in mine.tolist() for row in pairs.sequences(index)]
    with _evaluating(model, autocast=autocast):
        # Below PEFT's wrapper the layers are those of the adapter all the same.
        for pack in stream_losses(find_causal_lm(model), [sequences]):
            for number, loss in pack:
                found[mine[number // 2], number % 2] = -loss.total
    if world_size > 1:
        shares: list[Any] = [None] * world_size
        dist.all_gather_object(shares, (mine, found[mine]))
        for indices, values in shares:
            found[indices] = values
    return found


def stored_reference(
    model: PreTrainedModel, pairs: TokenizedPairs, folder: Path, *, autocast: bool = False
) -> NDArray[np.float64]:
    """:func:`reference_log_probs`, from ``folder/reference.npz`` if it is of this model and pairs.

    The file's key is a hash of all tokens and labels, of the device's kind and the dtype, and of a
    sample of every parameter. A file that is of something else, or broken, is replaced.
    """
    key = _key(model, pairs, autocast)
    is_first = num_ranks() == 1 or dist.get_rank() == 0
    stored: list[Any] = [_read(folder / _FILE, key, len(pairs)) if is_first else None]
    if num_ranks() > 1:
        dist.broadcast_object_list(stored, src=0)
    if stored[0] is not None:
        reference: NDArray[np.float64] = stored[0]
        return reference
    reference = reference_log_probs(model, pairs, autocast=autocast)
    if is_first:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / _FILE) as temporary, temporary.open("wb") as file:
            np.savez(file, key=np.array(key), log_probs=reference)
    return reference


def _read(path: Path, key: str, num_pairs: int) -> NDArray[np.float64] | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            values: NDArray[np.float64] = stored["log_probs"]
            same = str(stored["key"]) == key and values.shape == (num_pairs, 2)
            return values if same else None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError):
        return None


def _key(model: PreTrainedModel, pairs: TokenizedPairs, autocast: bool) -> str:
    digest = hashlib.sha256(json.dumps([1, model.device.type, str(model.dtype), autocast]).encode())
    for array in (pairs.input_ids, pairs.labels, pairs.offsets, pairs.middles):
        digest.update(np.ascontiguousarray(array).data)
    for name, parameter in model.named_parameters():
        values = parameter.detach().reshape(-1)
        step = max(1, len(values) // _SAMPLED)
        sample = values[::step].contiguous().view(torch.uint8).cpu().numpy()
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(sample.data)
    return digest.hexdigest()


@contextmanager
def _evaluating(model: PreTrainedModel, *, autocast: bool) -> Iterator[None]:
    """In evaluation mode, and on a GPU under autocast to bfloat16 if asked for."""
    was_training, device = model.training, model.device.type
    model.eval()
    try:
        with torch.autocast(device, torch.bfloat16, enabled=autocast and device == "cuda"):
            yield
    finally:
        model.train(was_training)
