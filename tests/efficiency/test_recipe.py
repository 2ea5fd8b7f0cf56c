"""Recipes of candidates: what they say, what they refuse, and the prompt a task becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from codeact.efficiency.generation.recipe import CandidateRecipe, load_candidate_recipe
from codeact.efficiency.generation.recipe_prompt import DEFAULT_PROMPT, render_prompt
from codeact.errors import InputError
from codeact.sandbox.tests import Call, FunctionTests, StdinTests
from codeact.tasks.task_file import Task

FUNCTION = FunctionTests("Solution().add", (Call((1, 2)),), (3,))


def load(tmp_path: Path, text: str) -> CandidateRecipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return load_candidate_recipe(path)


def test_a_recipe_of_two_models(tmp_path: Path) -> None:
    recipe = load(
        tmp_path,
        """
        seed: 7
        system: Be brief.
        models:
          - {name: here, model: ./folder, samples: 4, temperature: 8e-1, top_p: 1, dtype: bfloat16}
          - name: there
            model: some/model
            endpoint: http://127.0.0.1:11434/v1
            key_variable: MY_KEY
            concurrency: 3
            prompt: "{instruction}"
        """,
    )
    here, there = recipe.models
    assert (recipe.seed, recipe.system, recipe.prompt) == (7, "Be brief.", DEFAULT_PROMPT)
    assert (here.samples, here.temperature, here.top_p, here.dtype) == (4, 0.8, 1.0, "bfloat16")
    assert (here.endpoint, here.max_new_tokens) == (None, 1024)
    assert (there.key_variable, there.concurrency, there.prompt) == ("MY_KEY", 3, "{instruction}")
    assert (there.samples, there.temperature) == (1, 0.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "models is missing"),
        ("- a", r"a recipe is `key: value` lines, got \['a'\]"),
        ("[" * 5000, "no valid YAML, it is nested too deeply"),
        ("models: [", " line 1: no valid YAML"),
        ("models: []", r"models List should have at least 1 item .*, got \[\]"),
        ("seed: 1", "models is missing"),
        ("modles: []", r"modles is not a known key; did you mean models\?"),
        ("models: [{name: a}]", r"models\[0\].model is missing"),
        ("models: [{name: a, model: b, sample: 3}]", r"models\[0\].sample is not a known key; did"),
        ("models: [{name: a, model: b, zzz: 3}]", r"models\[0\].zzz .* known are name, model,"),
        ("models: [{name: 'a b', model: b}]", r"models\[0\].name must be letters, digits"),
        (
            "models: [{name: a, model: b, samples: '3'}]",
            r"samples must be a valid integer, got '3'",
        ),
        ("models: [{name: a, model: b, samples: 0}]", r"samples must be greater than .* got 0"),
        (
            "models: [{name: a, model: b, samples: true}]",
            r"samples must be a valid integer, got Tr",
        ),
        ("models: [{name: a, model: b, top_p: 0}]", r"models\[0\].top_p must be greater than 0"),
        (
            "models: [{name: a, model: b, temperature: .nan}]",
            r"temperature must be a finite number",
        ),
        (
            "models: [{name: a, model: b, samples: 2}]",
            "model a: samples must be 1 at temperature 0",
        ),
        ("models: [{name: a, model: b, concurrency: 2}]", "model a: concurrency needs endpoint"),
        (
            "models: [{name: a, model: b, endpoint: 'http://h', dtype: auto}]",
            "model a: dtype has no effect with endpoint",
        ),
        (
            "models: [{name: a, model: b, endpoint: 'ftp://h'}]",
            r"models\[0\].endpoint: endpoint must be an http or https address, got 'ftp://h'",
        ),
        (
            "models: [{name: a, model: b, endpoint: 'http://h', timeout_seconds: 1e300}]",
            r"models\[0\].timeout_seconds must be less than or equal to 86400",
        ),
        ("models: [{name: a, model: b}, {name: a, model: c}]", "models must .*, a comes twice"),
        ("models: [{name: a, model: b, model: c}]", "line 1: no valid YAML, the key model comes"),
        (
            "prompt: Solve it.\nmodels: [{name: a, model: b}]",
            r"must have a place for \{instruction",
        ),
        ("models: {name: a}", "models must be a valid list"),
        ("models: [a]", r"models\[0\] must be a section of `key: value` lines, got 'a'"),
    ],
)
def test_what_a_recipe_refuses_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"^recipe.yaml.*{message}") as why:
        load(tmp_path, text)
    assert "\n" not in str(why.value)


def test_a_key_written_where_its_variable_belongs_is_not_repeated(tmp_path: Path) -> None:
    text = "models: [{name: a, model: b, endpoint: 'http://h', key_variable: sk-secret-1}]"
    with pytest.raises(InputError, match=r"must be the name of an environment variable$") as why:
        load(tmp_path, text)
    assert "secret" not in str(why.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_candidate_recipe(tmp_path / "none.yaml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="it is not UTF-8 text"):
        load_candidate_recipe(tmp_path / "binary")


def test_a_key_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "models: [{name: a, model: b, endpoint: 'http://h', key_variable: CODEACT_TEST_KEY}]"
    entry = load(tmp_path, text).models[0]
    monkeypatch.setenv("CODEACT_TEST_KEY", " secret\n")
    assert entry.api_key() == "secret"
    monkeypatch.setenv("CODEACT_TEST_KEY", "sec\nret")
    with pytest.raises(InputError, match="CODEACT_TEST_KEY must hold a key of printable") as why:
        entry.api_key()
    assert "sec" not in str(why.value)
    monkeypatch.setenv("CODEACT_TEST_KEY", "")
    with pytest.raises(InputError, match="model a: the environment variable CODEACT_TEST_KEY"):
        entry.api_key()


CODE = "class Solution:\n    def add(self, a: int, b: int) -> int:\n"


def test_the_default_prompt_holds_task_code_and_what_is_called() -> None:
    task = Task("t", "Add two numbers.\n", FUNCTION, None, prompt_code=f"\n{CODE}\n")
    assert render_prompt(DEFAULT_PROMPT, task) == (
        "Solve this task. The answer has to be correct, then fast, then sparing with memory.\n\n"
        "Add two numbers.\n\n"
        "Complete this code. Keep its names and signatures as they are.\n"
        f"```python\n{CODE}```\n\n"
        "The tests call `Solution().add`. "
        "Give the whole program, with its imports, in one ```python block."
    )


@pytest.mark.parametrize("prompt_code", ["", " \n", CODE])
def test_no_code_and_code_that_the_instruction_holds_are_not_shown_again(prompt_code: str) -> None:
    task = Task("t", f"Complete:\n{CODE}", FUNCTION, None, prompt_code=prompt_code)
    text = render_prompt(DEFAULT_PROMPT, task)
    assert "Complete this code" not in text
    assert text.count("def add") == 1
    assert "{" not in text


def test_a_program_on_standard_input_is_told_so() -> None:
    task = Task("t", "Add.", StdinTests(("1 2",), ("3",)), None, language="cpp")
    text = render_prompt(DEFAULT_PROMPT, task)
    assert "\n\nThe program reads standard input and prints its answer" in text
    assert text.endswith("in one ```cpp block.")


def test_braces_of_a_task_and_of_a_template_stay() -> None:
    task = Task("t", "Print {language} and {0}.", FUNCTION, None)
    assert render_prompt("{x} {{instruction}} {language}", task) == (
        "{x} {Print {language} and {0}.} python"
    )
