"""What a training step waits for: the collator, the block mask, the gather on a GPU."""

from __future__ import annotations

import argparse
import importlib
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Case, measure, report
from lengths import code4k
from numpy.typing import NDArray
from rivals import missing

from codeact.ops import DeviceTokens, block_mask
from codeact.packing import FlatTokens, PackedCollator, PackedDataset, plan_bins

CAPACITY = 32768
VOCABULARY = 32000
# A dense evaluation of the mask takes about this many bytes for each pair of positions.
DENSE_BYTES, DENSE_LIMIT = 12, 3 * 2**30


def random_store(num_examples: int) -> FlatTokens:
    """A flat store of random ids, the first quarter of each sequence without a loss."""
    rng = np.random.default_rng(0)
    seqlens = code4k(num_examples).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(seqlens)])
    input_ids = rng.integers(0, VOCABULARY, offsets[-1], dtype=np.int32)
    position = np.arange(offsets[-1]) - np.repeat(offsets[:-1], seqlens)
    is_prompt = position < np.repeat(seqlens // 4, seqlens)
    labels = np.where(is_prompt, -100, input_ids).astype(np.int32)
    return FlatTokens(input_ids, labels, offsets)


def arrow_table(store: FlatTokens) -> Any:
    """The store as a pyarrow table of two list columns, as ``datasets`` keeps it."""
    import pyarrow as pa

    offsets = pa.array(np.asarray(store.offsets, dtype=np.int32))
    columns = {
        name: pa.ListArray.from_arrays(offsets, pa.array(np.asarray(getattr(store, name))))
        for name in ("input_ids", "labels")
    }
    return pa.table(columns)


def typical_bin(store: FlatTokens) -> NDArray[np.integer[Any]]:
    """The examples of the bin that holds most nearly as many as bins do on average.

    Best fit decreasing puts long sequences together and short ones together, so that a bin taken
    blindly may hold eight or eighty.
    """
    bins = plan_bins(store.seqlens, CAPACITY).epoch(0)
    counts = np.array([len(bins[index]) for index in range(len(bins))])
    return np.asarray(bins[int(np.abs(counts - counts.mean()).argmin())])


def collation(options: argparse.Namespace) -> None:
    """One batch of up to 32,768 tokens, from the store's memory to the model's tensors."""
    store = random_store(300 if options.quick else 4000)
    chosen = typical_bin(store)
    table = arrow_table(store)
    with tempfile.TemporaryDirectory() as folder:
        store.save(Path(folder) / "tokens")
        ours = {
            "ours, numpy": store,
            "ours, memory-mapped": FlatTokens.open(Path(folder) / "tokens"),
            "ours, Arrow": FlatTokens.from_arrow(table),
        }
        calls = {name: our_batch(kept, chosen) for name, kept in ours.items()}
        calls |= rival_batches(store, table, chosen)
        case = Case(
            name="collate a bin",
            contenders=calls,
            amounts={"tokens": int(store.seqlens[chosen].sum()), "sequences": len(chosen)},
        )
        measured = measure(case, rounds=options.rounds, at_least=options.at_least)
        ids = [np.asarray(call()["input_ids"]) for call in calls.values()]
    print(report(case, measured, "bench_packing"))
    equal = all(np.array_equal(ids[0], other) for other in ids)
    print(f"  all have the same input_ids: {'yes' if equal else 'NO'}", flush=True)


def our_batch(store: FlatTokens, chosen: NDArray[np.integer[Any]]) -> Callable[[], Any]:
    """What a DataLoader does for a bin: fetch its examples, collate them."""
    dataset, collator = PackedDataset(store), PackedCollator()
    indices = chosen.tolist()
    return lambda: collator(dataset.__getitems__(indices))


def rival_batches(
    store: FlatTokens, table: Any, chosen: NDArray[np.integer[Any]]
) -> dict[str, Callable[[], Any]]:
    """The two collators in use, on rows fetched before; and the fetch that comes with them."""
    from transformers import DataCollatorWithFlattening

    rows = [{"input_ids": store[i].input_ids, "labels": store[i].labels} for i in chosen]
    lists = [{name: ids.tolist() for name, ids in row.items()} for row in rows]
    flatten = DataCollatorWithFlattening(return_flash_attn_kwargs=True, return_seq_idx=True)
    calls: dict[str, Callable[[], Any]] = {"HF flattening": lambda: flatten(lists)}
    if missing("trl"):
        print("trl is not installed: its collator is skipped")
    else:
        module = importlib.import_module("trl.trainer.sft_trainer")
        trl = module.DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
        calls["TRL, lists"] = lambda: trl(lists)
        calls["TRL, numpy rows"] = lambda: trl(rows)
    if not missing("datasets"):
        import datasets

        data = datasets.Dataset(table)
        calls["HF, rows fetched too"] = lambda: flatten(data.__getitems__(chosen.tolist()))
    return calls


def masks(options: argparse.Namespace) -> None:
    """The block mask of a bin for FlexAttention: from cu_seqlens, and by evaluating the rule."""
    from torch.nn.attention.flex_attention import create_block_mask

    device = "cuda" if torch.cuda.is_available() else "cpu"
    for num_tokens in (1024, 4096) if options.quick else (4096, 8192, 16384, 32768, 131072):
        seqlens = filled_bin(num_tokens)
        boundaries = torch.from_numpy(np.concatenate([[0], np.cumsum(seqlens)]).astype(np.int32))
        calls: dict[str, Callable[[], Any]] = {
            "ours": partial(block_mask, boundaries, device=device)
        }
        if num_tokens**2 * DENSE_BYTES <= DENSE_LIMIT:
            rule, shape = packed_rule(boundaries.to(device)), (None, None, num_tokens, num_tokens)
            calls["create_block_mask"] = partial(create_block_mask, rule, *shape, device=device)
        else:
            print(f"create_block_mask at {num_tokens} tokens left out: it needs several GiB")
        blocks = {name: call().to_dense() for name, call in calls.items()}
        case = Case(
            "block mask",
            calls,
            {"tokens": num_tokens, "sequences": len(seqlens)},
            {name: {"blocks": int(dense.sum())} for name, dense in blocks.items()},
        )
        measured = measure(case, rounds=options.rounds, at_least=options.at_least)
        print(report(case, measured, "bench_packing"))
        if len(blocks) > 1:
            equal = torch.equal(*blocks.values())
            print(f"  both hold the same blocks: {'yes' if equal else 'NO'}", flush=True)


def filled_bin(num_tokens: int) -> NDArray[np.int64]:
    """Lengths of code4k that fill ``num_tokens`` exactly, the last one cut."""
    seqlens = code4k(num_tokens // 16 + 1).astype(np.int64)
    ends = np.cumsum(seqlens)
    count = int(np.searchsorted(ends, num_tokens)) + 1
    seqlens = seqlens[:count]
    seqlens[-1] -= ends[count - 1] - num_tokens
    return seqlens


def packed_rule(cu_seqlens: torch.Tensor) -> Callable[..., torch.Tensor]:
    """The rule as users write it: same sequence, and not in the future."""
    seqlens = cu_seqlens.diff().long()
    sequence = torch.repeat_interleave(torch.arange(len(seqlens), device=seqlens.device), seqlens)
    return lambda b, h, q, kv: (sequence[q] == sequence[kv]) & (q >= kv)


def gather(options: argparse.Namespace) -> None:
    """A whole batch gathered on the GPU, against collating on the CPU and copying it there."""
    if not torch.cuda.is_available():
        return print("gather on a device skipped: no GPU")
    store = random_store(300 if options.quick else 4000)
    chosen = typical_bin(store)
    resident = DeviceTokens(store, device="cuda")
    dataset, collator = PackedDataset(store), PackedCollator(pin_memory=True)
    indices = chosen.tolist()
    case = Case(
        name="a bin on the GPU",
        contenders={
            "DeviceTokens.gather": lambda: resident.gather(chosen),
            "the same in PyTorch": lambda: resident.gather(chosen, backend="reference"),
            "collate, pin, copy": lambda: to_gpu(collator(dataset.__getitems__(indices))),
        },
        amounts={"tokens": int(store.seqlens[chosen].sum()), "sequences": len(chosen)},
    )
    measured = measure(case, rounds=options.rounds, at_least=options.at_least)
    print(report(case, measured, "bench_packing"))
    collated = collator(dataset.__getitems__(indices))["input_ids"][0]
    equal = torch.equal(resident.gather(chosen).input_ids.cpu(), collated)
    return print(f"  all have the same input_ids: {'yes' if equal else 'NO'}", flush=True)


def to_gpu(batch: dict[str, Any]) -> dict[str, Any]:
    """The tensors of a batch on the GPU."""
    return {
        name: value.to("cuda", non_blocking=True) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }
