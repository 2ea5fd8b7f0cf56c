"""The grid runs, goes on where it was killed, and its tests are what plain arithmetic says."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from experiment import keep, main, parse, settings_of
from experiment_data import load_tasks, make_split, mbpp_train, strata_of
from experiment_grid import FULL, Cell, Settings, grid, part_of
from experiment_run import Experiment, Folder, expected_seconds
from experiment_table import markdown
from experiment_tests import summarise

from codeact.data import load_examples
from codeact.errors import InputError
from codeact.selection import find_method
from codeact.training import TrainConfig

WORDS = ("list", "tuple", "tree", "graph", "queue", "stack", "heap", "string", "file", "date")
NUM_ROWS = 40


def write_rows(path: Path, num_rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(num_rows):
        words = " ".join(rng.choice(WORDS, size=int(rng.integers(5, 20))))
        name = "_".join(rng.choice(WORDS, size=3))
        rows.append(
            {"instruction": f"Do {number}: {words}", "output": f"def {name}(x):\n    {words}"}
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(("first", "second")):
        write_rows(folder / f"{name}.jsonl", NUM_ROWS * (1 + seed), seed)
    return str(folder / "first.jsonl"), str(folder / "second.jsonl")


@pytest.fixture
def settings(data, tiny_model_folder) -> Settings:
    train = TrainConfig(epochs=1.0, learning_rate=1e-3, capacity=512, accumulation=1)
    return Settings(
        model=str(tiny_model_folder), data=data, num_rows=24, num_held_out=12, max_length=400,
        train=train, device="cpu",
    )  # fmt: skip


CELLS = grid(["random", "ifd"], ["0.25"], 2)


@pytest.fixture(scope="module")
def finished(data, tiny_model_folder, tmp_path_factory) -> Experiment:
    """Both methods at a quarter, two seeds."""
    train = TrainConfig(epochs=1.0, learning_rate=1e-3, capacity=512, accumulation=1)
    settings = Settings(
        model=str(tiny_model_folder), data=data, num_rows=24, num_held_out=12, max_length=400,
        train=train, device="cpu",
    )  # fmt: skip
    experiment = Experiment.open(settings, tmp_path_factory.mktemp("work"))
    assert experiment.run(CELLS)
    return experiment


def test_a_seed_comes_whole_before_the_next() -> None:
    cells = grid(["random", "cdas", FULL], ["0.1", "50"], 2)
    assert [cell.name for cell in cells] == [
        "base",
        *(f"{m}-{b}-0" for b in ("0.1", "50") for m in ("random", "cdas")), "full-1.0-0",
        *(f"{m}-{b}-1" for b in ("0.1", "50") for m in ("random", "cdas")), "full-1.0-1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "bad",
    [
        (["cdsa"], ["0.1"], 1),
        (["cdas"], ["1.5"], 1),
        (["ifd", "ifd"], ["1"], 1),
        (["ifd"], ["0.1"], 0),
    ],
    ids=["method", "budget", "twice", "seeds"],
)
def test_a_grid_that_makes_no_sense_is_refused(bad) -> None:
    with pytest.raises(InputError):
        grid(*bad)


def test_parts_hold_every_cell_once_and_are_about_equally_long() -> None:
    cells = grid(["random", "cdas", "ifd", FULL], ["0.1", "0.4"], 3)
    parts = [part_of(cells, 100, 4, part) for part in range(1, 5)]
    assert Counter(cell for part in parts for cell in part) == Counter(cells)
    loads = [sum(cell.share(100) + 0.1 for cell in part) for part in parts]
    assert max(loads) < 1.3 * min(loads)
    with pytest.raises(InputError, match="part must be"):
        part_of(cells, 100, 4, 5)


def test_the_split_is_clean_and_stratified(settings, data, tmp_path, monkeypatch) -> None:
    # A copy of a row, and the solution of a HumanEval task, must not be among the rows.
    bench = tmp_path / "bench"
    bench.mkdir()
    solution = "    return sorted(numbers, key=lambda pair: pair[0] + pair[1] ** 2)\n"
    task = {"task_id": "HumanEval/0", "prompt": "def f(numbers):\n", "canonical_solution": solution}
    (bench / "HumanEval.jsonl").write_text(json.dumps(task) + "\n")
    rows = [json.loads(line) for line in Path(data[0]).read_text().splitlines()]
    copied = {"instruction": "Sort the pairs", "output": f"def g(numbers):\n{solution}"}
    rows += [*rows[:3], copied]
    source = tmp_path / "first.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("CODEACT_DATA", str(tmp_path))
    wanted = replace(settings, data=(str(source), data[1]))
    split = make_split(wanted, {}, tmp_path)
    assert (len(split.pool), len(split.held_out)) == (24, 12)
    texts = [row.instruction + row.response for part in split[:2] for row in part]
    assert len(set(texts)) == 36
    assert not any("pair[0]" in text for text in texts)
    assert split.facts["drawn"] - split.facts["without benchmark texts"] <= 1
    for part in split[:2]:  # the second file has twice the rows
        assert Counter(name.split("/")[0] for name in strata_of(part))["second"] == pytest.approx(
            len(part) * 2 / 3, abs=2
        )
    again = make_split(wanted, {}, tmp_path)
    assert again.pool.content_hash() == split.pool.content_hash() == split.facts["pool hash"]
    with pytest.raises(InputError, match="at most"):
        make_split(replace(wanted, num_rows=500), {}, tmp_path / "other")


def test_validation_tasks_are_of_the_training_split_and_in_no_test(tmp_path, settings) -> None:
    row = {"text": "Write a function.", "code": "def f():\r\n    pass", "test_list": ["assert f()"]}
    tasks = [{**row, "task_id": number} for number in (11, 600, 601, 602, 603, 974)]
    (tmp_path / "mbpp.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    plus = {"task_id": "Mbpp/602", "prompt": '"""Write."""', "canonical_solution": "def f(): pass"}
    assert mbpp_train(tmp_path, 10, 0) == {}  # without MBPP+ nobody can say what is tested
    (tmp_path / "MbppPlus-v0.2.0.jsonl").write_text(json.dumps(plus) + "\n")
    found = mbpp_train(tmp_path, 10, 0)["mbpp-train"]
    assert sorted(one.fields["task_id"] for one in found) == [601, 603, 974]


def test_tasks_of_the_test_are_refused(tmp_path, settings, monkeypatch) -> None:
    folder = tmp_path / "bench"
    folder.mkdir()
    task = {
        "task_id": "HumanEval/0", "entry_point": "f", "test": "",
        "prompt": 'def f(numbers):\n    """Give the numbers back, the first of them doubled."""\n',
        "canonical_solution": "    return [numbers[0] * 2, *numbers[1:]]\n",
    }  # fmt: skip
    (folder / "HumanEval.jsonl").write_text(json.dumps(task) + "\n")
    monkeypatch.setenv("CODEACT_DATA", str(tmp_path))
    named = replace(settings, validation=(str(folder / "HumanEval.jsonl"),))
    assert len(load_tasks(named)["humaneval"]) == 1
    benchmarks = replace(named.benchmarks, names=("humaneval",))
    with pytest.raises(InputError, match="select for the test"):
        load_tasks(replace(named, benchmarks=benchmarks))


def test_the_base_losses_are_those_of_plain_transformers(finished) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(finished.settings.model)
    rows = finished.tokenized()[1]
    plain = []
    for input_ids, labels in rows:
        batch = {"input_ids": torch.tensor(input_ids[None]).long()}
        with torch.no_grad():
            plain.append(model(**batch, labels=torch.tensor(labels[None]).long()).loss.item())
    np.testing.assert_allclose(finished.folder.losses("base"), plain, rtol=1e-5)
    mean = np.average(plain, weights=rows.num_response_tokens)
    assert finished.folder.cells()["base"]["nll"] == pytest.approx(mean, rel=1e-5)


def test_cells_hold_what_was_selected_and_trained(finished) -> None:
    cells = finished.folder.cells()
    assert set(cells) == {cell.name for cell in CELLS}
    top = cells["ifd-0.25-0"]
    assert top["rows"] == cells["ifd-0.25-1"]["rows"]  # the order alone differs by seed
    assert cells["random-0.25-0"]["rows"] != cells["random-0.25-1"]["rows"]
    lengths = dict(zip(finished.split.pool.ids, finished.tokenized()[0].seqlens, strict=True))
    for name in set(cells) - {"base"}:
        assert len(cells[name]["rows"]) == cells[name]["num_rows"] == 6
        assert cells[name]["num_tokens"] == sum(lengths[row] for row in cells[name]["rows"])
        assert abs(cells[name]["nll"] - cells["base"]["nll"]) > 1e-6
    assert top["score_seconds"] > 0 == cells["random-0.25-0"]["score_seconds"]


def test_ifd_has_no_cap_and_takes_the_top(finished) -> None:
    from codeact.scoring import Scorer

    pool = load_examples(finished.folder.path / "pool.jsonl")
    table = Scorer(finished.settings.model).ifd(pool)
    ifd = np.array(table["ifd_ppl"].to_pylist())
    assert (ifd > 1).any()  # a random model: the cap would change the choice
    top = [pool.ids[place] for place in np.argsort(-ifd)[:6]]
    assert set(finished.folder.cells()["ifd-0.25-0"]["rows"]) == set(top)


def test_a_killed_run_goes_on_with_the_same_numbers(finished, tmp_path) -> None:
    folder = tmp_path / "work"
    experiment = Experiment.open(finished.settings, folder)
    assert not experiment.run(CELLS[:2], minutes=0)  # time is up before anything
    assert experiment.run(CELLS[:2])
    line = (folder / "cells.jsonl").read_text().splitlines()[1]
    (folder / "cells.jsonl").write_text(
        (folder / "cells.jsonl").read_text().replace(line + "\n", line[: len(line) // 2])
    )
    assert set(experiment.folder.cells()) == {"base"}
    assert experiment.run(CELLS[:2])
    cells = experiment.folder.cells()
    assert set(cells) == {"base", CELLS[1].name}
    np.testing.assert_array_equal(
        experiment.folder.losses(CELLS[1].name), finished.folder.losses(CELLS[1].name)
    )
    stamp = (folder / "cells.jsonl").stat().st_mtime_ns
    assert experiment.run(CELLS[:2], minutes=0)  # nothing is left
    assert (folder / "cells.jsonl").stat().st_mtime_ns == stamp


def test_influence_takes_the_most_helpful_rows(settings, data_folder, tmp_path) -> None:
    experiment = Experiment.open(replace(settings, num_problems=2), tmp_path)
    assert set(experiment.tasks) == {"mbpp-train"}
    assert experiment.run([Cell("influence", "5", 0)])
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "influence.parquet")
    helpful = np.argsort(-np.array(table["influence"].to_pylist()))[:5]
    top = {experiment.split.pool.ids[place] for place in helpful}
    assert set(experiment.folder.cells()["influence-5-0"]["rows"]) == top


def test_influence_without_tasks_is_refused_at_once(settings, tmp_path) -> None:
    experiment = Experiment.open(settings, tmp_path)
    with pytest.raises(InputError, match="influence needs validation tasks"):
        replace(experiment, tasks={}).run(grid(["random", "influence"], ["0.5"], 1))
    assert experiment.folder.cells() == {}


def test_other_settings_need_another_folder(finished) -> None:
    with pytest.raises(InputError, match="num_rows = 24, now it is 25"):
        Folder(finished.folder.path, replace(finished.settings, num_rows=25))


def test_what_the_library_refuses_is_a_result(finished, settings, tmp_path) -> None:
    wild = replace(settings, train=replace(settings.train, learning_rate=1e30, max_grad_norm=0.0))
    experiment = Experiment.open(wild, tmp_path)
    assert experiment.run([Cell("random", "12", 0)])
    row = experiment.folder.cells()["random-12-0"]
    assert "nll" not in row
    assert row["error"]
    result = summarise(experiment.folder.cells(), {}, np.ones(12), "ifd")
    assert f"random-12-0 failed: {row['error']}" in markdown(result)


def test_generated_answers_are_kept_with_the_cell(settings, tmp_path, monkeypatch) -> None:
    from codeact.evaluation.results import ResultRow, write_results

    asked = {}

    def evaluate(loaded, *, output, benchmarks, **options) -> None:
        asked.update(options, on_model=loaded.model.config.model_type)
        rows = [
            ResultRow("humaneval", f"HumanEval/{task}", 0, True, task == 0, "pass", "fail")
            for task in range(2)
        ]
        write_results(output / "results.jsonl", rows)

    monkeypatch.setattr("codeact.evaluation.evaluate", evaluate)
    benchmarks = replace(settings.benchmarks, names=("humaneval",), limit=2)
    experiment = Experiment.open(replace(settings, benchmarks=benchmarks), tmp_path)
    assert experiment.run(CELLS[:1])
    assert experiment.folder.cells()["base"]["passed"] == {
        "humaneval": {"HumanEval/0": True, "HumanEval/1": True},
        "humaneval+": {"HumanEval/0": True, "HumanEval/1": False},
    }
    assert (asked["limit"], asked["on_model"]) == (2, "llama")


def test_a_random_model_passes_no_task(settings, sandbox, data_folder, tmp_path) -> None:
    benchmarks = replace(settings.benchmarks, names=("humaneval",), limit=1, max_new_tokens=8)
    experiment = Experiment.open(replace(settings, benchmarks=benchmarks), tmp_path)
    assert experiment.run(CELLS[:1])
    row = experiment.folder.cells()["base"]
    failed = {"HumanEval/0": False}
    assert row["passed"] == {"humaneval": failed, "humaneval+": failed}
    assert row["nll"] > 0


def test_a_length_matched_control_has_the_lengths_of_its_method(settings, tmp_path) -> None:
    from experiment_scores import Scores

    experiment = Experiment.open(replace(settings, control_of="longest"), tmp_path)
    pool, _ = experiment.tokenized()
    scores = Scores(experiment.settings, experiment.split, pool, {}, tmp_path)
    tokens = pool.num_response_tokens
    longest = scores.select(Cell("longest", "0.5", 0))
    control = scores.select(Cell("length-matched-random", "0.5", 0))
    uniform = scores.select(Cell("random", "0.5", 0))
    gap = abs(tokens[control].mean() - tokens[longest].mean())
    assert gap < 0.2 * abs(tokens[uniform].mean() - tokens[longest].mean())
    with pytest.raises(InputError, match="method deita needs"):
        scores.tables("deita")
    assert scores.tables("random") == scores.tables("length-matched-random") == ()
    assert set(find_method("cdas").inputs) == {"embeddings", "column:ifd_ppl"}
    assert scores.tables("cdas") == ("ifd",)


def test_the_next_cell_is_expected_to_take_its_share() -> None:
    row = {"name": "random-0.1-0", "method": "random", "budget": "0.1", "seed": 0, "seconds": 10.0}
    assert expected_seconds(Cell("cdas", "0.3", 0), {"random-0.1-0": row}, 100) == pytest.approx(30)
    assert expected_seconds(Cell("cdas", "0.05", 0), {"random-0.1-0": row}, 100) == 0


def test_only_a_grid_that_is_written_down_is_kept(settings, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("CODEACT_BENCH_NO_RECORD")
    monkeypatch.setattr("experiment.RESULTS", tmp_path / "results")
    monkeypatch.setattr("experiment.demo_model", lambda: tmp_path / "demo")
    (tmp_path / "results").mkdir()
    (tmp_path / "table.md").write_text("| a table |\n")
    placed = {"model": "/home/me/demo", "data": ["/home/me/rows.jsonl"], "validation": []}
    (tmp_path / "result.json").write_text(json.dumps({"settings": placed}))
    keep(tmp_path, "small", settings)
    assert not list((tmp_path / "results").iterdir())
    written_down = settings_of(parse([str(tmp_path), "--small"]))
    for other in (
        {"model": settings.model}, {"data": settings.data}, {"control_of": "cdas"},
        {"train": settings.train},
    ):  # fmt: skip
        keep(tmp_path, "small", replace(written_down, **other))
    assert not list((tmp_path / "results").iterdir())
    keep(tmp_path, "small", written_down)
    result, table = sorted((tmp_path / "results").iterdir())
    assert table.name.startswith("experiment-small-")
    assert table.read_text() == "| a table |\n"
    named = {"model": "demo", "data": ["rows.jsonl"], "validation": []}
    assert json.loads(result.read_text()) == {"settings": named}


def test_the_command_writes_table_and_result(data, tiny_model_folder, tmp_path, capsys) -> None:
    arguments = [
        str(tmp_path), "--model", str(tiny_model_folder), "--data", data[0], "--rows", "16",
        "--held-out", "8", "--max-length", "400", "--method", "random", "--method", "full",
        "--budget", "4", "--seeds", "1", "--device", "cpu", "--no-record",
    ]  # fmt: skip
    main(arguments)
    shown = capsys.readouterr().out
    assert (tmp_path / "table.md").read_text() in shown
    result = json.loads((tmp_path / "result.json").read_text())
    assert {arm["method"] for arm in result["arms"]} == {"base", "random", "full"}
    assert [test["reference"] for test in result["tests"]] == ["full"]
    assert (tmp_path / "figure.png").is_file() == (find_spec("matplotlib") is not None)
    with pytest.raises(SystemExit, match="take another folder"):
        main([*arguments, "--epochs", "2"])
