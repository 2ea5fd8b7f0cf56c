"""Forward passes for which transformers makes no mask, and therefore does not wait for the GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from codeact.models.attention.packed import ATTN_IMPLEMENTATION

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def maskless(model: PreTrainedModel) -> Iterator[None]:
    """Packed passes inside do without transformers' mask, which ``codeact`` attention drops anyway.

    To decide on a mask transformers reads from the device whether positions restart
    (``masking_utils.find_packed_sequence_indices``), which waits for everything launched before.
    An attention implementation without a mask function gets none, so the model's own one stands
    under a second name here. Only for batches with ``cu_seq_lens_q`` and no padding, and from one
    thread at a time: the name is in the model's config.
    """
    from transformers import AttentionInterface
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    config = model.config.get_text_config()
    name: str = config._attn_implementation
    if not name.startswith(ATTN_IMPLEMENTATION):
        yield
        return
    unmasked = f"{name}_maskless"
    AttentionInterface.register(unmasked, ALL_ATTENTION_FUNCTIONS[name])
    config._attn_implementation = unmasked
    try:
        yield
    finally:
        config._attn_implementation = name
