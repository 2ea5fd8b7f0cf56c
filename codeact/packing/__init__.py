"""Dynamic Pack: bin plans, packed batches, samplers and collators."""

from codeact.ops.varlen import PackedBatch, pack_sequences
from codeact.packing.balance import sync_efficiency
from codeact.packing.bins import Bins
from codeact.packing.collate import LossNorm, PackedCollator
from codeact.packing.cost import ModelCost
from codeact.packing.dataset import PackedDataset
from codeact.packing.layer_masks import Mask, layer_windows
from codeact.packing.plan import BinPlan, plan_bins
from codeact.packing.report import PackingReport
from codeact.packing.sampler import PackedBatchSampler
from codeact.packing.spans import Spans
from codeact.packing.store import FlatStore, FlatTokens, TokenStore
from codeact.packing.stream import PackedStream
from codeact.packing.trl import to_trl

__all__ = [
    "BinPlan",
    "Bins",
    "FlatStore",
    "FlatTokens",
    "LossNorm",
    "Mask",
    "ModelCost",
    "PackedBatch",
    "PackedBatchSampler",
    "PackedCollator",
    "PackedDataset",
    "PackedStream",
    "PackingReport",
    "Spans",
    "TokenStore",
    "layer_windows",
    "pack_sequences",
    "plan_bins",
    "sync_efficiency",
    "to_trl",
]
