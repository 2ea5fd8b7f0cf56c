"""Rows to score and validation tasks: files that are named, or functions of installed packages."""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np

from codeact.data import Examples, harvest_functions, load_examples, load_validations
from codeact.models import LoadedModel, ScoredSequence
from codeact.scoring import Scorer
from codeact.scoring.influence.validation import ValidationTask, validation_tasks


class Prepared(NamedTuple):
    """Pool rows and validation tasks as token sequences."""

    pool: list[ScoredSequence]
    tasks: tuple[ValidationTask, ...]


def add_options(parser: argparse.ArgumentParser) -> None:
    """What data to take, and how much of it."""
    parser.add_argument("--model", help="folder or hub id; SmolLM2-135M-Instruct by default")
    parser.add_argument("--data", help="instruction data; functions of installed packages if none")
    parser.add_argument(
        "--validation", action="append", metavar="[NAME=]FILE", help="with --data; repeatable"
    )
    parser.add_argument("--problems", type=int, default=8, help="of each validation task")
    parser.add_argument("--max-length", type=int, default=1024)


def choose_rows(examples: Examples, num_rows: int) -> Examples:
    """Rows spread evenly over the set, whatever its order."""
    places = np.linspace(0, len(examples) - 1, num_rows).astype(int)
    return examples.select(np.unique(places))


def load(options: argparse.Namespace, loaded: LoadedModel) -> Prepared:
    """All rows that can be scored, and the tasks."""
    if options.data is None:
        tasks = {
            name: harvest_functions((name,), limit=options.problems)
            for name in ("sympy", "networkx")
        }
        taken = {example.id for examples in tasks.values() for example in examples}
        harvested = harvest_functions()
        left = [place for place, example in enumerate(harvested) if example.id not in taken]
        pool = harvested.select(left)
    else:
        pool = load_examples(options.data)
        tasks = load_validations(options.validation, limit=options.problems)
    scorer = Scorer(loaded, max_length=options.max_length)
    common = scorer.tokenizer, scorer.preset, scorer.max_length
    prepared = validation_tasks(tasks, *common)
    return Prepared(
        list(validation_tasks({"pool": choose_rows(pool, options.rows)}, *common)[0].sequences),
        prepared,
    )
