"""Influence of real rows on real tasks: one packed pass against a backward pass for each row.

Contenders, in float32 on a CPU, on the same rows and one validation task, interleaved; the
validation gradient is made before the clock starts, for all alike:

- ``forward``: :class:`codeact.scoring.influence.probe.InfluenceProbe`, dual numbers, exact;
- ``ghost``: one backward pass to the activations for the whole pack, exact;
- ``difference``: two plain passes with moved weights;
- ``last 4 layers``, ``LoRA alone`` (of rank 16 on every projection, where peft is installed):
  ``forward`` with a direction in these alone;
- ``backward each``: the usual code, ``loss.backward()`` a row and a product with each gradient;
- ``plain pass``: the losses alone, what a scoring pass costs.

``2 tasks`` and ``3 tasks`` have as many directions. On a GPU models of real shapes with random
weights score random rows: see ``influence_shapes.py``.

    python benchmarks/bench_influence.py --rows 24 --rounds 2
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import numpy as np
import torch
from harness import Case, measure, peak_of_fresh_process, record, report
from influence_data import add_options, load
from influence_rivals import backward_each, mean_gradient
from influence_shapes import run_shapes
from numpy.typing import NDArray
from scipy.stats import spearmanr
from transformers import PreTrainedModel

from codeact.cli.allocator import keep_freed_memory
from codeact.errors import InputError
from codeact.models import (
    LoadedModel,
    PeakMemory,
    ScoredSequence,
    demo_model,
    load_model,
    stream_losses,
)
from codeact.scoring.influence.probe import InfluenceProbe
from codeact.scoring.influence.validation import ValidationTask

BANDS = {"up to 128 tokens": (1, 128), "129 to 512 tokens": (129, 512), "all lengths": (1, 10**6)}
TASKS = {"2 tasks": 2, "3 tasks": 3}


def values(probe: InfluenceProbe, rows: Sequence[ScoredSequence]) -> NDArray[np.float64]:
    """(num_rows, num_tasks) influence."""
    found = probe.rows(rows)
    return np.array([row.tangents / row.loss.num_scored for row in found if row is not None])


def plain_pass(loaded: LoadedModel, rows: Sequence[ScoredSequence]) -> None:
    """The losses of all rows."""
    for _ in stream_losses(loaded.model, [rows]):
        pass


def run_band(
    options: argparse.Namespace,
    band: str,
    loaded: LoadedModel,
    stock: LoadedModel,
    rows: list[ScoredSequence],
    task: ValidationTask,
) -> None:
    """Compare the contenders on rows of one band of lengths."""
    low, high = BANDS[band]
    chosen = [row for row in rows if low <= len(row.input_ids) <= high]
    ways = ("forward", "ghost", "difference")
    probes = {way: InfluenceProbe(loaded.model, [task], derivative=way) for way in ways}
    alone = {"last 4 layers": forward_in(loaded.model, task, "last:4")}
    if (adapted := with_lora(options)) is not None:
        alone["LoRA alone"] = forward_in(adapted, task, "lora")
    direction = mean_gradient(stock.model, task.sequences)
    contenders: dict[str, Callable[[], object]] = {
        "plain pass": lambda: plain_pass(loaded, chosen),
        **{way: lambda p=probe: values(p, chosen) for way, probe in probes.items()},
        **{way: lambda p=probe: values(p, chosen) for way, probe in alone.items()},
        "backward each": lambda: backward_each(stock.model, chosen, [direction]),
    }
    truth = backward_each(stock.model, chosen, [direction])[:, 0]
    facts = {way: agreement(values(probe, chosen)[:, 0], truth) for way, probe in probes.items()}
    tokens = sum(len(row.input_ids) for row in chosen)
    case = Case(f"influence, {band}", contenders, {"rows": len(chosen), "tokens": tokens}, facts)
    print(report(case, measure(case, rounds=options.rounds), "bench_influence"), flush=True)


def forward_in(model: PreTrainedModel, task: ValidationTask, parameters: str) -> InfluenceProbe:
    """A probe whose direction moves some parameters alone."""
    return InfluenceProbe(model, [task], derivative="forward", parameters=parameters)


def with_lora(options: argparse.Namespace) -> PreTrainedModel | None:
    """The model with an adapter of random weights; None without peft."""
    if find_spec("peft") is None:
        return None
    from peft import LoraConfig, get_peft_model

    model = load_model(options.model or demo_model(), dtype="float32").model
    config = LoraConfig(r=16, target_modules="all-linear", init_lora_weights=False)
    base: PreTrainedModel = get_peft_model(model, config).get_base_model().eval()
    return base


def extra_memory(options: argparse.Namespace, way: str) -> float:
    """MiB that one way takes at most, beyond model, direction and libraries, in a fresh process."""
    arguments = [f"--rows={options.rows}", f"--problems={options.problems}", f"--alone={way}"]
    arguments += [f"--model={options.model}"] if options.model else []
    arguments += [f"--data={options.data}"] if options.data else []
    arguments += [f"--validation={place}" for place in options.validation or ()]
    return peak_of_fresh_process(__file__, arguments)


def run_alone(options: argparse.Namespace) -> None:
    """Print what a way adds to what lies in memory before it begins."""
    loaded = load_model(options.model or demo_model(), dtype="float32")
    rows, tasks = load(options, loaded)
    derivative = "forward" if options.alone == "plain pass" else options.alone
    probe = InfluenceProbe(loaded.model, tasks[:1], derivative=derivative)
    with PeakMemory() as before:
        pass
    with PeakMemory() as during:
        if options.alone == "plain pass":
            plain_pass(loaded, rows)
        else:
            probe.rows(rows)
    print(during.mib - before.mib)


def run_memory(options: argparse.Namespace) -> None:
    """Peaks of the ways, one process each."""
    for way in ("plain pass", "forward", "ghost", "difference"):
        extra = extra_memory(options, way)
        print(f"  {way}: {extra:.0f} MiB beyond model and direction", flush=True)
        record(
            {"script": "bench_influence", "case": "memory", "contender": way, "extra_mib": extra}
        )


def agreement(found: NDArray[np.float64], truth: NDArray[np.float64]) -> dict[str, str]:
    """Rank correlation with the usual code, and the median relative difference from it."""
    apart = np.median(np.abs(found - truth) / np.abs(truth))
    return {"spearman": f"{spearmanr(found, truth).statistic:.4f}", "apart": f"{apart:.1e}"}


def run_tasks(
    options: argparse.Namespace,
    loaded: LoadedModel,
    stock: LoadedModel,
    rows: list[ScoredSequence],
    tasks: Sequence[ValidationTask],
    num_tasks: int,
) -> None:
    """Several directions at once; those of the tasks are repeated if there are fewer."""
    several = [tasks[k % len(tasks)] for k in range(num_tasks)]
    probes = {
        way: InfluenceProbe(loaded.model, several, derivative=way) for way in ("forward", "ghost")
    }
    directions = [mean_gradient(stock.model, task.sequences) for task in several]
    contenders: dict[str, Callable[[], object]] = {
        "plain pass": lambda: plain_pass(loaded, rows),
        **{way: lambda p=probe: values(p, rows) for way, probe in probes.items()},
        "backward each": lambda: backward_each(stock.model, rows, directions),
    }
    case = Case(f"influence, {len(several)} tasks", contenders, {"rows": len(rows)})
    print(report(case, measure(case, rounds=options.rounds), "bench_influence"), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--band", choices=[*BANDS, *TASKS], action="append")
    parser.add_argument("--memory", action="store_true", help="peaks of the ways instead of times")
    parser.add_argument("--alone", help=argparse.SUPPRESS)  # one way, for its peak memory
    options = parser.parse_args()
    if options.alone:
        return run_alone(options)
    if options.memory:
        return run_memory(options)
    if torch.cuda.is_available() and options.model is None:
        return run_shapes()
    try:
        path = options.model or demo_model()
    except InputError as error:  # a machine without network
        return print(f"bench_influence not run: {error}")
    keep_freed_memory()  # a gradient a row is half a gigabyte of new pages otherwise
    loaded = load_model(path, dtype="float32")
    stock = load_model(path, dtype="float32", attn_implementation="sdpa")
    rows, tasks = load(options, loaded)
    for band in options.band or [*BANDS, *TASKS]:
        if band in TASKS:
            run_tasks(options, loaded, stock, rows, tasks, TASKS[band])
        else:
            run_band(options, band, loaded, stock, rows, tasks[0])
    return None


if __name__ == "__main__":
    main()
