"""What the training of an arm was to take, and what it took."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from codeact.packing import BinPlan, ModelCost
from codeact.training import TrainConfig, TrainResult, resolve_accumulation
from codeact.training.cost.dry_run import computes_in
from codeact.training.cost.forecast import Forecast
from codeact.training.cost.peak_flops import peak_flops
from codeact.training.cost.spending import spending

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def training_summary(
    result: TrainResult,
    predicted: Forecast | None,
    model: PreTrainedModel,
    plan: BinPlan,
    config: TrainConfig,
    *,
    batch_size: int,
    full_seqlens: ArrayLike,
) -> dict[str, Any]:
    """Time, memory, speed, utilisation and savings of a training that is over, as JSON values.

    Args:
        result: Of the training.
        predicted: Before it; None for a run so short that nothing was predicted.
        model: That was trained.
        plan: Whose bins it was trained on.
        config: Of the training.
        batch_size: Of the padded batches that it is compared with.
        full_seqlens: Tokens of each row of the set that the arm was selected from.
    """
    text: Any = model.config.get_text_config(decoder=True)
    spent = spending(
        result,
        plan,
        ModelCost.from_config(model.config),
        peak=peak_flops(model.device, computes_in(config, model)),
        accumulation=resolve_accumulation(config, plan),
        frozen_weights=config.method != "full",
        head_flops=2.0 * text.hidden_size * text.vocab_size,
        batch_size=batch_size,
        full_seqlens=full_seqlens,
    )
    return {
        "seconds": result.seconds,
        "num_tokens": result.num_tokens,
        "tokens_per_second": result.tokens_per_second,
        "num_steps": len(result.steps),
        "peak_mib": result.peak_mib,
        "forecast": None if predicted is None else asdict(predicted),
        "spending": asdict(spent),
    }
