"""``codeact influence``: its numbers against reverse mode, its options, what it refuses."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

Floats = np.ndarray[Any, Any]


@pytest.fixture
def val(places: Any) -> Path:
    """Four problems of two kinds, none of them in the pool."""
    rows = [
        {
            "instruction": f"Give the {word} of all the numbers in a",
            "output": f"def f(a):\n    return {word}(a)",
            "kind": {"of": kind},
        }
        for word, kind in (("min", "b"), ("max", "a"), ("sum", "a"), ("len", "b"))
    ]
    path = Path(places.out.parent) / "tasks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def line(val: Path) -> str:
    return f"influence {{rows}} --model {{model}} --device cpu --validation val={val}"


def mean_loss(model: Any, tokenizer: Any, row: dict[str, Any]) -> torch.Tensor:
    """Of the answer's tokens, in the text that the preset codeact puts around a row."""
    prompt = f"Question:\n{row['instruction']}\n\nAnswer:\n"
    start = len(tokenizer(prompt)["input_ids"])
    ids = torch.tensor(tokenizer(prompt + row["output"])["input_ids"])
    logits = model(ids[None]).logits[0]
    return torch.nn.functional.cross_entropy(logits[start - 1 : -1], ids[start:])


def reverse_mode(
    folder: Path, rows: list[dict[str, Any]], tasks: list[list[dict[str, Any]]]
) -> tuple[Floats, Floats]:
    """(num_rows,) losses and (num_rows, num_tasks) dots of gradients, by plain autograd."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        parts = torch.autograd.grad(loss, list(model.parameters()))
        return torch.cat([part.flatten() for part in parts])

    directions = [
        gradient(torch.stack([mean_loss(model, tokenizer, row) for row in task]).mean())
        for task in tasks
    ]
    losses, dots = [], []
    for row in rows:
        loss = mean_loss(model, tokenizer, row)
        own = gradient(loss)
        losses.append(loss.item())
        dots.append([float(own @ direction) for direction in directions])
    return np.array(losses), np.array(dots)


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def test_influence_is_the_dot_of_gradients(codeact: Any, places: Any, line: str, val: Path) -> None:
    done = codeact(line + " --validation-by kind.of --output {out}/i.parquet")
    assert (done.status, done.out) == (0, "")
    table = pq.read_table(places.out / "i.parquet")
    assert table.column_names == [
        "id", "num_prompt_tokens", "num_response_tokens", "nll_response", "ppl_response",
        "influence", "influence_val-a", "influence_val-b", "status",
    ]  # fmt: skip
    problems = read_rows(val)
    tasks = [[row for row in problems if row["kind"]["of"] == kind] for kind in "ab"]
    losses, dots = reverse_mode(places.model, read_rows(places.rows), tasks)
    found = np.stack([table[f"influence_val-{kind}"].to_numpy() for kind in "ab"], axis=1)
    np.testing.assert_allclose(found, dots, rtol=1e-4, atol=1e-5 * np.abs(dots).max())
    np.testing.assert_allclose(table["influence"].to_numpy(), found.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(table["nll_response"].to_numpy(), losses, rtol=1e-5)
    lines = done.err.splitlines()
    assert lines[0] == "12 rows: 12 ok"
    assert re.fullmatch(
        r"derivatives \(ghost\) are within val-a 0\.\d\d%, val-b 0\.\d\d% of finite differences",
        lines[1],
    )
    share = (dots[:, 0] < 0).mean()
    assert lines[2] == f"val-a: {share:.0%} of 12 measured rows harm it"
    assert not list(places.out.glob("*.parts-*"))


@pytest.mark.parametrize("derivative", ["forward", "ghost", "difference"])
def test_every_derivative_agrees(
    codeact: Any, places: Any, line: str, val: Path, derivative: str
) -> None:
    done = codeact(f"{line} --derivative {derivative} --output {{out}}/i.jsonl")
    assert done.status == 0, done.err
    assert f"derivatives ({derivative}) are" in done.err
    rows = read_rows(places.out / "i.jsonl")
    _, dots = reverse_mode(places.model, read_rows(places.rows), [read_rows(val)])
    found = np.array([row["influence_val"] for row in rows])
    slack = 2e-2 if derivative == "difference" else 1e-4
    np.testing.assert_allclose(found, dots[:, 0], atol=slack * np.abs(dots).max())


def test_tokens_of_the_last_layer_sum_to_the_row(codeact: Any, line: str) -> None:
    done = codeact(line + " --token-influence --parameters last:1 --style completion --limit 2")
    assert done.status == 0, done.err
    rows = [json.loads(text) for text in done.out.splitlines()]
    assert len(rows) == 12
    scale = max(abs(row["influence"]) for row in rows)
    for row in rows:
        assert len(row["token_influence"]) == row["num_response_tokens"]
        assert sum(row["token_influence"]) == pytest.approx(row["influence"], abs=1e-5 * scale)


def test_adamw_with_its_check_and_page(codeact: Any, places: Any, line: str) -> None:
    words = " --optimizer adamw --oracle 6 --seed 3 --limit 2 --report {out}/page.html"
    done = codeact(line + words)
    assert done.status == 0, done.err
    found = re.search(r"val: Spearman (\S+) \(.+\) with exact steps of rate 1e-05 on 6", done.err)
    assert found is not None, done.err
    assert float(found[1]) > 0.7
    page = (places.out / "page.html").read_text()
    assert "moments of a warm-up on the pool" in page
    assert "2 problems, of" in page


def test_checkpoints_and_their_ranks(
    codeact: Any, places: Any, line: str, tiny_model_folder: Path
) -> None:
    for number in (1, 2):
        model = LlamaForCausalLM.from_pretrained(tiny_model_folder)
        torch.manual_seed(number)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.02 * torch.randn_like(weight))
        model.save_pretrained(places.out / f"step-{number}")
    words = " --checkpoints {out}/step-1 --checkpoints {out}/step-2 --output {out}/i.parquet"
    done = codeact(line + words)
    assert done.status == 0, done.err
    table = pq.read_table(places.out / "i.parquet")
    first, second = (table[f"influence_val@step-{n}"].to_numpy() for n in (1, 2))
    np.testing.assert_allclose(table["influence_val"].to_numpy(), (first + second) / 2, rtol=1e-12)
    assert not np.allclose(first, second)
    assert "weighs them by 1 each, for want of learning rates" in done.err
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    rho = np.corrcoef(*ranks)[0, 1]
    assert f"val: Spearman {rho:.2f} (" in done.err
    assert done.err.endswith("from step-1 to step-2\n")


def test_an_adapter_alone_moves(codeact: Any, places: Any, line: str) -> None:
    peft = pytest.importorskip("peft")
    model = LlamaForCausalLM.from_pretrained(places.model)
    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    peft.get_peft_model(model, config).save_pretrained(places.out / "lora")
    words = " --checkpoints {out}/lora --parameters "
    lora, everything = (codeact(line + words + which) for which in ("lora", "all"))
    assert (lora.status, everything.status) == (0, 0), lora.err + everything.err
    small, large = (
        np.array([json.loads(text)["influence"] for text in done.out.splitlines()])
        for done in (lora, everything)
    )
    assert np.abs(small).max() > 0
    assert np.abs(small).max() < np.abs(large).max()


def test_predicts_the_rows_it_does_not_measure(
    codeact: Any, places: Any, line: str, val: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {
            "instruction": f"Write {n}",
            "output": "return " + " + ".join(rng.choice(list("abcd"), 1 + n % 7)),
        }
        for n in range(70)
    ]
    (places.out / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = line.replace("{rows}", "{out}/pool.jsonl") + " --limit 1"
    assert codeact(words + " --output {out}/all.parquet").status == 0
    truth = pq.read_table(places.out / "all.parquet")["influence"].to_numpy()
    noise = 0.4 * truth.std() * rng.normal(size=(70, 2))
    good = np.stack([truth, -truth], axis=1) + noise
    np.save(places.out / "good.npy", good.astype(np.float32))
    np.save(places.out / "bad.npy", rng.normal(size=(70, 2)).astype(np.float32))
    words += " --predict-from 55 --output {out}/p.parquet --embeddings {out}/"
    done = codeact(words + "good.npy")
    assert done.status == 0, done.err
    assert "the predictor of influence passes its gate" in done.err
    assert done.err.endswith("55 rows measured, 15 predicted, 0 without influence\n")
    table = pq.read_table(places.out / "p.parquet")
    source = np.array(table["influence_source"].to_pylist())
    values = table["influence"].to_numpy()
    # Packs are others, and with them the last bits.
    np.testing.assert_allclose(
        values[source == "measured"], truth[source == "measured"], rtol=1e-3, atol=1e-4
    )
    assert np.corrcoef(values[source == "predicted"], truth[source == "predicted"])[0, 1] > 0.7
    done = codeact(words + "bad.npy")
    assert done.err.count("does not pass its gate") == 1
    assert "the length of the response alone tells as much" in done.err
    assert "gate" not in caplog.text  # logged as well, the verdict would be on the screen twice
    assert done.err.endswith("55 rows measured, 0 predicted, 15 without influence\n")
    assert pq.read_table(places.out / "p.parquet")["influence"].null_count == 15


class _OnlyBackward(torch.autograd.Function):
    """An operation that has no forward-mode derivative, as many custom kernels."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(states)
        return states * torch.sigmoid(states)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (states,) = ctx.saved_tensors
        gate = torch.sigmoid(states)
        return gradients[0] * gate * (1 + states * (1 - gate))


def test_model_without_forward_mode(
    codeact: Any, refused: Any, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torch.nn.functional, "silu", lambda states, inplace=False: _OnlyBackward.apply(states)
    )
    forward = line + " --derivative forward --output {out}/i.parquet"
    refused(forward, "LlamaForCausalLM has no forward mode on cpu: .+ use derivative = ghost")
    done = codeact(line)
    assert done.status == 0
    assert "derivatives (ghost) are within" in done.err


def test_overlap_is_an_error_unless_allowed(codeact: Any, refused: Any, line: str) -> None:
    words = line + " --validation pool={rows} --limit 3"
    refused(words + " --output {out}/i.parquet", "validation overlaps the pool: .+ --allow-overlap")
    done = codeact(words + " --allow-overlap")
    assert done.status == 0, done.err
    assert re.search(r"^\d+ rows hold problems of the validation, as allowed$", done.err, re.M)


def test_checkpoint_of_another_shape(refused: Any, places: Any, line: str) -> None:
    for name, layers in (("small", 2), ("large", 3)):
        shutil.copytree(places.model, places.out / name)
        config = json.loads((places.model / "config.json").read_text())
        config["num_hidden_layers"] = layers
        (places.out / name / "config.json").write_text(json.dumps(config))
    words = " --checkpoints {out}/small --checkpoints {out}/large"
    refused(line + words, "must be of one model: .+small has layers 2, .+large has 3")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--validation {bad}/empty.jsonl", r"empty.jsonl"),
        ("--validation {bad}/no_answers.jsonl", r"needs a solution"),
        ("--validation a@b={bad}/other.jsonl", r"must not hold '@', got 'a@b'"),
        ("--validation-by size", r"size"),
        ("--style chat", r"--style must be instruction or completion, got 'chat'"),
        ("--limit 0", r"--limit must be at least 1, got 0"),
        ("--optimizer adam", r"--optimizer must be sgd or adamw, got 'adam'"),
        ("--optimizer-state {out}", r"--optimizer-state needs --optimizer adamw, got sgd"),
        ("--optimizer adamw --optimizer-state none", r"--optimizer-state: no such file as none"),
        ("--optimizer adamw --optimizer-state {out}", r"no such file as .+optimizer.pt"),
        ("--parameters lora", r"needs a LoRA adapter: name its folder with --checkpoints"),
        ("--parameters last:9", r"needs K from 1 to the 2 layers, got 9"),
        ("--parameters some", r"parameters must be all, lora or last:K, got 'some'"),
        ("--derivative backward", r"--derivative must be auto or forward or ghost"),
        ("--token-influence --derivative ghost", r"needs --derivative forward, got ghost"),
        ("--derivative difference --dtype bfloat16", r"float32"),
        ("--checkpoints {out}", r"holds neither a model \(config.json\) nor an adapter"),
        ("--oracle 0", r"--oracle must be at least 1"),
        ("--step 0.1", r"--step needs --oracle"),
        ("--oracle 2 --step 0", r"--step must be above 0"),
        ("--embeddings {embeddings}", r"--embeddings needs --predict-from"),
        ("--predict-from 50", r"--predict-from needs --embeddings"),
        ("--predict-from 9 --embeddings {embeddings}", r"--predict-from must be at least 50"),
        ("--predict-from 50 --embeddings {embeddings}", r"must be below the 12 rows"),
        ("--predict-from 50 --embeddings {bad}/fewer.npy", r"must hold the 12 rows of"),
        ("--gate 2", r"--gate must be a correlation from 0 to 1, got 2.0"),
        ("--preset qaq", r"preset 'qaq' scores instructions"),
        ("--report {out}/page.txt", r"--report must end in .html"),
        ("--output {out}/i.csv", r"--output must end in .parquet or .jsonl"),
        ("--max-length 20 --output {out}/i.parquet", r"must hold a problem with a solution"),
    ],
)
def test_refuses(refused: Any, line: str, words: str, message: str) -> None:
    refused(f"{line} {words}", message)


def test_needs_a_validation_set(refused: Any) -> None:
    refused("influence {rows} --model {model}", r"--validation")


def test_interrupted_command_goes_on(
    codeact: Any, places: Any, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from codeact.pipeline.influence import stage
    from codeact.pipeline.influence.model import InfluenceModel

    monkeypatch.setattr(stage, "_CPU_ROWS", 4)
    whole = line + " --output {out}/whole.parquet"
    assert codeact(whole).status == 0
    table = InfluenceModel.table
    calls: list[int] = []

    def interrupted(self: InfluenceModel, *args: Any) -> Any:
        calls.append(len(args[1]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return table(self, *args)

    monkeypatch.setattr(InfluenceModel, "table", interrupted)
    stopped = codeact(line + " --output {out}/cut.parquet")
    assert stopped.status == 130
    assert stopped.err == "codeact influence: interrupted; the same command goes on from here\n"
    assert len(list(places.out.glob("cut.parquet.parts-*/000/*.parquet"))) == 1
    assert codeact(line + " --output {out}/cut.parquet").status == 0
    assert len(calls) == 4  # the first shard is not measured again
    cut, uncut = (places.out / f"{name}.parquet" for name in ("cut", "whole"))
    assert cut.read_bytes() == uncut.read_bytes()
