from __future__ import annotations

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
    assert decontaminate(rows(copy), [BENCHMARK]).hits[0].field == "instruction"


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


def test_every_task_found_is_a_hit():
    second = BenchmarkTask("T/1", (SOLUTION,), "")
    benchmarks = [Benchmark("Rivers", (TASK, second)), Benchmark("Second", (second,))]
    result = decontaminate(rows(PROMPT + SOLUTION, CLEAN, SOLUTION), benchmarks)
    assert [(hit.id, hit.benchmark, hit.task_id) for hit in result.hits] == [
        ("row:0", "Rivers", "T/0"),
        ("row:0", "Rivers", "T/1"),
        ("row:0", "Second", "T/1"),
        ("row:2", "Rivers", "T/0"),
        ("row:2", "Rivers", "T/1"),
        ("row:2", "Second", "T/1"),
    ]
    assert [(hit.id, hit.benchmark) for hit in result.removed] == [
        ("row:0", "Rivers"),
        ("row:0", "Second"),
        ("row:2", "Rivers"),
        ("row:2", "Second"),
    ]
    assert result.counts == {"Rivers": 2, "Second": 2}
    assert result.num_removed == 2


@pytest.mark.parametrize("prefix", ["", "  An İ \n\u3000and  another İ: ", "ΣΑΣ "], ids=ascii)
def test_places_in_the_row_as_written(prefix):
    words = WORDS.upper().replace(" ", "  \n", 4)
    solution = SOLUTION.replace("    ", "\t").strip()
    examples = load_examples(
        [
            {"instruction": f"{prefix}{words} Thanks.", "output": f"{prefix}x = 1\n{solution}\n"},
            {"instruction": "Write it.", "output": prefix + solution + " # done"},
            {"instruction": prefix + WORDS[:40].rstrip(), "output": f"\t{WORDS[40:]} {prefix}"},
        ]
    )
    result = decontaminate(examples, [Benchmark("B", (TASK,))])
    in_words, in_solution, in_both = result.hits
    assert (in_words.field, in_words.excerpt) == ("instruction", words)
    assert examples[0].instruction[in_words.start : in_words.end] == words
    assert (in_solution.field, in_solution.excerpt) == ("response", solution[:200])
    assert examples[1].response[in_solution.start : in_solution.end] == solution
    assert (in_both.field, in_both.start) == ("both", len(prefix))
    assert examples[2].response[: in_both.end].strip() == WORDS[40:].strip()


def test_place_of_ngrams_is_the_longest_run():
    copied = SOLUTION[SOLUTION.index("if len") : SOLUTION.index("raise")]
    other = SOLUTION[SOLUTION.index("raise") :].replace("highest", "best")
    response = f"def solve(x):\n    {copied}    pass\n    {other}"
    result = decontaminate(
        load_examples([{"instruction": "Solve.", "output": response}]),
        [BENCHMARK],
        ngram=3,
        ngram_share=0.2,
    )
    (hit,) = result.hits
    assert (hit.rule, hit.field) == ("ngram", "response")
    assert hit.excerpt == response[hit.start : hit.end]
    words = ngrams(hit.excerpt, 1)
    runs = longest_runs(ngrams(response, 1), set(ngrams(TASK.document, 3)))
    assert (words, hit.match[:2]) == (runs, "11")


def longest_runs(words, known):
    """The longest list of words all of whose 3-grams are known, by trying all."""
    words = [word for (word,) in words]
    found = []
    for start in range(len(words)):
        for end in range(start + 3, len(words) + 1):
            grams = [tuple(words[at : at + 3]) for at in range(start, end - 2)]
            if all(gram in known for gram in grams) and end - start > len(found):
                found = words[start:end]
    return [(word,) for word in found]


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
        ({"num_threads": 0}, r"num_threads must be from 1 to 1024, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        decontaminate([], [], **options)


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
    assert published_hits(examples[:300], benchmarks) == set()


def test_real_rows_against_the_published_loop(data_folder):
    """Texts of a benchmark in rows made of two of them, as bigcode and Magicoder look for them."""
    benchmarks = find_benchmarks(data_folder / "bench")
    texts = [text for b in benchmarks for task in b.tasks for text in task.texts]
    draw = random.Random(0)
    examples = load_examples(
        [
            {"instruction": f"Do: {draw.choice(texts)}", "output": f"{draw.choice(texts)}\nend"}
            for _ in range(150)
        ]
    )
    result = decontaminate(examples, benchmarks, num_threads=2)
    found = {(h.id, h.benchmark, h.task_id) for h in result.hits if h.rule == "substring"}
    expected = published_hits(examples, benchmarks)
    assert found == expected
    assert len(expected) > 300


def published_hits(examples, benchmarks):
    """The loop of bigcode-dataset on this library's texts and white space, to its end."""
    wanted = [
        (benchmark.name, task.task_id, " ".join(text.lower().split()))
        for benchmark in benchmarks
        for task in benchmark.tasks
        for text in task.texts
        if len(ngrams(text, 1)) >= 5
    ]
    hits = set()
    for example in examples:
        row = " ".join(f"{example.instruction}\n\n{example.response}".lower().split())
        hits |= {(example.id, name, task_id) for name, task_id, text in wanted if text in row}
    return hits
