from __future__ import annotations

import gzip
import json
import random

import numpy as np
import pytest

from codeact.data import (
    Benchmark,
    BenchmarkTask,
    decontaminate,
    find_benchmarks,
    load_examples,
)
from codeact.errors import InputError

WORDS = "Given a list of river gauges, return the median of the three highest readings."
SOLUTION = (
    "    highest = sorted(gauges)[-3:]\n"
    "    if len(highest) < 3:\n"
    "        raise ValueError('too few gauges to take a median of')\n"
    "    return highest[1]\n"
)
PROMPT = f'def median_gauge(gauges):\n    """{WORDS}"""\n'
TASK = BenchmarkTask("T/0", (WORDS, SOLUTION), PROMPT + SOLUTION)
BENCHMARK = Benchmark("Rivers", (TASK,))


def rows(*texts: str):
    return load_examples([{"instruction": text, "output": "pass"} for text in texts])


def rules(result):
    return [(hit.id, hit.rule) for hit in result.removed]


CLEAN = "Sort the readings of river gauges and return the highest of them, please, in a list."

SUBSTRINGS = {
    "words, other case": "Please: " + WORDS.upper(),
    "words over two lines": WORDS.replace(" ", "\n    ", 3),
    "solution in another indentation": SOLUTION.replace("    ", "\t"),
    "solution with Windows line ends": SOLUTION.replace("\n", "\r\n"),
    "first and last word grown": "for" + WORDS.rstrip(".") + ".x",
}


@pytest.mark.parametrize("text", SUBSTRINGS.values(), ids=SUBSTRINGS)
def test_substring_rule(text):
    result = decontaminate(rows(CLEAN, text, CLEAN), [BENCHMARK])
    assert rules(result) == [("row:1", "substring")]
    assert result.kept.tolist() == [0, 2]
    assert result.kept.dtype == np.int64
    assert result.removed[0].task_id == "T/0"


def test_solution_split_over_instruction_and_response_is_no_substring():
    head, tail = SOLUTION[:60], SOLUTION[60:]
    examples = load_examples([{"instruction": "x " + head, "output": "y " + tail}])
    assert rules(decontaminate(examples, [BENCHMARK], ngram_share=1.0)) == []


def test_renamed_copy_is_found_by_its_share_of_ngrams_only():
    copy = (PROMPT + SOLUTION).replace("three highest readings", "3 top values")
    copy = copy.replace("highest[1]", "highest[0 + 1]")
    result = decontaminate(rows(copy), [BENCHMARK])
    assert rules(result) == [("row:0", "ngram")]
    total = len(set(ngrams(PROMPT + SOLUTION, 10)))
    shared = len(set(ngrams(PROMPT + SOLUTION, 10)) & set(ngrams(copy + "\n\npass", 10)))
    assert result.removed[0].match == f"{shared} of {total} 10-grams"
    share = shared / total
    assert rules(decontaminate(rows(copy), [BENCHMARK], ngram_share=share)) != []
    assert rules(decontaminate(rows(copy), [BENCHMARK], ngram_share=share + 1e-6)) == []


def ngrams(text, width):
    import re

    words = re.findall(r"[A-Za-z0-9_]+", text.lower())
    return list(zip(*(words[i:] for i in range(width)), strict=False))


def test_repeating_one_ngram_adds_nothing_to_the_share():
    idiom = " ".join(SOLUTION.split()[:12])
    assert rules(decontaminate(rows(" ".join([idiom] * 40)), [BENCHMARK])) == []


def test_ngrams_do_not_run_from_one_row_into_the_next():
    half = len(SOLUTION) // 2
    parts = [{"instruction": PROMPT[:40], "output": PROMPT[40:70]}]
    parts += [{"instruction": SOLUTION[:half], "output": ""}]
    parts += [{"instruction": SOLUTION[half:], "output": ""}]
    assert rules(decontaminate(load_examples(parts), [BENCHMARK], ngram_share=0.7)) == []


def test_short_texts_are_idioms():
    task = BenchmarkTask("T/1", ("return x + y", "return a * h / 2.0"), "f(x, y): return x + y")
    result = decontaminate(rows("return x + y", "return a * h / 2.0"), [Benchmark("B", (task,))])
    assert rules(result) == [("row:1", "substring")]


def test_one_hit_a_row_and_benchmark_counts_with_zeros():
    other = Benchmark("Other", (BenchmarkTask("O/0", ("nothing like it in any row",), ""),))
    second = Benchmark("Second", (BenchmarkTask("S/0", (WORDS,), ""),))
    result = decontaminate(rows(PROMPT + SOLUTION, CLEAN), [BENCHMARK, other, second])
    assert [(hit.benchmark, hit.rule) for hit in result.removed] == [
        ("Rivers", "substring"),
        ("Second", "substring"),
    ]
    assert result.counts == {"Rivers": 1, "Other": 0, "Second": 1}
    assert (result.num_removed, result.kept.tolist()) == (1, [1])


def test_matches_a_plain_double_loop():
    draw = random.Random(0)
    words = ["aa", "bb", "cc", "x1", "é", "Dd", "(", "\n"]
    tasks = tuple(
        BenchmarkTask(str(i), (text(draw, words, 8), text(draw, words, 14)), text(draw, words, 40))
        for i in range(30)
    )
    examples = [text(draw, words, 200) for _ in range(60)]
    examples += [task.document + " y" for task in tasks[:9]]
    examples += [f"zz {task.texts[1]} {draw.choice(words)}" for task in tasks[9:18]]
    result = decontaminate(rows(*examples), [Benchmark("B", tasks)], ngram=4, ngram_share=0.4)
    expected = [slow(f"{example}\n\npass", tasks) for example in examples]
    assert [row for row, hit in enumerate(expected) if not hit] == result.kept.tolist()
    assert 10 < len(result.kept) < 60
    assert {hit.rule for hit in result.removed} == {"substring", "ngram"}


def text(draw, words, count):
    return " ".join(draw.choice(words) for _ in range(count))


def slow(row, tasks):
    flat = " ".join(row.lower().split())
    grams = set(ngrams(row, 4))
    for task in tasks:
        for wanted in task.texts:
            if len(ngrams(wanted, 1)) >= 5 and " ".join(wanted.lower().split()) in flat:
                return True
        own = set(ngrams(task.document, 4))
        if len(own) >= 8 and len(own & grams) >= 0.4 * len(own):
            return True
    return False


def test_nothing_to_compare_with_keeps_all_and_reports_progress():
    seen = []
    examples = load_examples([{"instruction": CLEAN, "output": str(n)} for n in range(1500)])
    result = decontaminate(examples, [], on_progress=lambda *report: seen.append(report))
    assert result.kept.tolist() == list(range(1500))
    assert (result.removed, result.counts) == ((), {})
    assert seen == [(1024, 1500), (1500, 1500)]
    assert decontaminate([], [BENCHMARK]).kept.tolist() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ngram": 0}, "ngram must be at least 1, got 0"),
        ({"ngram_share": 0.0}, r"ngram_share must lie in \(0, 1\], got 0.0"),
        ({"ngram_share": 1.5}, r"got 1.5"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        decontaminate([], [], **options)


HUMANEVAL = {"task_id": "HumanEval/0", "prompt": PROMPT, "canonical_solution": SOLUTION}


def test_find_benchmarks_by_name(tmp_path, monkeypatch):
    mbpp = {"task_id": 7, "text": WORDS, "code": SOLUTION}
    plus = {
        "task_id": "Mbpp/7",
        "prompt": f'"""\n{WORDS}\nassert f([1]) == 1\n"""\n',
        "canonical_solution": SOLUTION,
    }
    (tmp_path / "HumanEval.jsonl").write_text(json.dumps(HUMANEVAL) + "\n")
    (tmp_path / "humaneval-x.jsonl").write_text("other languages\n")
    (tmp_path / "mbpp.jsonl.gz").write_bytes(gzip.compress(json.dumps(mbpp).encode()))
    (tmp_path / "MbppPlus-v0.2.0.jsonl").write_text(json.dumps(plus))
    monkeypatch.setenv("CODEACT_BENCHMARKS", str(tmp_path))
    found = find_benchmarks()
    assert found == find_benchmarks(tmp_path)
    assert [(b.name, [t.task_id for t in b.tasks]) for b in found] == [
        ("HumanEval", ["HumanEval/0"]),
        ("MBPP", ["Mbpp/7"]),
        ("MBPP+", ["Mbpp/7"]),
    ]
    assert found[0].path == str(tmp_path / "HumanEval.jsonl")
    assert found[0].tasks[0].texts == (WORDS, SOLUTION)
    assert [text.strip() for text in found[2].tasks[0].texts] == [WORDS, SOLUTION.strip()]


def test_no_benchmarks_is_no_error(tmp_path, monkeypatch):
    monkeypatch.delenv("CODEACT_BENCHMARKS", raising=False)
    assert find_benchmarks(None) == []
    assert find_benchmarks(tmp_path) == []


def test_wrong_benchmark_folder_and_file(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"folder of benchmarks: .*absent is not a folder"):
        find_benchmarks(tmp_path / "absent")
    monkeypatch.setenv("CODEACT_BENCHMARKS", str(tmp_path / "absent"))
    with pytest.raises(InputError, match=r"CODEACT_BENCHMARKS: .*absent is not a folder"):
        find_benchmarks()
    (tmp_path / "mbpp.jsonl").write_text(json.dumps(HUMANEVAL))
    with pytest.raises(InputError, match=r"mbpp.jsonl:1: a task of MBPP needs text, code"):
        find_benchmarks(tmp_path)


def test_real_benchmarks(data_folder):
    benchmarks = find_benchmarks(data_folder / "bench")
    sizes = {benchmark.name: len(benchmark.tasks) for benchmark in benchmarks}
    assert sizes == {"HumanEval": 164, "HumanEval+": 164, "MBPP": 974, "MBPP+": 378}
    examples = load_examples(data_folder / "sft" / "oss_docstring_python.jsonl.gz")
    planted = [
        {"instruction": task.texts[0], "output": "?"} for b in benchmarks for task in b.tasks[:20]
    ]
    result = decontaminate(
        load_examples([*(dict(example.fields) for example in examples), *planted]), benchmarks
    )
    assert result.kept.tolist() == list(range(len(examples)))
    assert {hit.rule for hit in result.removed} == {"substring"}
