"""Scores of instruction data: IFD in its published variants, and embeddings."""

from codeact.scoring.embed import Embedder
from codeact.scoring.presets import IfdPreset, ifd_preset
from codeact.scoring.scorer import Scorer
from codeact.scoring.table import SCORES_SCHEMA

__all__ = ["SCORES_SCHEMA", "Embedder", "IfdPreset", "Scorer", "ifd_preset"]
