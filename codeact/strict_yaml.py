"""Recipes as YAML and what is wrong with one, in a line that a person can act on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from codeact.errors import InputError

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_LONGEST_VALUE = 60
_CLOSE_ENOUGH = 0.6  # difflib's own cutoff: "epoch" finds "epochs", "zzz" finds nothing


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


def read_mapping(path: Path, kind: str = "recipe") -> dict[str, Any]:
    """The nested values of a YAML file, called ``kind`` in errors; an empty one is {}.

    Raises:
        InputError: No such file, not UTF-8, no YAML (with the line), or no mapping at the top.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InputError(f"{kind} {path} cannot be read: {reason}") from None
    values = parse_yaml(text, source=path.name)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{path.name}: a {kind} is `key: value` lines, got {shown(values)}")
    return {str(key): value for key, value in values.items()}


def parse_yaml(text: str, *, source: str) -> Any:
    """The value of a YAML text.

    Raises:
        InputError: It is no YAML, or a key comes twice; ``source`` and the line stand first.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # a subclass of the safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" line {mark.line + 1}" if mark else ""
        raise InputError(f"{source}{where}: no valid YAML, {error.problem}") from None
    except RecursionError:
        raise InputError(f"{source}: no valid YAML, it is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # a stray control character, a date 2024-99-99
        raise InputError(f"{source}: no valid YAML, {str(error).splitlines()[0]}") from None


def first_problem(error: ValidationError) -> tuple[ErrorDetails, str]:
    """What to say of a recipe that pydantic refuses, and the rule that is broken in our words.

    An unknown key comes first: it often explains whatever else is wrong.
    """
    problems = error.errors(include_url=False)
    problem = min(problems, key=lambda found: found["type"] != "extra_forbidden")
    rule = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if problem["type"] in {"model_type", "dict_type"}:
        rule = "must be a section of `key: value` lines"
    elif problem["type"] == "string_pattern_mismatch":
        rule = "must be letters, digits, '.', '-' and '_', beginning with a letter or digit"
    return problem, rule


def suggestion(key: str, known: Sequence[str]) -> str:
    """What to say after an unknown key: the nearest known one, or those of its section.

    Near is a key by its whole dotted name, or by its last part in another section.
    """
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


def shown(value: object) -> str:
    """A value as Python writes it, cut after 60 characters."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
