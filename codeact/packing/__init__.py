"""Dynamic Pack: bin plans, packed batches, samplers and collators."""

from codeact.ops.varlen import PackedBatch, pack_sequences
from codeact.packing.collate import PackedBatchSampler, PackedCollator, PackedDataset
from codeact.packing.plan import BinPlan, PackingReport, plan_bins

__all__ = [
    "BinPlan",
    "PackedBatch",
    "PackedBatchSampler",
    "PackedCollator",
    "PackedDataset",
    "PackingReport",
    "pack_sequences",
    "plan_bins",
]
