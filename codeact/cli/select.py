"""``codeact select``: the rows worth training on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codeact.cli.options import Column, Data, Seed

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from codeact.selection import CDAS


def select(
    data: Data,
    *,
    scores: Annotated[
        Path, typer.Option(metavar="FILE", help="Table written by codeact score; not by qaq.")
    ],
    embeddings: Annotated[
        Path, typer.Option(metavar="FILE", help="Matrix written by codeact embed or score.")
    ],
    output: Annotated[Path, typer.Option(metavar="FILE", help="JSONL file for the kept rows.")],
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also write every row with its reason (.parquet, .jsonl)."
        ),
    ] = None,
    method: Annotated[str, typer.Option(metavar="NAME", help="cdas.")] = "cdas",
    budget: Annotated[
        str, typer.Option(metavar="SHARE|COUNT", help="A share such as 0.4, or a count.")
    ] = "0.4",
    num_clusters: Annotated[int, typer.Option(metavar="N", help="k of k-means.")] = 10,
    score: Annotated[str, typer.Option(metavar="COLUMN", help="ifd_ppl or ifd_loss.")] = "ifd_ppl",
    exact_budget: Annotated[
        bool, typer.Option(help="Meet the budget exactly; the authors' rule keeps a little less.")
    ] = True,
    column: Column = None,
    seed: Seed = 42,
) -> None:
    """Choose rows by CDAS.

    Per cluster of instructions, the answers with the highest IFD below 1 (arXiv:2408.02193).
    """
    from codeact.cli import checks
    from codeact.cli.quiet import quiet_libraries
    from codeact.cli.tables import read_table, write_table
    from codeact.data import load_examples
    from codeact.errors import InputError
    from codeact.selection import CDAS

    checks.check_output(output, (".jsonl",))
    checks.check_output(table, option="--table")
    checks.check_choice("--method", method, ("cdas",))
    checks.check_choice("--score", score, ("ifd_ppl", "ifd_loss"))
    checks.check_at_least(1, num_clusters=num_clusters)
    checks.check_seed(seed)
    share = _parse_budget(budget)
    quiet_libraries()
    examples = load_examples(data, columns=checks.parse_columns(column))
    ids = list(examples.ids)
    columns = read_table(scores, ["id", score])
    vectors = _read_matrix(embeddings)
    _check_same_rows(ids, columns["id"], len(vectors), data, scores, embeddings)
    chosen = CDAS(share, num_clusters, seed, exact_budget).fit(vectors, columns[score], ids=ids)
    if len(chosen.selected_) == 0:
        raise InputError(
            f"--budget = {budget} keeps none of {len(ids)} rows in {num_clusters} clusters "
            "(see --exact-budget, and the status column of the scores)"
        )
    if table is not None:
        write_table(_reasons(ids, columns[score], score, chosen), table)
    examples.select(sorted(chosen.selected_.tolist())).write_jsonl(output)
    print(f"kept {len(chosen.selected_)} of {len(ids)} rows", file=sys.stderr)


def _parse_budget(budget: str) -> int | float:
    """``"100"`` is a count, ``"0.4"`` and ``"1.0"`` are shares."""
    from codeact.errors import InputError

    for number in (int, float):
        try:
            return number(budget)
        except ValueError:
            continue
    raise InputError(f"--budget must be a share in (0, 1] or a count, got {budget!r}")


def _read_matrix(path: Path) -> np.ndarray[Any, Any]:
    import numpy as np

    from codeact.errors import InputError

    try:
        matrix = np.load(path)
    except (OSError, EOFError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"--embeddings {path} cannot be read as .npy: {reason}") from None
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2:
        raise InputError(f"--embeddings {path} must hold one matrix, a row for each row of DATA")
    return matrix


def _check_same_rows(
    ids: list[str], scored: list[str], num_vectors: int, data: str, scores: Path, embeddings: Path
) -> None:
    from codeact.errors import InputError

    for option, path, count in (
        ("--scores", scores, len(scored)), ("--embeddings", embeddings, num_vectors)
    ):  # fmt: skip
        if count != len(ids):
            raise InputError(
                f"{option} must hold the {len(ids)} rows of {data}, got {count} in {path}"
            )
    for row, (id_, other) in enumerate(zip(ids, scored, strict=True)):
        if id_ != other:
            raise InputError(
                f"--scores must hold the rows of {data} in their order, but row {row} is {id_!r} "
                f"there and {other!r} in {scores}"
            )


def _reasons(ids: list[str], values: list[float | None], score: str, chosen: CDAS) -> pa.Table:
    """Every row with its cluster, its place in it, and why it was kept or not."""
    import numpy as np
    import pyarrow as pa

    kept = np.zeros(len(ids), dtype=bool)
    kept[chosen.selected_] = True
    return pa.table(
        {
            "id": ids,
            "cluster": pa.array(chosen.cluster_labels_, pa.int32()),
            score: pa.array(np.array(values, dtype=np.float64), from_pandas=True),
            "kept": kept,
            "rank": pa.array(chosen.ranks_, pa.int32()),
            "reason": chosen.reasons_,
        }
    )
