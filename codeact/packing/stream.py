"""Dynamic Pack of a stream: bins from data that has no length and is never whole in memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from torch.utils.data import IterableDataset, get_worker_info

from codeact.errors import InputError
from codeact.packing.balance import Cost
from codeact.packing.checks import check_choice, check_number
from codeact.packing.dataset import Feature
from codeact.packing.seeds import derive_seed
from codeact.packing.stream_source import Source, SourceReader, StreamOverflow
from codeact.packing.stream_window import StreamWindow

logger = logging.getLogger(__name__)

_MAX_INT32 = 2**31 - 1
_VERSION = 1


class PackedStream(IterableDataset[list[Feature]]):
    """Bins of a stream of examples, for ``DataLoader(stream, batch_size=None, collate_fn=...)``.

    ``window`` examples at a time are read, shuffled and packed best-fit decreasing together with
    what bins below 99 % held last time, so a stream packs about as well as a whole set. Nothing is
    dropped or repeated. Item k is the list of the features of a bin, for :class:`PackedCollator`.

    Every rank reads the whole source, packs it alike and yields its own bins, so that all have as
    many without a word between them. Bins that do not make a whole step wait for the next window;
    at the end the largest are split, and where sequences run out a rank gets a filler: one token
    without a label. (So do not also let a trainer shard it, and pass ``world_size`` and ``rank``.)

    State: :meth:`state_dict` holds the examples in flight, at most about two windows of them, and
    where the source is. The state of any rank resumes every rank, also with another
    ``world_size``. A source with ``state_dict`` and ``load_state_dict`` (Hugging Face streaming
    datasets) goes on at once; another one is read again up to the place. With torchdata's
    ``StatefulDataLoader`` nothing else is needed; with a worker process set its
    ``snapshot_every_n_steps``, as every snapshot carries the examples in flight.

    Epochs: a pass after one that has begun is of the next epoch unless ``set_epoch`` says another;
    a source with ``set_epoch`` is told. A worker process packs with a copy of the stream, so there
    ``set_epoch`` has to be called before each pass.

    Args:
        source: iterable of dicts with ``input_ids`` and ``labels`` (optionally ``weight``), or a
            function that makes one. Each pass iterates it anew; an iterator that can be read once
            is refused. Wrap a generator function as it is, uncalled.
        capacity: tokens a bin may hold.
        window: examples packed together.
        world_size: ranks that train together.
        rank: of this process.
        seed: of the shuffles, from 0 to 2**64 - 1.
        overflow: what happens to an example above the capacity: ``"error"`` refuses, ``"drop"``
            leaves it out, ``"truncate"`` cuts its end.
        cost: of sequences, as of :class:`ModelCost`: among the bins of a window, those of like cost
            go to the ranks of one step. None takes the tokens. Every rank must pass the same.

    Raises:
        InputError: an option out of range; while iterating, an example that cannot be used.
        RuntimeError: while iterating, more than one worker process, each of which would yield all.
    """

    def __init__(
        self,
        source: Source,
        capacity: int,
        *,
        window: int = 4096,
        world_size: int = 1,
        rank: int = 0,
        seed: int = 0,
        overflow: StreamOverflow = "error",
        cost: Cost | None = None,
    ) -> None:
        check_number("capacity", capacity, 1, _MAX_INT32)
        check_number("window", window, 1, _MAX_INT32)
        check_number("world_size", world_size, 1, _MAX_INT32)
        check_number("rank", rank, 0, world_size - 1)
        check_number("seed", seed, 0, 2**64 - 1)
        check_choice("overflow", overflow, get_args(StreamOverflow))
        if isinstance(source, Iterator):
            raise InputError(
                "source can be read only once: pass the generator function, or what has __iter__"
            )
        self.rank = rank
        self._source, self._capacity, self._overflow = source, capacity, overflow
        self._packing = (capacity, window, world_size)
        self._seed, self._cost = seed, cost
        self._epoch = 0  # of the next pass
        self._loaded: Mapping[str, Any] | None = None  # where the next pass goes on
        self._pass: _Pass | None = None  # begun, not over
        self._counts = {"num_dropped": 0, "num_empty": 0, "num_cut": 0}

    @property
    def num_dropped(self) -> int:
        """Examples above the capacity that the last pass left out so far."""
        return self._counts["num_dropped"]

    @property
    def num_empty(self) -> int:
        """Examples of no token that it left out so far."""
        return self._counts["num_empty"]

    @property
    def num_cut(self) -> int:
        """Examples that it cut so far."""
        return self._counts["num_cut"]

    def __iter__(self) -> Iterator[list[Feature]]:
        worker = get_worker_info()
        if worker is not None and worker.num_workers > 1:
            raise RuntimeError(
                f"a PackedStream works with one worker process at most, got {worker.num_workers}: "
                "each would yield every bin"
            )
        running = self._begin()
        while (bin_ := running.next_bin(self.rank)) is not None:
            yield bin_
            if self._pass is running and self._epoch == running.epoch:
                self._epoch += 1  # to set the epoch under way was to say nothing
        if self._pass is running:
            self._pass = None

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass one of ``epoch``, whole unless a place in it was loaded."""
        if self._loaded is not None and epoch != self._epoch:
            logger.warning("set_epoch(%d) gives up a loaded place in epoch %d", epoch, self._epoch)
            self._loaded = None
        self._epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """The examples in flight and the place in the source, after the last bin yielded."""
        if self._pass is not None:
            progress = self._pass.state_dict()
        else:
            progress = {"epoch": self._epoch, "reader": None, "window": None}
            progress |= self._loaded or {}
        return {"version": _VERSION, "capacity": self._capacity, **progress}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next pass the rest of the one that ``state`` was taken in.

        Raises:
            InputError: the state is of another kind, or of another capacity.
        """
        if state.get("version") != _VERSION:
            raise InputError(
                f"state must be of a PackedStream, version {_VERSION}, "
                f"got version {state.get('version')!r}"
            )
        if missing := {"capacity", "epoch", "reader", "window"} - state.keys():
            raise InputError(f"state must be whole, but lacks {', '.join(sorted(missing))}")
        if state["capacity"] != self._capacity:
            raise InputError(
                f"state has bins of {state['capacity']} tokens, this stream of {self._capacity}"
            )
        self._loaded = dict(state) if state["reader"] is not None else None
        self._epoch, self._pass = int(state["epoch"]), None

    def _begin(self) -> _Pass:
        reader, window = (self._loaded or {}).get("reader"), (self._loaded or {}).get("window")
        running = _Pass(
            self._epoch,
            SourceReader(
                self._source, self._capacity, self._overflow, epoch=self._epoch, state=reader
            ),
            StreamWindow(
                *self._packing, derive_seed(self._seed, "stream", self._epoch), self._cost
            ),
            self._packing[1],
        )
        if window is not None:
            running.window.load_state_dict(window, ended=running.reader.ended)
        self._pass, self._loaded, self._counts = running, None, running.reader.counts
        self._epoch += 1
        return running


class _Pass:
    """One pass over the source, as far as it has come."""

    def __init__(
        self, epoch: int, reader: SourceReader, window: StreamWindow, window_size: int
    ) -> None:
        self.epoch, self.reader, self.window = epoch, reader, window
        self._window_size = window_size

    def next_bin(self, rank: int) -> list[Feature] | None:
        """The bin of a rank in the next step; None at the end."""
        while (bin_ := self.window.take(rank)) is None and not self.reader.ended:
            features = self.reader.read(self._window_size)
            self.window.fill(features, close_all=self.reader.ended)
        return bin_

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "reader": self.reader.state_dict(),
            "window": self.window.state_dict(),
        }
