"""Which models write candidates, and how they are asked: a strict recipe, read from YAML."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from codeact.efficiency.generation.endpoint import check_url
from codeact.efficiency.generation.recipe_prompt import DEFAULT_PROMPT, check_template
from codeact.errors import InputError

Positive = Annotated[int, Field(ge=1)]
PositiveSeconds = Annotated[float, Field(gt=0)]

_FOLDER_KEYS = {"dtype", "device", "adapter"}
_ENDPOINT_KEYS = {"key_variable", "concurrency", "timeout_seconds", "attempts", "backoff_seconds"}
_LONGEST_VALUE = 60


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
            InputError: the variable is not set, or empty.
        """
        if self.key_variable is None:
            return None
        if not (key := os.environ.get(self.key_variable, "").strip()):
            raise InputError(
                f"model {self.name}: the environment variable {self.key_variable}, which "
                "key_variable names, is not set"
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
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InputError(f"recipe {path} cannot be read: {reason}") from None
    try:
        values = yaml.load(text, Loader=_Loader)  # a subclass of the safe loader
    except yaml.MarkedYAMLError as error:
        where = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{path.name}{where}: no valid YAML, {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = (str(error).splitlines() or ["too deep"])[0]
        raise InputError(f"{path.name}: no valid YAML, {reason}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path.name}: a recipe is `key: value` lines, got {_shown(values)}")
    try:
        return CandidateRecipe.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{path.name}: {_explain(error)}") from None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with two traps closed: ``1e-4`` is a number, a key comes once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = f"the key {key.value} comes twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


# YAML 1.1, which PyYAML reads, calls 1e-4 a string because it has no dot.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _explain(error: ValidationError) -> str:
    """The first thing wrong with a recipe, in one line: key, rule and what came."""
    problems = error.errors(include_url=False)
    # An unknown key comes first: it often explains whatever else is wrong.
    problem = min(problems, key=lambda found: found["type"] != "extra_forbidden")
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
    rule = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if problem["type"] in {"model_type", "dict_type"}:
        rule = "must be `key: value` lines"
    elif problem["type"] == "string_pattern_mismatch":
        rule = "must be letters, digits, '.', '-' and '_', beginning with a letter or digit"
        if problem["loc"][-1] == "key_variable":
            rule = "must be the name of an environment variable"
            return f"{key} {rule}"  # and not its value, which may be what came
    if problem["type"] == "value_error":  # these name what came themselves
        return rule if rule.startswith("model") else f"{key}: {rule}"
    return f"{key} {rule}, got {_shown(problem['input'])}"


def _dotted(parts: Sequence[int | str]) -> str:
    """``models[0].top_p``."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
