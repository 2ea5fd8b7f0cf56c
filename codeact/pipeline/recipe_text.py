"""The text side of a run's recipe: ``--set key=value`` on top, and errors in one line."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from codeact.errors import InputError
from codeact.strict_yaml import first_problem, parse_yaml, shown

_CLOSE_ENOUGH = 0.6  # difflib's own cutoff: "epoch" finds "epochs", "zzz" finds nothing


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
        return f"{key} is not a known key{_suggestion(key, known)}"
    if not key:  # a rule about several keys names them itself
        return rule
    return f"{key} {rule}, got {shown(problem['input'])}"


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
