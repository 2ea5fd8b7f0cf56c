"""A data loader that knows its epoch and its place in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from codeact.errors import InputError
from codeact.packing import BinPlan, PackedBatchSampler, PackedCollator, PackedDataset
from codeact.training.loss import num_ranks


class PackedLoader(DataLoader[Any]):
    """This rank's bins of a plan as batches, in the form that trainers look for.

    ``set_epoch`` repacks. ``state_dict`` is the place after the batches that were given out, a few
    numbers that are the same on every rank, also while worker processes read ahead; torchdata's
    ``StatefulDataLoader`` keeps a state of its own and needs none of this. ``len`` is the number of
    steps of a whole epoch, from whose start trainers count, also in a pass that was resumed; so a
    state is of as many ranks as the plan.

    Args:
        dataset: ``PackedDataset(store, plan)``.
        plan: the same plan.
        rank: of this process.
        collate_fn: makes a batch of a bin; None is ``PackedCollator()``.
        **options: of ``torch.utils.data.DataLoader``.

    Raises:
        InputError: the dataset was made with another plan, the plan is for another number of
            processes than train, or ``rank`` is none of the plan's.
    """

    def __init__(
        self,
        dataset: PackedDataset,
        plan: BinPlan,
        *,
        rank: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        **options: Any,
    ) -> None:
        check_dataset(dataset, plan)
        check_world_size(plan, num_ranks())
        self._num_given = 0
        super().__init__(
            dataset,
            batch_sampler=PackedBatchSampler(plan, rank=rank),
            collate_fn=collate_fn or PackedCollator(),
            **options,
        )

    @property
    def _packed_sampler(self) -> PackedBatchSampler:
        sampler: Any = self.batch_sampler
        return sampler  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return self._packed_sampler.plan.num_steps

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self._num_given = 0
        for batch in super().__iter__():
            self._num_given += 1
            yield batch

    def set_epoch(self, epoch: int) -> None:
        """As of :class:`PackedBatchSampler`."""
        if self.state_dict()["epoch"] != epoch:
            self._num_given = 0  # those were of the pass before
        self._packed_sampler.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """The place after the last batch given out, as of :class:`PackedBatchSampler`."""
        return self._packed_sampler.state_dict(step=self._num_given)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state`` was taken; if that was the end of an epoch, with the next one.

        Raises:
            InputError: as of :class:`PackedBatchSampler`, or another number of ranks took the
                state: the trainer counts steps, and theirs are not these.
        """
        sampler = self._packed_sampler
        sampler.load_state_dict(state)
        world_size = sampler.plan.world_size
        if others := {before for before, _ in state["segments"]} - {world_size}:
            raise InputError(
                f"the state was taken with {min(others)} ranks, the plan has {world_size}: a "
                "trainer that counts steps would lose its place (PackedBatchSampler would not)"
            )
        self._num_given = 0


def check_world_size(plan: BinPlan, num_processes: int) -> None:
    """Refuse a plan of which some bins would be read by no process, or by one that has none.

    Raises:
        InputError: the plan is for another number of processes.
    """
    if plan.world_size != num_processes:
        raise InputError(
            f"the plan is for {plan.world_size} processes and {num_processes} train: "
            f"plan_bins(..., world_size={num_processes})"
        )


def check_dataset(dataset: Any, plan: BinPlan) -> None:
    """Refuse what would feed a bin other tokens than the plan counted.

    Raises:
        InputError: not a dataset of the plan's spans, as far as their number and the span of the
            longest example tell.
    """
    same = isinstance(dataset, PackedDataset) and len(dataset) == len(plan.spans)
    if same:
        longest = int(np.argmax(plan.seqlens))  # what a plan cuts if it cuts anything
        same = len(dataset[longest]["input_ids"]) == plan.spans.seqlens[longest]
    if not same:
        raise InputError(
            "the dataset must be PackedDataset(store, plan) of the plan that it is read with, got "
            f"{type(dataset).__name__}"
        )
