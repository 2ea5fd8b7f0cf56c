"""Which models write candidates, and how they are asked: a strict recipe, read from YAML."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from codeact.efficiency.generation.endpoint import check_url, fits_header
from codeact.efficiency.generation.recipe_prompt import DEFAULT_PROMPT, check_template
from codeact.errors import InputError
from codeact.strict_yaml import first_problem, read_mapping, shown

Positive = Annotated[int, Field(ge=1)]
# A day at most: more than that overflows the clocks of some systems.
PositiveSeconds = Annotated[float, Field(gt=0, le=86400)]

_FOLDER_KEYS = {"dtype", "device", "adapter"}
_ENDPOINT_KEYS = {"key_variable", "concurrency", "timeout_seconds", "attempts", "backoff_seconds"}


class _Strict(BaseModel):
    """No unknown key, no coercion ("2" is not 2), no NaN, no change after validation."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=()
    )


class ModelEntry(_Strict):
    """One model and how often it is asked.

    Attributes:
        name: Origin of its candidates in every table; unique in a recipe.
        model: Folder or Hugging Face id; with ``endpoint``, the model's name there.
        endpoint: Address of an OpenAI-compatible server up to ``/v1``; None runs the model here.
        samples: Candidates for each task.
        temperature: 0 is greedy, and then there is one sample only.
        top_p: Nucleus sampling; 1 is all tokens.
        max_new_tokens: Where an answer is cut.
        prompt: Instead of the recipe's.
        system: Instead of the recipe's.
        dtype: Of the weights, where the model runs here; so with ``device`` and ``adapter``.
        key_variable: Environment variable with the server's key. The key itself has no place in a
            recipe.
        concurrency: Requests under way at a time.
        timeout_seconds: Of one attempt.
        attempts: Before a sample counts as failed.
        backoff_seconds: After the first failure; doubles with each.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    model: Annotated[str, Field(min_length=1)]
    endpoint: str | None = None
    samples: Positive = 1
    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new_tokens: Positive = 1024
    prompt: str | None = None
    system: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    adapter: str | None = None
    key_variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    concurrency: Positive = 8
    timeout_seconds: PositiveSeconds = 300.0
    attempts: Positive = 6
    backoff_seconds: PositiveSeconds = 1.0

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, endpoint: str | None) -> str | None:
        if endpoint is not None:
            check_url(endpoint)
        return endpoint

    @field_validator("prompt")
    @classmethod
    def _check_prompt(cls, prompt: str | None) -> str | None:
        return None if prompt is None else check_template(prompt)

    @model_validator(mode="after")
    def _check_keys(self) -> ModelEntry:
        useless = _ENDPOINT_KEYS if self.endpoint is None else _FOLDER_KEYS
        if odd := sorted(useless & self.model_fields_set):
            rule = "needs" if self.endpoint is None else "has no effect with"
            raise ValueError(f"model {self.name}: {odd[0]} {rule} endpoint")
        if self.temperature == 0 and self.samples > 1:
            raise ValueError(
                f"model {self.name}: samples must be 1 at temperature 0, where all are the same, "
                f"got {self.samples}"
            )
        return self

    def api_key(self) -> str | None:
        """The key of the server, None if the recipe names no variable.

        Raises:
            InputError: the variable is not set, or empty, or holds what no key can.
        """
        if self.key_variable is None:
            return None
        if not (key := os.environ.get(self.key_variable, "").strip()):
            raise InputError(
                f"model {self.name}: the environment variable {self.key_variable}, which "
                "key_variable names, is not set"
            )
        if not fits_header(key):
            raise InputError(
                f"model {self.name}: the environment variable {self.key_variable} must hold a key "
                "of printable ASCII without spaces"
            )
        return key


class CandidateRecipe(_Strict):
    """Several models, asked the same.

    Attributes:
        models: In the order in which they are asked and written.
        prompt: Template with ``{instruction}``, ``{prompt_code}``, ``{language}`` and
            ``{interface}``; see :func:`codeact.efficiency.generation.recipe_prompt.render_prompt`.
        system: A system message before it; None is none of ours (templates may have their own).
        seed: Of all sampling.
    """

    models: Annotated[list[ModelEntry], Field(min_length=1)]
    prompt: str = DEFAULT_PROMPT
    system: str | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @field_validator("prompt")
    @classmethod
    def _check_prompt(cls, prompt: str) -> str:
        return check_template(prompt)

    @model_validator(mode="after")
    def _check_names(self) -> CandidateRecipe:
        names = [entry.name for entry in self.models]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"models must have a name each, {twice[0]} comes twice")
        return self


def load_candidate_recipe(path: str | Path) -> CandidateRecipe:
    """Read a recipe.

    Raises:
        InputError: the file is missing or no YAML (the line is named), or a key or value is none a
            recipe knows; one line with the file, the key and the rule.
    """
    path = Path(path)
    values = read_mapping(path)
    try:
        return CandidateRecipe.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{path.name}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    """The first thing wrong with a recipe, in one line: key, rule and what came."""
    problem, rule = first_problem(error)
    key = _dotted(problem["loc"])
    known: Sequence[str] = list(CandidateRecipe.model_fields)
    if len(problem["loc"]) > 1:
        known = list(ModelEntry.model_fields)
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        return f"{key} is not a known key; {hint}"
    if problem["type"] == "missing":
        return f"{key} is missing"
    if problem["loc"][-1:] == ("key_variable",):
        # And not its value, which may be the key itself.
        return f"{key} must be the name of an environment variable"
    if problem["type"] == "value_error":  # these name what came themselves
        return rule if rule.startswith("model") else f"{key}: {rule}"
    return f"{key} {rule}, got {shown(problem['input'])}"


def _dotted(parts: Sequence[int | str]) -> str:
    """``models[0].top_p``."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
