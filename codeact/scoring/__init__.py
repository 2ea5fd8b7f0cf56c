"""Scores of instruction data: IFD in its published variants and relatives, and embeddings."""

from codeact.scoring.embed import Embedder
from codeact.scoring.pooling import EmbedText, IfdWithEmbeddings, Pool, StatePool
from codeact.scoring.presets import PRESET_NAMES, IfdPreset, Method, ifd_preset
from codeact.scoring.s_ifd import NOISY_SCHEMA, S_IFD_SCHEMA, s_ifd_table
from codeact.scoring.scorer import Scorer
from codeact.scoring.table import PERPLEXITY_SCHEMA, RMI_SCHEMA, SCORES_SCHEMA
from codeact.scoring.turns import Turns

__all__ = [
    "NOISY_SCHEMA",
    "PERPLEXITY_SCHEMA",
    "PRESET_NAMES",
    "RMI_SCHEMA",
    "SCORES_SCHEMA",
    "S_IFD_SCHEMA",
    "EmbedText",
    "Embedder",
    "IfdPreset",
    "IfdWithEmbeddings",
    "Method",
    "Pool",
    "Scorer",
    "StatePool",
    "Turns",
    "ifd_preset",
    "s_ifd_table",
]
