"""Selection by a judge's ratings, which tie a lot."""

from __future__ import annotations

import numpy as np
import pytest

from codeact.errors import InputError
from codeact.selection import TopRating

IDS = [f"row-{row}" for row in range(8)]


def test_ratings_with_ties() -> None:
    ratings = np.array([5, 4, 4, None, 4, 1, 5, 4], dtype=object)
    top = TopRating(4).fit(ratings, ids=IDS)
    kept = set(top.selected_.tolist())
    assert {0, 6} <= kept <= {0, 1, 2, 4, 6, 7}
    assert set(top.selected_[:2].tolist()) == {0, 6}
    report = top.report_
    assert (report.lowest_kept, report.num_tied, report.num_tied_kept) == (4.0, 4, 2)
    assert (report.num_eligible, report.num_kept) == (7, 4)
    assert top.reasons_[3] == "dropped: no rating"
    assert top.reasons_[5] == "dropped: place 7 of 7 by rating, 1"
    # Which of the equal rows are kept follows from their names, wherever they stand.
    order = np.array([7, 6, 5, 4, 3, 2, 1, 0])
    again = TopRating(4).fit(ratings[order], ids=[IDS[row] for row in order])
    assert set(order[again.selected_].tolist()) == kept
    renamed = {
        frozenset(TopRating(4).fit(ratings, ids=[f"{n}-{row}" for row in range(8)]).selected_)
        for n in range(20)
    }
    assert len(renamed) > 1
    with pytest.raises(InputError, match="only 7 are eligible, 1 too few: 1 rows have no rating"):
        TopRating(8).fit(ratings, ids=IDS)
