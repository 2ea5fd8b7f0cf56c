"""Bad data, models, tables and recipes: one line and status 2, and nothing half-written."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Refused = Callable[[str, str], None]

SCORE = "score {rows} --model {model} --output {out}/scores.parquet"
EMBED = "embed {rows} --model {model} --output {out}/x.npy"
SELECT = "select {rows} --scores {scores} --embeddings {embeddings} --output {out}/old.jsonl"
PACK = "pack {rows} --model {model} --output {out}/bins.json"
TRAIN = "train {rows} --model {model} --output {out}/model"
RUN = "run {recipe} --output {out}/run"
CLEAN = "decontaminate {rows} --output {out}/clean.jsonl"

DATA = {
    "none.jsonl": r"none\.jsonl: file not found",
    "{bad}/empty.jsonl": r"empty\.jsonl: the data set is empty",
    "{bad}/broken.jsonl": r"broken\.jsonl:3: not a JSON object \(.+ column \d+\)",
    "{bad}/fields.jsonl": r"fields\.jsonl:1: no known columns, .+ got foo, bar",
    "{bad}/type.jsonl": r"type\.jsonl:2: instruction must be a string, got int",
    "{bad}/no_object.jsonl": r"no_object\.jsonl:2: must be an object, got list",
    "{bad}/latin1.jsonl": r"latin1\.jsonl: text must be UTF-8",
    "{bad}/folder": r"folder: a folder must be one that datasets saved",
    "{bad}/rows.csv": r"rows\.csv: file must end in \.json",
}


@pytest.mark.parametrize("data", DATA)
def test_data(data: str, refused: Refused) -> None:
    refused(SCORE.replace("{rows}", data), DATA[data])


@pytest.mark.parametrize("line", [EMBED, SELECT, PACK, TRAIN, CLEAN], ids=lambda x: x.split()[0])
def test_data_of_every_verb(line: str, refused: Refused) -> None:
    refused(line.replace("{rows}", "{bad}/broken.jsonl"), DATA["{bad}/broken.jsonl"])


MODEL = {
    "{bad}/none": r"'.+/none' is not a folder",
    "{bad}/empty.jsonl": r"'.+/empty\.jsonl' is not a folder",
    "{bad}/no_tokenizer": r"'.+/no_tokenizer' has no tokenizer",
    "{bad}/no_config": r"'.+/no_config' has no config\.json",
    "{bad}/broken_config": r"broken_config' cannot be loaded: .+JSON",
    "{bad}/broken_tokenizer": r"broken_tokenizer' cannot be loaded: .+",
}
WEIGHTS = {
    "{bad}/no_weights": r"no_weights' cannot be loaded: .*no file named model\.safetensors",
    "{bad}/broken_weights": r"broken_weights' cannot be loaded: .*header",
}


@pytest.mark.parametrize(
    ("line", "model"),
    [(line, model) for line in (SCORE, EMBED, PACK, TRAIN) for model in MODEL]
    + [(line, model) for line in (SCORE, EMBED, TRAIN) for model in WEIGHTS],
    ids=lambda words: words.split()[0],
)
def test_model(line: str, model: str, refused: Refused) -> None:
    refused(line.replace("{model}", model), (MODEL | WEIGHTS)[model])


@pytest.mark.parametrize(
    ("place", "file", "message"),
    [
        ("{rows}", "{bad}/other.jsonl", r"row 0 is 'other-0' there and 'row-0' in .+scores"),
        ("{rows}", "{bad}/fewer.jsonl", r"--scores must hold the 7 rows of .+, got 12 in .+scores"),
        ("{scores}", "none.parquet", r"none\.parquet cannot be read: .*No such file"),
        ("{scores}", "{rows}", r"cdas needs column ifd_ppl \(codeact score\)"),
        ("{scores}", "{bad}/empty.npy", r"--scores must hold the 12 rows of .+, got 0"),
        (
            "{scores}",
            "{bad}/words.jsonl",
            r"ifd_ppl of .+words\.jsonl holds values that are no numbers",
        ),
        ("{embeddings}", "none.npy", r"--embeddings none\.npy cannot be read.+No such file"),
        ("{embeddings}", "{bad}/text.npy", r"--embeddings .+text\.npy cannot be read"),
        ("{embeddings}", "{bad}/empty.npy", r"--embeddings .+empty\.npy cannot be read"),
        ("{embeddings}", "{bad}/fewer.npy", r"--embeddings must hold the 12 rows of .+, got 7"),
        ("{embeddings}", "{bad}/flat.npy", r"flat\.npy must hold one matrix"),
        ("{embeddings}", "{bad}/nan.npy", r"embeddings.+finite"),
    ],
)
def test_tables(place: str, file: str, message: str, refused: Refused) -> None:
    refused(SELECT.replace(place, file), message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run none.yaml", r"recipe none\.yaml cannot be read: No such file"),
        ("run {bad}", r"recipe .+ cannot be read: Is a directory"),
        ("run {bad}/key.yaml", r"key\.yaml: train\.epoch is not a .+ did you mean train\.epochs\?"),
        ("run {bad}/type.yaml", r"type\.yaml: train\.epochs must be a valid number, got 'many'"),
        ("run {bad}/list.yaml", r"list\.yaml: a recipe is `key: value` lines"),
        ("run {bad}/broken.yaml", r"broken\.yaml line 2: no valid YAML"),
        ("run {bad}/no_data.yaml --output {out}/run", r"none\.jsonl: file not found"),
        (RUN + " --set score.presets=a", r"--set: score\.presets .+ did you mean score\.preset\?"),
        (RUN + " --set train.epochs=many", r"--set: train\.epochs must be .+, got 'many'"),
        (RUN + " --set train.epochs", r"--set expects key=value, .+ got 'train\.epochs'"),
        (RUN + " --set select.budget=0", r"--set: select\.budget must be a fraction .+, got 0"),
        (RUN + " --set select.budget=-1", r"--set: select\.budget must be a fraction .+, got -1"),
        (RUN + " --set select.method=best", r"select\.method must be one of cdas, .*, got 'best'"),
        (RUN + " --set model.device=tpu", r"model\.device must be 'auto'.+, got 'tpu'"),
        (RUN + " --set pack.capacity=100", r"data\.max_tokens = 200 must fit pack\.capacity = 100"),
        (RUN + " --set data.max_tokens=20", r"data\.source: none of the 12 rows .+ 12 prompt_over"),
        (RUN + " --set data.source={bad}/no_answers.jsonl", r"none of the 3 rows .+ 3 empty_resp"),
        (RUN + " --set model.name={bad}/no_tokenizer", MODEL["{bad}/no_tokenizer"]),
        (
            RUN.replace("{out}/run", "{out}/old.jsonl"),
            r"run folder .+ must be a folder, got a file",
        ),
        (RUN.replace("{out}", "/proc"), r"run folder /proc/run cannot be written to"),
        ("demo --output {out}/demo --set sed=1", r"--set: sed is not a .+ did you mean seed\?"),
        ("report none", r"run must be a run folder, got none, which is no folder"),
        ("report {bad}", r"without recipe\.yaml or manifest\.json"),
        (CLEAN + " --benchmarks {bad}", r"no HumanEval or MBPP file found"),
        (CLEAN + " --benchmarks none", r"folder of benchmarks.+none"),
    ],
)
def test_recipes_and_folders(line: str, message: str, refused: Refused) -> None:
    refused(line, message)


@pytest.mark.parametrize(
    ("change", "message", "finished"),
    [
        ("select.budget=10", r"budget must be a count from 1 to 9 .+, got 10", ["load"]),
        ("data.num_held_out=11", r"data has 12 usable rows; 11 held out and 2 clus", ["load"]),
        (
            "model.name={bad}/no_weights",
            WEIGHTS["{bad}/no_weights"],
            ["load", "decontaminate"],
        ),
    ],
)
def test_finished_stages_of_a_run_stay(
    change: str, message: str, finished: list[str], codeact: Callable[[str], Any], places: Any
) -> None:
    """What a later stage refuses leaves the earlier ones, whole, and no report."""
    done = codeact(f"{RUN} --set {change}")
    assert (done.status, done.out) == (2, "")
    *before, last = done.err.splitlines()
    assert [line[0] for line in before] == ["✓"] * len(finished)
    assert re.search(rf"^codeact run: error: .*{message}", last), last
    manifest = json.loads((places.out / "run/manifest.json").read_text())
    assert list(manifest["stages"]) == finished
    assert not list(places.out.rglob("*.tmp"))


def test_a_folder_that_was_there_is_not_deleted(codeact: Callable[[str], Any], places: Any) -> None:
    (places.out / "run").mkdir()
    (places.out / "run/notes.txt").write_text("mine")
    assert codeact(f"{RUN} --set data.source=none.jsonl").status == 2
    assert (places.out / "run/notes.txt").read_text() == "mine"


def test_locked_run(refused: Refused, places: Any) -> None:
    (places.out / "run").mkdir()
    with (places.out / "run/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711")
        lock.flush()
        refused(RUN, r"run folder .+ is in use by another run \(process 4711\)")


_OFFLINE = """
import sys
from codeact.cli import main
rows, model = sys.argv[1:]
print(main(["score", rows, "--model", "no-org/no-model", "--output", "x.jsonl"]))
print(main(["score", "no-org/no-data", "--model", model, "--output", "x.jsonl"]))
print(main(["embed", rows, "--model", "no-org/no-model", "--output", "x.npy"]))
"""


def test_hub_ids_that_cannot_be_reached(places: Any, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _OFFLINE, str(places.rows), str(places.model)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["2", "2", "2"], done.stderr
    first, second, third = done.stderr.splitlines()
    assert first.startswith("codeact score: error: tokenizer of 'no-org/no-model' cannot be loaded")
    assert second.startswith("codeact score: error: no-org/no-data: no such file or folder here, ")
    assert third.startswith("codeact embed: error: tokenizer of 'no-org/no-model' cannot be loaded")
    assert not list(tmp_path.glob("x.*"))
