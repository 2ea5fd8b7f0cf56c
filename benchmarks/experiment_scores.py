"""What methods of selection know of the pool: tables made once, kept in the work folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from experiment_data import Split, strata_of
from experiment_grid import BASE, FULL, LENGTH_MATCHED, OPTIONS, Cell, Settings
from numpy.typing import NDArray

from codeact.data import Examples, TokenizedExamples
from codeact.errors import InputError
from codeact.files import read_json, write_json, write_npy, write_parquet
from codeact.models import load_model
from codeact.scoring import Scorer
from codeact.selection import Candidates, find_method, parse_budget, select_rows

if TYPE_CHECKING:
    from codeact.selection.selector import Selector

# Which table holds what a method reads. The vectors come from the same passes as IFD.
_TABLE_OF = {
    "embeddings": "ifd",
    "column:ifd_ppl": "ifd",
    "column:ifd_loss": "ifd",
    "column:rmi": "qaq",
    "column:ppl_direct": "qaq",
    "column:influence": "influence",
}
_ALWAYS = ("num_rows", "response_tokens", "strata", "reference")


class Scores:
    """Tables of scores of one pool by one model, and the selections that they lead to.

    Args:
        settings: of the grid.
        split: whose pool is scored.
        tokenized: the pool as it is trained on, which counts its tokens.
        tasks: for ``influence``.
        folder: where tables are kept, each with the seconds that it took.
    """

    def __init__(
        self,
        settings: Settings,
        split: Split,
        tokenized: TokenizedExamples,
        tasks: Mapping[str, Examples],
        folder: Path,
    ) -> None:
        self.settings = settings
        self.split = split
        self.tokenized = tokenized
        self.tasks = tasks
        self.folder = folder

    def tables(self, method: str) -> tuple[str, ...]:
        """Names of the tables that a method needs.

        Raises:
            InputError: it needs something that no table here has.
        """
        if method in (BASE, FULL):
            return ()
        if method == LENGTH_MATCHED:
            return self.tables(self.settings.control_of)
        inputs = find_method(method).inputs
        unknown = [name for name in inputs if name not in (*_TABLE_OF, *_ALWAYS)]
        if unknown:
            raise InputError(f"method {method} needs {unknown[0]}, which the experiment lacks")
        return tuple(dict.fromkeys(_TABLE_OF[name] for name in inputs if name in _TABLE_OF))

    def check(self, method: str) -> None:
        """Refuse a method that could not be fed, before anything is run.

        Raises:
            InputError: as of :meth:`tables`, or there are no tasks for influence.
        """
        if "influence" in self.tables(method) and not self.tasks:
            raise InputError(
                "influence needs validation tasks: --validation FILE, or CODEACT_DATA with "
                "bench/mbpp.jsonl.gz and MbppPlus"
            )

    def missing(self, method: str) -> tuple[str, ...]:
        """The tables that are still to be made."""
        return tuple(name for name in self.tables(method) if not self._done(name).is_file())

    def make(self, name: str) -> float:
        """Score the pool for one table, and say how many seconds that took."""
        makers: Mapping[str, Callable[[], pa.Table]] = {
            "ifd": self._ifd, "qaq": self._qaq, "influence": self._influence
        }  # fmt: skip
        start = time.perf_counter()
        write_parquet(self.folder / f"{name}.parquet", makers[name]())
        seconds = time.perf_counter() - start
        write_json(self._done(name), {"seconds": seconds})  # last: it says that the table is whole
        return seconds

    def seconds(self, method: str) -> float:
        """What its tables took, loading the model included."""
        return sum(float(read_json(self._done(name))["seconds"]) for name in self.tables(method))

    def select(self, cell: Cell) -> NDArray[np.int64]:
        """The rows of a cell, ascending: the same set is trained on in the same order."""
        if cell.method == FULL:
            return np.arange(len(self.split.pool))
        return np.asarray(np.sort(self._choose(cell.method, cell).selected_))

    def _choose(self, method: str, cell: Cell) -> Selector:
        reference = None
        if method == LENGTH_MATCHED:
            reference = self._choose(self.settings.control_of, cell).selected_
        return select_rows(
            method,
            self._candidates(method, reference),
            parse_budget(cell.budget),
            seed=cell.seed,
            device=self.settings.device,
            **OPTIONS.get(method, {}),
        )

    def _candidates(self, method: str, reference: NDArray[np.int64] | None) -> Candidates:
        # Of a method's own tables alone: the tables share names of columns.
        columns: dict[str, NDArray[np.float64]] = {}
        names = () if method == LENGTH_MATCHED else self.tables(method)
        for name in names:
            table = pq.read_table(self.folder / f"{name}.parquet")
            columns |= {
                column: table[column].to_numpy(zero_copy_only=False)
                for column in table.column_names
                if pa.types.is_floating(table.schema.field(column).type)
            }
        return Candidates(
            ids=self.split.pool.ids,
            columns=columns,
            embeddings=np.load(self._vectors) if "ifd" in names else None,
            num_tokens=self.tokenized.seqlens.astype(np.int64),
            response_tokens=self.tokenized.num_response_tokens.astype(np.int64),
            strata=strata_of(self.split.pool),
            reference=reference,
        )

    @property
    def _vectors(self) -> Path:
        return self.folder / "embeddings.npy"

    def _done(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _scorer(self, **options: Any) -> Scorer:
        loaded = load_model(self.settings.model, device=self.settings.device)
        return Scorer(loaded, **options)

    def _ifd(self) -> pa.Table:
        table, vectors = self._scorer().ifd_and_embeddings(self.split.pool)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        write_npy(self._vectors, vectors / lengths)  # of length 1, as sentence encoders give them
        return table

    def _qaq(self) -> pa.Table:
        return self._scorer(preset="qaq").rmi(self.split.pool)

    def _influence(self) -> pa.Table:
        return self._scorer().influence(self.split.pool, self.tasks)
