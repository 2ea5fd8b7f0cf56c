"""The influence report: its numbers counted by hand, on a page that stands alone."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import spearmanr

from codeact.data import Examples, load_examples
from codeact.errors import InputError
from codeact.pipeline.influence.report import InfluenceFacts, write_influence_report
from codeact.pipeline.influence.words import explained_share, listed, number, rho, short_names
from codeact.scoring.influence.history import InfluenceHistory

NUM_ROWS = 120
TASKS = ("he", "js<b>")
FAILED = (17, 50)


class Page(HTMLParser):
    """Visible text, and every tag with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._hidden = ""
        self.feed(html)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag if tag in ("script", "style") else self._hidden

    def handle_endtag(self, tag: str) -> None:
        self._hidden = "" if tag == self._hidden else self._hidden

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)


def make_examples() -> Examples:
    rows = [
        {
            "id": f"row-{row}",
            "instruction": f"Task {row} <b>of</b> many",
            "output": "x" * (5 + row),
            "language": ("python", "go", "rust")[row % 3],
        }
        for row in range(NUM_ROWS)
    ]
    return load_examples(rows)


def make_table(seed: int, *, length: float = 0.0) -> pa.Table:
    """Influence of two tasks; ``length`` is how much of it is the length of the answer."""
    rng = np.random.default_rng(seed)
    shared = np.random.default_rng(99).normal(size=(NUM_ROWS, 1))
    lengths = rng.permutation(np.arange(10, 10 + NUM_ROWS))
    values = 2 * shared + rng.normal(size=(NUM_ROWS, 2)) + 0.2
    values += length * (lengths[:, None] - lengths.mean()) / lengths.std()
    losses = rng.uniform(0.3, 2, NUM_ROWS)
    values[list(FAILED)] = np.nan
    statuses = ["nonfinite" if row in FAILED else "ok" for row in range(NUM_ROWS)]
    return pa.table(
        {
            "id": [f"row-{row}" for row in range(NUM_ROWS)],
            "num_response_tokens": pa.array(lengths, pa.int32()),
            "nll_response": losses,
            "influence": pa.array(values.mean(axis=1), from_pandas=True),
            **{
                f"influence_{task}": pa.array(column, from_pandas=True)
                for task, column in zip(TASKS, values.T, strict=True)
            },
            "status": statuses,
        }
    )


def make_facts(**changes: Any) -> InfluenceFacts:
    tables = {f"checkpoint-{step}": make_table(step) for step in (10, 20, 30)}
    table = InfluenceHistory.of_tables(tables, [2.0, 1.0, 1.0]).combined()
    rng = np.random.default_rng(5)
    fast = rng.normal(size=20)
    known: dict[str, Any] = {
        "table": table,
        "examples": make_examples(),
        "settings": {"model": "org/tiny", "validation tasks": "he (164 problems), js (80)"},
        "canary": "derivatives are within 0.4 % of finite differences",
        "oracle": {"he": (fast, 1.5 * fast + 0.3 * rng.normal(size=20))},
        "predictor": SimpleNamespace(
            spearman_=0.314,
            interval_=(0.21, 0.42),
            passes_=False,
            length_spearman_=-0.28,
            verdict_="the gate of 0.5 is not passed",
        ),
        "columns": {"ifd_ppl": rng.uniform(0.2, 1.2, NUM_ROWS)},
        "seconds": 300.0,
        "scoring_seconds": 100.0,
        "command": "codeact influence rows.jsonl",
    }
    return InfluenceFacts(**{**known, **changes})


@pytest.fixture(scope="module")
def facts() -> InfluenceFacts:
    return make_facts()


@pytest.fixture(scope="module")
def html(facts: InfluenceFacts, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "page.html"
    assert write_influence_report(facts, path) == path
    return path.read_text(encoding="utf-8")


def write(facts: InfluenceFacts, folder: Path) -> tuple[str, str]:
    """Source and visible text of a page."""
    html = write_influence_report(facts, folder / "x.html").read_text(encoding="utf-8")
    return html, Page(html).text


def figure_data(html: str, anchor: str) -> list[dict[str, Any]]:
    """The traces of a figure, as plotly will read them."""
    found = re.search(rf'Plotly\.newPlot\(\s*"figure-{anchor}",\s*', html)
    assert found is not None, anchor
    data, _ = json.JSONDecoder().raw_decode(html[found.end() :])
    return data


def decoded(values: Any) -> np.ndarray:
    """Numbers as plotly writes them: a list, or bytes in base64."""
    if isinstance(values, dict):
        import base64

        flat = np.frombuffer(base64.b64decode(values["bdata"]), np.dtype(values["dtype"]))
        shape = [int(n) for n in str(values.get("shape", len(flat))).split(",")]
        return flat.reshape(shape)
    return np.array(values, dtype=float)


def percent(share: float) -> str:
    value = 100 * share
    return f"{value:.{0 if 9.95 <= value <= 99 or value >= 100 else 1}f} %"


def test_harmful_rows_are_counted(facts: InfluenceFacts, html: str) -> None:
    text = Page(html).text
    mean = facts.influence[np.isfinite(facts.influence)]
    helpful = int((mean > 0).sum())
    assert f"Of 118 rows of rows, {helpful} ({percent(helpful / 118)}) lower the loss on" in text
    assert "in the mean over tasks and checkpoints" in text
    assert "statuses ok 118, nonfinite 2" in text
    assert "weight in the mean checkpoint-10 (50 %), checkpoint-20 (25 %)" in text
    for place, task in enumerate(TASKS):
        values = facts.by_task[np.isfinite(facts.by_task[:, place]), place]
        harm = percent((values < 0).mean())
        median = f"{np.median(values):.3g}".replace("-", "−")
        assert f"{task} 118 {harm} {median}" in text
        bars = {trace["name"]: trace for trace in figure_data(html, f"values-{place}")}
        assert decoded(bars["harmful"]["y"]).sum() == (values < 0).sum()
        assert decoded(bars["helpful"]["y"]).sum() == (values > 0).sum()


def test_best_and_worst_rows_can_be_read(facts: InfluenceFacts, html: str) -> None:
    text = Page(html).text
    order = np.argsort(np.where(np.isnan(facts.influence), np.inf, facts.influence))
    worst, best = order[0], order[117]
    assert f"row-{best} influence {number(facts.influence[best])} · place 1 of 118" in text
    assert f"row-{worst} influence {number(facts.influence[worst])} · place 118 of 118" in text
    by_task = [number(value) for value in facts.by_task[best]]
    assert f"On he {by_task[0]}, js<b> {by_task[1]}." in text
    assert f"Task {best} <b>of</b> many" in text


def test_correlations_are_those_of_scipy(facts: InfluenceFacts, html: str) -> None:
    text = Page(html).text
    known = np.isfinite(facts.influence)
    for name, column in facts.others.items():
        value = spearmanr(column[known], facts.influence[known]).statistic
        size = spearmanr(column[known], np.abs(facts.influence[known])).statistic
        found = re.search(rf"{re.escape(name)} (−?\d\.\d\d) \(\S+ to \S+\) (−?\d\.\d\d) \(", text)
        assert found is not None, name
        assert found.groups() == (rho(value), rho(size))
    assert list(facts.others)[-1] == "ifd_ppl"
    tasks = spearmanr(*facts.by_task[known].T).statistic
    (heat,) = figure_data(html, "tasks-ranks")
    assert decoded(heat["z"])[0][1] == pytest.approx(tasks)
    assert heat["text"][0] == ["", rho(tasks)]
    assert f"he and js<b> {rho(tasks)} (" in text


def test_checkpoints_are_compared_with_the_first(facts: InfluenceFacts, html: str) -> None:
    history = facts.over_time
    known = np.isfinite(history.values[0, :, 0])
    lines = {trace["name"]: trace for trace in figure_data(html, "drift")}
    for place, task in enumerate(TASKS):
        first, *others = history.values[:, known, place]
        expected = [1.0, *(spearmanr(first, other).statistic for other in others)]
        assert decoded(lines[task]["y"]) == pytest.approx(expected)
        assert lines[task]["x"] == ["10", "20", "30"]
        harm = {trace["name"]: trace for trace in figure_data(html, "harm")}[task]
        shares = 100 * (history.values[:, known, place] < 0).mean(axis=1)
        assert decoded(harm["y"]) == pytest.approx(shares)


def test_rows_that_are_extreme_everywhere_are_named(facts: InfluenceFacts, html: str) -> None:
    text = Page(html).text
    columns = np.concatenate(list(facts.over_time.values), axis=1)
    columns[list(FAILED)] = -np.inf
    tops = [set(np.argsort(-column)[:12].tolist()) for column in columns.T]
    stable = set.intersection(*tops)
    assert stable
    assert f"every task and checkpoint 6 {len(stable)} " in text
    if len(stable) <= 6:
        for row in stable:
            assert re.search(rf"row-{row} Task {row} <b>of</b> many (python|go|rust) ", text)


def test_languages_stand_where_their_rows_do(facts: InfluenceFacts, html: str) -> None:
    (heat,) = figure_data(html, "languages")
    known = np.isfinite(facts.by_task[:, 0])
    places = np.full(facts.by_task.shape, np.nan)
    for k in range(2):
        places[known, k] = (np.argsort(np.argsort(facts.by_task[known, k])) + 0.5) / known.sum()
    names = [name.split(" (")[0] for name in heat["y"]]
    assert sorted(names) == ["go", "python", "rust"]
    languages = np.array(facts.languages)
    for name, row in zip(names, decoded(heat["z"]), strict=True):
        inside = (languages == name) & known
        assert row == pytest.approx(places[inside].mean(axis=0))


def test_the_exact_check_and_the_predictor_say_what_they_found(
    facts: InfluenceFacts, html: str
) -> None:
    assert facts.oracle is not None
    fast, exact = facts.oracle["he"]
    text = Page(html).text
    value = f"{spearmanr(fast, exact).statistic:.3f}"
    same = percent(((fast > 0) == (exact > 0)).mean())
    ratio = f"{np.median(exact / fast):.3g}"
    assert re.search(rf"he 20 {value} \(\S+ to \S+\) {same} {ratio}", text)
    (points,) = figure_data(html, "oracle-0")
    assert decoded(points["y"]) == pytest.approx(exact)
    assert "The gate of 0.5 is not passed." in text
    assert "mean over tasks 0.31 (0.21 to 0.42) −0.28 not passed" in text
    assert "3.0 times a plain scoring pass" in text
    assert "check at the start derivatives are within 0.4 % of finite differences" in text


def test_length_that_explains_the_ranking_is_a_warning(tmp_path: Path) -> None:
    table = make_table(1, length=4.0)
    _, text = write(make_facts(table=table), tmp_path)
    lengths = table["num_response_tokens"].to_numpy().astype(float)
    values = table["influence"].to_numpy().astype(float)
    known = np.isfinite(values)
    value = rho(spearmanr(lengths[known], values[known]).statistic)
    assert f"Warning: the ranking is largely one of length (ρ = {value})" in text
    assert "chooses long answers" in text
    _, text = write(make_facts(table=make_table(1)), tmp_path)
    assert "Warning" not in text


def test_size_that_follows_length_is_a_warning(tmp_path: Path) -> None:
    table = make_table(1)
    lengths = table["num_response_tokens"].to_numpy().astype(float)
    for name in ("influence", *(f"influence_{task}" for task in TASKS)):
        values = table[name].to_numpy().astype(float) / lengths**3
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(values, from_pandas=True))
    _, text = write(make_facts(table=table), tmp_path)
    assert "Warning: the size of influence follows length" in text
    assert "both ends of the ranking are short answers" in text


def test_values_of_one_sign_are_neither_harm_nor_two_ends(tmp_path: Path) -> None:
    """Their size is the value itself: that it follows length says nothing of the low end."""
    table = make_table(1, length=4.0).drop_columns(["influence_js<b>"])
    values = table["influence_he"].to_numpy() - np.nanmin(table["influence_he"].to_numpy()) + 1
    for name in ("influence", "influence_he"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(values, from_pandas=True))
    _, text = write(make_facts(table=table, oracle=None), tmp_path)
    assert "Warning: the ranking is largely one of length" in text
    assert "both ends of the ranking" not in text
    assert "Most helpful row-" in text
    assert "Least helpful row-" in text
    assert "Most harmful" not in text
    assert "of the rows harm 0 of 118 rows 3.0×" in text  # without the mean over tasks


def test_predicted_rows_are_not_called_measured(tmp_path: Path) -> None:
    source = [None if n in FAILED else "predicted" if n < 40 else "measured" for n in range(120)]
    table = make_table(1).append_column("influence_source", pa.array(source))
    _, text = write(make_facts(table=table), tmp_path)
    assert "; for 39 of the rows this is predicted, not measured." in text
    assert "influence is measured 79, predicted 39" in text


def test_share_that_other_scores_explain() -> None:
    rng = np.random.default_rng(0)
    a, b, noise = rng.normal(size=(3, 4000))
    assert explained_share(a, [a**3, b]) == pytest.approx(1)
    assert explained_share(noise, [a, b]) < 0.005
    # Ranks of normal columns of correlation r correlate 6/π asin(r/2).
    half = 0.5 * a + np.sqrt(0.75) * noise
    assert explained_share(half, [a, b]) == pytest.approx(
        (6 / np.pi * np.arcsin(0.25)) ** 2, abs=0.03
    )
    assert np.isnan(explained_share(a[:3], [b[:3], noise[:3]]))
    assert np.isnan(explained_share(np.ones(50), [a[:50]]))


def test_page_stands_alone(html: str) -> None:
    page = Page(html)
    for tag, attributes in page.tags:
        assert "src" not in attributes, tag
        assert tag != "link"
        assert not (attributes.get("href") or "#").startswith(("http", "//", "file"))
    assert html.count("plotly.js v") == 1
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {(attributes["href"] or "")[1:] for tag, attributes in page.tags if tag == "a"}
    assert links <= set(ids)
    assert "codeact influence rows.jsonl" in page.text
    assert "<b>of" not in html
    assert "js<b>" not in re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)


def test_same_facts_same_bytes(html: str, tmp_path: Path) -> None:
    again, _ = write(make_facts(), tmp_path)
    assert again == html


def test_what_is_missing_is_a_sentence(tmp_path: Path) -> None:
    table = make_table(1).drop_columns(["influence_js<b>", "num_response_tokens", "nll_response"])
    facts = InfluenceFacts(table=table, examples=make_examples())
    _, text = write(facts, tmp_path)
    for words in (
        "There is one validation task, so nothing to compare.",
        "Influence was measured at one checkpoint.",
        "There is one ranking: one task at one checkpoint.",
        "The table has no other number of the rows.",
        "No row was checked with an exact step of the optimizer (--oracle).",
        "Every influence here was computed, none predicted.",
    ):
        assert words in text, words


def test_rows_without_any_influence(tmp_path: Path) -> None:
    table = make_table(1)
    for name in ("influence", *(f"influence_{task}" for task in TASKS)):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.nulls(NUM_ROWS, pa.float64()))
    _, text = write(InfluenceFacts(table=table, examples=make_examples()), tmp_path)
    assert "None of 120 rows of rows has an influence." in text
    assert "No row has an influence." in text


def test_few_rows_still_give_a_page(tmp_path: Path) -> None:
    facts = InfluenceFacts(table=make_table(1)[:3], examples=make_examples()[:3])
    _, text = write(facts, tmp_path)
    assert "Of 3 rows" in text
    assert "Fewer than 10 rows have all tasks." in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"table": make_table(1)[:100]}, "table must be of the examples .+ 100 rows for 120"),
        ({"table": make_table(1).drop_columns(["influence"])}, "must have a column influence, got"),
        ({"columns": {"ifd": np.ones(3)}}, r"columns\['ifd'\] must be \(120,\), got \(3,\)"),
        ({"oracle": {"he": (np.ones(3), np.ones(4))}}, r"oracle\['he'\] .+ got \(3,\) and \(4,\)"),
        ({"history": InfluenceHistory.of_table(make_table(1)[:9])}, "history must be of the rows"),
    ],
)
def test_facts_that_do_not_belong_together(
    facts: InfluenceFacts, changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        write_influence_report(replace(facts, **changes), tmp_path / "x.html")


def test_numbers_in_words() -> None:
    assert number(-1.5e-5) == "−1.5e−05"
    assert number(float("nan")) == rho(float("nan")) == "—"
    assert rho(-0.001) == "0.00"
    assert listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 others"
    assert listed(["a", "b"]) == "a and b"
    assert short_names(["checkpoint-5", "final"]) == ["checkpoint-5", "final"]
