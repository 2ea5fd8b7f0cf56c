"""The work of ``codeact train``: load, plan, forecast, train, and the account of it."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from codeact.cli.allocator import keep_freed_memory
from codeact.cli.display import progress_bar
from codeact.cli.train_folder import TrainFolder
from codeact.cli.train_words import after_words, before_words
from codeact.data import TokenizedExamples, load_examples, tokenize_examples
from codeact.data.pairs import TokenizedPairs, load_pairs, tokenize_pairs
from codeact.errors import InputError
from codeact.files import write_json, write_jsonl
from codeact.models import LoadedModel, load_model, resolve_device
from codeact.packing import BinPlan, ModelCost, plan_bins
from codeact.training import TrainConfig, TrainResult, fine_tune
from codeact.training.cost.dry_run import computes_in
from codeact.training.cost.forecast import Forecast, forecast
from codeact.training.cost.peak_flops import peak_flops
from codeact.training.cost.spending import Spending, spending
from codeact.training.dpo.tuning import DPOResult, fine_tune_dpo

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PACKAGES = ("codeact", "torch", "transformers", "accelerate", "peft", "bitsandbytes")
# How often a checkpoint is written changes nothing in the run.
_FREE_TO_CHANGE = ("save_steps",)


@dataclass(frozen=True)
class TrainJob:
    """What a command asks for; ``beta`` None is supervised fine-tuning, a number DPO on pairs."""

    data: str
    model: str
    output: Path | None
    config: TrainConfig
    columns: dict[str, str] | None = None
    device: str = "auto"
    dtype: str = "float32"
    resume: bool = True
    full_set: str | None = None
    beta: float | None = None
    forecast_only: bool = False


@dataclass(frozen=True)
class _Prepared:
    """Everything that is known before the first step."""

    loaded: LoadedModel
    tokens: TokenizedExamples | TokenizedPairs
    plan: BinPlan
    rows: dict[str, int]
    full_seqlens: np.ndarray[Any, Any] | None


def run_job(job: TrainJob) -> dict[str, Any] | None:
    """Do it; the summary on the first rank, None on the others.

    Raises:
        InputError: of everything that a user can mend.
    """
    keep_freed_memory()
    device = _join_ranks(job.device)
    is_first = int(os.environ.get("RANK", "0")) == 0
    try:
        with progress_bar("Load", "rows"):
            prepared = _prepare(job, device)
        if job.forecast_only or job.output is None:
            found = _forecast(job, prepared, is_first=is_first)
            return _before(prepared, found) if is_first else None
        folder = TrainFolder(job.output, is_first=is_first)
        folder.begin(_settings(job, prepared), resume=job.resume)
        try:
            found = _forecast(job, prepared, is_first=is_first)
            result = _train(job, prepared, folder)
            summary = _account(job, prepared, found, result, folder) if is_first else None
            folder.finish()
        finally:
            folder.leave()
        return summary
    finally:
        _leave_ranks()


def _prepare(job: TrainJob, device: str) -> _Prepared:
    """Model, tokens and bins."""
    quantization: Literal["nf4"] | None = "nf4" if job.config.method == "qlora" else None
    if job.dtype == "float16":
        raise InputError("--dtype float16 cannot be trained: its gradients underflow; take float32")
    # Below float32 an update of a usual rate is rounded away: frozen weights alone may be smaller.
    dtype = "float32" if job.dtype == "auto" and quantization is None else job.dtype
    loaded = load_model(job.model, device=device, dtype=dtype, quantization=quantization)
    capacity, world_size = job.config.capacity, int(os.environ.get("WORLD_SIZE", "1"))
    tokens: TokenizedExamples | TokenizedPairs
    if job.beta is None:
        tokenized = _tokenized(job.data, job, loaded.tokenizer)
        rows, tokens = dict(Counter(tokenized.status)), _with_response(tokenized)
    else:
        pairs = load_pairs(job.data)
        tokens = tokenize_pairs(pairs, loaded.tokenizer, max_length=max(1, capacity // 2))
        rows = dict(Counter(tokens.status))
    if not (tokens.seqlens > 0).any():
        raise InputError(
            f"none of the {sum(rows.values())} rows of {job.data} has an answer that begins within "
            f"--capacity = {capacity} tokens"
        )
    plan = plan_bins(tokens.seqlens, capacity, seed=job.config.seed, world_size=world_size)
    full = None
    if job.full_set is not None and job.beta is None:
        full = _with_response(_tokenized(job.full_set, job, loaded.tokenizer)).seqlens
    elif job.full_set is not None:
        full_pairs = tokenize_pairs(
            load_pairs(job.full_set), loaded.tokenizer, max_length=max(1, capacity // 2)
        )
        full = _pair_seqlens(full_pairs)
    return _Prepared(loaded, tokens, plan, rows, full)


def _tokenized(data: str, job: TrainJob, tokenizer: PreTrainedTokenizerBase) -> TokenizedExamples:
    examples = load_examples(data, columns=job.columns)
    return tokenize_examples(examples, tokenizer, max_length=job.config.capacity)


def _with_response(tokenized: TokenizedExamples) -> TokenizedExamples:
    return tokenized.select(tokenized.num_response_tokens.nonzero()[0])


def _pair_seqlens(pairs: TokenizedPairs) -> np.ndarray[Any, Any]:
    """(n, 2) of the pairs that are packed."""
    seqlens = pairs.sequence_seqlens
    kept: np.ndarray[Any, Any] = seqlens[seqlens.sum(axis=1) > 0]
    return kept


def _forecast(job: TrainJob, prepared: _Prepared, *, is_first: bool) -> Forecast:
    """On all ranks; the first one says it."""
    found = forecast(
        prepared.loaded.model, prepared.tokens, prepared.plan, job.config,
        reference_pass=job.beta is not None,
    )  # fmt: skip
    if is_first:
        device = str(prepared.loaded.model.device)
        words = before_words(found, prepared.plan, job.config, rows=prepared.rows, device=device)
        print(words, file=sys.stderr, flush=True)
    return found


def _train(job: TrainJob, prepared: _Prepared, folder: TrainFolder) -> TrainResult:
    with progress_bar("Train", "steps") as on_progress:
        options: dict[str, Any] = {
            "folder": folder.path,
            "resume": job.resume,
            "save_to": folder.model,
            "tokenizer": prepared.loaded.tokenizer,
            "on_step": lambda step, total: on_progress(step.step, total),
        }
        model, tokens = prepared.loaded.model, prepared.tokens
        if isinstance(tokens, TokenizedPairs):
            options |= {"beta": job.beta, "plan": prepared.plan}
            return fine_tune_dpo(model, tokens, job.config, **options)
        return fine_tune(model, tokens, prepared.plan, job.config, **options)


def _account(
    job: TrainJob, prepared: _Prepared, found: Forecast, result: TrainResult, folder: TrainFolder
) -> dict[str, Any]:
    """Say what it cost; leave ``training.json`` and ``log.jsonl`` beside the model."""
    spent = _spending(job, prepared, found, result)
    print(after_words(spent), file=sys.stderr, flush=True)
    lines = {step.step: asdict(step) for step in result.steps}
    for reward in result.rewards if isinstance(result, DPOResult) else ():
        values = asdict(reward)
        lines[values.pop("step")]["rewards"] = values
    write_jsonl(folder.model / "log.jsonl", lines.values())
    record = {
        "config": asdict(job.config),
        **_settings(job, prepared),
        "data": job.data,
        "rows": prepared.rows,
        "versions": _versions(),
        "device": _device_name(prepared),
        "resumed_at": result.resumed_at,
        "forecast": asdict(found),
        "spending": asdict(spent),
    }
    write_json(folder.model / "training.json", record)
    return {
        **_before(prepared, found),
        "num_steps": spent.num_steps,
        "num_tokens": spent.num_tokens,
        "seconds": spent.seconds,
        "tokens_per_second": spent.tokens_per_second,
        "peak_mib": spent.peak_mib,
        "first_loss": result.steps[0].loss,
        "last_loss": result.steps[-1].loss,
        "resumed_at": result.resumed_at,
        "spending": asdict(spent),
    }


def _before(prepared: _Prepared, found: Forecast) -> dict[str, Any]:
    return {"rows": prepared.rows, "fill": prepared.plan.fill, "forecast": asdict(found)}


def _spending(job: TrainJob, prepared: _Prepared, found: Forecast, result: TrainResult) -> Spending:
    model, tokens = prepared.loaded.model, prepared.tokens
    config = model.config.get_text_config(decoder=True)
    return spending(
        result,
        prepared.plan,
        ModelCost.from_config(model.config),
        peak=peak_flops(model.device, computes_in(job.config, model)),
        accumulation=found.accumulation,
        frozen_weights=job.config.method != "full",
        head_flops=2.0 * config.hidden_size * config.vocab_size,
        seqlens=_pair_seqlens(tokens) if isinstance(tokens, TokenizedPairs) else None,
        full_seqlens=prepared.full_seqlens,
    )


def _settings(job: TrainJob, prepared: _Prepared) -> Mapping[str, Any]:
    """What the same command says again; the data by what the model is trained on."""
    options = {
        name: list(value) if isinstance(value, tuple) else value  # as JSON has it
        for name, value in asdict(job.config).items()
        if name not in _FREE_TO_CHANGE
    }
    tokens = prepared.tokens
    digest = hashlib.sha256()
    for array in (tokens.input_ids, tokens.labels, tokens.offsets):
        digest.update(np.ascontiguousarray(array).data)
    return {
        "model": job.model,
        "data_sha256": digest.hexdigest(),
        "dtype": job.dtype,
        "world_size": prepared.plan.world_size,
        "beta": job.beta,
        **options,
    }


def _device_name(prepared: _Prepared) -> str:
    """The name of what trained."""
    import torch

    device = prepared.loaded.model.device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _join_ranks(device: str) -> str:
    """Under torchrun or accelerate: meet the other ranks, and take this rank's device."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    from accelerate import PartialState

    placed = resolve_device(device)
    PartialState(cpu=placed.type == "cpu")
    return "cpu" if placed.type == "cpu" else f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


def _leave_ranks() -> None:
    import torch.distributed as dist

    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and dist.is_initialized():
        dist.destroy_process_group()
