"""Rows as torchtune's packed datasets have them; torchtune itself is not installed here."""

from __future__ import annotations

from reference import NUM_EXAMPLES, make_plan, make_store, row_of
from snippets import snippet


def test_rows_hold_the_bins() -> None:
    store, plan = make_store(), make_plan()
    rows = snippet("torchtune").TorchtunePacks(store, plan, epoch=1)
    assert len(rows) == plan.num_bins
    seen = []
    for index in range(len(rows)):
        row = rows[index]
        lengths = row["seq_lens"].tolist()
        assert sum(lengths) == len(row["tokens"]) <= plan.capacity
        assert row["input_pos"].tolist() == [place for n in lengths for place in range(n)]
        for ids, labels in zip(
            row["tokens"].split(lengths), row["labels"].split(lengths), strict=True
        ):
            seen.append(int(ids[0]) - 3)
            expected_ids, expected_labels = row_of(store, seen[-1])
            assert ids.tolist() == expected_ids.tolist()
            assert labels.tolist() == [-100, *expected_labels[1:].tolist()]
    assert sorted(seen) == list(range(NUM_EXAMPLES))
