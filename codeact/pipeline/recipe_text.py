"""The text side of a run's recipe: ``--set key=value`` on top, and errors in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from codeact.errors import InputError
from codeact.strict_yaml import first_problem, parse_yaml, shown, suggestion


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
    value = parse_yaml(text, source=f"--set {dotted.strip()}")
    for section in sections:
        if values.get(section) is None:
            values[section] = {}
        values = values[section]
        if not isinstance(values, dict):
            raise InputError(f"--set: {dotted.strip()} is not a key, {section} is no section")
    values[leaf] = value


def explain(error: ValidationError, known: Sequence[str]) -> str:
    """The first thing wrong with a recipe, in one line: key, rule and what came."""
    problem, rule = first_problem(error)
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{key} is not a known key{suggestion(key, known)}"
    if not key:  # a rule about several keys names them itself
        return rule
    return f"{key} {rule}, got {shown(problem['input'])}"
