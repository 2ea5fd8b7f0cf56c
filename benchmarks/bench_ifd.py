"""IFD of real rows by a real model: one flat stream against the loop everybody runs.

Contenders, all in the model's dtype on the same rows, interleaved:

- ``codeact``: :class:`codeact.scoring.Scorer`, both passes packed, answer rows projected only;
- ``loop``: the published way, one row at a time, two passes with all logits;
- ``padded``: the same in padded batches of 8 rows of similar length;
- ``wana``: another scorer, quantised arithmetic on llama.cpp; where it is installed, or in the
  environment whose interpreter ``--wana`` names.

On a GPU, models of real shapes with random weights score random rows: see ``ifd_shapes.py``.

    python benchmarks/bench_ifd.py --rows 48 --rounds 3
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from harness import Case, measure, peak_of_fresh_process, report
from ifd_rivals import Wana, encode, loop, padded, python_with_wana
from ifd_shapes import run_shapes
from roofline import product_rate, scoring_flops

from codeact.data import Examples, harvest_functions, load_examples
from codeact.errors import InputError
from codeact.models import LoadedModel, PeakMemory, demo_model, load_model
from codeact.scoring import Scorer

# Bands of prompt plus answer tokens: short rows are where a loop wastes most.
BANDS = {"up to 128 tokens": (1, 128), "129 to 512 tokens": (129, 512)}


def choose_rows(
    loaded: LoadedModel, data: str | None, low: int, high: int, num_rows: int
) -> Examples:
    """The first ``num_rows`` rows of that many tokens: harvested ones come shuffled."""
    examples = harvest_functions() if data is None else load_examples(data)
    chosen = []
    for index, example in enumerate(examples):
        if example.response and low <= len(encode(loaded, example)[1]) <= high:
            chosen.append(index)
        if len(chosen) == num_rows:
            break
    return examples.select(chosen)


def peak_alone(options: argparse.Namespace, band: str, contender: str) -> float:
    """Peak memory in MiB, model and libraries included, of a contender in a process of its own."""
    arguments = [
        f"--{name.replace('_', '-')}={value}" for name, value in vars(options).items() if value
    ]
    return peak_of_fresh_process(__file__, [*arguments, f"--band={band}", f"--alone={contender}"])


def run_alone(options: argparse.Namespace) -> None:
    """Load only what one contender needs, run it, print the peak."""
    attention = "codeact" if options.alone == "codeact" else "sdpa"
    with PeakMemory() as memory:
        loaded = load_model(
            options.model or demo_model(), dtype=options.dtype, attn_implementation=attention
        )
        examples = choose_rows(loaded, options.data, *BANDS[options.band], options.rows)
        if options.alone == "codeact":
            Scorer(loaded, token_budget=options.token_budget).ifd(examples)
        else:
            {"loop": loop, "padded": padded}[options.alone](loaded, examples)
    print(memory.mib)


def run_band(
    options: argparse.Namespace,
    band: str,
    ours: LoadedModel,
    stock: LoadedModel,
    wana: Wana | None,
) -> None:
    """Compare the contenders on the rows of one band."""
    scorer = Scorer(ours, token_budget=options.token_budget)
    examples = choose_rows(ours, options.data, *BANDS[band], options.rows)
    encoded = [encode(ours, example) for example in examples]
    contenders: dict[str, Callable[[], object]] = {
        "codeact": lambda: scorer.ifd(examples),
        "loop": lambda: loop(stock, examples),
        "padded": lambda: padded(stock, examples),
    }
    if wana is not None:
        contenders["wana"] = lambda: wana(examples)
    seqlens = [len(ids) for _, joint, direct in encoded for ids in (joint, direct)]
    case = Case(band, contenders, {"rows": len(examples), "tokens": sum(seqlens)})
    error = np.abs(scorer.ifd(examples)["ifd_ppl"].to_numpy() - loop(stock, examples)).max()

    def peak(name: str) -> float:
        return 0.0 if name == "wana" else peak_alone(options, band, name)

    measured = measure(case, rounds=options.rounds, peak_mib=peak)
    print(report(case, measured, "bench_ifd"))
    num_scored = sum(len(joint) - start + len(direct) - 1 for start, joint, direct in encoded)
    flops = scoring_flops(ours.model.config, seqlens, num_scored)
    rate = flops / min(measured["codeact"].cpu_seconds)
    ceiling = product_rate(ours.model.device, ours.model.dtype)
    print(
        f"  codeact: {rate / 1e9:.1f} GFLOP/s a core, {rate / ceiling:.0%} of a bare product's "
        f"{ceiling / 1e9:.1f}\n  largest difference of an IFD from the loop's: {error:.1e}\n",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="folder or hub id; SmolLM2-135M-Instruct by default")
    parser.add_argument(
        "--data", help="instruction data; functions of installed packages by default"
    )
    parser.add_argument("--rows", type=int, default=24, help="rows a band")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--token-budget", type=int)
    parser.add_argument("--band", choices=BANDS, help="only this band of lengths")
    parser.add_argument("--wana", metavar="PYTHON", help="interpreter of an environment with wana")
    parser.add_argument("--alone", help=argparse.SUPPRESS)  # one contender, for its peak memory
    options = parser.parse_args()
    if options.alone:
        return run_alone(options)
    if torch.cuda.is_available() and options.model is None:
        return run_shapes()
    try:
        path = options.model or demo_model()
    except InputError as error:  # a machine without network
        return print(f"bench_ifd not run: {error}")
    ours = load_model(path, dtype=options.dtype)
    stock = load_model(path, dtype=options.dtype, attn_implementation="sdpa")
    python = python_with_wana(options.wana)
    if python is None:
        print("wana is not installed: left out (--wana names the Python of an environment with it)")
    wana = None if python is None else Wana(python)
    for band in [options.band] if options.band else BANDS:
        run_band(options, band, ours, stock, wana)
    if wana is not None:
        wana.close()
    return None


if __name__ == "__main__":
    main()
