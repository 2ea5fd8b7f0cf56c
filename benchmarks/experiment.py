"""Which selection helps? Method x budget x seed: select, fine-tune, look at rows that nobody saw.

- ``WORK`` keeps everything: pool, scores, a line a finished cell. The same command goes on there;
- ``--minutes 8`` begins nothing that would end later; ``--parts 4 --part 1`` is a quarter of the
  cells, for several machines or processes;
- when cells are there, ``result.json``, ``table.md`` and a picture are written anew at the end.

    python benchmarks/experiment.py WORK --small
    python benchmarks/experiment.py WORK --gpu --minutes 8        # again until it says it is done
    python benchmarks/experiment.py WORK --model FOLDER --data rows.jsonl --budget 0.2 --seeds 3
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from experiment_data import default_data
from experiment_grid import FULL, METHODS, SIZES, Benchmarks, Settings, grid, part_of
from experiment_run import Experiment, say
from experiment_table import markdown
from experiment_tests import summarise
from harness import NO_RECORD, RESULTS, device_slug

from codeact.cli.allocator import keep_freed_memory
from codeact.cli.quiet import quiet_models
from codeact.errors import InputError
from codeact.files import write_json, write_text
from codeact.models import demo_model


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options; what is not given comes from the size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="folder to work in, and to go on in")
    sizes = parser.add_mutually_exclusive_group()
    for name in SIZES:
        sizes.add_argument(
            f"--{name}", dest="size", action="store_const", const=name, help=f"the {name} grid"
        )
    parser.set_defaults(size="small")
    parser.add_argument("--model", help="folder or hub id; SmolLM2-135M-Instruct by default")
    parser.add_argument("--data", action="append", help="instruction data; repeatable")
    parser.add_argument("--validation", action="append", help="task for influence; repeatable")
    parser.add_argument("--method", action="append", help=f"of {', '.join(METHODS)}; repeatable")
    parser.add_argument("--budget", action="append", help="0.1, 500, 0.2tokens; repeatable")
    parser.add_argument("--seeds", type=int, help="number of seeds")
    parser.add_argument("--rows", type=int, help="of the pool")
    parser.add_argument("--held-out", type=int, help="rows that no cell trains on")
    parser.add_argument("--max-length", type=int, help="tokens; longer rows are left out")
    parser.add_argument("--control-of", help="whose lengths length-matched-random has; ifd")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--capacity", type=int, help="tokens of a bin")
    parser.add_argument("--accumulation", type=int, help="bins of an optimizer step")
    parser.add_argument("--evaluate", action="store_true", help="HumanEval(+), MBPP(+) each cell")
    parser.add_argument("--limit", type=int, help="tasks of each benchmark")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float, help="begin no cell that would end later")
    parser.add_argument("--parts", type=int, default=1)
    parser.add_argument("--part", type=int, default=1, help="which of them, from 1")
    parser.add_argument("--no-record", action="store_true", help="leave results/ alone")
    return parser.parse_args(arguments)


def settings_of(options: argparse.Namespace) -> Settings:
    """What the cells share: the size's, and what was given."""
    given: dict[str, Any] = {
        "num_rows": options.rows,
        "num_held_out": options.held_out,
        "max_length": options.max_length,
        "control_of": options.control_of,
    }
    of_train = {
        name: getattr(options, name)
        for name in ("learning_rate", "epochs", "capacity", "accumulation")
    }
    size = SIZES[options.size].options
    named = {name: value for name, value in given.items() if value is not None}
    changed = {name: value for name, value in of_train.items() if value is not None}
    whole = {**size, **named, "train": replace(size["train"], **changed)}
    names = ("humaneval", "mbpp") if options.evaluate else ()
    return Settings(
        model=str(options.model or demo_model()),
        data=tuple(options.data or default_data()),
        validation=tuple(options.validation or ()),
        benchmarks=Benchmarks(names, options.limit),
        device=options.device,
        **whole,
    )


def report(experiment: Experiment) -> dict[str, Any] | None:
    """Write table and picture of the cells that are there; None while there is no baseline."""
    from experiment_picture import draw

    cells = experiment.folder.cells()
    losses = {name: experiment.folder.losses(name) for name, row in cells.items() if "nll" in row}
    if not losses:
        return None
    path = experiment.folder.path
    facts = {"settings": asdict(experiment.settings), "split": dict(experiment.split.facts)}
    weights = experiment.tokenized()[1].num_response_tokens
    result = facts | summarise(cells, losses, weights, experiment.settings.control_of)
    write_json(path / "result.json", result)
    write_text(path / "table.md", markdown(result))
    try:
        draw(result, path / "figure")
    except ImportError as error:
        say(f"no picture: {error}")
    return result


def keep(work: Path, size: str, settings: Settings) -> None:
    """Copy what a whole grid gave to ``results/``; one with other options is no grid of ours."""
    written_down = settings_of(parse([str(work), f"--{size}", "--device", settings.device]))
    if os.environ.get(NO_RECORD) or settings != written_down:
        return
    stem = RESULTS / f"experiment-{size}-{device_slug()}"
    for name in ("table.md", "figure.png", "figure.svg"):
        if (work / name).is_file():
            shutil.copy(work / name, f"{stem}{Path(name).suffix}")
    result = json.loads((work / "result.json").read_text())
    Path(f"{stem}.json").write_text(json.dumps(without_folders(result), indent=1) + "\n")


def without_folders(result: dict[str, Any]) -> dict[str, Any]:
    """The result with the names of model and files instead of where they lie on this machine."""
    settings = dict(result["settings"])
    settings["model"] = Path(settings["model"]).name
    for key in ("data", "validation"):
        settings[key] = [Path(name).name for name in settings[key]]
    return {**result, "settings": settings}


def main(arguments: list[str] | None = None) -> None:
    """Run what is left of the grid, then write what is known."""
    options = parse(arguments)
    if options.no_record:
        os.environ[NO_RECORD] = "1"
    size = SIZES[options.size]
    quiet_models()
    keep_freed_memory()
    try:
        cells = grid(
            options.method or size.methods, options.budget or size.budgets,
            options.seeds or size.num_seeds,
        )  # fmt: skip
        experiment = Experiment.open(settings_of(options), options.work)
        # A seed of the full set takes as long as many cells: after all others.
        cells.sort(key=lambda cell: cell.method == FULL)
        mine = part_of(cells, experiment.settings.num_rows, options.parts, options.part)
        is_done = experiment.run(mine, options.minutes)
        result = report(experiment)
    except InputError as error:
        raise SystemExit(f"experiment.py: error: {error}") from None
    if result is not None:
        print(markdown(result))
    finished = experiment.folder.cells()
    left = [cell.name for cell in cells if cell.name not in finished]
    if left:
        words = "this part is done; " if is_done else ""
        say(f"{words}{len(left)} of {len(cells)} cells are left: the same command goes on")
    elif not (options.method or options.budget or options.seeds):
        keep(options.work, options.size, experiment.settings)


if __name__ == "__main__":
    main()
