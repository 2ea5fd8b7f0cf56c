"""Does influence in one pass rank rows as training on each of them does, and find what helps?

- ``sgd``, ``adamw``: against the exact change of the validation loss by one optimizer step on each
  row (the published score), weights restored in between; AdamW from a warmed-up state;
- ``bfloat16``: a model in bfloat16 against reverse mode in float32, row by row;
- ``exact``: token values sum to their row's, and the value is linear in the direction, in float32;
- ``planted``: a tenth of the pool are rows like the task's; how many of the top tenth are they, and
  how many if it is shuffled which rows are.

    python benchmarks/bench_influence_fidelity.py --rows 64 --data rows.jsonl \\
        --validation HumanEval.jsonl --validation mbpp.jsonl --planted other_language.jsonl
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence

import numpy as np
from harness import record
from influence_data import Prepared, add_options, choose_rows, load
from influence_rivals import backward_each, mean_gradient
from numpy.typing import NDArray
from scipy.stats import spearmanr

from codeact.cli.allocator import keep_freed_memory
from codeact.data import Examples, harvest_functions, load_examples
from codeact.errors import InputError
from codeact.models import LoadedModel, ScoredSequence, demo_model, load_model
from codeact.scoring import Scorer
from codeact.scoring.influence.adam import AdamState, warm_up
from codeact.scoring.influence.oracle import AdamWStep, SgdStep, one_step_influence
from codeact.scoring.influence.probe import InfluenceProbe
from codeact.scoring.influence.validation import ValidationTask, validation_tasks

CHECKS = ("sgd", "adamw", "bfloat16", "exact", "planted")
NUM_SHUFFLES = 1000


def say(case: str, facts: Mapping[str, object]) -> None:
    """Print and keep what a check found."""
    print(case, flush=True)
    for name, value in facts.items():
        print(
            f"  {name}: {value:.4g}" if isinstance(value, float) else f"  {name}: {value}",
            flush=True,
        )
    record({"script": "bench_influence_fidelity", "case": case, "facts": dict(facts)})


def values(probe: InfluenceProbe, rows: Sequence[ScoredSequence]) -> NDArray[np.float64]:
    """(num_rows, num_tasks) influence."""
    return np.array(
        [row.tangents / row.loss.num_scored for row in probe.rows(rows) if row is not None]
    )


def against_oracle(
    name: str,
    loaded: LoadedModel,
    data: Prepared,
    rates: Sequence[float],
    state: AdamState | None = None,
) -> None:
    """Fast against exact, at each learning rate and for each task."""
    start = time.perf_counter()
    probe = InfluenceProbe(loaded.model, data.tasks, optimizer=state, derivative="forward")
    fast = values(probe, data.pool)
    fast_seconds = time.perf_counter() - start
    tasks = {task.name: task.sequences for task in data.tasks}
    for rate in rates:
        step = SgdStep(rate) if state is None else AdamWStep(rate, state)
        start = time.perf_counter()
        exact = one_step_influence(loaded.model, data.pool, tasks, step)
        facts: dict[str, object] = {"exact, wall seconds": time.perf_counter() - start}
        facts["fast, wall seconds"] = fast_seconds
        for k, task in enumerate(data.tasks):
            facts[f"spearman, {task.name}"] = float(spearmanr(fast[:, k], exact[:, k]).statistic)
            facts[f"largest change of L, {task.name}"] = float(np.ptp(exact[:, k]))
        say(f"{name} at learning rate {rate:g}, {len(data.pool)} rows", facts)


def check_bfloat16(loaded: LoadedModel, stock: LoadedModel, data: Prepared) -> None:
    """A bfloat16 model against float32 reverse mode."""
    directions = [mean_gradient(stock.model, task.sequences) for task in data.tasks]
    exact = backward_each(stock.model, data.pool, directions)
    loaded.model.bfloat16()
    fast = values(InfluenceProbe(loaded.model, data.tasks, derivative="forward"), data.pool)
    loaded.model.float()
    facts: dict[str, object] = {}
    for k, task in enumerate(data.tasks):
        apart = np.abs(fast[:, k] / exact[:, k] - 1)
        facts[f"spearman, {task.name}"] = float(spearmanr(fast[:, k], exact[:, k]).statistic)
        facts[f"median relative error, {task.name}"] = float(np.median(apart))
        facts[f"rms error over rms, {task.name}"] = float(
            np.linalg.norm(fast[:, k] - exact[:, k]) / np.linalg.norm(exact[:, k])
        )
    say(f"bfloat16 against float32 reverse mode, {len(data.pool)} rows", facts)


def check_exact(loaded: LoadedModel, data: Prepared) -> None:
    """Sums of tokens, and the sum of two directions against both apart."""
    rows = data.pool[:16]
    first, second = (
        InfluenceProbe(loaded.model, [task], derivative="forward") for task in data.tasks[:2]
    )
    a, b = (values(probe, rows)[:, 0] for probe in (first, second))
    both = InfluenceProbe(loaded.model, data.tasks[:1], derivative="forward")
    for name, part in both._directions[0].items():
        part.mul_(both._lengths[0]).add_(second._directions[0][name], alpha=second._lengths[0])
    both._lengths[0] = 1.0
    together = values(both, rows)[:, 0]
    tokens = [row.token_tangents for row in first.rows(rows, token_influence=True) if row]
    totals = [row.tangents[0] for row in first.rows(rows) if row]
    sums = [
        abs(t.astype(np.float64).sum() - total) / np.abs(t).sum()
        for t, total in zip(tokens, totals, strict=True)
        if t is not None
    ]
    say(
        f"exact in float32, {len(rows)} rows",
        {
            "sum of token values, largest relative error": float(max(sums)),
            "linear in the direction, largest relative error": float(
                (np.abs(together - a - b) / (np.abs(a) + np.abs(b))).max()
            ),
        },
    )


def check_planted(options: argparse.Namespace, loaded: LoadedModel) -> None:
    """Rows like the task's among others: which come out on top?"""
    if options.planted is None:
        like, others = (harvest_functions((name,)) for name in ("networkx", "sympy"))
    else:
        like, others = load_examples(options.planted), load_examples(options.data)
    num_planted, num_others = options.rows // 10, options.rows - options.rows // 10
    scorer = Scorer(loaded, max_length=options.max_length)

    def scorable(examples: Examples, num_rows: int) -> tuple[ScoredSequence, ...]:
        """So many rows, from twice as many spread over the set: some are longer than may be."""
        named = {"rows": choose_rows(examples, min(2 * num_rows, len(examples)))}
        (found,) = validation_tasks(named, scorer.tokenizer, scorer.preset, scorer.max_length)
        return found.sequences[:num_rows]

    chosen = scorable(like, num_planted + options.problems)
    problems, planted = chosen[: options.problems], chosen[options.problems :]
    pool = [*planted, *scorable(others, num_others)]
    probe = InfluenceProbe(loaded.model, [ValidationTask("like", problems, 0, 0)])
    is_planted = np.arange(len(pool)) < len(planted)
    top = np.argsort(-values(probe, pool)[:, 0])[: len(planted)]
    rng = np.random.default_rng(0)
    shuffled = [rng.permutation(is_planted)[top].mean() for _ in range(NUM_SHUFFLES)]
    say(
        f"planted, {len(planted)} of {len(pool)} rows",
        {
            "precision of the top tenth": float(is_planted[top].mean()),
            "with shuffled labels, mean": float(np.mean(shuffled)),
            "with shuffled labels, 95th percentile": float(np.quantile(shuffled, 0.95)),
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--planted", help="rows like those of the planted task, with --data")
    parser.add_argument("--only", nargs="*", choices=CHECKS, default=CHECKS)
    options = parser.parse_args()
    try:
        path = options.model or demo_model()
    except InputError as error:  # a machine without network
        return print(f"bench_influence_fidelity not run: {error}")
    keep_freed_memory()
    loaded = load_model(path, dtype="float32")
    data = load(options, loaded)
    if "sgd" in options.only:
        against_oracle("sgd", loaded, data, (1e-4,))
    if "adamw" in options.only:
        names = [name for name, _ in loaded.model.named_parameters()]
        state = warm_up(loaded.model, data.pool, names, num_batches=8, batch_tokens=1024)
        against_oracle("adamw", loaded, data, (1e-5,), state)
    if "exact" in options.only:
        check_exact(loaded, data)
    if "planted" in options.only:
        check_planted(options, loaded)
    if "bfloat16" in options.only:
        stock = load_model(path, dtype="float32", attn_implementation="sdpa")
        check_bfloat16(loaded, stock, data)
    return None


if __name__ == "__main__":
    main()
