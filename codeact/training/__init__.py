"""Fine-tuning on packed batches: the loss, Hugging Face's Trainer, the cost of a step."""

from codeact.training.calibrate import calibrate_cost
from codeact.training.loader import PackedLoader
from codeact.training.loss import packed_loss, total_weight
from codeact.training.sft import StepLog, TrainConfig, TrainResult, fine_tune
from codeact.training.trainer import CodeActTrainer, PackedTrainerMixin

__all__ = [
    "CodeActTrainer",
    "PackedLoader",
    "PackedTrainerMixin",
    "StepLog",
    "TrainConfig",
    "TrainResult",
    "calibrate_cost",
    "fine_tune",
    "packed_loss",
    "total_weight",
]
