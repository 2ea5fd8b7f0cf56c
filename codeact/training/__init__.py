"""Fine-tuning on packed batches, inside Hugging Face's Trainer."""

from codeact.training.sft import StepLog, TrainConfig, TrainResult, fine_tune
from codeact.training.trainer import CodeActTrainer, PackedTrainerMixin

__all__ = [
    "CodeActTrainer",
    "PackedTrainerMixin",
    "StepLog",
    "TrainConfig",
    "TrainResult",
    "fine_tune",
]
