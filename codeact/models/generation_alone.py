"""One sequence continued by transformers itself, for models whose prompts cannot be packed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from codeact.models.generation_batches import TokenIds
from codeact.models.generation_choice import Sampling, choose_tokens, uniform_draws

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def continue_alone(
    model: PreTrainedModel,
    input_ids: TokenIds,
    seed: int,
    limit: int,
    sampling: Sampling,
    eos_token_ids: frozenset[int],
    completes: Callable[[list[int]], bool] | None = None,
) -> list[int]:
    """New tokens after ``input_ids``, an EOS token at the end included.

    ``model.generate`` keeps whatever state the model has. Every token is chosen by
    :func:`choose_tokens`, as in batches: where it is, greedy decoding finds the only finite logit.
    Attention is ``eager``, which every model has and which is right for all of them.
    """
    from transformers import GenerationConfig

    prompt = torch.from_numpy(input_ids.astype("int64"))[None].to(model.device)
    uniforms = None
    if sampling.temperature > 0:
        uniforms = torch.from_numpy(uniform_draws(seed, limit)).to(model.device)

    def chosen_alone(so_far: Tensor, logits: Tensor) -> Tensor:
        step = so_far.shape[1] - prompt.shape[1]
        drawn = None if uniforms is None else uniforms[step : step + 1]
        only = torch.full_like(logits, float("-inf"))
        return only.scatter(1, choose_tokens(logits, drawn, sampling)[:, None], 0.0)

    def complete_alone(so_far: Tensor, logits: Tensor) -> Tensor:
        new = so_far[0, prompt.shape[1] :].tolist()
        done = completes is not None and completes(new)
        return torch.tensor([done], device=so_far.device)

    # transformers fills what is None here from the model's own: these two would change logits.
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=limit,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        eos_token_id=sorted(eos_token_ids) or None,
        pad_token_id=min(eos_token_ids, default=0),
    )
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        run: Any = model.generate
        ids = run(
            prompt,
            attention_mask=torch.ones_like(prompt),
            generation_config=config,
            logits_processor=[chosen_alone],
            stopping_criteria=[complete_alone],
        )
    finally:
        model.set_attn_implementation(implementation)
    tokens: list[int] = ids[0, prompt.shape[1] :].tolist()
    return tokens
