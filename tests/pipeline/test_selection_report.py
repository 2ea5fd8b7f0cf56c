"""The selection report: numbers counted by hand beside random rows, on a page that stands alone."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codeact.data import Examples, load_examples
from codeact.errors import InputError
from codeact.pipeline.score_cost import ScoreCost
from codeact.pipeline.selection_arms import add_controls, choose
from codeact.pipeline.selection_cost import saved_flops
from codeact.pipeline.selection_report import SelectionFacts, write_selection_report
from codeact.selection.candidates import Candidates
from codeact.selection.registry import select_rows

NUM_ROWS = 240
COST = ScoreCost("org/tiny", "codeact", "cpu", 1000, 5000, 1e7, 1.8e7, 12.0)


class Page(HTMLParser):
    """Visible text, cells of tables, and every tag with its attributes."""

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
    rng = np.random.default_rng(0)
    languages = rng.choice(["python", "go", "rust"], NUM_ROWS, p=[0.6, 0.3, 0.1])
    rows = [
        {
            "id": f"row-{row}",
            "instruction": f"Task {row} <b>of</b> many",
            "output": "x" * int(length),
            "language": str(language),
        }
        for row, (language, length) in enumerate(
            zip(languages, rng.integers(5, 400, NUM_ROWS), strict=True)
        )
    ]
    return load_examples(rows)


def make_candidates(examples: Examples, **changes: Any) -> Candidates:
    rng = np.random.default_rng(1)
    ifd = rng.uniform(0.2, 1.3, NUM_ROWS)
    ifd[::20] = np.nan
    responses = np.array([len(example.response) // 3 + 1 for example in examples])
    centres = rng.normal(size=(3, 16)) * 8
    points = centres[rng.integers(0, 3, NUM_ROWS)] + rng.normal(size=(NUM_ROWS, 16))
    known: dict[str, Any] = {
        "ids": list(examples.ids),
        "columns": {"ifd_ppl": ifd},
        "embeddings": points.astype(np.float32),
        "num_tokens": responses + 10,
        "response_tokens": responses,
        "clusters": np.repeat(np.arange(3, dtype=np.int32), NUM_ROWS // 3),
    }
    return Candidates(**{**known, **changes})


def make_facts(method: str = "ifd", **changes: Any) -> SelectionFacts:
    examples = make_examples()
    candidates = make_candidates(examples, **changes)
    arm = choose(method, candidates, 0.4, seed=42)
    facts = SelectionFacts.compare(
        arm, examples, candidates, 0.4, compare=["longest"], command="codeact select rows.jsonl"
    )
    return replace(facts, costs=(COST,))


@pytest.fixture(scope="module")
def facts() -> SelectionFacts:
    return make_facts()


@pytest.fixture(scope="module")
def html(facts: SelectionFacts, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "page.html"
    assert write_selection_report(facts, path) == path
    return path.read_text(encoding="utf-8")


def figure_data(html: str, anchor: str) -> list[dict[str, Any]]:
    """The traces of a figure, as plotly will read them."""
    found = re.search(rf'Plotly\.newPlot\(\s*"figure-{anchor}",\s*', html)
    assert found is not None, anchor
    data, _ = json.JSONDecoder().raw_decode(html[found.end() :])
    return data


def percent(share: float) -> str:
    value = 100 * share
    return f"{value:.{0 if 9.95 <= value <= 99 or value >= 100 else 1}f} %"


def test_arms_are_what_the_library_keeps(facts: SelectionFacts) -> None:
    assert list(facts.arms) == ["ifd", "longest", "random", "length-matched-random"]
    for name in ("ifd", "longest"):
        expected = select_rows(name, facts.candidates, 0.4, seed=42)
        np.testing.assert_array_equal(facts.arms[name].selected, expected.selected_)
    lengths, kept = facts.lengths[0], facts.main.selected
    matched = facts.arms["length-matched-random"].selected
    assert len(matched) == len(kept) == len(facts.arms["random"].selected) == 96
    gap = abs(np.sort(lengths[matched]) - np.sort(lengths[kept])).mean()
    plain = abs(np.sort(lengths[facts.arms["random"].selected]) - np.sort(lengths[kept])).mean()
    assert gap < min(plain, 5)


def test_random_arms_are_drawn_apart(facts: SelectionFacts) -> None:
    """With one seed all of them would draw the rows with the same smallest keys."""
    candidates = make_candidates(make_examples())
    main = choose("random", candidates, 0.4, seed=42)
    arms = add_controls(main, candidates, 0.4, facts.lengths[0], seed=42)
    matched = facts.arms["length-matched-random"].selected
    shared = len(np.intersect1d(facts.arms["random"].selected, matched))
    # Hypergeometric: 96 of 240 twice share 38.4 on average, with a deviation of 3.7.
    assert abs(shared - 96 * 96 / 240) < 4 * 3.8
    assert list(arms) == ["random", "length-matched-random"]


def test_numbers_are_counted_by_hand(facts: SelectionFacts, html: str) -> None:
    text = Page(html).text
    languages = [example.fields["language"] for example in facts.examples]
    sizes = Counter(languages)
    for language, size in sizes.items():
        cells = [language, f"{size}"]
        for arm in facts.arms.values():
            kept = sum(languages[row] == language for row in arm.selected.tolist())
            cells.append(f"{kept} ({percent(kept / size)})")
        assert " ".join(cells) in text
    lengths, kept = facts.lengths[0], facts.main.selected
    share = percent(lengths[kept].sum() / lengths.sum())
    assert f"Of 240 rows of rows, ifd keeps 96 (40 %), holding {share} of the tokens" in text
    scores = facts.candidates.columns["ifd_ppl"]
    assert f"{np.median(scores[kept]):.3f}" in text
    assert "12 rows without a score stand at the end." in text


def test_figures_hold_shares_and_overlaps(facts: SelectionFacts, html: str) -> None:
    bars = {trace["name"]: trace for trace in figure_data(html, "clusters")}
    assert list(bars) == list(facts.arms)
    (overlap,) = figure_data(html, "overlap")
    ours, random = (set(facts.arms[name].selected.tolist()) for name in ("ifd", "random"))
    jaccard = len(ours & random) / len(ours | random)
    assert overlap["text"][0][2] == f"{jaccard:.2f}"
    assert overlap["text"][0][0] == ""
    random_map = {trace["name"]: trace for trace in figure_data(html, "map-1")}
    assert len(random_map["kept by random"]["text"]) == len(random)
    assert len(random_map["dropped by random"]["text"]) == NUM_ROWS - len(random)


def test_rows_on_the_map_can_be_read(facts: SelectionFacts, html: str) -> None:
    traces = figure_data(html, "map-0")
    texts = [text for trace in traces for text in trace["text"]]
    by_id = {text.split("<br>")[0]: text for text in texts}
    assert set(by_id) == set(facts.examples.ids)
    assert "Task 7 &lt;b&gt;of&lt;/b&gt; many" in by_id["row-7"]
    reason = facts.main.selector.reasons_[7].replace("<", "&lt;")
    assert re.sub(r"<br>", " ", by_id["row-7"]).endswith(reason)


def test_decisions_give_the_method_s_reasons(facts: SelectionFacts, html: str) -> None:
    text = Page(html).text
    best, last = facts.main.selected[0], facts.main.selected[-1]
    for row in (best, last):
        assert f"row-{row} kept · ifd_ppl {facts.candidates.columns['ifd_ppl'][row]:.3f}" in text
        assert facts.main.selector.reasons_[row] in text
    titles = ("Kept, best placed", "Dropped, best placed", "Dropped without a place", "Random rows")
    assert all(title in text for title in titles)


def test_cost_is_that_of_the_formula(facts: SelectionFacts, html: str) -> None:
    tokens = facts.candidates.num_tokens
    assert tokens is not None
    dropped = tokens.sum() - tokens[facts.main.selected].sum()
    saved = 3 * (1e7 / 5000) * dropped * 3
    assert saved_flops(facts, COST) == pytest.approx(saved)
    text = Page(html).text
    assert f"{saved / 1.8e7:.2g} times as many" in text
    assert "12 s" in text
    assert "org/tiny (codeact, cpu)" in text
    assert "reads no score" not in text
    longer = saved_flops(replace(facts, epochs=6), COST)
    assert longer == pytest.approx(2 * saved)
    (bars,) = figure_data(html, "cost")
    kept = tokens[facts.main.selected].sum()
    of_kept = 3 * (1e7 / 5000) * kept * 3
    assert bars["y"] == ["training on all rows", "training on kept rows", "scoring"]
    assert bars["x"] == pytest.approx([saved + of_kept, of_kept, 1.8e7])


def test_cost_where_every_row_is_kept(facts: SelectionFacts, tmp_path: Path) -> None:
    """Nothing is saved, and training still costs what it costs."""
    every = choose("random", facts.candidates, 1.0, seed=0)
    whole = replace(facts, arms={"random": every, "length-matched-random": every})
    html = write_selection_report(whole, tmp_path / "x.html").read_text(encoding="utf-8")
    (bars,) = figure_data(html, "cost")
    tokens = facts.candidates.num_tokens
    assert tokens is not None
    training = 3 * (1e7 / 5000) * tokens.sum() * 3
    assert bars["x"] == pytest.approx([training, training, 1.8e7])


def test_cost_of_scores_that_were_not_needed(tmp_path: Path) -> None:
    page = write_selection_report(make_facts("longest"), tmp_path / "x.html")
    text = Page(page.read_text(encoding="utf-8")).text
    assert "longest reads no score: it would keep the same rows without." in text


def test_page_stands_alone(html: str) -> None:
    page = Page(html)
    for tag, attributes in page.tags:
        assert "src" not in attributes, tag
        assert tag != "link"
        assert not (attributes.get("href") or "#").startswith(("http", "//", "file"))
    assert next(a for t, a in page.tags if "http-equiv" in a)["content"] is not None
    assert html.count("plotly.js v") == 1
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {(attributes["href"] or "")[1:] for tag, attributes in page.tags if tag == "a"}
    assert links <= set(ids)
    assert "codeact select rows.jsonl" in page.text
    assert "Task 7 <b>of" not in html


def test_same_facts_same_bytes(facts: SelectionFacts, html: str, tmp_path: Path) -> None:
    again = write_selection_report(facts, tmp_path / "again.html").read_text(encoding="utf-8")
    assert again == html


def test_what_is_missing_is_a_sentence(tmp_path: Path) -> None:
    nothing = {"columns": {}, "embeddings": None, "clusters": None, "num_tokens": None}
    facts = make_facts("longest", **nothing)
    facts = replace(facts, costs=())
    page = Page(write_selection_report(facts, tmp_path / "x.html").read_text(encoding="utf-8"))
    for words in (
        "There are no embeddings (--embeddings) to draw a map of.",
        "There are no embeddings (--embeddings) to cluster.",
        "No column of scores was given (--scores).",
        "The scores table does not say what it has cost.",
    ):
        assert words in page.text, words


def test_lengths_are_characters_where_no_token_is_counted(tmp_path: Path) -> None:
    examples = make_examples()
    candidates = make_candidates(examples, response_tokens=None)
    arm = choose("ifd", candidates, 10, seed=0)
    facts = SelectionFacts.compare(arm, examples, candidates, 10)
    lengths, unit = facts.lengths
    assert unit == "characters"
    assert lengths.tolist() == [len(example.response) for example in examples]
    text = Page(write_selection_report(facts, tmp_path / "x.html").read_text("utf-8")).text
    assert "characters of answers" in text


def test_many_small_groups_are_one(tmp_path: Path) -> None:
    labels = np.concatenate([np.arange(200) // 10, np.full(40, -1)]).astype(np.int32)
    facts = make_facts("ifd", clusters=labels)
    html = write_selection_report(facts, tmp_path / "x.html").read_text(encoding="utf-8")
    (first, *_) = figure_data(html, "clusters")
    # Noise is the largest group, ten clusters of equal size follow by name, the rest is one.
    assert first["x"][0] == "none"
    assert first["x"][-1] == "10 others"
    assert len(first["x"]) == 12


def test_arms_of_other_rows_are_refused(facts: SelectionFacts, tmp_path: Path) -> None:
    short = replace(facts, examples=facts.examples[:100])
    with pytest.raises(InputError, match=r"arms\['ifd'\] must be of the 100 rows .+, got 240"):
        write_selection_report(short, tmp_path / "x.html")
