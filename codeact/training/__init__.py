"""Fine-tuning on packed batches: SFT and DPO, Hugging Face's Trainer, what a run costs."""

from codeact.training.config import (
    PRESETS,
    TrainConfig,
    load_train_config,
    num_optimizer_steps,
    resolve_accumulation,
)
from codeact.training.cost.calibrate import calibrate_cost
from codeact.training.cost.forecast import Forecast, forecast
from codeact.training.cost.spending import Spending, spending
from codeact.training.dpo.pairs import PackedPairs, PairCollator
from codeact.training.dpo.reference import reference_log_probs
from codeact.training.dpo.trainer import CodeActDPOTrainer
from codeact.training.dpo.tuning import DPOResult, fine_tune_dpo
from codeact.training.in_run.batches import InRunStep, sequence_hash, sequence_ids
from codeact.training.in_run.influence import IN_RUN_TABLE, InRunInfluence
from codeact.training.in_run.passes import greats_choice
from codeact.training.loader import PackedLoader
from codeact.training.loss import packed_loss, total_weight
from codeact.training.run_trainer import TrainResult
from codeact.training.sft import fine_tune
from codeact.training.step_log import StepLog
from codeact.training.trainer import CodeActTrainer, PackedTrainerMixin

__all__ = [
    "IN_RUN_TABLE",
    "PRESETS",
    "CodeActDPOTrainer",
    "CodeActTrainer",
    "DPOResult",
    "Forecast",
    "InRunInfluence",
    "InRunStep",
    "PackedLoader",
    "PackedPairs",
    "PackedTrainerMixin",
    "PairCollator",
    "Spending",
    "StepLog",
    "TrainConfig",
    "TrainResult",
    "calibrate_cost",
    "fine_tune",
    "fine_tune_dpo",
    "forecast",
    "greats_choice",
    "load_train_config",
    "num_optimizer_steps",
    "packed_loss",
    "reference_log_probs",
    "resolve_accumulation",
    "sequence_hash",
    "sequence_ids",
    "spending",
    "total_weight",
]
