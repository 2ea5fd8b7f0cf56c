"""Plan the bins, fine-tune both arms, and compare them on rows that neither saw."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from codeact.data import TokenizedExamples, tokenize_examples
from codeact.errors import InputError
from codeact.evaluation import compare_losses
from codeact.files import read_parquet, write_json, write_jsonl, write_parquet
from codeact.models import LoadedModel, ScoredSequence, stream_nlls
from codeact.packing import BinPlan, plan_bins
from codeact.pipeline.stage import StageContext, StageResult
from codeact.pipeline.training_cost import training_summary
from codeact.progress import OnProgress
from codeact.training import TrainConfig, fine_tune, num_optimizer_steps, resolve_accumulation
from codeact.training.adapters import check_method_installed
from codeact.training.cost.forecast import forecast

if TYPE_CHECKING:
    from codeact.pipeline.recipe import Recipe

ARMS = ("selected", "random")
# Bins of a run: a forecast passes over up to five, which is much of what a short run takes.
_WORTH_A_FORECAST = 50


def pack_stage(context: StageContext) -> StageResult:
    """Bins of the full set and of both arms; writes ``packing.json``."""
    tokenized = _tokenized(context, "examples.jsonl")
    section, config = context.recipe.pack, train_config(context.recipe)
    arms: dict[str, Any] = {}
    for arm, rows in _arms(context, len(tokenized)).items():
        plan = _plan(context, tokenized.select(rows))
        accumulation = resolve_accumulation(config, plan)
        report = plan.report(batch_size=section.batch_size, accumulation=accumulation)
        arms[arm] = asdict(report)
        context.on_progress(len(arms), len(ARMS) + 1)
    write_json(context.folder / "packing.json", {"capacity": section.capacity, "arms": arms})
    full = arms["full"]
    return StageResult(
        ["packing.json"],
        f"padding {full['padding_packed']:.1%} packed, {full['padding_dynamic']:.1%} in padded "
        f"batches of {section.batch_size}",
    )


def train_arm(context: StageContext, arm: str) -> StageResult:
    """Fine-tune a fresh copy of the model on one arm; writes ``train/<arm>/``."""
    tokenized = _tokenized(context, "examples.jsonl")
    subset = tokenized.select(_arms(context, len(tokenized))[arm])
    config = train_config(context.recipe)
    loaded = context.load_model(full_precision=True, quantization=_quantization(config))
    folder = context.folder / f"train/{arm}"
    shutil.rmtree(folder, ignore_errors=True)  # an earlier model may have had other files
    plan = _plan(context, subset)
    num_passes = num_optimizer_steps(config, plan) * resolve_accumulation(config, plan)
    predicted = None
    if num_passes >= _WORTH_A_FORECAST:
        predicted = forecast(loaded.model, subset, plan, config)
    result = fine_tune(
        loaded.model,
        subset,
        plan,
        config,
        folder=folder,
        save_to=folder / "model",
        tokenizer=loaded.tokenizer,
        on_step=lambda step, total: context.on_progress(step.step, total),
    )
    saved = sorted(path for path in (folder / "model").rglob("*") if path.is_file())
    # After the model: what the report shows is there only when the stage is all but done.
    write_jsonl(folder / "log.jsonl", [asdict(step) for step in result.steps])
    summary = training_summary(
        result, predicted, loaded.model, plan, config,
        batch_size=context.recipe.pack.batch_size, full_seqlens=tokenized.seqlens,
    )  # fmt: skip
    summary["num_examples"] = len(subset)
    write_json(folder / "summary.json", summary)
    root = context.folder.path
    return StageResult(
        [f"train/{arm}/log.jsonl", f"train/{arm}/summary.json"]
        + [str(path.relative_to(root)) for path in saved],
        f"{len(subset)} rows, {len(result.steps)} steps, {result.tokens_per_second:.0f} tokens/s, "
        f"loss {result.steps[0].loss:.3f} to {result.steps[-1].loss:.3f}",
    )


def evaluate_stage(context: StageContext) -> StageResult:
    """Loss on held-out rows, paired; writes ``evaluation/``."""
    tokenized = _tokenized(context, "held_out.jsonl")
    losses, names = {}, ("base", *ARMS)
    for index, name in enumerate(names):

        def progress(done: int, total: int, index: int = index) -> None:
            context.on_progress(index * total + done, len(names) * total)

        loaded = load_arm(context, name, full_precision=True)
        losses[name] = _mean_nlls(loaded, tokenized, context, progress)
    columns = {f"nll_{name}": values for name, values in losses.items()}
    counts = tokenized.num_response_tokens
    table = pa.table({"id": list(tokenized.ids), "num_response_tokens": counts, **columns})
    write_parquet(context.folder / "evaluation/held_out.parquet", table)
    comparison = _comparison(context, losses, counts)
    write_json(context.folder / "evaluation/comparison.json", comparison)
    return StageResult(
        ["evaluation/held_out.parquet", "evaluation/comparison.json"],
        comparison["pairs"][0]["verdict"],
    )


def load_arm(context: StageContext, arm: str, *, full_precision: bool) -> LoadedModel:
    """The model that an arm has trained, or with ``"base"`` the one that training begins with."""
    config = train_config(context.recipe)
    options: dict[str, Any] = {"quantization": _quantization(config)}
    if arm != "base":
        kind = "path" if config.method == "full" else "adapter"
        options[kind] = context.folder / f"train/{arm}/model"
    return context.load_model(full_precision=full_precision, **options)


def _comparison(
    context: StageContext, losses: dict[str, NDArray[np.float64]], counts: NDArray[np.int32]
) -> dict[str, Any]:
    """Every pair of arms, weighted by response tokens: the unit is nats per token."""
    pairs = []
    for a, b in (("selected", "random"), ("selected", "base"), ("random", "base")):
        result = compare_losses(
            losses[a],
            losses[b],
            weights=counts,
            confidence=context.recipe.evaluate.confidence,
            num_resamples=context.recipe.evaluate.num_resamples,
            seed=context.recipe.seed,
        )
        verdict = result.verdict(a, b, lower_is_better=True)
        pairs.append({"a": a, "b": b, **asdict(result), "verdict": verdict})
    return {
        "metric": "held-out NLL, nats per token",
        "means": {name: float(np.average(nll, weights=counts)) for name, nll in losses.items()},
        "pairs": pairs,
    }


def train_config(recipe: Recipe) -> TrainConfig:
    """The training section with what stands elsewhere in a recipe.

    Raises:
        InputError: its values do not go together.
    """
    values = recipe.train.model_dump()
    return TrainConfig(**values, capacity=recipe.pack.capacity, seed=recipe.seed)


def check_training(recipe: Recipe) -> None:
    """Refuse before hours of scoring what the training stage would refuse after them.

    Raises:
        InputError: values that do not go together, or a method whose package is not installed.
    """
    config = train_config(recipe)
    check_method_installed(config.method)


def _quantization(config: TrainConfig) -> Literal["nf4"] | None:
    return "nf4" if config.method == "qlora" else None


def _tokenized(context: StageContext, name: str) -> TokenizedExamples:
    return tokenize_examples(
        context.examples(name), context.load_tokenizer(), max_length=context.recipe.data.max_tokens
    )


def _arms(context: StageContext, num_examples: int) -> dict[str, NDArray[np.int64]]:
    """Row numbers of the full set and of both arms."""
    table = read_parquet(context.folder / "selection.parquet", ["kept", "kept_random"])
    return {
        "full": np.arange(num_examples),
        "selected": np.flatnonzero(table["kept"].to_numpy()),
        "random": np.flatnonzero(table["kept_random"].to_numpy()),
    }


def _plan(context: StageContext, tokenized: TokenizedExamples) -> BinPlan:
    section = context.recipe.pack
    return plan_bins(
        tokenized.seqlens, section.capacity, window=section.window, seed=context.recipe.seed
    )


def _mean_nlls(
    loaded: LoadedModel,
    tokenized: TokenizedExamples,
    context: StageContext,
    on_progress: OnProgress,
) -> NDArray[np.float64]:
    """Mean loss of each row's response tokens, in nats."""
    sequences = [ScoredSequence(*tokenized[row]) for row in range(len(tokenized))]
    means = np.empty(len(sequences))
    done = 0
    budget = context.recipe.score.token_budget
    for pack in stream_nlls(loaded.model, sequences, token_budget=budget):
        for row, nlls in pack:
            means[row] = nlls.mean(dtype=np.float64)
        done += len(pack)
        on_progress(done, len(sequences))
    if not np.isfinite(means).all():
        raise InputError("evaluate: the held-out loss is not finite; the model diverged")
    return means
