"""Influence over shards and checkpoints: the same bytes after a kill, and what belongs together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import LlamaForCausalLM

from codeact.data import Examples, load_examples
from codeact.errors import InputError
from codeact.files import write_parquet
from codeact.pipeline.influence import stage
from codeact.pipeline.influence.check import check_with_oracle, fill_predicted, result_words
from codeact.pipeline.influence.checkpoints import Checkpoint, find_checkpoints, rates_as_weights
from codeact.pipeline.influence.model import InfluenceSettings
from codeact.pipeline.influence.stage import InfluenceJob, InfluenceResult, report_facts
from codeact.progress import OnProgress

SETTINGS = InfluenceSettings(device="cpu", token_budget=200)


@pytest.fixture(autouse=True, scope="module")
def _small_shards() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "_CPU_ROWS", 4)
        yield


def rows_of(num_rows: int, word: str) -> Examples:
    """Rows whose answers differ in length and content; the last has none."""
    rows = [
        {
            "id": f"{word}-{row}",
            "instruction": f"Write {word} {row}",
            "output": f"{word} = {'x + ' * (1 + row * 7 % 5)}{row}" if row + 1 < num_rows else "",
        }
        for row in range(num_rows)
    ]
    return load_examples(rows)


@pytest.fixture(scope="module")
def checkpoints(
    tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Two other models of the same shapes, with the rates of a Trainer; one has no tokenizer."""
    found = []
    for number, rate in ((10, 3e-4), (20, 1e-4)):
        folder = tmp_path_factory.mktemp("run") / f"checkpoint-{number}"
        model = LlamaForCausalLM.from_pretrained(tiny_model_folder)
        torch.manual_seed(number)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.1 * torch.randn_like(weight))
        model.save_pretrained(folder)
        log = [{"learning_rate": 1.0}, {"learning_rate": rate, "loss": 2.0}, {"eval_loss": 1.0}]
        (folder / "trainer_state.json").write_text(json.dumps({"log_history": log}))
        found.append(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model_folder / name, found[0])
    return found[0], found[1]


@pytest.fixture(scope="module")
def job(tiny_model_folder: Path, checkpoints: tuple[Path, Path]) -> InfluenceJob:
    return InfluenceJob(
        pool=rows_of(11, "alpha"),
        validation={"one": rows_of(4, "beta").select([0, 1, 2])},
        checkpoints=find_checkpoints(str(tiny_model_folder), checkpoints),
        settings=SETTINGS,
    )


@pytest.fixture(scope="module")
def finished(
    job: InfluenceJob, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, InfluenceResult]:
    """The whole job, never interrupted, and the folder of its shards."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, job.run(folder, quietly)


def quietly(title: str) -> OnProgress:
    return lambda done, total: None


def contents(table: pa.Table, path: Path) -> bytes:
    write_parquet(path, table)
    return path.read_bytes()


def killer(after: int) -> Callable[[str], OnProgress]:
    """Ctrl-C once so many rows of the second checkpoint are done."""

    def begin(title: str) -> OnProgress:
        def progress(done: int, total: int) -> None:
            if title == "checkpoint-20" and done >= after:
                raise KeyboardInterrupt

        return progress

    return begin


def test_killed_and_resumed_gives_the_same_bytes(
    job: InfluenceJob, finished: tuple[Path, InfluenceResult], tmp_path: Path
) -> None:
    whole = contents(finished[1].table, tmp_path / "whole.parquet")
    parts = tmp_path / "parts"
    for after in (4, 8):
        with pytest.raises(KeyboardInterrupt):
            job.run(parts, killer(after))
    done = {path: path.stat().st_mtime_ns for path in parts.rglob("*.parquet")}
    assert len(done) == 3 + 2  # the shards of the first checkpoint, and two of the second
    again = job.run(parts, quietly)
    assert contents(again.table, tmp_path / "again.parquet") == whole
    assert {path: path.stat().st_mtime_ns for path in done} == done


def test_what_is_done_needs_no_model(
    job: InfluenceJob, finished: tuple[Path, InfluenceResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = finished
    monkeypatch.setattr(Checkpoint, "load", lambda *_: pytest.fail("loaded"))
    after = job.run(folder, quietly)
    assert after.table.equals(before.table)
    assert after.measured.notes == before.measured.notes
    assert after.seconds > 0


def test_checkpoints_are_weighed_by_their_learning_rates(
    job: InfluenceJob, finished: tuple[Path, InfluenceResult], tmp_path: Path
) -> None:
    result = finished[1]
    first, second = (
        result.measured.tables[label]["influence_one"].to_numpy()
        for label in ("checkpoint-10", "checkpoint-20")
    )
    found = result.table["influence_one"].to_numpy()
    np.testing.assert_allclose(found, 0.75 * first + 0.25 * second, rtol=1e-12)
    assert np.isnan(found[-1])
    assert np.isfinite(found[:-1]).all()
    assert result.table["status"].to_pylist() == ["ok"] * 10 + ["empty_response"]
    np.testing.assert_array_equal(result.table["influence_one@checkpoint-20"].to_numpy(), second)
    # Each is what the model of that folder alone gives.
    alone = replace(job, checkpoints=(replace(job.checkpoints[1], label=""),))
    table = alone.run(tmp_path / "alone", quietly).table
    np.testing.assert_allclose(table["influence"].to_numpy(), second, rtol=1e-12)


def test_weights_need_every_learning_rate() -> None:
    def at(*rates: float | None) -> list[Checkpoint]:
        return [Checkpoint(str(n), "m", learning_rate=rate) for n, rate in enumerate(rates)]

    assert rates_as_weights(at(1e-4, 0.0)) == [1e-4, 0.0]
    assert rates_as_weights(at(1e-4, None)) is None
    assert rates_as_weights(at(0.0, 0.0)) is None


def test_key_changes_with_all_that_changes_a_number(job: InfluenceJob, tmp_path: Path) -> None:
    state = tmp_path / "optimizer.pt"
    state.write_bytes(b"1")
    adamw = replace(SETTINGS, optimizer="adamw", optimizer_state=state)
    one = replace(job, checkpoints=job.checkpoints[:1])
    problems = rows_of(4, "beta")
    others = [
        replace(job, settings=replace(SETTINGS, parameters="last:1")),
        replace(job, settings=replace(SETTINGS, dtype="bfloat16")),
        replace(job, settings=replace(SETTINGS, seed=1)),
        replace(job, checkpoints=job.checkpoints[::-1]),
        replace(job, validation={"other": job.validation["one"]}),
        replace(job, validation={"one": problems.select([0, 1])}),
        replace(job, pool=job.pool.select(range(10))),
        replace(job, num_measured=10),
        one,
        replace(one, settings=adamw),
    ]
    keys = [job.key(), *(other.key() for other in others)]
    state.write_bytes(b"22")
    keys.append(others[-1].key())
    assert len(set(keys)) == len(keys)
    assert replace(job, num_exact=3, step=0.1).key() == job.key()  # reads the same shards


def test_oracle_agrees_with_small_steps(
    job: InfluenceJob, finished: tuple[Path, InfluenceResult], tmp_path: Path
) -> None:
    """The fall of L(V) per unit of the rate is the influence; it is not found a second time."""
    measured = finished[1].measured
    model, table = job.model(job.checkpoints[1], "float32"), measured.tables["checkpoint-20"]
    check = check_with_oracle(model, table, 6, 1e-4, tmp_path, quietly(""))
    assert len(check.ids) == 6
    words = report_facts(job, finished[1]._replace(oracle=check)).settings
    assert words["exact steps"] == "learning rate 0.0001, float32, at checkpoint-20"
    assert words["device and dtype"] == "cpu, float32"
    assert "alpha-10" not in check.ids
    np.testing.assert_allclose(check.exact["one"], check.fast["one"], rtol=0.05, atol=0.02)
    assert check.agreement()["one"].rho > 0.9
    again = check_with_oracle(model, table, 6, 1e-4, tmp_path, lambda *_: pytest.fail("again"))
    np.testing.assert_array_equal(again.exact["one"], check.exact["one"])


@pytest.fixture
def measured_part(tiny_model_folder: Path) -> tuple[Checkpoint, Examples, np.ndarray, pa.Table]:
    """80 rows, of which 60 have an influence that the embeddings nearly give away."""
    pool = rows_of(80, "gamma")
    embeddings = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)
    noise = 0.5 * np.random.default_rng(3).normal(size=80)
    influence = embeddings.astype(np.float64) @ [1.0, -2.0, 0.5] + noise
    chosen = np.sort(np.random.default_rng(1).permutation(79)[:60])
    table = pa.table(
        {
            "id": [pool[row].id for row in chosen],
            "num_prompt_tokens": pa.array(np.full(60, 9), pa.int32()),
            "num_response_tokens": pa.array(np.tile([4, 6, 8], 20), pa.int32()),
            "nll_response": np.ones(60),
            "ppl_response": np.full(60, np.e),
            "influence": influence[chosen],
            "influence_one": influence[chosen],
            "status": ["ok"] * 60,
        }
    )
    return Checkpoint("", str(tiny_model_folder)), pool, embeddings, table


def test_predictor_fills_what_was_not_measured(
    measured_part: tuple[Checkpoint, Examples, np.ndarray, pa.Table],
) -> None:
    checkpoint, pool, embeddings, measured = measured_part
    table, predictors = fill_predicted(measured, checkpoint, pool, embeddings, SETTINGS, 0.5)
    assert list(predictors) == ["one"]
    assert predictors["one"].passes_
    assert table["id"].to_pylist() == list(pool.ids)
    known = set(measured["id"].to_pylist())
    wanted = ["measured" if id_ in known else "predicted" for id_ in pool.ids]
    wanted[-1] = None  # no answer, nothing to predict
    assert table["influence_source"].to_pylist() == wanted
    assert table["status"].to_pylist() == ["ok"] * 79 + ["empty_response"]
    values = table["influence"].to_numpy()
    np.testing.assert_array_equal(values, table["influence_one"].to_numpy())
    predicted = np.array(wanted) == "predicted"
    truth = embeddings.astype(np.float64) @ [1.0, -2.0, 0.5]
    np.testing.assert_array_equal(values[np.array(wanted) == "measured"], measured["influence"])
    assert np.corrcoef(values[predicted], truth[predicted])[0, 1] > 0.9
    assert np.isnan(table["nll_response"].to_numpy()[predicted]).all()


def test_predictor_that_fails_its_gate_fills_nothing(
    measured_part: tuple[Checkpoint, Examples, np.ndarray, pa.Table],
) -> None:
    checkpoint, pool, embeddings, measured = measured_part
    shuffled = np.random.default_rng(2).permutation(embeddings)
    table, predictors = fill_predicted(measured, checkpoint, pool, shuffled, SETTINGS, 0.5)
    assert not predictors["one"].passes_
    assert table["influence"].null_count == 20
    assert table["influence_source"].null_count == 20


def test_warm_up_is_said_and_precondition_changes_numbers(
    job: InfluenceJob, tmp_path: Path
) -> None:
    plain = replace(job, checkpoints=job.checkpoints[:1])
    adamw = replace(plain, settings=replace(SETTINGS, optimizer="adamw"))
    one, other = plain.run(tmp_path / "1", quietly), adamw.run(tmp_path / "2", quietly)
    facts = report_facts(adamw, other, "codeact influence ...")
    assert facts.settings["preconditioner"] == "moments of a warm-up on the pool"
    assert report_facts(plain, one).settings["preconditioner"] == "none (sgd)"
    assert facts.tasks == ("one",)
    a, b = (result.table["influence"].to_numpy()[:-1] for result in (one, other))
    assert np.abs(b).max() > 10 * np.abs(a).max()  # divided by roots of squared gradients
    # A plain gradient at the same model, divided by the same roots: the state is what differs.
    assert np.corrcoef(a, b)[0, 1] > 0.2


def test_moments_of_the_checkpoint_are_its_own(job: InfluenceJob, tmp_path: Path) -> None:
    """With second moments of 4 everywhere, P is the same number everywhere."""
    plain = replace(job, checkpoints=job.checkpoints[:1])
    folder = tmp_path / "with-state"
    shutil.copytree(job.checkpoints[0].name, folder)
    model = LlamaForCausalLM.from_pretrained(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for weight in model.parameters():
        moments = {"exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.full_like(weight, 4.0)}
        optimizer.state[weight] = {"step": torch.tensor(7.0), **moments}
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    adamw = replace(
        plain,
        checkpoints=find_checkpoints("m", [folder]),
        settings=replace(SETTINGS, optimizer="adamw"),
    )
    one, other = plain.run(tmp_path / "1", quietly), adamw.run(tmp_path / "2", quietly)
    scale = 1.0 / (np.sqrt(4.0 / (1.0 - 0.999**7)) + 1e-8)
    np.testing.assert_allclose(
        other.table["influence"].to_numpy(), scale * one.table["influence"].to_numpy(), rtol=1e-3
    )
    assert other.measured.notes["with-state"].preconditioner.endswith("with-state/optimizer.pt")


def test_problems_that_do_not_fit_are_said(job: InfluenceJob, tmp_path: Path) -> None:
    problems = [
        {"instruction": "a", "output": "b = 1"},
        {"instruction": "c", "output": "d = " + "1 + " * 20},
        {"instruction": "e" * 60, "output": "f = 1"},
    ]
    short = replace(
        job,
        pool=rows_of(4, "a"),
        validation={"one": load_examples(problems)},
        checkpoints=job.checkpoints[:1],
        settings=replace(SETTINGS, max_length=60),
    )
    result = short.run(tmp_path, quietly)
    words = "2 problems (1 with a cut solution), without 1 that do not fit"
    assert f"one: {words}" in list(result_words(result))
    assert report_facts(short, result).settings["validation task one"].startswith(f"{words}, of ")


def test_token_column_is_in_a_shard_without_a_score(job: InfluenceJob, tmp_path: Path) -> None:
    silent = load_examples([{"id": str(n), "instruction": "a", "output": ""} for n in range(4)])
    pool = Examples([*silent, *job.pool], "both")
    settings = replace(SETTINGS, token_influence=True, derivative="forward")
    table = (
        replace(job, pool=pool, settings=settings, checkpoints=job.checkpoints[:1])
        .run(tmp_path, quietly)
        .table
    )
    tokens, totals = table["token_influence"].to_pylist(), table["influence"].to_pylist()
    assert tokens[:4] == [None] * 4
    for row in range(4, 14):
        assert sum(tokens[row]) == pytest.approx(totals[row], rel=1e-4, abs=1e-5)
        assert len(tokens[row]) == table["num_response_tokens"][row].as_py()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 64}, "--checkpoints must be of one model: .+ hidden size 32, .+ has 64"),
        ({"num_hidden_layers": 3}, "has layers 2, .+ has 3"),
        ({"vocab_size": 300}, "has vocabulary 259, .+ has 300"),
    ],
)
def test_checkpoints_of_other_shapes(
    checkpoints: tuple[Path, Path],
    tiny_model_folder: Path,
    tmp_path: Path,
    change: dict[str, int],
    message: str,
) -> None:
    config = json.loads((tiny_model_folder / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message) as caught:
        find_checkpoints(str(tiny_model_folder), [checkpoints[0], tmp_path])
    assert str(checkpoints[0]) in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_checkpoints_with_another_tokenizer(
    checkpoints: tuple[Path, Path], tiny_model_folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_model_folder, other)
    words = json.loads((other / "tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (other / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(InputError, match=r"must have one tokenizer: those of .+ and .+ cut text"):
        find_checkpoints(str(tiny_model_folder), [checkpoints[0], other])
    # One without a tokenizer takes that of --model.
    found = find_checkpoints(str(tiny_model_folder), list(checkpoints))
    assert [one.tokenizer for one in found] == [None, str(tiny_model_folder)]
    assert [one.learning_rate for one in found] == [3e-4, 1e-4]


def test_labels_differ(checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    for run in ("a", "b"):
        shutil.copytree(checkpoints[0], tmp_path / run / "last")
    found = find_checkpoints("m", [tmp_path / "a/last", tmp_path / "b/last"])
    assert [one.label for one in found] == ["a/last", "b/last"]
    for run in ("x", "y"):  # the last two parts are the same
        shutil.copytree(checkpoints[0], tmp_path / run / "a/last")
    found = find_checkpoints("m", [tmp_path / "x/a/last", tmp_path / "y/a/last"])
    assert [one.label for one in found] == ["x/a/last", "y/a/last"]
    with pytest.raises(InputError, match=r"must be different folders, got .+ twice"):
        find_checkpoints("m", [tmp_path / "a/last", tmp_path / "b/../a/last"])
    with pytest.raises(InputError, match=r"must be different folders, got .+ twice"):
        find_checkpoints("m", [checkpoints[0], checkpoints[0]])
    with pytest.raises(InputError, match=r"holds neither a model .+ nor an adapter"):
        find_checkpoints("m", [tmp_path])


@pytest.mark.gpu
def test_shards_on_a_gpu(job: InfluenceJob, tmp_path: Path) -> None:
    one = replace(job, checkpoints=job.checkpoints[:1], settings=replace(SETTINGS, dtype="float32"))
    there = replace(one, settings=replace(one.settings, device="cuda"))
    assert there.key() != one.key()
    expected = one.run(tmp_path / "cpu", quietly).table["influence"].to_numpy()
    found = there.run(tmp_path / "cuda", quietly).table["influence"].to_numpy()
    scale = np.nanmax(np.abs(expected))
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-3 * scale)
