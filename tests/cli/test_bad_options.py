"""Bad options and outputs: one line and status 2, and nothing half-written."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from codeact.cli import main

Refused = Callable[[str, str], None]

SCORE = "score {rows} --model {model} --output {out}/scores.parquet"
EMBED = "embed {rows} --model {model} --output {out}/x.npy"
PACK = "pack {rows} --model {model} --output {out}/bins.json"
TRAIN = "train {rows} --model {model} --output {out}/model"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--column problem", r"--column must be field=name, .+'problem'"),
        ("--column instructio=id", r"columns: keys must be of .+nearest: instruction"),
        ("--column response=answer", r"columns\['response'\]: .+ has no column 'answer'"),
        ("--preset ifd", r"preset must be one of codeact, .+, got 'ifd'"),
        ("--device tpu", r"device must be auto, cpu or cuda, got 'tpu'"),
        ("--device cuda:x", r"device must be auto, cpu or cuda, got 'cuda:x'"),
        ("--device cuda:", r"device must be auto, cpu or cuda, got 'cuda:'"),
        ("--device auto:1", r"device must be auto, cpu or cuda, got 'auto:1'"),
        ("--device cuda:9", r"device (is 'cuda:9', but .+ no usable|must be one of .+'cuda:9')"),
        ("--dtype int8", r"dtype must be one of auto, .+, got 'int8'"),
        ("--max-length 1", r"--max-length must be at least 2, got 1"),
        ("--max-length 513", r"max_length = 513 is above the model's 512 positions"),
        ("--token-budget 0", r"--token-budget must be at least 1, got 0"),
    ],
)
def test_score(options: str, message: str, refused: Refused) -> None:
    refused(f"{SCORE} {options}", message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--device gpu", r"device must be auto, cpu or cuda, got 'gpu'"),
        ("--batch-size 0", r"--batch-size must be at least 1, got 0"),
        ("--output {out}/x.npz", r"--output must end in \.npy, got .+x\.npz"),
    ],
)
def test_embed(options: str, message: str, refused: Refused) -> None:
    refused(f"{EMBED} {options}", message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--capacity 60", r"--capacity = 60 must hold every row, but row row-\d+ has \d+ tokens"),
        ("--capacity 0", r"--capacity must be at least 1, got 0"),
        ("--window 0", r"--window must be at least 1, got 0"),
        ("--batch-size 0", r"--batch-size must be at least 1, got 0"),
        ("--accumulation 0", r"--accumulation must be at least 1, got 0"),
        ("--world-size 0", r"--world-size must be at least 1, got 0"),
        ("--world-size 13 --capacity 300", r"every rank needs a sequence, got 12 sequences"),
        ("--order sorted", r"--order must be shuffle or preserve or compat, got 'sorted'"),
        ("--overflow cut", r"--overflow must be error or drop or truncate or .+, got 'cut'"),
    ],
)
def test_pack(options: str, message: str, refused: Refused) -> None:
    refused(f"{PACK} {options}", message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "--learning-rate 1e30 --capacity 200 --accumulation 1",
            r"training loss became (nan|inf) at step \d+ \(learning_rate = .+\): lower it",
        ),
        ("--learning-rate 0", r"--learning-rate must be above 0 and finite, got 0"),
        ("--epochs nan", r"--epochs must be above 0 and finite, got nan"),
        ("--accumulation 0", r"--accumulation must be at least 1, got 0"),
        ("--max-steps 0", r"--max-steps must be at least 1, got 0"),
        ("--seed 4294967296", r"--seed must be from 0 to 4294967295, got 4294967296"),
        ("--capacity 5", r"none of the 12 rows of .+ --capacity = 5 tokens"),
        ("--output {out}", r"--output must be a new or empty folder, .+ holds files"),
        ("--output {out}/old.jsonl", r"--output must be a folder, got the file"),
        ("--output {out}/no/model", r"--output: folder .+/no does not exist"),
        ("--output /proc/model", r"--output: folder /proc cannot be written to"),
    ],
)
def test_train(options: str, message: str, refused: Refused) -> None:
    refused(f"{TRAIN} {options}", message)


def test_train_without_any_answer(refused: Refused) -> None:
    line = TRAIN.replace("{rows}", "{bad}/no_answers.jsonl")
    refused(line, r"none of the 3 rows of .+ has an answer")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("{out}/x.csv", r"--output must end in \.parquet or \.jsonl, got .+x\.csv"),
        ("{out}/none/x.parquet", r"--output: folder .+/none does not exist"),
        ("{out}/folder.jsonl", r"--output must be a file, got the folder"),
        ("/proc/x.parquet", r"--output: folder /proc cannot be written to"),
    ],
)
def test_output(output: str, message: str, refused: Refused, places: Any) -> None:
    (places.out / "folder.jsonl").mkdir()
    refused(SCORE.replace("{out}/scores.parquet", output), message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("score", r"codeact score: error: Missing argument 'DATA'"),
        ("score rows.jsonl", r"codeact score: error: Missing option '--model'"),
        (
            "score rows.jsonl --modl x",
            r"codeact score: error: No such option:? '?--modl'?.*--model",
        ),
        ("score rows.jsonl more --model x", r"codeact score: error: .*unexpected.*more"),
        ("pack rows.jsonl --model x --capacity ten", r"codeact pack: error: .*'--capacity'.*"),
        ("pack rows.jsonl --model x --capacity", r"codeact pack: error: .*'?--capacity'? requires"),
        ("packs", r"codeact: error: No such command 'packs'"),
        ("--version", r"codeact: error: No such option"),
    ],
)
def test_usage(words: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert re.match(message, err), err
