"""``codeact train``: settings, forecast, account, resuming, adapters, pairs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from codeact.cli.train_folder import TrainFolder
from codeact.cli.train_words import after_words, before_words, duration
from codeact.errors import InputError
from codeact.models import load_model
from codeact.packing import plan_bins
from codeact.training import TrainConfig
from codeact.training.cost.forecast import Forecast
from codeact.training.cost.spending import Saving, Spending
from codeact.training.run_trainer import StepRecorder

Codeact = Callable[[str], Any]
TRAIN = "train {rows} --model {model} --output {out}/model --capacity 400 --accumulation 1"


def test_account_before_and_after(codeact: Codeact, places: Any) -> None:
    (places.out / "few.jsonl").write_text("".join(places.rows.open().readlines()[:4]))
    done = codeact(TRAIN.replace("{rows}", "{out}/few.jsonl") + " --full-set {rows} --epochs 2")
    assert done.status == 0, done.err
    before, after = done.err.splitlines()
    summary = json.loads(done.out)
    found, spent = summary["forecast"], summary["spending"]
    assert before.startswith(f"before: 4 rows (4 ok); {found['num_steps']} steps of 1 bin, ")
    assert f"{found['num_tokens']:,} tokens" in before
    assert after.startswith(f"after: {found['num_tokens']:,} tokens in ")
    assert "of the speed of a bare matrix product" in after
    assert "against padded batches of 8; saved " in after
    assert after.endswith("against the full set in padded batches")
    assert summary["num_steps"] == spent["num_steps"] == found["num_steps"]
    assert summary["num_tokens"] == spent["num_tokens"] == found["num_tokens"]
    assert 0.4 < spent["saved_by_selection"]["share"] < spent["saved_in_all"]["share"] < 0.95
    record = json.loads((places.out / "model/training.json").read_text())
    assert record["config"]["epochs"] == 2.0
    assert record["versions"]["torch"] == torch.__version__
    assert record["spending"] == spent
    log = [json.loads(line) for line in (places.out / "model/log.jsonl").open()]
    assert [line["step"] for line in log] == list(range(1, spent["num_steps"] + 1))
    assert (log[0]["loss"], log[-1]["loss"]) == (summary["first_loss"], summary["last_loss"])
    names = sorted(path.name for path in places.out.iterdir())
    assert names == ["few.jsonl", "model", "old.jsonl"]


def test_options_override_the_file_which_overrides_the_preset(
    codeact: Codeact, places: Any
) -> None:
    (places.out / "c.yaml").write_text("preset: codeact\nepochs: 1\nlearning_rate: 1e-4\n")
    line = "train {rows} --model {model} --config {out}/c.yaml --forecast-only"
    found = json.loads(codeact(line).out)["forecast"]
    # 512 examples of a step are more bins than there are.
    assert (found["num_steps"], found["accumulation"] > 12) == (1, True)
    found = json.loads(codeact(line + " --accumulation 1 --epochs 2 --capacity 400").out)
    bins = round(found["forecast"]["num_tokens"] / 2 / 400 / found["fill"])
    assert (found["forecast"]["num_steps"], found["forecast"]["accumulation"]) == (2 * bins, 1)
    assert sorted(path.name for path in places.out.iterdir()) == ["c.yaml", "old.jsonl"]


def test_a_killed_run_goes_on(
    codeact: Codeact, places: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = TRAIN + " --epochs 2 --learning-rate 1e-2 --save-steps 2"
    assert codeact(line.replace("{out}/model", "{out}/whole")).status == 0
    on_log = StepRecorder.on_log

    def interrupted(self: Any, args: Any, state: Any, *rest: Any, **options: Any) -> None:
        on_log(self, args, state, *rest, **options)
        if state.global_step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StepRecorder, "on_log", interrupted)
        assert codeact(line).status == 130
    work = places.out / "model.training"
    assert (work / "checkpoint-4").is_dir()
    other = codeact(line.replace("1e-2", "2e-2"))
    assert other.status == 2
    assert "learning_rate = 0.01, this command has 0.02: --no-resume starts anew" in other.err
    done = codeact(line.replace("--save-steps 2", "--save-steps 3"))
    assert done.status == 0, done.err
    assert json.loads(done.out)["resumed_at"] == 4
    assert not work.exists()
    losses = [
        [json.loads(row)["loss"] for row in (places.out / name / "log.jsonl").open()]
        for name in ("whole", "model")
    ]
    assert losses[0] == losses[1]
    whole, resumed = (
        load_file(places.out / name / "model.safetensors") for name in ("whole", "model")
    )
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_an_adapter_is_written_and_read(codeact: Codeact, places: Any) -> None:
    done = codeact(TRAIN + " --method lora --learning-rate 1e-2 --max-steps 3")
    assert done.status == 0, done.err
    folder = places.out / "model"
    assert {"adapter_config.json", "adapter_model.safetensors", "training.json"} <= {
        path.name for path in folder.iterdir()
    }
    base, adapted = (
        load_model(places.model, device="cpu", adapter=adapter).model for adapter in (None, folder)
    )
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        assert not torch.equal(base(ids).logits, adapted(ids).logits)


def test_pairs(codeact: Codeact, places: Any) -> None:
    rows = [
        {"prompt": f"add {n}", "chosen": "x" * n, "rejected": "y" * (n + 3)} for n in range(5, 15)
    ]
    (places.out / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = TRAIN.replace("{rows}", "{out}/pairs.jsonl").replace("400", "200")
    done = codeact(line + " --dpo --beta 0.5 --learning-rate 1e-2 --epochs 4")
    assert done.status == 0, done.err
    summary = json.loads(done.out)
    assert summary["rows"] == {"ok": 10}
    assert summary["num_tokens"] == summary["forecast"]["num_tokens"]
    log = [json.loads(row) for row in (places.out / "model/log.jsonl").open()]
    # Before the first update both models are one: -log sigmoid(0).
    assert log[0]["loss"] == pytest.approx(0.6931472, abs=1e-4)
    assert log[-1]["loss"] < 0.5
    assert log[-1]["rewards"]["margin"] > 0
    record = json.loads((places.out / "model/training.json").read_text())
    assert record["beta"] == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--preset codeac", r"preset must be one of codeact, code-less, efficoder, got 'codeac'"),
        ("--method lara", r"--method must be full or lora or qlora, got 'lara'"),
        ("--config {out}/no.yaml", r"config .*no\.yaml cannot be read"),
        ("--save-steps 0", r"--save-steps must be at least 1, got 0"),
        ("--dpo --beta 0", r"--beta must be above 0 and finite, got 0"),
        ("--beta 0.2", r"--beta is of --dpo"),
        ("--dtype float16", r"--dtype float16 cannot be trained"),
        ("--dpo", r"rows\.jsonl:1: no field 'chosen'"),
    ],
)
def test_refusals(options: str, message: str, refused: Callable[[str, str], None]) -> None:
    refused(f"{TRAIN} {options}", message)


def test_output_is_needed_unless_only_a_forecast_is(refused: Callable[[str, str], None]) -> None:
    refused("train {rows} --model {model}", r"--output is needed")


def test_a_work_folder_without_a_checkpoint_goes(tmp_path: Path) -> None:
    folder = TrainFolder(tmp_path / "f", is_first=True)
    folder.begin({"epochs": 1}, resume=True)
    folder.leave()
    assert not folder.path.exists()
    folder.begin({"epochs": 1}, resume=True)
    (folder.path / "checkpoint-2").mkdir()
    folder.model.mkdir()
    folder.leave()
    assert folder.path.exists()
    with pytest.raises(InputError, match="epochs = 1, this command has 2"):
        folder.begin({"epochs": 2}, resume=True)
    folder.begin({"epochs": 1}, resume=True)
    assert not folder.model.exists()  # half a model
    folder.begin({"epochs": 2}, resume=False)
    assert [path.name for path in folder.path.iterdir()] == ["settings.json"]


def test_the_model_goes_where_a_link_points(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    folder = TrainFolder(tmp_path / "link", is_first=True)
    folder.begin({"epochs": 1}, resume=True)
    folder.model.mkdir()
    (folder.model / "config.json").write_text("{}")
    folder.finish()
    folder.leave()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "target"]
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["config.json"]


def test_a_trained_model_is_not_lost(tmp_path: Path) -> None:
    """Whatever came into the output while it trained, before any checkpoint."""
    folder = TrainFolder(tmp_path / "f", is_first=True)
    folder.begin({"epochs": 1}, resume=True)
    folder.model.mkdir()
    (tmp_path / "f").mkdir()
    (tmp_path / "f/notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"not empty: the trained model is in .*f\.training/model"):
        folder.finish()
    folder.leave()
    assert folder.model.is_dir()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (3599.6, "1 h 00 min"),
     (250.4, "4 min 10 s"), (7500, "2 h 05 min")],
)  # fmt: skip
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_words_before() -> None:
    plan = plan_bins([60] * 4, 100, world_size=2)
    found = Forecast(3, 1234, 2, 0.1, 75.0, 1.0, peak_mib=3072.0, device_mib=2048.0)
    words = before_words(found, plan, TrainConfig(), rows={"ok": 4, "truncated": 1}, device="cpu")
    assert words == (
        "before: 5 rows (4 ok, 1 truncated); 3 steps of 2 bins on each of 2 ranks, 1,234 tokens, "
        "10.0% padding; predicted 1 min 15 s and 3.0 GiB of the 2.0 GiB that cpu has, which is too "
        "little; what helps, most first: gradient_checkpointing = true; capacity = 60 (the longest "
        "example) instead of 100; precision = bfloat16; method = lora; method = qlora; fsdp = true "
        "over several devices"
    )
    # An epoch of one bin a rank, however many a step may hold.
    large, lone = (
        dataclasses.replace(found, accumulation=170),
        plan_bins([60, 50], 100, world_size=2),
    )
    one = before_words(large, lone, TrainConfig(), rows={"ok": 4}, device="cpu")
    assert "3 steps of 1 bin on each of 2 ranks, 1,234 tokens" in one


def test_words_after() -> None:
    spent = Spending(
        3, 9000, 90.0, 100.0, 4e14, 0.404, 989.4e12, "NVIDIA H100, dense bfloat16", 512.0, 0.01, 8,
        Saving(10.0, 0.1), Saving(180.0, 0.67), Saving(-3.0, -0.1),
    )  # fmt: skip
    assert after_words(spent) == (
        "after: 9,000 tokens in 1 min 30 s, 100 tokens/s, MFU 40.4% (of NVIDIA H100, dense "
        "bfloat16), peak 512 MiB, 1.0% padding; saved 10.0 s (10%) against padded batches of 8; "
        "saved 3 min 00 s (67%) against the full set; 3.0 s more than the full set in padded "
        "batches"
    )
