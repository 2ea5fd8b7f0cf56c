"""Run cells of ``experiment.py`` and keep what they give: a line a cell, a file of losses each."""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from experiment_data import Split, benchmark_folder, load_tasks, make_split
from experiment_grid import BASE, Cell, Settings
from experiment_scores import Scores
from harness import provenance
from numpy.typing import NDArray

from codeact.data import Examples, TokenizedExamples, tokenize_examples
from codeact.errors import InputError
from codeact.files import read_json, write_json, write_npy
from codeact.models import LoadedModel, ScoredSequence, load_model, load_tokenizer, stream_nlls
from codeact.packing import plan_bins
from codeact.training import fine_tune

logger = logging.getLogger(__name__)


def say(words: str) -> None:
    """Progress, for a person."""
    print(words, file=sys.stderr, flush=True)


class Folder:
    """The work folder of one grid.

    ``settings.json`` says what the cells share, ``cells.jsonl`` has a line for each finished one,
    ``losses/NAME.npy`` the held-out losses behind it.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        given = json.loads(json.dumps(asdict(settings)))  # tuples as JSON reads them back
        if not (path / "settings.json").is_file():
            write_json(path / "settings.json", given)
        kept = read_json(path / "settings.json")
        other = [name for name in given if kept.get(name) != given[name]]
        if other:
            raise InputError(
                f"{path} holds cells with {other[0]} = {kept.get(other[0])!r}, now it is "
                f"{given[other[0]]!r}: take another folder"
            )

    def cells(self) -> dict[str, dict[str, Any]]:
        """Finished cells by name; a line that a killed run left half written does not count."""
        found = {}
        path = self.path / "cells.jsonl"
        for line in path.read_text().splitlines() if path.is_file() else ():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                logger.warning("%s: a torn line, its cell is run again", path)
                continue
            found[row["name"]] = row
        return found

    def losses(self, name: str) -> NDArray[np.float64]:
        """(num_held_out,) mean NLL of each held-out row's answer, nats a token."""
        losses: NDArray[np.float64] = np.load(self.path / "losses" / f"{name}.npy")
        return losses

    def add(self, row: Mapping[str, Any], losses: NDArray[np.float64] | None) -> None:
        """Keep a finished cell: the losses first, then the line that says it is finished."""
        if losses is not None:
            (self.path / "losses").mkdir(exist_ok=True)
            write_npy(self.path / "losses" / f"{row['name']}.npy", losses)
        with (self.path / "cells.jsonl").open("ab") as file:
            # A line break first where the last line is torn. One write: parts may run at once.
            torn = file.tell() > 0 and not (self.path / "cells.jsonl").read_bytes().endswith(b"\n")
            file.write(b"\n" * torn + json.dumps(row).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


@dataclass
class Experiment:
    """A grid that is being run.

    Attributes:
        settings: shared by the cells.
        folder: of what is finished.
        split: pool and held-out rows.
        tasks: of ``influence``.
    """

    settings: Settings
    folder: Folder
    split: Split
    tasks: Mapping[str, Examples]

    def tokenized(self) -> tuple[TokenizedExamples, TokenizedExamples]:
        """Pool and held-out rows as they are trained and measured on."""
        tokenizer, longest = load_tokenizer(self.settings.model), self.settings.max_length
        pool, held_out = self.split.pool, self.split.held_out
        return (
            tokenize_examples(pool, tokenizer, max_length=longest),
            tokenize_examples(held_out, tokenizer, max_length=longest),
        )

    @classmethod
    def open(cls, settings: Settings, path: Path) -> Experiment:
        """Begin or go on in a folder."""
        folder = Folder(path, settings)
        tasks = load_tasks(settings)
        return cls(settings, folder, make_split(settings, tasks, path), tasks)

    def run(self, cells: Iterable[Cell], minutes: float | None = None) -> bool:
        """Run the cells that are not finished; True when all are.

        Args:
            cells: in the order to run them.
            minutes: begin nothing that would, by the cells before it, end later than this.
        """
        start, finished = time.perf_counter(), self.folder.cells()
        todo = [cell for cell in cells if cell.name not in finished]
        if not todo:
            return True
        pool, held_out = self.tokenized()
        scores = Scores(self.settings, self.split, pool, self.tasks, self.folder.path)
        for cell in todo:
            scores.check(cell.method)

        def left() -> float:
            used = (time.perf_counter() - start) / 60
            return float("inf") if minutes is None else minutes - used

        for number, cell in enumerate(todo, start=1):
            for table in scores.missing(cell.method):
                if left() <= 0:
                    return False
                say(f"scored the pool for {table} in {scores.make(table):.0f} s")
            if left() <= expected_seconds(cell, finished, len(pool)) / 60:
                say(f"time is up: {len(todo) - number + 1} cells are left for the next call")
                return False
            row, losses = self._run_cell(cell, scores, pool, held_out)
            gc.collect()  # the model before the next one
            self.folder.add(row, losses)
            finished[cell.name] = row
            outcome = row.get("error") or f"held-out NLL {row['nll']:.4f}"
            say(f"[{number}/{len(todo)}] {cell.name}: {outcome}, {row['seconds']:.0f} s")
        return True

    def _run_cell(
        self, cell: Cell, scores: Scores, pool: TokenizedExamples, held_out: TokenizedExamples
    ) -> tuple[dict[str, Any], NDArray[np.float64] | None]:
        """The line of a cell, and its losses; what the library refuses is a result too."""
        start = time.perf_counter()
        row: dict[str, Any] = {"name": cell.name, **asdict(cell)}
        losses = None
        try:
            loaded = load_model(self.settings.model, dtype="float32", device=self.settings.device)
            if cell.method != BASE:
                row |= self._train(cell, loaded, scores, pool)
            losses = held_out_nlls(loaded, held_out)
            row["nll"] = float(np.average(losses, weights=held_out.num_response_tokens))
        except InputError as error:  # a budget that cannot be met, a loss that is not finite
            row["error"] = str(error)
        if losses is not None and self.settings.benchmarks.names:
            row["passed"] = self._evaluate(cell, loaded)
        return row | {"seconds": time.perf_counter() - start, **provenance()}, losses

    def _train(
        self, cell: Cell, loaded: LoadedModel, scores: Scores, pool: TokenizedExamples
    ) -> dict[str, Any]:
        """Select and fine-tune in place; the figures of it."""
        config = replace(self.settings.train, seed=cell.seed)
        start = time.perf_counter()
        chosen = scores.select(cell)
        select_seconds = time.perf_counter() - start
        subset = pool.select(chosen)
        plan = plan_bins(subset.seqlens, config.capacity, seed=cell.seed)
        work = self.folder.path / "training" / cell.name
        cpu = time.process_time()
        result = fine_tune(loaded.model, subset, plan, config, folder=work)
        cpu = time.process_time() - cpu
        shutil.rmtree(work, ignore_errors=True)
        return {
            "rows": [pool.ids[place] for place in chosen],
            "num_rows": len(chosen),
            "num_tokens": result.num_tokens,
            "num_steps": len(result.steps),
            "score_seconds": scores.seconds(cell.method),
            "select_seconds": select_seconds,
            "train_seconds": result.seconds,
            "train_cpu_seconds": cpu,  # a busy machine changes it less
            "tokens_per_second": result.tokens_per_second,
            "peak_mib": result.peak_mib,
            "first_loss": result.steps[0].loss,
            "last_loss": result.steps[-1].loss,
        }

    def _evaluate(self, cell: Cell, loaded: LoadedModel) -> dict[str, Any]:
        """Which tasks pass, of their own tests and of EvalPlus's too; by our check alone.

        From scratch each time: a cell that was killed has been trained again.
        """
        from codeact.evaluation import evaluate  # here: with the sandbox behind it
        from codeact.evaluation.results import read_results

        output = self.folder.path / "evaluation" / cell.name
        options = self.settings.benchmarks
        if loaded.model.device.type == "cuda":
            loaded.model.bfloat16()  # generates faster, as such models are used
        evaluate(
            loaded, benchmarks=options.names, data=benchmark_folder(), output=output,
            max_new_tokens=options.max_new_tokens, limit=options.limit,
            evalplus=False, resume=False,
        )  # fmt: skip
        results = read_results(output / "results.jsonl")
        return {
            f"{name}{'+' * (metric == 'plus')}": {
                task: verdicts[0] for task, verdicts in results.verdicts(name, metric).items()
            }
            for name in options.names
            for metric in ("base", "plus")
        }


def held_out_nlls(loaded: LoadedModel, rows: TokenizedExamples) -> NDArray[np.float64]:
    """Mean NLL of each row's answer tokens, nats.

    Raises:
        InputError: one is not finite: the model diverged.
    """
    sequences = [ScoredSequence(*rows[row]) for row in range(len(rows))]
    means = np.empty(len(sequences))
    for pack in stream_nlls(loaded.model, sequences):
        for row, nlls in pack:
            means[row] = nlls.mean(dtype=np.float64)
    if not np.isfinite(means).all():
        raise InputError("the held-out loss is not finite: the model diverged")
    return means


def expected_seconds(cell: Cell, finished: Mapping[str, Mapping[str, Any]], num_rows: int) -> float:
    """By the slowest finished cell of no larger share, in proportion; 0 where there is none."""
    share = cell.share(num_rows)
    known: Sequence[tuple[float, float]] = [
        (Cell(row["method"], row["budget"], row["seed"]).share(num_rows), row["seconds"])
        for row in finished.values()
    ]
    largest = max((other for other, _ in known if 0 < other <= share), default=0.0)
    seconds = [taken for other, taken in known if other == largest]
    scale = share / largest if largest else 1.0
    return max(seconds, default=0.0) * scale
