"""Three ways to follow directions: how the loss of each sequence changes along each of them.

With F the work of a plain pass and K directions, ``forward`` costs 3 K F, ``ghost`` (2 + K) F and
``difference`` 2 K F.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from codeact.models import (
    Direction,
    ScoredSequence,
    SequenceLoss,
    along,
    moved,
    stream_losses,
)
from codeact.models.stream.ghost import GhostProducts, stream_ghost
from codeact.progress import OnProgress
from codeact.scoring.passes import Windows, gather

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Items = Sequence[ScoredSequence | None]
"""What is passed; None keeps a place for a row of which nothing can be scored."""


@dataclass(frozen=True)
class Followed:
    """What following gave, None and NaN where there was nothing to pass.

    Attributes:
        losses: of each item.
        tangents: (num_items, num_directions) float64, derivatives of the summed losses.
        token_tangents: for each direction those of the single losses of each item, if asked for.
    """

    losses: list[SequenceLoss | None]
    tangents: NDArray[np.float64]
    token_tangents: tuple[list[NDArray[np.float32] | None], ...] = ()


@dataclass(frozen=True)
class Follower:
    """Passes items through ``model`` along directions, each as long as the weights.

    Attributes:
        model: in evaluation mode.
        token_budget: tokens of one pass; None as in :func:`codeact.models.stream_losses`.
        on_progress: called with items done and items in all, those of all passes as one.
    """

    model: PreTrainedModel
    token_budget: int | None = None
    on_progress: OnProgress | None = None

    def forward(
        self, directions: Sequence[Direction], items: Items, *, token_tangents: bool = False
    ) -> Followed:
        """One forward-mode pass a direction: exact."""
        passes = []
        for number, direction in enumerate(directions):
            with along(self.model, direction):
                passes.append(self._pass(items, (number, len(directions)), token_tangents))
        tangents = [_column([loss and loss.tangent for loss in losses]) for losses in passes]
        of_tokens = [[loss and loss.token_tangents for loss in losses] for losses in passes]
        return Followed(
            passes[0], np.stack(tangents, axis=1), tuple(of_tokens) if token_tangents else ()
        )

    def ghost(self, directions: Sequence[Direction], items: Items) -> Followed:
        """One pass forward and back for all directions: exact, without values of tokens."""

        def stream(windows: Windows) -> Iterator[list[tuple[int, GhostProducts]]]:
            return stream_ghost(self.model, windows, directions, token_budget=self.token_budget)

        found = gather(stream, items, _each, self.on_progress)
        nothing = np.full(len(directions), np.nan)
        return Followed(
            [row[0].loss if row else None for row in found],
            np.stack([row[0].products if row else nothing for row in found]),
        )

    def difference(
        self, directions: Sequence[Direction], items: Items, steps: Sequence[float]
    ) -> Followed:
        """Two plain passes a direction, the weights moved by a step ahead and behind.

        ``(l(w + step v) - l(w - step v)) / (2 step)``; losses are the means of the two.
        """
        tangents, losses = [], []
        for number, (direction, step) in enumerate(zip(directions, steps, strict=True)):
            totals = []
            for half, sign in enumerate((1.0, -1.0)):
                with moved(self.model, direction, sign * step):
                    losses.append(
                        self._pass(items, (2 * number + half, 2 * len(directions)), False)
                    )
                totals.append(_column([loss and loss.total for loss in losses[-1]]))
            tangents.append((totals[0] - totals[1]) / (2 * step))
        middle = [
            a and b and a._replace(total=(a.total + b.total) / 2)
            for a, b in zip(*losses[:2], strict=True)
        ]
        return Followed(middle, np.stack(tangents, axis=1))

    def _pass(
        self, items: Items, place: tuple[int, int], token_nlls: bool
    ) -> list[SequenceLoss | None]:
        def stream(windows: Windows) -> Iterator[list[tuple[int, SequenceLoss]]]:
            return stream_losses(
                self.model, windows, token_budget=self.token_budget, token_nlls=token_nlls
            )

        found = gather(stream, items, _each, self._progress(*place))
        return [row[0] if row else None for row in found]

    def _progress(self, number: int, num_passes: int) -> Callable[[int, int], None] | None:
        """What is done of all passes, as items."""
        report = self.on_progress
        if report is None:
            return None
        return lambda done, num: report((number * num + done) // num_passes, num)


def _each(items: Items) -> list[list[ScoredSequence]]:
    return [[] if item is None else [item] for item in items]


def _column(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
