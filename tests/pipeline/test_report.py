"""The report: says what the files say, stands alone, and survives half a run."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr

from codeact.data import load_examples
from codeact.errors import InputError
from codeact.evaluation import spearman
from codeact.files import read_json, write_json, write_text
from codeact.pipeline.recipe import Recipe
from codeact.pipeline.report import write_report
from codeact.pipeline.report_facts import mean_interval
from codeact.pipeline.report_words import (
    arm_names,
    clipped,
    count,
    duration,
    memory,
    p_value,
    percent,
    signed,
    verdict_sentence,
)
from codeact.pipeline.rows import write_examples

MakeRun = Callable[..., Path]


class Page(HTMLParser):
    """Text outside scripts and styles, and every tag with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._hidden = ""
        self.feed(html)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))  # no-break spaces as well

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag if tag in ("script", "style") else self._hidden

    def handle_endtag(self, tag: str) -> None:
        self._hidden = "" if tag == self._hidden else self._hidden

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_numbers_are_those_of_the_files(make_run: MakeRun) -> None:
    run = make_run()
    page = read(write_report(run))
    table = pq.read_table(run / "selection.parquet").to_pandas()
    scored = table.dropna(subset="ifd_ppl")
    rho = spearmanr(scored["ifd_ppl"], scored["num_response_tokens"]).statistic
    low, high = spearman(scored["ifd_ppl"], scored["num_response_tokens"]).interval
    comparison = read_json(run / "evaluation/comparison.json")
    pair = next(p for p in comparison["pairs"] if (p["a"], p["b"]) == ("selected", "random"))
    kept = table["kept"].sum()
    for words in (
        f"CDAS kept {kept} of them ({kept / len(table):.0%}".replace("%", " %"),
        f"(Spearman ρ = {rho:.2f}, 95 % interval {low:.2f} to {high:.2f})",
        f"Median IFD is {scored[scored.kept].ifd_ppl.median():.2f} among kept rows",
        "of 2 rows at or above 1 all dropped",
        "3 rows could not be scored",
        verdict_sentence(pair["verdict"], arm_names(Recipe())).replace("\xa0", " "),
        f"{comparison['means']['base']:.4f}",
        "HumanEval/53",
        "MBPP files were not found.",
        "not scored: prompt overflow",
        "3 min 56 s",
    ):
        assert words in page.text, words


def test_page_stands_alone(make_run: MakeRun) -> None:
    html = write_report(make_run()).read_text(encoding="utf-8")
    page = Page(html)
    for tag, attributes in page.tags:
        assert "src" not in attributes, tag
        assert tag != "link"
        assert not (attributes.get("href") or "#").startswith(("http", "//", "file")), attributes
    policy = next(a["content"] for t, a in page.tags if "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert html.count("plotly.js v") == 1  # its banner: carried once
    assert html.count("Plotly.newPlot(") == 7


def test_ids_are_unique_and_every_link_has_its_target(make_run: MakeRun) -> None:
    page = read(write_report(make_run()))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {(attributes["href"] or "")[1:] for tag, attributes in page.tags if tag == "a"}
    assert links
    assert links <= set(ids)


def test_same_run_same_bytes(make_run: MakeRun) -> None:
    run = make_run()
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_code_in_the_data_stays_text(make_run: MakeRun) -> None:
    run = make_run()
    table = pq.read_table(run / "selection.parquet").to_pandas()
    best = table[table.kept].sort_values("ifd_ppl").iloc[-1]["id"]
    attack = "<script>alert(1)</script></pre><img src=x>"
    rows = [{"id": i, "instruction": attack, "output": attack} for i in table["id"]]
    write_examples(run / "examples.jsonl", load_examples(rows))
    html = write_report(run).read_text(encoding="utf-8")
    assert best in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<script>alert" not in html
    assert "<img" not in html


STAGES = (
    ("scores.parquet", "No row has been scored yet"),
    ("selection.parquet", "Nothing has been selected yet."),
    ("examples.jsonl", "so nothing to show"),
    ("packing.json", "No packing plan has been made yet."),
    ("train", "No arm has been trained yet."),
    ("evaluation", "The arms have not been compared yet."),
    ("decontamination.json", "Rows have not been compared with benchmarks."),
)


@pytest.mark.parametrize(("missing", "sentence"), STAGES)
def test_stage_that_has_not_run_is_a_sentence(
    make_run: MakeRun, missing: str, sentence: str
) -> None:
    run = make_run(num_rows=40)
    path = run / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert sentence in read(write_report(run)).text


def test_run_that_has_only_begun(tmp_path: Path) -> None:
    write_text(tmp_path / "recipe.yaml", "name: early\n")
    page = read(write_report(tmp_path))
    assert "that has not scored any row yet" in page.text
    assert all(sentence in page.text for name, sentence in STAGES if name != "examples.jsonl")


def test_scores_without_a_selection(make_run: MakeRun) -> None:
    run = make_run(num_rows=40)
    (run / "selection.parquet").unlink()
    page = read(write_report(run))
    assert "Median IFD over 37 scored rows is" in page.text
    assert "Spearman" in page.text


def test_cherry_reports_the_ratio_of_losses(make_run: MakeRun) -> None:
    run = make_run(num_rows=40)
    write_text(run / "recipe.yaml", "score: {preset: cherry}\n")
    scores = pq.read_table(run / "scores.parquet").to_pandas()
    kept = pq.read_table(run / "selection.parquet").to_pandas()["kept"]
    page = read(write_report(run))
    assert "IFD is the mean loss of the answer" in page.text
    median = scores["ifd_loss"][kept].median()
    assert f"Median IFD is {median:.2f} among kept rows" in page.text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("packing.json", "{", r"packing\.json line 1 is no JSON"),
        ("scores.parquet", "no", r"scores\.parquet cannot be read as Parquet"),
        ("train/selected/log.jsonl", "{}\nx\n", r"log\.jsonl line 2 is no JSON"),
        ("recipe.yaml", "trian: 1\n", r"recipe\.yaml: trian is not a known key"),
        ("manifest.json", "[]", r"manifest\.json is not a run's manifest"),
    ],
)
def test_broken_file_is_named(make_run: MakeRun, name: str, text: str, message: str) -> None:
    run = make_run(num_rows=40)
    (run / name).write_text(text)
    with pytest.raises(InputError, match=message):
        write_report(run)
    assert not (run / "report.html").exists()


def test_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="which is no folder"):
        write_report(tmp_path / "none")
    with pytest.raises(InputError, match=r"without recipe\.yaml or manifest\.json"):
        write_report(tmp_path)


def test_pair_without_p_value(make_run: MakeRun) -> None:
    run = make_run(num_rows=40)
    comparison = read_json(run / "evaluation/comparison.json")
    comparison["pairs"] = [{**comparison["pairs"][2], "p_value": None}]
    write_json(run / "evaluation/comparison.json", comparison)
    assert "CDAS − random" in read(write_report(run)).text


def test_a_row_that_two_benchmarks_hold_is_removed_once(make_run: MakeRun) -> None:
    run = make_run(num_rows=40)
    found = read_json(run / "decontamination.json")
    (hit,) = found["removed"]
    found["removed"].append({**hit, "benchmark": "HumanEval+"})
    found["benchmarks"].append({"name": "HumanEval+", "num_tasks": 164, "path": "plus.jsonl"})
    write_json(run / "decontamination.json", found)
    assert "1 row of 41 removed before scoring." in read(write_report(run)).text


def test_mean_interval_brackets_the_weighted_mean() -> None:
    rng = np.random.default_rng(0)
    values, weights = rng.normal(2.0, 1.0, 400), rng.integers(1, 50, 400)
    low, high = mean_interval(values, weights, confidence=0.95, seed=1)
    mean = np.average(values, weights=weights)
    effective = weights.sum() ** 2 / (weights**2).sum()  # rows, once weights are uneven
    assert low < mean < high
    assert high - low == pytest.approx(2 * 1.96 / effective**0.5, rel=0.15)


def test_words() -> None:
    plain = [
        count(12840, "row"),
        count(1, "row"),
        percent(0.024),
        percent(0.41),
        percent(0.995),
        percent(1.0),
        signed(-0.01547),
        p_value(0.00001),
        p_value(0.0123),
        p_value(None),
        duration(0.42),
        duration(252),
        duration(11100),
        memory(640.2),
        memory(3174),
        verdict_sentence("selected is better than base (difference -0.02)", {"selected": "CDAS"}),
    ]
    assert [text.replace("\xa0", " ") for text in plain] == [
        "12,840 rows",
        "1 row",
        "2.4 %",
        "41 %",
        "99.5 %",
        "100 %",
        "−0.0155",
        "p < 0.0001",
        "p = 0.012",
        "—",
        "0.4 s",
        "4 min 12 s",
        "3 h 05 min",
        "640 MiB",
        "3.1 GiB",
        "CDAS is better than base (difference −0.02).",
    ]


def test_clipped_says_what_it_cut() -> None:
    assert clipped("a\nb\n") == ("a\nb", "")
    assert clipped("a\nb\nc\nd", max_lines=2) == ("a\nb", "2 more lines")
    assert clipped("x" * 30, max_chars=10) == ("x" * 10, "20 more characters")
