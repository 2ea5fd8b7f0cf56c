"""Influence at models of real shapes with random weights: any GPU can run it offline."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from harness import record, time_call
from ifd_shapes import SHAPES, random_model, random_rows
from influence_rivals import backward_each, mean_gradient
from scipy.stats import spearmanr

from codeact.models import stream_losses
from codeact.scoring.influence.probe import InfluenceProbe
from codeact.scoring.influence.validation import ValidationTask

# Rows of the packed contenders, and of those that take them one by one.
NUM_ROWS = {"Qwen2.5-0.5B": 2_000, "Qwen2.5-1.5B": 1_000}
FEW_ROWS, NUM_PROBLEMS = 40, 32


def run_shape(name: str, device: torch.device) -> None:
    """Rows a second of each way, their ratio to a plain pass, memory, and agreement."""
    model = random_model(SHAPES[name][0], device)
    # Every other sequence is an answer alone, which influence has no use for.
    sequences = random_rows(NUM_ROWS[name] + NUM_PROBLEMS, model.config.vocab_size)[::2]
    rows, problems = sequences[NUM_PROBLEMS:], tuple(sequences[:NUM_PROBLEMS])
    task = ValidationTask("random", problems, 0, 0)
    few = rows[:FEW_ROWS]
    forward = InfluenceProbe(model, [task], derivative="forward")
    ways: dict[str, tuple[Callable[[list], object], list]] = {
        "plain pass": (lambda some: [len(pack) for pack in stream_losses(model, [some])], rows),
        "forward": (forward.rows, rows),
        "ghost": (InfluenceProbe(model, [task], derivative="ghost").rows, rows),
        "last 4 layers": (
            InfluenceProbe(model, [task], derivative="forward", parameters="last:4").rows, rows
        ),
    }  # fmt: skip
    direction = mean_gradient(model, problems)
    ways["backward each"] = (lambda some: backward_each(model, some, [direction]), few)
    rates, facts = {}, {}
    for way, (call, some) in ways.items():
        call(few)  # kernels are compiled and chosen
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        rates[way] = len(some) / time_call(lambda c=call, s=some: c(s))[1]
        facts[f"{way}: rows a second"] = rates[way]
        facts[f"{way}: extra MiB"] = (torch.cuda.max_memory_allocated() - before) / 2**20
    facts["forward / plain pass"] = rates["plain pass"] / rates["forward"]
    facts["ghost / plain pass"] = rates["plain pass"] / rates["ghost"]
    facts["forward over backward each"] = rates["forward"] / rates["backward each"]
    model.float()
    exact = backward_each(model, few, [mean_gradient(model, problems)])[:, 0]
    found = np.array(
        [row.tangents[0] / row.loss.num_scored for row in forward_values(model, task, few)]
    )
    facts["bfloat16 against float32 reverse mode, spearman"] = spearmanr(found, exact).statistic
    facts["the same, median relative error"] = float(np.median(np.abs(found / exact - 1)))
    print(f"{name} with random weights, {len(rows)} rows")
    for key, value in facts.items():
        print(f"  {key}: {value:.4g}")
    print(flush=True)
    record({"script": "bench_influence", "case": f"{name}, {len(rows)} rows", "facts": facts})


def forward_values(model: torch.nn.Module, task: ValidationTask, rows: list) -> list:
    """Of the bfloat16 model, which came to float32 exactly."""
    model.bfloat16()
    return InfluenceProbe(model, [task], derivative="forward").rows(rows)


def run_shapes() -> None:
    """Every shape that fits the GPU."""
    for name in NUM_ROWS:
        try:
            run_shape(name, torch.device("cuda"))
        except torch.OutOfMemoryError:
            print(f"{name} does not fit: left out")
        torch.cuda.empty_cache()
