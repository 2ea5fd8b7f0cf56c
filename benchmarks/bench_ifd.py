"""IFD of real rows by a real model: one flat stream against the loop everybody runs.

Contenders, all in the model's dtype on the same rows, interleaved:

- ``codeact``: :class:`codeact.scoring.Scorer`, both passes packed, answer rows projected only;
- ``loop``: the published way, one row at a time, two passes with all logits;
- ``padded``: the same in padded batches of 8 rows of similar length.

    python benchmarks/bench_ifd.py --rows 48 --rounds 3
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from harness import Case, measure, peak_of_fresh_process, report

from codeact.data import Example, Examples, harvest_functions, load_examples
from codeact.errors import InputError
from codeact.models import LoadedModel, PeakMemory, demo_model, load_model
from codeact.scoring import Scorer, ifd_preset

BATCH_SIZE = 8
# Bands of prompt plus answer tokens: short rows are where a loop wastes most.
BANDS = {"up to 128 tokens": (1, 128), "129 to 512 tokens": (129, 512)}


def encode(loaded: LoadedModel, example: Example) -> tuple[int, list[int], list[int]]:
    """(prompt tokens, conditional ids, direct ids), as the authors' code tokenises."""
    prompt = ifd_preset("codeact").render(example)
    tokenizer = loaded.tokenizer
    return (
        len(tokenizer.encode(prompt)),
        tokenizer.encode(prompt + example.response),
        tokenizer.encode(example.response),
    )


@torch.no_grad()
def loop(loaded: LoadedModel, examples: Sequence[Example]) -> list[float]:
    """One row at a time with ``labels=``: all logits, as in the published code."""
    scores = []
    for example in examples:
        start, joint, direct = encode(loaded, example)
        losses = []
        for ids, first in ((joint, start), (direct, 0)):
            tokens = torch.tensor([ids], device=loaded.model.device)
            labels = tokens.clone()
            labels[0, :first] = -100
            losses.append(loaded.model(input_ids=tokens, labels=labels).loss)
        scores.append(float(torch.exp(losses[0]) / torch.exp(losses[1])))
    return scores


@torch.no_grad()
def padded_means(loaded: LoadedModel, rows: list[tuple[int, list[int]]]) -> list[float]:
    """Mean loss from ``first`` on for each (first, ids), in padded batches of similar length."""
    means = [0.0] * len(rows)
    order = sorted(range(len(rows)), key=lambda row: len(rows[row][1]))
    for begin in range(0, len(order), BATCH_SIZE):
        chosen = order[begin : begin + BATCH_SIZE]
        width = max(len(rows[row][1]) for row in chosen)
        ids = torch.zeros(len(chosen), width, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for line, row in enumerate(chosen):
            first, tokens = rows[row]
            ids[line, : len(tokens)] = torch.tensor(tokens)
            mask[line, : len(tokens)] = 1
            labels[line, first : len(tokens)] = torch.tensor(tokens[first:])
        device = loaded.model.device
        output = loaded.model(ids.to(device), attention_mask=mask.to(device), use_cache=False)
        logits = output.logits[:, :-1]
        targets = labels[:, 1:].to(device)
        nll = F.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none")
        mean = nll.sum(dim=1) / (targets != -100).sum(dim=1)
        for line, row in enumerate(chosen):
            means[row] = float(mean[line])
    return means


def padded(loaded: LoadedModel, examples: Sequence[Example]) -> list[float]:
    """Both passes in padded batches."""
    encoded = [encode(loaded, example) for example in examples]
    cond = padded_means(loaded, [(start, joint) for start, joint, _ in encoded])
    direct = padded_means(loaded, [(1, ids) for _, _, ids in encoded])
    return np.exp(np.array(cond) - np.array(direct)).tolist()


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


def run_band(options: argparse.Namespace, band: str, ours: LoadedModel, stock: LoadedModel) -> None:
    """Compare the contenders on the rows of one band."""
    scorer = Scorer(ours, token_budget=options.token_budget)
    examples = choose_rows(ours, options.data, *BANDS[band], options.rows)
    encoded = [encode(ours, example) for example in examples]
    case = Case(
        name=band,
        contenders={
            "codeact": lambda: scorer.ifd(examples),
            "loop": lambda: loop(stock, examples),
            "padded": lambda: padded(stock, examples),
        },
        amounts={"rows": len(examples), "tokens": sum(len(c) + len(d) for _, c, d in encoded)},
    )
    error = np.abs(scorer.ifd(examples)["ifd_ppl"].to_numpy() - loop(stock, examples)).max()
    measured = measure(
        case, rounds=options.rounds, peak_mib=lambda name: peak_alone(options, band, name)
    )
    print(report(case, measured, "bench_ifd"))
    print(f"  largest difference of an IFD from the loop's: {error:.1e}\n", flush=True)


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
    parser.add_argument("--alone", help=argparse.SUPPRESS)  # one contender, for its peak memory
    options = parser.parse_args()
    if options.alone:
        return run_alone(options)
    try:
        path = options.model or demo_model()
    except InputError as error:  # a machine without network
        return print(f"bench_ifd not run: {error}")
    ours = load_model(path, dtype=options.dtype)
    stock = load_model(path, dtype=options.dtype, attn_implementation="sdpa")
    for band in [options.band] if options.band else BANDS:
        run_band(options, band, ours, stock)
    return None


if __name__ == "__main__":
    main()
