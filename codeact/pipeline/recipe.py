"""What one run does: a strict recipe, read from YAML, with errors a person can act on.

Every key has a default, so an empty recipe is the demo. A key that does not exist is an error
that names the nearest one that does: a silently ignored ``train.epoch`` costs a whole run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from codeact.errors import InputError
from codeact.pipeline.recipe_text import apply_override, explain
from codeact.selection.budget import parse_budget
from codeact.selection.registry import METHODS
from codeact.strict_yaml import read_mapping

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


class _Strict(BaseModel):
    """No unknown key, no coercion ("2" is not 2), no NaN, no change after validation."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        validate_default=True,
        protected_namespaces=(),  # a recipe section may be called `model`
    )


class ModelSection(_Strict):
    """The model that scores and is fine-tuned. ``name`` None is the packaged demo model."""

    name: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"


class DataSection(_Strict):
    """Where rows come from. ``source`` None harvests functions of installed packages."""

    source: str | None = None
    columns: dict[str, str] | None = None
    num_examples: Positive | None = None  # None is all of them
    num_held_out: Annotated[int, Field(ge=2)] = 64  # a paired test needs two rows
    max_tokens: Positive = 1024  # longer rows are left out
    benchmarks: str | None = None  # a folder with HumanEval and MBPP files


class ScoreSection(_Strict):
    """Which score is computed, and how. ``max_length`` None is the preset's own."""

    preset: Literal["codeact", "superfiltering", "cherry", "tshirt", "qaq"] = "codeact"
    max_length: Positive | None = None
    num_copies: Positive = 30  # noisy copies of a row; of tshirt alone
    token_budget: Positive | None = None  # tokens in one forward pass; None suits the device


class EmbedSection(_Strict):
    """Which embeddings are clustered.

    ``model`` None is the packaged MiniLM, ``"scoring-model"`` the hidden states of the model
    that scores, anything else a folder or a Hugging Face id. ``pool`` averages hidden states
    plainly or, as RDS+ does, in proportion to the position; sentence encoders have their own way.
    """

    model: str | None = None
    text: Literal["instruction", "response", "both"] = "instruction"
    pool: Literal["mean", "rds"] = "mean"
    batch_size: Positive = 32


class SelectSection(_Strict):
    """A method of ``codeact select --list`` with its options.

    ``budget`` is a number of rows, a fraction in (0, 1], or either in tokens ("250000tokens").
    ``num_clusters`` is of the clusters that CDAS selects in and the report shows. ``queries`` names
    rows that the method rds+ compares with.
    """

    method: str = "cdas"
    budget: float | int | str = 0.4
    num_clusters: Positive | Literal["elbow", "silhouette"] = 10
    options: dict[str, Any] = {}
    queries: str | None = None

    @field_validator("budget", mode="before")
    @classmethod
    def _check_budget(cls, budget: object) -> object:
        # A before-validator, so that the union never answers with one error for each arm.
        number = isinstance(budget, int | float) and not isinstance(budget, bool)
        if number and (0 < budget <= 1 if isinstance(budget, float) else budget >= 1):  # type: ignore[operator]
            return budget
        if isinstance(budget, str) and budget.endswith("tokens"):
            parse_budget(budget)
            return budget
        raise ValueError(
            "must be a fraction in (0, 1] or a whole number of rows, 1 or more, or either in "
            "tokens (250000tokens, 0.4tokens)"
        )

    @field_validator("num_clusters", mode="before")
    @classmethod
    def _check_num_clusters(cls, wanted: object) -> object:
        number = isinstance(wanted, int) and not isinstance(wanted, bool)
        if wanted in ("elbow", "silhouette") or (number and wanted >= 1):  # type: ignore[operator]
            return wanted
        raise ValueError("must be a whole number, 1 or more, elbow or silhouette")

    @field_validator("method")
    @classmethod
    def _check_method(cls, method: str) -> str:
        if method not in METHODS:
            raise ValueError(f"must be one of {', '.join(METHODS)}")
        return method


class PackSection(_Strict):
    """Dynamic Pack. ``batch_size`` is that of the padded batches it is compared with."""

    capacity: Positive = 2048
    window: Positive = 4096
    batch_size: Positive = 8


class TrainSection(_Strict):
    """The fine-tuning run, the same for both arms. ``max_steps`` ends it before ``epochs`` do.

    ``samples_per_step``, the examples of an optimizer step on average, replaces ``accumulation``.
    The ``lora_*`` keys are of the methods lora and qlora; see ``codeact.training.TrainConfig``.
    """

    method: Literal["full", "lora", "qlora"] = "full"
    epochs: Annotated[float, Field(gt=0)] = 1.0
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    lr_scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    warmup_ratio: Share = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    accumulation: Positive = 1  # packs per optimizer step
    samples_per_step: Positive | None = None
    max_steps: Positive | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    gradient_checkpointing: bool = False
    compile: bool = False
    lora_rank: Positive = 8
    lora_alpha: Positive = 16
    lora_dropout: Share = 0.0
    lora_targets: str = "all-linear"  # names of layers between commas


class EvaluateSection(_Strict):
    """The paired comparison on held-out rows, and on benchmarks where ``benchmarks`` names some.

    ``benchmark_data`` is a file or folder of HumanEval+ and MBPP+, None looks where EvalPlus does.
    ``num_samples`` and the rest are of ``codeact evaluate``; ``limit`` None asks every task.
    """

    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    num_resamples: Annotated[int, Field(ge=100)] = 10_000
    benchmarks: list[Literal["humaneval", "mbpp"]] = []
    benchmark_data: str | None = None
    num_samples: Positive = 1
    temperature: Annotated[float, Field(ge=0)] = 0.0  # 0 takes the likeliest token
    max_new_tokens: Positive = 1024
    limit: Positive | None = None

    @field_validator("benchmarks")
    @classmethod
    def _check_benchmarks(cls, benchmarks: list[str]) -> list[str]:
        if len(set(benchmarks)) < len(benchmarks):
            raise ValueError("must name each benchmark once")
        return benchmarks


class Recipe(_Strict):
    """A whole run. Relative paths are relative to the folder the command runs in."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "demo"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    score: ScoreSection = ScoreSection()
    embed: EmbedSection = EmbedSection()
    select: SelectSection = SelectSection()
    pack: PackSection = PackSection()
    train: TrainSection = TrainSection()
    evaluate: EvaluateSection = EvaluateSection()

    @model_validator(mode="after")
    def _rows_fit_a_bin(self) -> Recipe:
        if self.data.max_tokens > self.pack.capacity:
            raise ValueError(
                f"data.max_tokens = {self.data.max_tokens} must fit pack.capacity = "
                f"{self.pack.capacity}: a row is never split over two bins"
            )
        return self

    @model_validator(mode="after")
    def _samples_differ(self) -> Recipe:
        section = self.evaluate
        if section.temperature == 0 and section.num_samples > 1:
            raise ValueError(
                "evaluate.num_samples must be 1 at evaluate.temperature = 0, where all answers to "
                f"a task are the same, got {section.num_samples}"
            )
        return self

    def to_yaml(self) -> str:
        """The recipe with every key written out; ``load_recipe`` reads the same recipe back."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)

    def section_hash(self, *sections: str, **inputs: str) -> str:
        """Hash of what a stage depends on, for :meth:`RunFolder.stage_is_current`.

        Args:
            *sections: Names of sections, of top-level keys or of single keys (``"score"``,
                ``"seed"``, ``"select.num_clusters"``).
            **inputs: Hashes of what came before, by a name (``examples=examples.content_hash()``).

        Returns:
            64 hexadecimal digits of SHA-256 over the canonical JSON of those values; the order
            in which sections are named does not matter.

        Raises:
            ValueError: A section has no such name.
        """
        values: dict[str, Any] = {}
        for name, value in self.model_dump().items():
            values[name] = value
            if isinstance(value, dict):
                values |= {f"{name}.{leaf}": inner for leaf, inner in value.items()}
        unknown = sorted(set(sections) - values.keys())
        if unknown:
            raise ValueError(f"sections must be keys of Recipe, got {unknown}")
        chosen = {"sections": {name: values[name] for name in sections}, "inputs": inputs}
        text = json.dumps(chosen, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def load_recipe(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe and applies ``key=value`` overrides on top.

    Args:
        path: A YAML file; None starts from the defaults.
        overrides: Such as ``"train.epochs=2"``; values are YAML (``null``, ``[1, 2]``, ``1e-4``).

    Raises:
        InputError: The file is missing, is no YAML (the line is named), or a key or value is not
            one a recipe knows; the text names the file or ``--set``, the key and the rule.
    """
    values: dict[str, Any] = {}
    recipe = Recipe()
    if path is not None:
        values = read_mapping(Path(path))
        recipe = _validate(values, source=Path(path).name)
    for override in overrides:
        apply_override(values, override)
    return _validate(values, source="--set") if overrides else recipe


def _validate(values: Mapping[str, Any], *, source: str) -> Recipe:
    """A recipe out of nested plain values; ``source`` stands first in the error's line."""
    keys = _known_keys()
    sections = {key for key in values if any(known.startswith(f"{key}.") for known in keys)}
    # `train:` with nothing under it is None in YAML and means the defaults.
    given = {k: v for k, v in values.items() if not (v is None and k in sections)}
    try:
        return Recipe.model_validate(given)
    except ValidationError as error:
        raise InputError(f"{source}: {explain(error, keys)}") from None


def _known_keys() -> tuple[str, ...]:
    """Every key a recipe may hold, dotted, sections and all."""
    keys: list[str] = []
    for name, value in Recipe():
        keys.append(name)
        if isinstance(value, BaseModel):
            keys += [f"{name}.{leaf}" for leaf in type(value).model_fields]
    return tuple(keys)
