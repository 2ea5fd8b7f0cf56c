from __future__ import annotations

import itertools
import random
import re

import numpy as np
import pytest

from codeact.data import find_duplicates, load_examples
from codeact.data.shingles import buckets, jaccard, rows_in_a_band, shingles_of, signatures
from codeact.errors import InputError

VOCABULARY = [f"w{number}" for number in range(400)] + ["é", "漢字"]


def made_rows(seed=0, groups=40):
    """Rows in groups of copies with more and more words changed, and rows on their own."""
    draw = random.Random(seed)
    rows = []
    for group in range(groups):
        words = draw.choices(VOCABULARY, k=draw.randrange(3, 60))
        for copy in range(draw.randrange(1, 5)):
            changed = [draw.choice(VOCABULARY) if draw.random() < 0.02 * copy else w for w in words]
            text = draw.choice([" ", "\n  "]).join(changed)
            cut = len(text) // 3
            rows.append(
                {
                    "id": f"g{group}-{copy}",
                    "instruction": draw.choice([str.upper, str.lower])(text[:cut]),
                    "output": text[cut:],
                }
            )
    return rows


def plain_groups(examples, threshold, width, text):
    """Groups as sets of ids: every pair is compared, ties are followed until nothing changes."""
    bags = []
    for example in examples:
        words = re.findall(r"\w+", text(example).lower())
        grams = zip(*(words[at:] for at in range(width)), strict=False)
        bags.append(set(grams) if len(words) >= width else {tuple(words)})
    groups = [{example.id} for example in examples]
    for a, b in itertools.combinations(range(len(bags)), 2):
        if len(bags[a] & bags[b]) >= threshold * len(bags[a] | bags[b]) and bags[a] != {()}:
            groups[a] |= groups[b]
            for member in groups[a]:
                groups[[example.id for example in examples].index(member)] = groups[a]
    return {frozenset(group) for group in groups}


TEXTS = {
    "both": lambda example: f"{example.instruction}\n\n{example.response}",
    "instruction": lambda example: example.instruction,
    "response": lambda example: example.response,
}


def groups_of(examples, found):
    groups = {}
    for row, kept in enumerate(found.groups.tolist()):
        groups.setdefault(kept, set()).add(examples[row].id)
    return {frozenset(group) for group in groups.values()}


@pytest.mark.parametrize("on", TEXTS)
@pytest.mark.parametrize(("threshold", "width"), [(0.7, 5), (0.4, 2), (1.0, 3)])
def test_groups_are_those_of_a_comparison_of_all_pairs(on, threshold, width):
    examples = load_examples(made_rows())
    found = find_duplicates(examples, threshold=threshold, on=on, shingle_words=width, num_perm=256)
    expected = plain_groups(examples, threshold, width, TEXTS[on])
    assert groups_of(examples, found) == expected
    assert len(expected) < len(examples)
    assert found.kept.tolist() == sorted(set(found.groups.tolist()))
    assert [hit.id for hit in found.removed] == [
        example.id for row, example in enumerate(examples) if found.groups[row] != row
    ]


def test_which_row_stays_and_why_the_others_go():
    body = " ".join(f"word{number}" for number in range(30))
    rows = [
        {"id": "c", "instruction": "Do it", "output": body},
        {"id": "a", "instruction": "do  IT", "output": body},
        {"id": "b", "instruction": "Do it", "output": body + " more"},
        {"id": "d", "instruction": "Do something else", "output": "pass"},
        {"id": "e", "instruction": "do IT", "output": body + "\nmore"},
    ]
    examples = load_examples(rows)
    found = find_duplicates(examples)
    # Of the two longest, equal in length, the response with the line break comes first.
    assert found.groups.tolist() == [4, 4, 4, 3, 4]
    assert found.kept.tolist() == [3, 4]
    assert [(hit.id, hit.kept, hit.rule) for hit in found.removed] == [
        ("c", "e", "near"),
        ("a", "e", "near"),
        ("b", "e", "exact"),
    ]
    assert [hit.similarity for hit in found.removed] == pytest.approx([28 / 29, 28 / 29, 1.0])
    assert find_duplicates(examples, threshold=1.0).groups.tolist() == [0, 0, 4, 3, 4]


def test_the_order_of_rows_does_not_matter():
    rows = made_rows(seed=1)
    kept = []
    for seed in range(3):
        examples = load_examples(random.Random(seed).sample(rows, len(rows)))
        kept.append({examples[row].id for row in find_duplicates(examples).kept})
    assert kept[0] == kept[1] == kept[2]
    assert 0 < len(kept[0]) < len(rows)


def test_rows_without_text_stay():
    rows = [{"id": str(n), "instruction": f"task {n}", "output": ""} for n in range(3)]
    assert find_duplicates(load_examples(rows), on="response").kept.tolist() == [0, 1, 2]
    signs = [{"id": str(n), "instruction": "", "output": sign} for n, sign in enumerate("+-+")]
    found = find_duplicates(load_examples(signs))
    assert found.groups.tolist() == [0, 1, 0]
    assert [(hit.rule, hit.similarity) for hit in found.removed] == [("exact", 1.0)]
    nothing = find_duplicates([])
    assert (nothing.kept.tolist(), nothing.removed) == ([], ())


def test_signatures_estimate_the_similarity():
    draw = np.random.default_rng(0)
    errors = []
    for _ in range(60):
        pool = [f"x{number}" for number in draw.permutation(10_000)[:90]]
        a, b = " ".join(pool[:70]), " ".join(pool[20:])
        truth = jaccard(shingles_of(a, 1), shingles_of(b, 1))
        assert truth == 50 / 90
        left, right = signatures([a, b], 1, 256, seed=1)
        errors.append(np.mean(left == right) - truth)
    deviation = (truth * (1 - truth) / 256) ** 0.5
    assert abs(np.mean(errors)) < 3 * deviation / 60**0.5
    assert np.std(errors) < 1.4 * deviation


@pytest.mark.parametrize(("threshold", "num_perm"), [(0.1, 64), (0.7, 128), (0.9, 256), (1.0, 32)])
def test_bands_find_a_pair_at_the_threshold(threshold, num_perm):
    rows = rows_in_a_band(threshold, num_perm)
    recall = 1 - (1 - threshold**rows) ** (num_perm // rows)
    assert recall >= 0.99 or rows == 1
    more = 1 - (1 - threshold ** (rows + 1)) ** (num_perm // (rows + 1))
    assert rows == num_perm or more < 0.99


def test_buckets_are_equal_bands():
    values = np.array([[1, 2, 9, 9], [1, 2, 3, 3], [1, 3, 9, 9], [0, 2, 9, 9]], dtype=np.uint64)
    assert [bucket.tolist() for bucket in buckets(values, 2)] == [[0, 1], [0, 2, 3]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.0}, r"threshold must lie in \(0, 1\], got 0.0"),
        ({"threshold": 1.1}, r"got 1.1"),
        ({"on": "code"}, "on must be both, instruction or response, got 'code'"),
        ({"shingle_words": 0}, "shingle_words must be at least 1, got 0"),
        ({"num_perm": 8}, "num_perm must be from 16 to 4096, got 8"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        find_duplicates([], **options)


def test_progress():
    seen = []
    rows = [{"instruction": f"task {n}", "output": str(n)} for n in range(1100)]
    find_duplicates(load_examples(rows), on_progress=lambda *report: seen.append(report))
    assert seen == [(1024, 1100), (1100, 1100)]


def test_real_rows_hold_the_copies_that_were_planted(data_folder):
    examples = load_examples(data_folder / "sft" / "code_alpaca_2k.jsonl.gz")
    rows = [{"instruction": e.instruction, "output": e.response, "id": e.id} for e in examples]
    before = find_duplicates(load_examples(rows))
    planted = [
        {**row, "id": f"copy-{n}", "output": row["output"].replace("\n", "\r\n") + " "}
        for n, row in enumerate(rows[:200])
        if row["output"]
    ]
    after = find_duplicates(load_examples([*rows, *planted]))
    assert len(after.removed) == len(before.removed) + len(planted)
    assert len(before.removed) < 40
