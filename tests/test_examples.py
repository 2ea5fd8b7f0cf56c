"""The example runs, and the README says what exists: its Python, commands, targets and links."""

from __future__ import annotations

import importlib.util
import json
import re
import string
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.main import get_command

from codeact.cli import app
from codeact.data import load_examples, tokenize_examples

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
METHODS = (ROOT / "docs" / "methods.md").read_text()
PAGES = (
    "README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/integrations.md",
    "docs/methods.md", "benchmarks/README.md",
)  # fmt: skip
VERBS = get_command(app).commands


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a language in a Markdown text."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


def code(page: str) -> str:
    """What a Markdown text shows as code: shell blocks, and spans on a line each."""
    prose = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    return "\n".join([*blocks(page, "sh"), *spans])


@pytest.fixture(scope="module")
def example() -> ModuleType:
    path = ROOT / "examples" / "select_and_tune.py"
    spec = importlib.util.spec_from_file_location("select_and_tune", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """40 rows; for the random model 24 have an IFD below 1, and the 16 to keep fill two bins."""
    rows = [
        {
            "instruction": f"Add {number} to x.",
            "output": f"def add(x):\n    # {letter * number}\n    return x + {number}\n",
            "origin": number,
        }
        for number, letter in enumerate(string.ascii_letters[:40])
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_example_selects_and_tunes(example, data, tiny_model_folder, tmp_path, capsys):
    folder, output = tiny_model_folder, tmp_path / "new" / "tuned"
    options = {"--data": data, "--model": folder, "--encoder": folder, "--output": output}
    example.main([str(word) for option in options.items() for word in option])
    kept = load_examples(output / "subset.jsonl")
    assert len(kept) == 16, "40 % of 40"
    rows = load_examples(data)
    assert all(row.messages == rows[row.fields["origin"]].messages for row in kept)
    assert "kept 16 of 40 rows; 2 steps" in capsys.readouterr().out
    before, after = (load_file(path / "model.safetensors") for path in (folder, output / "model"))
    assert before.keys() == after.keys()
    assert not torch.equal(before["model.norm.weight"], after["model.norm.weight"])


def test_the_code_of_the_readme_does_what_the_example_does(
    example, data, tiny_model_folder, monkeypatch
):
    source, _, _ = blocks(README, "python")
    assert len(source.splitlines()) == 15
    monkeypatch.chdir(data.parent)
    monkeypatch.setattr("codeact.models.demo_model", lambda: tiny_model_folder)
    monkeypatch.setattr("codeact.models.demo_embedder", lambda: tiny_model_folder)
    exec(compile(source, "README.md", "exec"), {})
    subset = example.select(load_examples(data), tiny_model_folder, tiny_model_folder)
    assert load_examples("subset.jsonl").ids == subset.ids


def test_the_readme_packs_for_eight_ranks(data, tiny_model_folder):
    _, source, _ = blocks(README, "python")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_folder)
    tokens = tokenize_examples(load_examples(data), tokenizer, max_length=512)
    rows = {"input_ids": [], "labels": []}
    for row in tokens:
        rows["input_ids"].append(row.input_ids.tolist())
        rows["labels"].append(row.labels.tolist())
    seen = 0
    for rank in range(8):
        names = {"dataset": pa.table(rows), "rank": rank}
        names["model"] = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
        exec(compile(source, "README.md", "exec"), names)
        seen += sum(batch["input_ids"].numel() for batch in names["loader"])
    assert seen == tokens.seqlens.sum(), "a multiple of 8 bins without a filler"


def test_the_readme_computes_losses_without_logits(tiny_model_folder):
    _, _, source = blocks(README, "python")
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    ids = torch.randint(3, 200, (1, 9))
    labels = ids.masked_fill(torch.arange(9) < 3, -100)
    unfused = model(input_ids=ids, labels=labels)
    names = {
        "model": model,
        "lm_head": model.lm_head,
        "hidden_states": model.model(ids).last_hidden_state[0, 2:-1],
        "targets": ids[0, 3:],
        "weights": torch.full((6,), 0.5),
    }
    exec(compile(source, "README.md", "exec"), names)
    torch.testing.assert_close(names["nll"].mean(), unfused.loss)
    torch.testing.assert_close(names["loss"], 3 * unfused.loss)
    torch.testing.assert_close(model(input_ids=ids, labels=labels).loss, unfused.loss)


def test_the_readme_lists_every_command():
    listed = re.findall(r"^\| `codeact ([a-z]+)` \|", README, flags=re.MULTILINE)
    assert sorted(listed) == sorted(VERBS)


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page):
    found = re.findall(r"\bcodeact ([a-z]\S*)([^\n|]*)", code((ROOT / page).read_text()))
    for verb, rest in found:
        assert verb in VERBS, f"{page}: codeact {verb}"
        known = {name for parameter in VERBS[verb].params for name in parameter.opts}
        assert set(re.findall(r"(?<=\s)--[a-z-]+", rest)) <= known, f"{page}: codeact {verb}{rest}"


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    calls = re.findall(r"\bmake((?: [a-z]+)+)", code((ROOT / page).read_text()))
    assert {name for call in calls for name in call.split()} <= set(targets)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text())
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


def test_the_recipe_of_the_readme_is_one(tmp_path):
    from codeact.pipeline import load_recipe

    text, _, _ = blocks(README, "yaml")
    (tmp_path / "recipe.yaml").write_text(text)
    assert load_recipe(tmp_path / "recipe.yaml").train.learning_rate == 2e-5


def test_the_training_settings_of_the_readme_are_some(tmp_path):
    from codeact.training import load_train_config

    _, _, text = blocks(README, "yaml")
    (tmp_path / "train.yaml").write_text(text)
    config = load_train_config(tmp_path / "train.yaml")
    assert (config.method, config.lora_rank, config.samples_per_step) == ("lora", 16, 512)


def test_the_recipes_of_candidates_are_some(tmp_path):
    from codeact.efficiency.generation.recipe import load_candidate_recipe

    names = []
    for text in (blocks(README, "yaml")[1], *blocks(METHODS, "yaml")):
        (tmp_path / "recipe.yaml").write_text(text)
        names.append(
            [model.name for model in load_candidate_recipe(tmp_path / "recipe.yaml").models]
        )
    assert names == [["base", "tuned", "served"], ["base", "served"]]


def test_the_tasks_of_the_methods_page_are_some(tmp_path):
    from codeact.tasks import load_tasks

    (text,) = blocks(METHODS, "jsonl")
    (tmp_path / "tasks.jsonl").write_text(text)
    total, upper, pairs = load_tasks(tmp_path / "tasks.jsonl")
    assert total.tests.calls[1].kwargs == {"numbers": []}
    assert (upper.language, upper.tests.outputs) == ("go", ("AB\n",))
    assert pairs.tests.expected == ([(0, 0), (1, 1)],)
    assert pairs.tests.rule.order == "unordered"


def test_every_dependency_has_its_reason():
    tomllib = pytest.importorskip("tomllib", reason="comes with Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.match(r"[\w-]+", name)[0].lower() for group in groups for name in group}
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## Dependencies")[2]
    reasons = set(re.findall(r"[\w-]+", section.partition("\n## ")[0].lower()))
    assert names <= reasons
