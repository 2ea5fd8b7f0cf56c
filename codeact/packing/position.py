"""Where in a plan a run stands: the whole state of a resumable pass, in a few numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from codeact.errors import InputError
from codeact.packing.bins import Bins
from codeact.packing.plan import BinPlan

_VERSION = 1


@dataclass(frozen=True)
class Position:
    """An epoch, and how much of it is done.

    Attributes:
        epoch: from 0.
        segments: ``(world_size, steps)``, in order: so many steps were done with so many ranks.
            When the number of ranks changes, what is left is dealt anew, so each further segment
            counts within the rest of the one before.
    """

    epoch: int
    segments: tuple[tuple[int, int], ...] = ()

    def after(self, plan: BinPlan, num_steps: int) -> Position:
        """The position ``num_steps`` steps of ``plan`` later."""
        segments = self.segments
        if not segments or segments[-1][0] != plan.world_size:
            segments = (*segments, (plan.world_size, 0))
        world_size, done = segments[-1]
        return replace(self, segments=(*segments[:-1], (world_size, done + num_steps)))

    def rest(self, plan: BinPlan) -> Bins:
        """The bins of the epoch that are left, dealt to the ranks of ``plan``.

        Raises:
            InputError: the segments go beyond the end of the epoch.
        """
        segments = self.after(plan, 0).segments
        bins = plan.for_world_size(segments[0][0]).epoch(self.epoch)
        for part, (world_size, steps) in enumerate(segments):
            if part:
                bins = plan.for_world_size(world_size).deal_rest(bins, self.epoch, part)
            if steps * world_size > len(bins):
                raise InputError(
                    f"the state has {steps} steps of {world_size} ranks done in epoch "
                    f"{self.epoch}, but only {len(bins) // world_size} were left"
                )
            bins = bins[steps * world_size :]
        return bins

    def to_state(self, plan: BinPlan) -> dict[str, Any]:
        """The position as JSON knows it."""
        segments = [list(segment) for segment in self.segments]
        return {
            "version": _VERSION,
            "fingerprint": plan.fingerprint,
            "epoch": self.epoch,
            "segments": segments,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], plan: BinPlan) -> Position:
        """Read what :meth:`to_state` wrote.

        Raises:
            InputError: the state is malformed, or of a plan of other lengths or options.
        """
        try:
            version, fingerprint = state["version"], state["fingerprint"]
            epoch = int(state["epoch"])
            segments = tuple((int(world), int(steps)) for world, steps in state["segments"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"state must be what PackedBatchSampler.state_dict gave, got {state!r} "
                f"({type(error).__name__}: {error})"
            ) from None
        if version != _VERSION:
            raise InputError(f"state must be of version {_VERSION}, got version {version!r}")
        if fingerprint != plan.fingerprint:
            raise InputError(
                f"state is of a plan with the fingerprint {fingerprint}, this plan has "
                f"{plan.fingerprint}: lengths, capacity, order, window, overflow, seed and cost "
                "must be those of the run that is resumed (the number of ranks may differ)"
            )
        if epoch < 0 or any(world < 1 or steps < 0 for world, steps in segments):
            raise InputError(f"state holds a negative number: epoch {epoch}, segments {segments}")
        return cls(epoch, segments)
