"""What padding costs on your data: rate, steps, speed and memory of five ways to make batches.

    python benchmarks/bench_padding.py                       # real rows, SmolLM2-135M
    python benchmarks/bench_padding.py data.jsonl --model MODEL --capacity 2048 --batch-size 8
    python benchmarks/bench_padding.py --model 6.7b          # random weights; the default on a GPU

Padding and steps are those of an epoch over all rows; speed is that of a sample which pads alike,
forward and backward (with AdamW on a GPU), the ways in turn; memory is that of an epoch's heaviest
step. Leaves ``results/padding-<device>.json`` and, with matplotlib, the picture as PNG and SVG.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from harness import (
    NO_RECORD,
    RESULTS,
    device_slug,
    peak_of_fresh_process,
    provenance,
    record,
)
from padding import WAYS, Layout, Step, representative, totals
from padding_models import Source, build_model, choose_model, choose_rows
from padding_result import Steps, describe, summary, table
from padding_run import Runner, Tokens, median_of_rounds, peak_mib, runners, time_in_turn

from codeact.cli.allocator import keep_freed_memory


def make_steps(layout: Layout, names: Sequence[str]) -> Steps:
    """An epoch's steps of each way."""
    return {name: WAYS[name](layout) for name in names}


def peaks_apart(
    options: argparse.Namespace,
    source: Source,
    ways: dict[str, Runner],
    store: Tokens,
    epoch: Steps,
) -> dict[str, float | None]:
    """Peak MiB of each way's heaviest step, in a process of its own: a CPU's memory is shared."""
    peaks: dict[str, float | None] = {}
    model = source.path or source.shape
    with tempfile.TemporaryDirectory() as folder:
        for name, runner in ways.items():
            batch = Path(folder) / "batch.pt"
            torch.save(runner.batch(store, totals(epoch[name]).largest), batch)
            arguments = [f"--model={model}", f"--alone={name}", f"--batch={batch}"]
            arguments += ["--same-loss"] if options.same_loss else []
            arguments += (
                [f"--trl-attention={options.trl_attention}"] if options.trl_attention else []
            )
            peaks[name] = peak_of_fresh_process(__file__, arguments)
            print(f"memory of {name} measured", file=sys.stderr)
    return peaks


def run_alone(options: argparse.Namespace) -> None:
    """One step of one way in this process; prints its peak in MiB."""
    batch = torch.load(options.batch, weights_only=True)
    source = choose_model(options.model, quick=False)
    ways = runners(
        torch.device("cpu"), same_loss=options.same_loss, trl_attention=options.trl_attention
    )
    model, _ = build_model(source, Step([], 0, 0), torch.device("cpu"))
    print(peak_mib(model, ways[options.alone], batch))


def peaks_here(
    model: Any, ways: dict[str, Runner], store: Tokens, epoch: Steps, optimizer: Any
) -> dict[str, float | None]:
    """Peak MiB on a GPU, whose allocator counts what is in use and forgets what was.

    The optimizer's state comes first, and this also warms every way's kernels up. (``--quick``
    does it on a CPU as well, where the figures then mean little.)
    """
    ours = ways["Dynamic Pack"]
    smallest = min(epoch["Dynamic Pack"], key=lambda step: step.num_slots)
    peak_mib(model, ours, ours.batch(store, smallest), optimizer)
    return {
        name: peak_mib(model, runner, runner.batch(store, totals(epoch[name]).largest), optimizer)
        for name, runner in ways.items()
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything; the result is what the picture is drawn from."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    source = choose_model(options.model, quick=options.quick)
    store, words = choose_rows(
        options.data, source, capacity=options.capacity, max_rows=options.rows, quick=options.quick
    )
    seqlens = (store.offsets[1:] - store.offsets[:-1]).astype("int32")
    layout = Layout.of(seqlens, options.batch_size, options.capacity)
    ways = runners(device, same_loss=options.same_loss, trl_attention=options.trl_attention)
    epoch = make_steps(layout, list(ways))
    chosen = representative(layout, min(options.examples, len(seqlens)))
    sample = in_store(make_steps(layout.select(chosen), list(ways)), chosen)
    heaviest = max((totals(steps).largest for steps in epoch.values()), key=lambda s: s.num_slots)
    alone = device.type == "cpu" and not options.quick
    peaks = peaks_apart(options, source, ways, store, epoch) if alone else {}
    model, note = build_model(source, heaviest, device)
    optimizer = None
    if device.type == "cuda":
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    if alone:
        warm_up(model, ways, store, sample)
    else:
        peaks = peaks_here(model, ways, store, epoch, optimizer)
    print(f"timing {len(chosen)} examples in {len(ways)} ways", file=sys.stderr)
    fitting = {name: way for name, way in ways.items() if peaks[name] is not None}
    taken = median_of_rounds(
        [time_in_turn(model, fitting, sample, store, optimizer) for _ in range(options.rounds)]
    )
    about = describe(options, layout, words, source, note, model, epoch, len(seqlens))
    return {
        "about": about,
        "capacity": options.capacity,
        "budget": layout.budget,
        "num_sampled": len(chosen),
        "ways": [
            summary(name, epoch[name], sample[name], seqlens, taken.get(name), peaks[name])
            for name in ways
        ],
        "attention": {name: way.attention for name, way in ways.items()},
        **provenance(),
    }


def in_store(sample: Steps, chosen: Any) -> Steps:
    """Steps over a sample, their indices those of the store again."""
    return {
        name: [step._replace(rows=[chosen[row] for row in step.rows]) for step in steps]
        for name, steps in sample.items()
    }


def warm_up(model: Any, ways: dict[str, Runner], store: Tokens, sample: Steps) -> None:
    """A small step of every way, which does not count."""
    for name, runner in ways.items():
        first = sample[name][0]
        row = first.rows[0][:1]
        seqlen = int(store.offsets[row[0] + 1] - store.offsets[row[0]])
        small = Step([row], seqlen if first.width else 0, seqlen)
        peak_mib(model, runner, runner.batch(store, small))


def save(result: dict[str, Any], folder: Path) -> None:
    """The result as JSON, its figures as lines of the device's file, and the picture."""
    from padding_picture import draw

    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"padding-{device_slug()}"
    stem.with_suffix(".json").write_text(json.dumps(result) + "\n")
    for way in result["ways"]:
        figures = {key: value for key, value in way.items() if key != "sample"}
        record({"script": "bench_padding", "case": result["about"], **figures}, folder)
    try:
        paths = draw(result, stem)
    except ImportError:
        print(
            f"matplotlib is not installed: python benchmarks/padding_picture.py {stem}.json draws"
        )
    else:
        print("picture:", *paths)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", help="file, folder or Hugging Face id; or .npy lengths")
    parser.add_argument("--model", help="folder, Hugging Face id, or a random 6.7b, 135m or tiny")
    parser.add_argument("--capacity", type=int, default=2048 if on_gpu else 512)
    parser.add_argument("--batch-size", type=int, default=8 if on_gpu else 4)
    parser.add_argument("--examples", type=int, help="examples of the sample that is timed")
    parser.add_argument("--rounds", type=int, default=1, help="times the sample is run")
    parser.add_argument("--rows", type=int, default=4000, help="rows of an epoch, at most")
    parser.add_argument(
        "--same-loss", action="store_true", help="project scored positions only, in every way"
    )
    parser.add_argument("--trl-attention", help="for TRL's rows: sdpa, codeact, ...")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where results go")
    parser.add_argument("--quick", action="store_true", help="a tiny model, random rows")
    parser.add_argument("--no-record", action="store_true", help="write no result and no picture")
    parser.add_argument("--alone", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--batch", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    # SmolLM2 on two cores takes almost 5 minutes for 6 examples in all ways.
    options.examples = options.examples or (6 * options.batch_size if on_gpu else 6)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    # Large tensors of ever other sizes: without these, memory is given back and fetched again.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    keep_freed_memory()
    options = parse(arguments)
    if options.alone:
        return run_alone(options)
    if options.no_record:
        os.environ[NO_RECORD] = "1"
    result = run(options)
    print(table(result), flush=True)
    if not options.no_record:
        save(result, options.output)
    return None


if __name__ == "__main__":
    main()
