"""Run folders: whole files only, honest records, one run at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from codeact import files
from codeact.errors import InputError
from codeact.pipeline.run_folder import Manifest, RunFolder, file_sha256, versions


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.begin(device="cpu", seed=7)
    files.write_text(folder / "a.txt", "one")
    files.write_text(folder / "sub/b.txt", "two")
    folder.record_stage("score", "h1", seconds=1.5, peak_mib=10.0, files=["a.txt", "sub/b.txt"])
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_files_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [{"id": "ü", "n": 1.5}, {"id": "b", "n": None}]
    files.write_jsonl(tmp_path / "deep/er/rows.jsonl", rows)
    assert list(files.read_jsonl(tmp_path / "deep/er/rows.jsonl")) == rows
    files.write_json(tmp_path / "v.json", {"x": [1, 2]})
    assert files.read_json(tmp_path / "v.json") == {"x": [1, 2]}
    files.write_parquet(tmp_path / "t.parquet", pa.table({"a": [1, 2], "b": ["x", None]}))
    assert files.read_parquet(tmp_path / "t.parquet", ["b"]).to_pydict() == {"b": ["x", None]}
    files.write_npy(tmp_path / "m.npy", np.eye(2, dtype=np.float32))
    np.testing.assert_array_equal(np.load(tmp_path / "m.npy"), np.eye(2, dtype=np.float32))
    assert names(tmp_path) == {"deep", "v.json", "t.parquet", "m.npy"}


def test_interrupted_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    files.write_jsonl(tmp_path / "rows.jsonl", [{"x": 1}])
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_jsonl(tmp_path / "rows.jsonl", [{"x": 2}, {"x": float("nan")}])
    assert (tmp_path / "rows.jsonl").read_text() == '{"x": 1}\n'
    assert names(tmp_path) == {"rows.jsonl"}


def test_broken_files_are_named_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"x": 1}\n\n{"x": \n')
    with pytest.raises(InputError, match=r"rows\.jsonl line 3 is no JSON"):
        list(files.read_jsonl(tmp_path / "rows.jsonl"))
    (tmp_path / "rows.jsonl").write_text("[1]\n")
    with pytest.raises(InputError, match=r"line 1 must be a JSON object, got "):
        list(files.read_jsonl(tmp_path / "rows.jsonl"))
    (tmp_path / "v.json").write_text("{")
    with pytest.raises(InputError, match=r"v\.json line 1 is no JSON"):
        files.read_json(tmp_path / "v.json")
    (tmp_path / "t.parquet").write_text("PAR1 but not really")
    with pytest.raises(InputError, match=r"t\.parquet cannot be read as Parquet"):
        files.read_parquet(tmp_path / "t.parquet", ["a"])
    files.write_parquet(tmp_path / "t.parquet", pa.table({"a": [1]}))
    with pytest.raises(InputError, match=r"t\.parquet lacks the column b"):
        files.read_parquet(tmp_path / "t.parquet", ["a", "b"])
    with pytest.raises(InputError, match=r"none\.json cannot be read: No such file"):
        files.read_json(tmp_path / "none.json")


def test_stage_is_current_only_with_its_hash_and_its_files(run: RunFolder) -> None:
    assert run.stage_is_current("score", "h1")
    assert not run.stage_is_current("score", "h2")
    assert not run.stage_is_current("select", "h1")
    files.write_text(run / "sub/b.txt", "twO")  # same size, other bytes
    assert not run.stage_is_current("score", "h1")
    files.write_text(run / "sub/b.txt", "two")
    assert run.stage_is_current("score", "h1")
    (run / "a.txt").unlink()
    assert not run.stage_is_current("score", "h1")


def test_manifest_holds_the_spec_and_survives_a_new_begin(run: RunFolder) -> None:
    run.begin(device="cuda", seed=8)
    written = json.loads((run / "manifest.json").read_text())
    assert set(written) == {"codeact", "versions", "platform", "device", "seed", "stages"}
    assert (written["device"], written["seed"]) == ("cuda", 8)
    assert written["stages"]["score"] == {
        "hash": "h1",
        "seconds": 1.5,
        "peak_mib": 10.0,
        "files": {
            "a.txt": file_sha256(run / "a.txt"),
            "sub/b.txt": file_sha256(run / "sub/b.txt"),
        },
    }


def test_a_stage_that_runs_again_moves_to_the_end(run: RunFolder) -> None:
    run.record_stage("select", "s", seconds=0, peak_mib=0, files=[])
    run.record_stage("score", "h2", seconds=0, peak_mib=0, files=[run / "a.txt"])
    assert list(run.manifest.stages) == ["select", "score"]
    assert list(run.manifest.stages["score"].files) == ["a.txt"]


def test_recorded_files_must_be_there_and_inside(run: RunFolder) -> None:
    for file in ("none.txt", "../outside.txt", run.path.parent):
        with pytest.raises(ValueError, match="must exist inside"):
            run.record_stage("select", "s", seconds=0, peak_mib=0, files=[file])
    assert list(run.manifest.stages) == ["score"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"seed": "x"}', '{"stages": {"a": {}}}', "\xff"])
def test_corrupt_manifest_is_named(run: RunFolder, text: str) -> None:
    (run / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"manifest\.json is not a run's manifest \(") as caught:
        run.stage_is_current("score", "h1")
    assert "\n" not in str(caught.value)


def test_no_folder_yet_is_an_empty_manifest(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "new")
    assert run.manifest == Manifest()
    assert not run.path.exists()


def test_path_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(InputError, match="must be a folder, got a file"):
        RunFolder(tmp_path / "run")


def test_second_run_in_the_same_folder_is_refused(run: RunFolder) -> None:
    again = (
        "import sys; from codeact.pipeline.run_folder import RunFolder\n"
        "with RunFolder(sys.argv[1]).locked(): print('entered')"
    )
    command = [sys.executable, "-c", again, str(run.path)]
    with run.locked():
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        with pytest.raises(InputError, match="in use by another run"), run.locked():
            pass
    assert "InputError: run folder" in second.stderr
    assert "in use by another run (process " in second.stderr
    third = subprocess.run(command, capture_output=True, text=True, check=False)
    assert third.stdout == "entered\n", third.stderr


def test_versions_import_nothing() -> None:
    code = (
        "import sys; from codeact.pipeline.run_folder import versions; found = versions()\n"
        "assert 'torch' not in sys.modules and 'sklearn' not in sys.modules\n"
        "print(found['torch'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == versions()["torch"], done.stderr
    assert set(versions()) >= {
        "python",
        "codeact",
        "torch",
        "transformers",
        "numpy",
        "scikit-learn",
    }
