"""The bins of a plan as the batch sampler of any PyTorch loader."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils.data import Sampler

from codeact.errors import InputError
from codeact.packing.bins import Bins
from codeact.packing.plan import BinPlan
from codeact.packing.position import Position

logger = logging.getLogger(__name__)


class PackedBatchSampler(Sampler[list[int]]):
    """Batches are bins: lists of span numbers, as ``PackedDataset`` takes them.

    Trainers that call ``set_epoch`` choose the epoch of the next pass; without it, the pass after
    one that has begun is of the next epoch. Setting the epoch that is next anyway changes nothing,
    so it may be said twice, and a loaded position stays.

    The state is a handful of numbers. A resumed pass has what the interrupted one left, also with
    another number of ranks: the rest is dealt anew. The epochs after it are whole again.

    Args:
        plan: the plan.
        rank: yield the bins of this rank only, one a step. None yields those of all ranks,
            step-major, as Accelerate deals them out itself (``even_batches=False``).

    Attributes:
        sampler: an object with ``set_epoch``, where Lightning and Accelerate look for one. It
            samples nothing.

    Raises:
        InputError: ``rank`` is not in ``[0, plan.world_size)``.
    """

    def __init__(self, plan: BinPlan, *, rank: int | None = None) -> None:
        if rank is not None and not 0 <= rank < plan.world_size:
            raise InputError(f"rank must lie in [0, {plan.world_size}), got {rank}")
        self.plan, self.rank = plan, rank
        self.sampler = _EpochSetter(self)
        self._pass: PackedPass | None = None  # the last one that has begun
        self._next: Position | None = None  # of the next pass, if not the epoch after _pass
        self._loaded: Position | None = None  # until a pass begins
        self._last_rest: tuple[Position, Bins] | None = None

    @property
    def epoch(self) -> int:
        """The epoch that the next bin is of."""
        running = self._running()
        return (self._upcoming() if running is None else running.first).epoch

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass one of ``epoch``, whole unless a position in it was loaded."""
        if self._loaded is not None and self._loaded.epoch == epoch:
            self._next = self._loaded
            return
        if self._loaded is not None and self._loaded.segments:
            logger.warning(
                "set_epoch(%d) leaves the loaded position in epoch %d aside",
                epoch,
                self._loaded.epoch,
            )
        self._next = Position(epoch)

    def __len__(self) -> int:
        """Batches of the pass under way, or else of the next one."""
        running = self._running()
        position = self._upcoming() if running is None else running.first
        return self._num_steps_left(position) * self._bins_per_step

    def __iter__(self) -> PackedPass:
        return PackedPass(self)

    def state_dict(self, step: int | None = None) -> dict[str, Any]:
        """The position as a small dictionary that JSON can hold.

        Args:
            step: steps really trained in this pass (after a resume, since the resume), for a loader
                that fetches ahead. None counts what was yielded, whole steps only.

        Raises:
            InputError: ``step`` is beyond the end of the pass.
        """
        return self._position(step).to_state(self.plan)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state`` was taken; if that was the end of an epoch, with the next one.

        Raises:
            InputError: the state is malformed or belongs to another plan.
        """
        position = Position.from_state(state, self.plan)
        if not self._num_steps_left(position):
            position = Position(position.epoch + 1)
        self._next = self._loaded = position
        self._pass = None

    @property
    def _bins_per_step(self) -> int:
        return self.plan.world_size if self.rank is None else 1

    def _upcoming(self) -> Position:
        """Where the next pass begins."""
        if self._next is not None or self._pass is None:
            return self._next or Position(0)
        return Position(self._pass.first.epoch + 1)

    def _running(self) -> PackedPass | None:
        """The pass that is not over, unless another epoch was set since."""
        running = self._pass
        if running is None or running.is_over:
            return None
        if self._next is not None and self._next.epoch != running.first.epoch:
            return None
        return running

    def _position(self, step: int | None = None) -> Position:
        running = self._running()
        if running is None and self._next is None:
            running = self._pass  # over, and nothing has begun since
        if running is not None:
            return running.position(step)
        position = self._upcoming()
        return position if not step else self._after(position, step)

    def _after(self, position: Position, step: int) -> Position:
        num_steps = self._num_steps_left(position)
        if not 0 <= step <= num_steps:
            raise InputError(
                f"step must lie in [0, {num_steps}], the steps of this pass, got {step}"
            )
        return position.after(self.plan, step)

    def _num_steps_left(self, position: Position) -> int:
        """Steps of the pass that begins at a position."""
        if any(world_size != self.plan.world_size for world_size, _ in position.segments):
            return len(self._rest(position)) // self.plan.world_size
        num_left = self.plan.num_steps - sum(steps for _, steps in position.segments)
        return num_left if num_left >= 0 else len(self._rest(position))  # which says what is wrong

    def _rest(self, position: Position) -> Bins:
        if self._last_rest is None or self._last_rest[0] != position:
            self._last_rest = (position, position.rest(self.plan))
        return self._last_rest[1]

    def _begin(self, begun: PackedPass, position: Position | None) -> Position:
        """Called by a pass when its first bin is asked for."""
        first = self._upcoming() if position is None else position
        self._next = self._loaded = None
        self._pass = begun
        return first

    def _goes_on(self, running: PackedPass) -> None:
        """Called by a pass at each further bin: to set the epoch under way was to say nothing."""
        if self._pass is running and self._running() is running:
            self._next = None


class PackedPass(Iterator[list[int]]):
    """One pass over what is left of an epoch.

    It settles on its epoch when the first bin is asked for, so an iterator made and thrown away
    counts as nothing. Its own state lets torchdata's ``StatefulDataLoader`` resume it without
    reading up to the place.
    """

    def __init__(self, sampler: PackedBatchSampler) -> None:
        self.is_over = False
        self._sampler = sampler
        self._first: Position | None = None  # as loaded, or since the first bin was asked for
        self._bins: Bins | None = None
        self._num_yielded = 0

    @property
    def first(self) -> Position:
        """Where the pass began."""
        return self._sampler._upcoming() if self._first is None else self._first

    def __next__(self) -> list[int]:
        sampler = self._sampler
        if self._bins is None:
            self._first = sampler._begin(self, self._first)
            bins = sampler._rest(self._first)
            all_ranks = sampler.rank is None
            self._bins = bins if all_ranks else bins[sampler.rank :: sampler.plan.world_size]
        else:
            sampler._goes_on(self)
        if self._num_yielded == len(self._bins):
            self.is_over = True
            raise StopIteration
        spans = self._bins[self._num_yielded]
        self._num_yielded += 1
        self.is_over = self._num_yielded == len(self._bins)
        return list(spans.tolist())

    def position(self, step: int | None = None) -> Position:
        """Where the run stands after ``step`` steps of this pass, or after what was yielded."""
        if step is None:
            step = self._num_yielded // self._sampler._bins_per_step
        return self._sampler._after(self.first, step)

    def state_dict(self) -> dict[str, Any]:
        """As of :meth:`PackedBatchSampler.state_dict`."""
        return self.position().to_state(self._sampler.plan)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state`` was taken; at the end of an epoch, nothing is left.

        Raises:
            InputError: the state is malformed or belongs to another plan.
        """
        self._first = Position.from_state(state, self._sampler.plan)
        self._bins, self._num_yielded, self.is_over = None, 0, False


class _EpochSetter:
    """Hands ``set_epoch`` on to a batch sampler; iterating it is an error, as it should be."""

    def __init__(self, batch_sampler: PackedBatchSampler) -> None:
        self._batch_sampler = batch_sampler

    def set_epoch(self, epoch: int) -> None:
        self._batch_sampler.set_epoch(epoch)
