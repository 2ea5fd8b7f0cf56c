"""Recipes: strict, explained in one line, and the same after a round trip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from codeact.errors import InputError
from codeact.pipeline.recipe import DataSection, Recipe, SelectSection, TrainSection, load_recipe

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_recipe(text: str) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_recipe


def test_yaml_round_trip_keeps_every_value(write: Write) -> None:
    recipe = Recipe(
        name="mine",
        data=DataSection(source="a b.jsonl", columns={"question": "instruction"}),
        select=SelectSection(budget=120),
        train=TrainSection(learning_rate=1e-5, max_steps=3),
    )
    assert load_recipe(write(recipe.to_yaml())) == recipe
    assert "budget: 120\n" in recipe.to_yaml()  # a count stays a count, not 120.0


@pytest.mark.parametrize("text", ["", "train:\n", "# nothing\n"])
def test_nothing_given_is_the_default(write: Write, text: str) -> None:
    assert load_recipe(write(text)) == Recipe() == load_recipe()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  epoch: 3", "train.epoch is not a known key; did you mean train.epochs?"),
        ("epochs: 3", "epochs is not a known key; did you mean train.epochs?"),
        ("tarin: {epochs: 3}", "tarin is not a known key; did you mean train?"),
        (
            "embed: {zzzzzz: 1}",
            "embed.zzzzzz is not a known key; known are embed.model, embed.text",
        ),
        ("train: {epochs: two}", "train.epochs must be a valid number, got 'two'"),
        ("seed: '3'", "seed must be a valid integer, got '3'"),
        ("seed: true", "seed must be a valid integer, got True"),
        (
            "model: {dtype: float16}",
            "model.dtype must be 'auto', 'float32' or 'bfloat16', got 'float16'",
        ),
        ("train: 3", "train must be a section of `key: value` lines, got 3"),
        ("train: {learning_rate: .nan}", "train.learning_rate must be a finite number, got nan"),
        ("data: {num_held_out: 1}", "data.num_held_out must be greater than or equal to 2, got 1"),
        ("evaluate: {confidence: 1}", "evaluate.confidence must be less than 1, got 1"),
        (
            "evaluate: {benchmarks: [humaneval, apps]}",
            "evaluate.benchmarks.1 must be 'humaneval' or 'mbpp', got 'apps'",
        ),
        (
            "evaluate: {benchmarks: [mbpp, mbpp]}",
            "evaluate.benchmarks must name each benchmark once, got ['mbpp', 'mbpp']",
        ),
        (
            "evaluate: {num_samples: 5}",
            "evaluate.num_samples must be 1 at evaluate.temperature = 0, where all answers to a "
            "task are the same, got 5",
        ),
        ("evaluate: {benchmark: [mbpp]}", "evaluate.benchmark is not a known key; did you mean"),
        ("name: ../up", "name must be letters, digits, '.', '-' and '_', beginning with"),
        ("pack: {capacity: 512}", "data.max_tokens = 1024 must fit pack.capacity = 512"),
        ("- 1", "a recipe is `key: value` lines, got [1]"),
        ("train: {epoch: 1, epochs: no}", "train.epoch is not a known key"),
    ],
)
def test_error_is_one_line_with_file_key_and_rule(write: Write, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(write(text))
    assert str(caught.value).startswith(f"recipe.yaml: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("budget", ["0", "0.0", "1.5", "-3", "true", "half", ".nan", "null"])
def test_budget_out_of_range(write: Write, budget: str) -> None:
    rule = r"select\.budget must be a fraction in \(0, 1\] or a whole number of rows"
    with pytest.raises(InputError, match=rule):
        load_recipe(write(f"select: {{budget: {budget}}}"))


@pytest.mark.parametrize("wanted", ["0", "-2", "1.5", "true", "elbows", "null"])
def test_number_of_clusters_out_of_range(write: Write, wanted: str) -> None:
    rule = r"select\.num_clusters must be a whole number, 1 or more, elbow or silhouette, got"
    with pytest.raises(InputError, match=rule):
        load_recipe(write(f"select: {{num_clusters: {wanted}}}"))


@pytest.mark.parametrize(
    ("text", "budget"),
    [("1.0", 1.0), ("0.05", 0.05), ("1", 1), ("900", 900), ("0.4tokens", "0.4tokens")],
)
def test_budget_at_its_limits(write: Write, text: str, budget: float | str) -> None:
    loaded = load_recipe(write(f"select: {{budget: {text}}}")).select.budget
    assert loaded == budget
    assert type(loaded) is type(budget)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  epochs: [1\nseed: 2", r"recipe\.yaml line 3: no valid YAML, "),
        ("seed: 1\nseed: 2", r"recipe\.yaml line 2: no valid YAML, the key seed comes twice"),
        ("? [a, b]\n: 3", r"recipe\.yaml line 1: no valid YAML, "),
        ("seed: 2024-99-99", r"recipe\.yaml: no valid YAML, month"),
        ("\x01", r"recipe\.yaml: no valid YAML, "),
    ],
)
def test_broken_yaml_names_the_line(write: Write, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe(write(text))


def test_missing_file_and_binary_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"recipe .*none\.yaml cannot be read: No such file"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "bin.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"cannot be read: it is not UTF-8 text"):
        load_recipe(tmp_path / "bin.yaml")


def test_overrides_are_yaml_scalars_and_win(write: Write) -> None:
    path = write("train: {epochs: 1, max_steps: 9}")
    changes = ["train.epochs=2", "train.learning_rate=1e-4", "train.max_steps=null", "name=x"]
    recipe = load_recipe(path, [*changes, "data.columns.question=instruction"])
    assert recipe.train == TrainSection(epochs=2.0, learning_rate=1e-4, max_steps=None)
    assert recipe.name == "x"
    assert recipe.data.columns == {"question": "instruction"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=2", r"--set: train\.epoch is not a known key; did you mean train\.epochs\?"),
        ("train.epochs", r"--set expects key=value, such as train\.epochs=2, got 'train\.epochs'"),
        ("=2", r"--set expects key=value"),
        ("train..epochs=2", r"--set expects key=value"),
        ("train.epochs=[1", r"--set train\.epochs line 1: no valid YAML"),
        ("name.x=2", r"--set: name\.x is not a key, name is no section"),
    ],
)
def test_bad_override_is_blamed_on_the_option(write: Write, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe(write("name: a"), [override])


def test_section_hash_depends_on_its_sections_only() -> None:
    recipe, other = Recipe(), Recipe(train=TrainSection(epochs=9))
    assert recipe.section_hash("score", "seed") == other.section_hash("seed", "score")
    assert recipe.section_hash("train") != other.section_hash("train")
    assert recipe.section_hash("score", rows="a") != recipe.section_hash("score", rows="b")
    with pytest.raises(ValueError, match="keys of Recipe, got \\['scores'\\]"):
        recipe.section_hash("scores")


def test_section_hash_is_the_same_in_every_process() -> None:
    # A changed value here makes every stage of every existing run folder run again.
    digest = Recipe().section_hash("select", "seed", rows="00")
    assert digest == "454342a42f2e7676167e5af6beb5f269b835c436766f9a360cc9c3def16b52a5"
