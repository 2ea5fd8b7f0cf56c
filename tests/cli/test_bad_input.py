"""Bad input: one line that names argument, rule and what came; status 2; nothing half-written."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from codeact.cli import main

Codeact = Callable[..., Any]


class Places(NamedTuple):
    """What a case may name in its words, in braces."""

    rows: Path
    scores: Path
    embeddings: Path
    recipe: Path
    model: Path
    bad: Path
    out: Path


@pytest.fixture
def places(
    rows_file: Path,
    scores_file: Path,
    embeddings_file: Path,
    recipe_file: Path,
    tiny_model_folder: Path,
    bad: Path,
    tmp_path: Path,
) -> Places:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old.jsonl").write_text("old")
    return Places(
        rows_file, scores_file, embeddings_file, recipe_file, tiny_model_folder, bad, out
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file and folder with its bytes, hidden ones too."""
    return {
        str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")
    }


SCORE = "score {rows} --model {model} --output {out}/scores.parquet"
EMBED = "embed {rows} --model {model} --output {out}/x.npy"
SELECT = "select {rows} --scores {scores} --embeddings {embeddings} --output {out}/old.jsonl"
PACK = "pack {rows} --model {model} --output {out}/bins.json"
TRAIN = "train {rows} --model {model} --output {out}/model"
RUN = "run {recipe} --output {out}/run"

DATA = {
    "missing_file": ("none.jsonl", r"none\.jsonl: file not found"),
    "empty": ("{bad}/empty.jsonl", r"empty\.jsonl: the data set is empty"),
    "broken_line": ("{bad}/broken.jsonl", r"broken\.jsonl:3: not a JSON object \(.+ column \d+\)"),
    "missing_fields": ("{bad}/fields.jsonl", r"fields\.jsonl:1: no known columns, .+ got foo, bar"),
    "wrong_type": ("{bad}/type.jsonl", r"type\.jsonl:2: instruction must be a string, got int"),
    "no_object": ("{bad}/no_object.jsonl", r"no_object\.jsonl:2: must be an object, got list"),
    "not_utf8": ("{bad}/latin1.jsonl", r"latin1\.jsonl: text must be UTF-8"),
    "a_folder": ("{bad}/folder", r"folder: a folder must be one that datasets saved"),
    "unknown_suffix": ("{bad}/rows.csv", r"rows\.csv: file must end in \.json"),
}
MODEL = {
    "missing_folder": ("{bad}/none", r"'.+/none' is not a folder"),
    "a_file": ("{bad}/empty.jsonl", r"'.+/empty\.jsonl' is not a folder"),
    "no_tokenizer": ("{bad}/no_tokenizer", r"'.+/no_tokenizer' has no tokenizer"),
    "no_config": ("{bad}/no_config", r"'.+/no_config' has no config\.json"),
    "broken_config": ("{bad}/broken_config", r"broken_config' cannot be loaded: .+"),
    "broken_tokenizer": ("{bad}/broken_tokenizer", r"broken_tokenizer' cannot be loaded: .+"),
}
WEIGHTS = {
    "no_weights": ("{bad}/no_weights", r"no_weights' cannot be loaded: .+"),
    "broken_weights": ("{bad}/broken_weights", r"broken_weights' cannot be loaded: .+"),
}
CASES = {
    **{f"score_data_{n}": (SCORE.replace("{rows}", w), m) for n, (w, m) in DATA.items()},
    **{f"score_model_{n}": (SCORE.replace("{model}", w), m) for n, (w, m) in MODEL.items()},
    **{f"score_model_{n}": (SCORE.replace("{model}", w), m) for n, (w, m) in WEIGHTS.items()},
    **{f"embed_model_{n}": (EMBED.replace("{model}", w), m) for n, (w, m) in MODEL.items()},
    **{f"embed_model_{n}": (EMBED.replace("{model}", w), m) for n, (w, m) in WEIGHTS.items()},
    **{f"pack_model_{n}": (PACK.replace("{model}", w), m) for n, (w, m) in MODEL.items()},
    **{
        f"{verb}_data": (words.replace("{rows}", "{bad}/broken.jsonl"), DATA["broken_line"][1])
        for verb, words in {"embed": EMBED, "select": SELECT, "pack": PACK, "train": TRAIN}.items()
    },
    "column_without_equals": (SCORE + " --column problem", r"--column must be field=name, .+'problem'"),
    "column_unknown_field": (SCORE + " --column instructio=id", r"columns: keys must be of .+nearest: instruction"),
    "column_missing": (SCORE + " --column response=answer", r"columns\['response'\]: .+ has no column 'answer'"),
    "score_preset": (SCORE + " --preset ifd", r"preset must be one of codeact, .+, got 'ifd'"),
    "score_device": (SCORE + " --device tpu", r"device must be auto, cpu or cuda, got 'tpu'"),
    "score_dtype": (SCORE + " --dtype int8", r"dtype must be one of auto, .+, got 'int8'"),
    "score_too_long": (SCORE + " --max-length 513", r"max_length = 513 is above the model's 512"),
    "score_budget": (SCORE + " --token-budget 0", r"--token-budget.+ 0 .+>=1"),
    "embed_device": (EMBED + " --device gpu", r"device must be auto, cpu or cuda, got 'gpu'"),
    "embed_batch": (EMBED + " --batch-size 0", r"--batch-size.+ 0 .+>=1"),
    "output_suffix": (SCORE.replace("parquet", "csv"), r"--output must end in \.parquet or \.jsonl, got"),
    "output_folder_missing": (SCORE.replace("{out}", "{out}/none"), r"--output: folder .+/none does not exist"),
    "output_folder_unwritable": (SCORE.replace("{out}", "/proc"), r"--output: folder /proc cannot be written to"),
    "output_is_folder": (SCORE.replace("scores", "dir"), r"--output must be a file, got the folder"),
    "budget_0": (SELECT + " --budget 0", r"budget must be a count from 1 to 12 .+, got 0"),
    "budget_0.0": (SELECT + " --budget 0.0", r"budget must be .+ share in \(0, 1\], got 0\.0"),
    "budget_above_set": (SELECT + " --budget 13", r"budget must be a count from 1 to 12 .+, got 13"),
    "budget_above_1": (SELECT + " --budget 1.5", r"budget must be .+, got 1\.5"),
    "budget_negative": (SELECT + " --budget -3", r"budget must be .+, got -3"),
    "budget_nan": (SELECT + " --budget nan", r"budget must be .+, got nan"),
    "budget_word": (SELECT + " --budget half", r"--budget must be .+, got 'half'"),
    "budget_count_of_authors": (SELECT + " --budget 3 --no-exact-budget", r"budget must be a float share"),
    "select_method": (SELECT + " --method random", r"--method must be cdas, got 'random'"),
    "select_score": (SELECT + " --score loss", r"--score must be ifd_ppl or ifd_loss, got 'loss'"),
    "select_clusters": (SELECT + " --num-clusters 13", r"num_clusters = 13 needs at least as many examples, got 12"),
    "select_table": (SELECT + " --table {out}/t.csv", r"--table must end in \.parquet or \.jsonl"),
    "select_other_rows": (SELECT.replace("{rows}", "{bad}/other.jsonl"), r""),
    "select_fewer_rows": (SELECT.replace("{rows}", "{bad}/fewer.jsonl"), r"--scores must hold the 7 rows of .+, got 12 in .+scores"),
    "embeddings_fewer": (SELECT.replace("{embeddings}", "{bad}/fewer.npy"), r"--embeddings must hold the 12 rows of .+, got 7"),
    "embeddings_nan": (SELECT.replace("{embeddings}", "{bad}/nan.npy"), r"embeddings.+ nan|embeddings .*finite"),
    "embeddings_flat": (SELECT.replace("{embeddings}", "{bad}/flat.npy"), r"must hold one matrix"),
    "embeddings_text": (SELECT.replace("{embeddings}", "{bad}/text.npy"), r"--embeddings .+text\.npy cannot be read"),
    "embeddings_empty": (SELECT.replace("{embeddings}", "{bad}/empty.npy"), r"--embeddings .+empty\.npy cannot be read"),
    "embeddings_missing": (SELECT.replace("{embeddings}", "none.npy"), r"none\.npy cannot be read.+No such file"),
    "scores_missing": (SELECT.replace("{scores}", "none.parquet"), r"none\.parquet cannot be read: No such file"),
    "scores_no_table": (SELECT.replace("{scores}", "{bad}/empty.npy"), r"--scores must hold the 12 rows"),
    "scores_other_columns": (SELECT.replace("{scores}", "{rows}"), r"rows\.jsonl row 1 lacks the field ifd_ppl"),
    "pack_capacity": (PACK + " --capacity 60", r"--capacity = 60 must hold every row, but row row-\d+ has \d+ tokens"),
    "pack_capacity_0": (PACK + " --capacity 0", r"--capacity.+ 0 .+>=1"),
    "pack_overflow": (PACK + " --overflow cut", r"--overflow must be error, drop or truncate, got 'cut'"),
    "train_nan": (TRAIN + " --learning-rate 1e30 --capacity 200 --accumulation 1", r"training loss became (nan|inf) at step \d+ \(learning_rate = .+lower it"),
    "train_rate": (TRAIN + " --learning-rate 0", r"--learning-rate must be above 0 and finite, got 0"),
    "train_epochs": (TRAIN + " --epochs nan", r"--epochs must be above 0 and finite, got nan"),
    "train_no_answers": (TRAIN.replace("{rows}", "{bad}/no_answers.jsonl"), r"none of the 3 rows of .+ has an answer"),
    "train_capacity_below_prompts": (TRAIN + " --capacity 5", r"none of the 12 rows of .+ --capacity = 5 tokens"),
    "train_output_full": (TRAIN.replace("{out}/model", "{out}"), r"--output must be a new or empty folder, .+ holds files"),
    "train_output_file": (TRAIN.replace("{out}/model", "{out}/old.jsonl"), r"--output must be a folder, got the file"),
    "train_output_unwritable": (TRAIN.replace("{out}", "/proc"), r"--output: folder /proc cannot be written to"),
    "decontaminate_no_files": ("decontaminate {rows} --benchmarks {bad}", r"no HumanEval or MBPP file found"),
    "decontaminate_no_folder": ("decontaminate {rows} --benchmarks none", r"folder of benchmarks.+none"),
    "report_no_folder": ("report none", r"run must be a run folder, got none, which is no folder"),
    "report_no_run": ("report {bad}", r"without recipe\.yaml or manifest\.json"),
    "run_recipe_missing": ("run none.yaml", r"recipe none\.yaml cannot be read: No such file"),
    "run_recipe_folder": ("run {bad}", r"recipe .+ cannot be read: Is a directory"),
    "run_recipe_key": ("run {bad}/key.yaml", r"key\.yaml: train\.epoch is not a known key; did you mean train\.epochs\?"),
    "run_recipe_type": ("run {bad}/type.yaml", r"type\.yaml: train\.epochs must be a valid number, got 'many'"),
    "run_recipe_list": ("run {bad}/list.yaml", r"list\.yaml: a recipe is `key: value` lines"),
    "run_recipe_broken": ("run {bad}/broken.yaml", r"broken\.yaml line 2: no valid YAML"),
    "run_set_key": (RUN + " --set score.presets=cherry", r"--set: score\.presets is not a known key; did you mean score\.preset\?"),
    "run_set_type": (RUN + " --set train.epochs=many", r"--set: train\.epochs must be a valid number, got 'many'"),
    "run_set_words": (RUN + " --set train.epochs", r"--set expects key=value, .+ got 'train\.epochs'"),
    "run_budget_0": (RUN + " --set select.budget=0", r"--set: select\.budget must be a fraction .+, got 0"),
    "run_budget_above_set": (RUN + " --set select.budget=10", r"budget must be a count from 1 to 9 "),
    "run_method": (RUN + " --set select.method=best", r"select\.method must be 'cdas', got 'best'"),
    "run_device": (RUN + " --set model.device=tpu", r"model\.device must be 'auto', 'cpu' or 'cuda', got 'tpu'"),
    "run_capacity": (RUN + " --set pack.capacity=100", r"data\.max_tokens = 200 must fit pack\.capacity = 100"),
    "run_no_data": ("run {bad}/no_data.yaml --output {out}/run", r"none\.jsonl: file not found"),
    "run_no_rows": (RUN + " --set data.max_tokens=20", r"data\.source: none of the 12 rows .+ 12 (truncated|prompt_overflow)"),
    "run_too_few_rows": (RUN + " --set data.num_held_out=11", r"data has 12 usable rows; 11 held out and 2 clusters need more"),
    "run_no_model": (RUN + " --set model.name={bad}/no_tokenizer", MODEL["no_tokenizer"][1]),
    "run_folder_is_file": (RUN.replace("{out}/run", "{out}/old.jsonl"), r"run folder .+ must be a folder, got a file"),
    "run_folder_unwritable": (RUN.replace("{out}", "/proc"), r"run folder /proc/run cannot be written to"),
    "demo_set_key": ("demo --output {out}/demo --set sed=1", r"--set: sed is not a known key; did you mean seed\?"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_is_refused_in_one_line(case: str, codeact: Codeact, places: Places) -> None:
    if case == "output_is_folder":
        (places.out / "dir.parquet").mkdir()
    line, message = CASES[case]
    words = [word.format(**places._asdict()) for word in line.split()]
    before = contents(places.out)
    done = codeact(*words)
    assert (done.status, done.out) == (2, "")
    assert done.err.count("\n") == 1, done.err
    assert done.err.startswith(f"codeact {words[0]}: error: ")
    pytest.importorskip("re")
    assert __import__("re").search(message, done.err), done.err
    assert contents(places.out) == before
