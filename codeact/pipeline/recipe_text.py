"""The text side of recipes: YAML in, ``--set key=value`` on top, and errors in one line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from codeact.errors import InputError

_CLOSE_ENOUGH = 0.6  # difflib's own cutoff: "epoch" finds "epochs", "zzz" finds nothing
_LONGEST_VALUE = 60


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with two traps closed: ``1e-4`` is a number, a key comes once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue  # such a key is refused by the base class
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value} comes twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


# YAML 1.1, which PyYAML reads, calls 1e-4 a string because it has no dot.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_mapping(path: Path) -> dict[str, Any]:
    """The nested values of a YAML file; an empty file is an empty mapping.

    Raises:
        InputError: No such file, not UTF-8, no YAML (with the line), or no mapping at the top.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InputError(f"recipe {path} cannot be read: {reason}") from None
    values = _parse(text, source=path.name)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{path.name}: a recipe is `key: value` lines, got {_shown(values)}")
    return {str(key): value for key, value in values.items()}


def apply_override(values: dict[str, Any], override: str) -> None:
    """Sets one ``section.key=value`` in nested ``values``, in place; the value is YAML.

    Raises:
        InputError: There is no ``=``, no key, the value is no YAML, or the key goes through
            something that is no section.
    """
    dotted, equals, text = override.partition("=")
    *sections, leaf = dotted.strip().split(".")
    if not equals or not all([*sections, leaf]):
        raise InputError(f"--set expects key=value, such as train.epochs=2, got {override!r}")
    value = _parse(text, source=f"--set {dotted.strip()}")
    for section in sections:
        if values.get(section) is None:
            values[section] = {}
        values = values[section]
        if not isinstance(values, dict):
            raise InputError(f"--set: {dotted.strip()} is not a key, {section} is no section")
    values[leaf] = value


def explain(error: ValidationError, known: Sequence[str]) -> str:
    """The first thing wrong with a recipe, in one line: key, rule and what came."""
    problems = error.errors(include_url=False)
    # An unknown key comes first: it often explains whatever else is wrong.
    problem = min(problems, key=lambda found: found["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{key} is not a known key{_suggestion(key, known)}"
    rule = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if problem["type"] in {"model_type", "dict_type"}:
        rule = "must be a section of `key: value` lines"
    elif problem["type"] == "string_pattern_mismatch":
        rule = "must be letters, digits, '.', '-' and '_', beginning with a letter or digit"
    if not key:  # a rule about several keys names them itself
        return rule
    return f"{key} {rule}, got {_shown(problem['input'])}"


def _suggestion(key: str, known: Sequence[str]) -> str:
    """The nearest known key: by its whole name, or by its last part in another section."""
    leaf = key.rpartition(".")[2]

    def likeness(candidate: str) -> float:
        whole = difflib.SequenceMatcher(None, key, candidate).ratio()
        last = difflib.SequenceMatcher(None, leaf, candidate.rpartition(".")[2]).ratio()
        return max(whole, 0.95 * last)  # at a tie the same section wins

    best = max(known, key=likeness)
    if likeness(best) >= _CLOSE_ENOUGH:
        return f"; did you mean {best}?"
    section = key.rpartition(".")[0]
    inside = [name for name in known if name.rpartition(".")[0] == section]
    return f"; known are {', '.join(inside)}" if inside else ""


def _parse(text: str, *, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # a subclass of the safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" line {mark.line + 1}" if mark else ""
        raise InputError(f"{source}{where}: no valid YAML, {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:  # a stray control character, a date 2024-99-99
        raise InputError(f"{source}: no valid YAML, {str(error).splitlines()[0]}") from None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
