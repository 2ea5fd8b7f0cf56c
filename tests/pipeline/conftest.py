"""A run folder as a real run leaves it, made from a seed: shapes and sizes of the real thing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from codeact.data import load_examples
from codeact.files import write_json, write_jsonl, write_npy, write_parquet, write_text
from codeact.pipeline.recipe import Recipe
from codeact.pipeline.rows import write_examples
from codeact.pipeline.run_folder import RunFolder

_HERE = Path(__file__).parent
sys.path[:0] = [str(_HERE), str(_HERE.parent / "efficiency")]  # helpers beside the tests

NUM_CLUSTERS = 6
BUDGET = 0.4
CAPACITY = 1024


class Rows(NamedTuple):
    """What a run starts from: texts, answer lengths and IFD (NaN where a row failed)."""

    ids: list[str]
    instructions: list[str]
    responses: list[str]
    num_tokens: np.ndarray
    ifd: np.ndarray
    status: list[str]


def synthetic_rows(num_rows: int, seed: int) -> Rows:
    """Log-normal lengths, IFD that grows with length, two rows above 1 and three failed ones."""
    rng = np.random.default_rng(seed)
    num_tokens = np.clip(rng.lognormal(4.4, 0.8, num_rows), 5, 900).astype(np.int32)
    ifd = 0.16 * np.log(num_tokens) - 0.1 + rng.normal(0, 0.09, num_rows)
    ifd = np.clip(ifd, 0.02, 0.97)
    status = ["ok"] * num_rows
    ifd[[3, 7]] = 1.08, 1.31
    for row, failure in {11: "empty_response", 12: "prompt_overflow", 13: "nonfinite"}.items():
        status[row], ifd[row] = failure, np.nan
    num_tokens[11] = 0
    topics = ("graph", "sum", "matrix", "string", "prime", "queue")
    instructions = [
        f"Write a Python function `{topics[row % 6]}_{row}` that returns its input doubled <{row}>."
        for row in range(num_rows)
    ]
    body = "    total += value * 2  # doubled & summed\n"
    responses = [
        f"def {topics[row % 6]}_{row}(value):\n    total = 0\n{body * int(length // 12)}"
        "    return total"
        for row, length in enumerate(num_tokens)
    ]
    responses[11] = ""
    ids = [f"{topics[row % 6]}/{row:04d}" for row in range(num_rows)]
    return Rows(ids, instructions, responses, num_tokens, ifd, status)


def write_data_stages(path: Path, rows: Rows, seed: int) -> np.ndarray:
    """Examples to selection; returns which rows are kept."""
    rng = np.random.default_rng(seed)
    num_rows = len(rows.ids)
    texts = zip(rows.ids, rows.instructions, rows.responses, strict=True)
    examples = load_examples([{"id": i, "instruction": q, "output": a} for i, q, a in texts])
    write_examples(path / "examples.jsonl", examples)
    write_scores(path, rows)
    cluster = rng.choice(NUM_CLUSTERS, num_rows, p=np.array([5, 4, 4, 3, 2, 2]) / 20)
    write_npy(path / "embeddings.npy", rng.normal(size=(num_rows, 8)).astype(np.float32))
    kept, rank = cdas(rows.ifd, cluster)
    kept_random = length_matched(rows.num_tokens, kept, rng)
    words = {True: "high IFD in its cluster", False: "not among the highest of its cluster"}
    reasons = [words[bool(k)] if r >= 0 else "not ranked" for k, r in zip(kept, rank, strict=True)]
    table = {
        "id": rows.ids,
        "cluster": pa.array(cluster, pa.int32()),
        "ifd_ppl": pa.array(rows.ifd, from_pandas=True),
        "num_response_tokens": pa.array(rows.num_tokens, pa.int32()),
        "kept": kept,
        "rank": pa.array(rank, pa.int32()),
        "reason": reasons,
        "kept_random": kept_random,
    }
    write_parquet(path / "selection.parquet", pa.table(table))
    return kept


def write_scores(path: Path, rows: Rows) -> None:
    table = {
        "id": rows.ids,
        "num_prompt_tokens": pa.array([40] * len(rows.ids), pa.int32()),
        "num_response_tokens": pa.array(rows.num_tokens, pa.int32()),
        "ifd_ppl": pa.array(rows.ifd, from_pandas=True),
        "ifd_loss": pa.array(1 + np.log(rows.ifd) / 4, from_pandas=True),
        "status": rows.status,
    }
    write_parquet(path / "scores.parquet", pa.table(table))


def cdas(ifd: np.ndarray, cluster: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kept rows and ranks: in each cluster the highest IFD below 1, its share of the budget."""
    kept, rank = np.zeros(len(ifd), dtype=bool), np.full(len(ifd), -1)
    for label in np.unique(cluster):
        members = np.flatnonzero((cluster == label) & (ifd < 1))
        members = members[np.argsort(-ifd[members])]
        rank[members] = np.arange(len(members))
        kept[members[: int(BUDGET * np.sum(cluster == label))]] = True
    return kept, rank


def length_matched(
    num_tokens: np.ndarray, kept: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """As many rows as ``kept``, out of the same eighths of the length order."""
    chosen = np.zeros(len(kept), dtype=bool)
    for band in np.array_split(np.argsort(num_tokens, kind="stable"), 8):
        chosen[rng.choice(band, int(kept[band].sum()), replace=False)] = True
    return chosen


def write_training(path: Path, num_steps: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for arm, floor in (("selected", 1.02), ("random", 0.94)):
        steps = np.arange(1, num_steps + 1)
        losses = floor + 0.5 * np.exp(-steps / 12) + rng.normal(0, 0.06, num_steps)
        log = [
            {
                "step": int(step),
                "loss": float(loss),
                "num_loss_tokens": 700,
                "num_tokens": 1000,
                "learning_rate": 5e-5 * (1 - step / (num_steps + 1)),
                "seconds": 0.8,
            }
            for step, loss in zip(steps, losses, strict=True)
        ]
        write_jsonl(path / "train" / arm / "log.jsonl", log)
        summary = {"seconds": 0.8 * num_steps, "num_tokens": 1000 * num_steps, "num_examples": 96}
        summary |= {"tokens_per_second": 1250.0, "num_steps": num_steps, "peak_mib": 2350.5}
        write_json(path / "train" / arm / "summary.json", summary)


def write_evaluation(path: Path, num_rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    base = rng.normal(1.31, 0.3, num_rows)
    random = base - 0.19 + rng.normal(0, 0.03, num_rows)
    selected = random - 0.012 + rng.normal(0, 0.04, num_rows)
    nll = {"base": base, "selected": selected, "random": random}
    lengths = np.clip(rng.lognormal(4.4, 0.8, num_rows), 5, 900).astype(np.int32)
    columns: dict[str, Any] = {"id": [f"held/{row}" for row in range(num_rows)]}
    columns["num_response_tokens"] = lengths
    columns |= {f"nll_{arm}": values for arm, values in nll.items()}
    write_parquet(path / "evaluation" / "held_out.parquet", pa.table(columns))
    pairs = [
        pair(nll, *names)
        for names in (("selected", "base"), ("random", "base"), ("selected", "random"))
    ]
    comparison = {
        "metric": "held-out NLL, nats per token",
        "means": {arm: float(np.average(nll[arm], weights=lengths)) for arm in nll},
        "pairs": pairs,
    }
    write_json(path / "evaluation" / "comparison.json", comparison)


def pair(nll: dict[str, np.ndarray], a: str, b: str) -> dict[str, Any]:
    from scipy.stats import wilcoxon

    difference = nll[a] - nll[b]
    half = 1.96 * difference.std() / len(difference) ** 0.5
    mean, p_value = float(difference.mean()), float(wilcoxon(difference).pvalue)
    evidence = f"difference {mean:+.4g}, 95 % interval {mean - half:+.4g} to {mean + half:+.4g}"
    verdict = f"{a} is {'better' if mean < 0 else 'worse'} than {b} ({evidence}, p = {p_value:.2g})"
    return {
        "a": a,
        "b": b,
        "difference": mean,
        "interval": [mean - half, mean + half],
        "p_value": p_value,
        "test": "Wilcoxon signed-rank",
        "num_pairs": len(difference),
        "verdict": verdict,
    }


def packing_arms(num_tokens: np.ndarray, kept: np.ndarray) -> dict[str, Any]:
    arms = {}
    for arm, lengths in (
        ("full", num_tokens),
        ("selected", num_tokens[kept]),
        ("random", num_tokens[kept]),
    ):
        total, num_bins = int(lengths.sum()), int(np.ceil(lengths.sum() / CAPACITY * 1.02))
        fill = total / (num_bins * CAPACITY)
        arms[arm] = {
            "num_examples": len(lengths),
            "num_tokens": total,
            "num_bins": num_bins,
            "fill": fill,
            "padding_packed": 1 - fill,
            "padding_dynamic": 0.41,
            "padding_max": 1 - total / (len(lengths) * CAPACITY),
            "num_updates": num_bins,
        }
    return arms


def record_stages(run: RunFolder, stages: Sequence[tuple[str, float, str]]) -> None:
    for name, seconds, file in stages:
        run.record_stage(name, "0f" * 32, seconds=seconds, peak_mib=1843.2, files=[file])


def build_run(path: Path, rows: Rows, *, seed: int = 0) -> Path:
    """Every file of a finished run except the report."""
    run = RunFolder(path)
    run.begin(device="cpu, 2 threads", seed=42)
    write_text(path / "recipe.yaml", Recipe(name="synthetic").to_yaml())
    kept = write_data_stages(path, rows, seed)
    removed = {"id": "sum/9999", "benchmark": "HumanEval", "task_id": "HumanEval/53"}
    removed |= {"rule": "10-gram", "match": "add two numbers x and y return x plus y"}
    benchmarks = [{"name": "HumanEval", "num_tasks": 164, "path": "HumanEval.jsonl"}]
    found = {"num_examples": len(kept) + 1, "benchmarks": benchmarks, "removed": [removed]}
    write_json(path / "decontamination.json", {**found, "note": "MBPP files were not found."})
    arms = packing_arms(rows.num_tokens, kept)
    write_json(path / "packing.json", {"capacity": CAPACITY, "arms": arms})
    write_training(path, 40, seed)
    write_evaluation(path, 64, seed)
    stages = [("score", 41.2, "scores.parquet"), ("select", 0.3, "selection.parquet")]
    stages += [("pack", 0.1, "packing.json"), ("train", 171.9, "train/selected/log.jsonl")]
    record_stages(run, [*stages, ("evaluate", 22.6, "evaluation/comparison.json")])
    return path


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Builds a finished run folder of ``num_rows`` synthetic rows under the test's own folder."""

    def make(num_rows: int = 120, seed: int = 0) -> Path:
        return build_run(tmp_path / "run", synthetic_rows(num_rows, seed), seed=seed)

    return make
