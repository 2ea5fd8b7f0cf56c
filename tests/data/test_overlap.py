from __future__ import annotations

import pytest

from codeact.data import Example, Examples, Message, find_overlap, load_examples, refuse_overlap
from codeact.data import load_validation as validation_of
from codeact.errors import InputError
from codeact.ops.text_match import flat_text

WORDS = "Given a list of river gauges, return the median of the three highest readings."
BODY = (
    "    highest = sorted(gauges)[-3:]\n"
    "    if len(highest) < 3:\n"
    "        raise ValueError('too few gauges to take a median of')\n"
    "    return highest[1]\n"
)
EXAMPLE = "    >>> median_gauge([1, 2, 3])\n    2\n"
PROMPT = f'def median_gauge(gauges):\n    """{WORDS}\n{EXAMPLE}    """\n'
ROW = {"task_id": "T/0", "prompt": PROMPT, "canonical_solution": BODY}
RENAMED = (PROMPT + BODY).replace("if len(highest) < 3", "if len(highest) != 3")


def pool_of(*pairs: tuple[str, str]) -> Examples:
    rows = [
        Example(f"row{index}", (Message("user", asked), Message("assistant", said)), {})
        for index, (asked, said) in enumerate(pairs)
    ]
    return Examples(rows, "pool")


FOUND = {
    "prompt": ((PROMPT, "?"), "same prompt"),
    "prompt in other white space": ((PROMPT.upper().replace("\n", "\r\n"), ""), "same prompt"),
    "prompt in words": ((WORDS, "?"), "same prompt"),
    "prompt under another name": ((PROMPT.replace("median_gauge", "solve"), "?"), "holds prompt"),
    "prompt in words inside the response": (("?", f"Task: {WORDS}\nDone"), "holds prompt"),
    "body": (("?", BODY), "same solution"),
    "whole function": (("?", PROMPT + BODY), "same solution"),
    "body in a fence, indented by tabs": (
        ("?", "```python\ndef f(gauges):\n" + BODY.replace("    ", "\t") + "```"),
        "holds solution",
    ),
    "body in the instruction": ((f"Explain:\n{BODY}", "It sorts."), "holds solution"),
    "edited copy": (("?", RENAMED.replace(WORDS, WORDS.replace("river ", ""))), "near copy"),
}  # fmt: skip


@pytest.mark.parametrize("style", ["instruction", "completion"])
@pytest.mark.parametrize(("pair", "kind"), FOUND.values(), ids=FOUND)
def test_kinds(pair, kind, style):
    tasks = validation_of([ROW], name="rivers", style=style)
    found = find_overlap(pool_of(("clean", "pass"), pair), tasks, ngram=4)
    assert found == [("row1", "rivers", "T/0", kind)]


def test_tests_after_the_prompt_do_not_hide_it():
    mbpp = {"task_id": 3, "text": WORDS, "code": BODY, "test_list": ["assert f([1]) == 1"]}
    for style in ("instruction", "completion"):
        tasks = validation_of([mbpp], name="mbpp", style=style)
        found = find_overlap(pool_of((f"Please: {WORDS}", "?"), (WORDS, "?")), tasks)
        assert [one.kind for one in found] == ["holds prompt", "same prompt"]


def test_idioms_are_no_overlap():
    short = {"instruction": "Sum two.", "output": "return x + y"}
    tasks = validation_of([short], name="t")
    rows = pool_of(("Sum two numbers.", "def f(x, y):\n    return x + y"), ("a", "return x + y"))
    assert find_overlap(rows, tasks) == []
    assert find_overlap(pool_of((" SUM  two. ", "?")), tasks) == [
        ("row0", "t", "t/0", "same prompt")
    ]


def test_bounds_decide_from_the_first_character_on():
    tasks = validation_of([{"instruction": "p" * 50, "output": "s" * 70}], name="t")
    held = pool_of(("x" + "p" * 50, "?"), ("?", "x" + "s" * 70))
    assert [one.kind for one in find_overlap(held, tasks)] == ["holds prompt", "holds solution"]
    higher = find_overlap(held, tasks, min_prompt_chars=51, min_solution_chars=71)
    assert higher == []
    exact = find_overlap(held, tasks, min_prompt_chars=50, min_solution_chars=70)
    assert [one.kind for one in exact] == ["holds prompt", "holds solution"]


def test_share_of_ngrams_is_met_exactly():
    """Ten 1-grams; a row with 8 of them meets 0.8 and misses 0.81."""
    words = [f"w{index}" for index in range(10)]
    tasks = validation_of([{"instruction": words[0], "output": " ".join(words[1:])}], name="t")
    eight, seven = " , ".join(words[2:]), " , ".join(words[3:])
    pool = pool_of(("q", eight), ("q", seven))
    assert find_overlap(pool, tasks, ngram=1) == [("row0", "t", "t/0", "near copy")]
    assert find_overlap(pool, tasks, ngram=1, ngram_share=0.81) == []
    few = validation_of([{"instruction": "w0", "output": " ".join(words[1:7])}], name="t")
    assert find_overlap(pool_of(("q", " , ".join(words))), few, ngram=1) == []


def test_pairs_come_in_order_and_once_for_any_number_of_rows_and_threads():
    tasks = validation_of([ROW], name="a") | validation_of([ROW], name="b")
    pairs = [("clean", str(index)) for index in range(1500)]
    pairs[1200] = (PROMPT, BODY)
    pairs[7] = ("?", BODY)
    steps = []
    found = find_overlap(
        pool_of(*pairs), tasks, num_threads=3, on_progress=lambda *s: steps.append(s)
    )
    assert found == [
        ("row7", "a", "T/0", "same solution"),
        ("row7", "b", "T/0", "same solution"),
        ("row1200", "a", "T/0", "same prompt"),
        ("row1200", "b", "T/0", "same prompt"),
    ]
    assert steps == [(1024, 1500), (1500, 1500)]


def test_empty_texts_match_nothing():
    tasks = validation_of([{"instruction": "", "output": BODY}], name="t")
    assert find_overlap(pool_of(("", ""), ("", "pass")), tasks) == []
    assert find_overlap(pool_of(), tasks) == []
    assert find_overlap(pool_of(("a", "b")), {}) == []


def test_refusal_says_what_and_what_to_do():
    tasks = validation_of([ROW], name="rivers") | validation_of([ROW], name="clone")
    pool = pool_of(("clean", "pass"), ("?", BODY), (PROMPT, "?"))
    with pytest.raises(InputError) as error:
        refuse_overlap(pool, tasks)
    assert str(error.value) == (
        "validation overlaps the pool: 2 of 3 rows hold its problems (2 of rivers, 2 of clone), "
        "first row1: same solution, T/0 of rivers; drop such rows (codeact decontaminate "
        "--benchmarks) or pass --allow-overlap"
    )
    assert refuse_overlap(pool, tasks, allow=True) == find_overlap(pool, tasks)
    assert refuse_overlap(pool_of(("clean", "pass")), tasks) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ngram_share": 0.0}, r"ngram_share must lie in \(0, 1\], got 0.0"),
        ({"ngram": 0}, "ngram must be at least 1, got 0"),
        ({"min_prompt_chars": 0}, "min_prompt_chars must be at least 1, got 0"),
        ({"min_solution_chars": -1}, "min_solution_chars must be at least 1, got -1"),
        ({"num_threads": 0}, "num_threads must be at least 1, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        find_overlap(pool_of(("a", "b")), validation_of([ROW]), **options)


def test_real_pools_hold_no_benchmark_but_planted_rows_are_found(data_folder):
    tasks = validation_of(data_folder / "bench" / "HumanEval.jsonl.gz")
    tasks |= validation_of(data_folder / "bench" / "mbpp.jsonl.gz")
    rows = []
    for name in ("gpteacher_codegen", "evol_code_gen1", "evol_code_gen2_part", "code_alpaca_2k"):
        rows += load_examples(data_folder / "sft" / f"{name}.jsonl.gz")
    rows += load_examples(data_folder / "sft" / "leetcode_v0.2.0_train.jsonl.gz")
    assert refuse_overlap(rows, tasks) == []  # the 10-gram rule takes one row in 40 of these
    humaneval, mbpp = tasks["humaneval"], tasks["mbpp"]
    planted = [
        Example("p0", humaneval[5].messages, {}),
        Example("p1", (Message("user", "?"), Message("assistant", mbpp[9].response)), {}),
        Example(
            "p2", (Message("user", f"Hi! {mbpp[3].fields['text']}"), Message("assistant", "")), {}
        ),
    ]
    found = find_overlap([*rows[:2000], *planted, *rows[2000:]], tasks)
    assert [(one.pool_id, one.validation_id, one.kind) for one in found] == [
        ("p0", humaneval[5].id, "same prompt"),
        ("p1", mbpp[9].id, "same solution"),
        ("p2", mbpp[3].id, "holds prompt"),
    ]


def test_real_sets_of_one_descent_overlap(data_folder):
    """Round 1 is the seed set's instructions rewritten; some are only added to."""
    sft = data_folder / "sft"
    seed = load_examples(sft / "code_alpaca_2k.jsonl.gz")
    pool = load_examples(sft / "evol_code_gen1.jsonl.gz")
    by_id = {one.id: one for one in seed}
    rows = {one.id: one for one in pool}
    found = find_overlap(pool, {"seed": seed})
    assert len({one.pool_id for one in found}) > 200
    for one in found:
        row, problem = rows[one.pool_id], by_id[one.validation_id]
        prompt, solution = flat_text(problem.instruction), flat_text(problem.response)
        text = flat_text(f"{row.instruction}\n\n{row.response}")
        holds = {
            "same prompt": prompt == flat_text(row.instruction),
            "same solution": solution == flat_text(row.response),
            "holds prompt": prompt in text,
            "holds solution": solution in text,
            "near copy": prompt not in text and solution not in text,
        }
        assert holds[one.kind], one
    with pytest.raises(InputError, match=r"\d+ of 1966 rows hold its problems \(\d+ of seed\)"):
        refuse_overlap(pool, {"seed": seed})
