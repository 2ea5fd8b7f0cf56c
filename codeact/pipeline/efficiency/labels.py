"""Statuses and reasons in words for a reader."""

from __future__ import annotations

# What a table has room for; a status that stands in none of them is an error.
OUTCOMES = {
    "right": ("passed",),
    "wrong answer": ("wrong_answer",),
    "error": (),
    "over a limit": ("time_limit", "memory_limit", "output_limit"),
    "not run": ("unsafe", "not_algorithmic", "no_compiler", "bad_test", "sandbox_error"),
}
_OUTCOME = {status: outcome for outcome, statuses in OUTCOMES.items() for status in statuses}

RACES = {
    "ranked": "ranked",
    "too_short": "too little work to measure",
    "none_passed": "no right answer",
    "failed": "not measured",
}

DECIDED_BY = {
    "only": "nothing else to choose from",
    "cpu": "CPU time",
    "instructions": "executed instructions",
    "tmu": "memory integrated over CPU time",
    "length": "length of the source",
    "hash": "hash of the source",
    "pareto": "CPU time and memory together",
    "weighted": "weighted time and memory",
}

REASONS = {
    "all_fail": "no right answer",
    "unsafe": "only answers with risky operations",
    "not_algorithmic": "not a question of algorithms",
    "no_spread": "right answers too close, or only one",
    "too_short": "too little work to measure",
    "not_measured": "not measured",
    "no_slower_answer": "no slower right answer",
    "gap_too_small": "gap too small",
    "runs_overlap": "runs of the two overlap",
    "not_confirmed": "gap not confirmed when measured again",
}


def outcome_of(status: str) -> str:
    """The group of a candidate's status."""
    return _OUTCOME.get(status, "error")


def words(name: str) -> str:
    """A status as words: ``wrong answer``."""
    return name.replace("_", " ")
