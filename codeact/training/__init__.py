"""Fine-tuning on packed batches: the loss, Hugging Face's Trainer, the cost of a step."""

from codeact.training.calibrate import calibrate_cost
from codeact.training.in_run import IN_RUN_TABLE, InRunInfluence
from codeact.training.in_run_batches import InRunStep, sequence_hash, sequence_ids
from codeact.training.in_run_passes import greats_choice
from codeact.training.loader import PackedLoader
from codeact.training.loss import packed_loss, total_weight
from codeact.training.sft import StepLog, TrainConfig, TrainResult, fine_tune
from codeact.training.trainer import CodeActTrainer, PackedTrainerMixin

__all__ = [
    "IN_RUN_TABLE",
    "CodeActTrainer",
    "InRunInfluence",
    "InRunStep",
    "PackedLoader",
    "PackedTrainerMixin",
    "StepLog",
    "TrainConfig",
    "TrainResult",
    "calibrate_cost",
    "fine_tune",
    "greats_choice",
    "packed_loss",
    "sequence_hash",
    "sequence_ids",
    "total_weight",
]
