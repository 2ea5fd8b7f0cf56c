"""``codeact select``: the rows worth training on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codeact.cli.options import Column, Data, Device, Seed

if TYPE_CHECKING:
    import pyarrow as pa

    from codeact.cli.select_inputs import SelectFiles
    from codeact.pipeline.selection_arms import Arm
    from codeact.selection.budget import Budget
    from codeact.selection.candidates import Candidates


def _print_methods(wanted: bool) -> None:
    """One line a method on stdout, then the end of the command."""
    if not wanted:
        return
    import json

    from codeact.selection.candidates import describe_input
    from codeact.selection.registry import METHODS

    width = max(map(len, METHODS))
    for method in METHODS.values():
        source = f" ({method.source})" if method.source else ""
        print(f"{method.name:<{width}}  {method.summary}{source}")
        needs = [describe_input(name) for name in method.inputs if name != "num_rows"]
        defaults = method.options().items()
        options = ", ".join(f"{key}={json.dumps(value)}" for key, value in defaults)
        for title, words in (("needs", "; ".join(needs)), ("options", options)):
            if words:
                print(f"{'':<{width}}  {title}: {words}")
    raise typer.Exit


def _file(text: str) -> Any:
    return typer.Option(metavar="FILE", help=text)


_Files = Annotated[
    list[Path] | None,
    _file("Table of codeact score; repeatable, tables of several presets are put together."),
]
_Names = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Further method to show in the report; repeatable."),
]
_Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="OPTION=VALUE", help="Option of the method, see --list; repeatable."
    ),
]
_List = Annotated[
    bool,
    typer.Option(
        "--list", is_eager=True, callback=_print_methods, help="Show every method, and exit."
    ),
]
_Budget = Annotated[
    str,
    typer.Option(metavar="BUDGET", help="Rows as 500 or 0.4; tokens as 250000tokens or 0.4tokens."),
]
_Epochs = Annotated[
    float, typer.Option(metavar="N", help="Of the training whose cost the report compares with.")
]


def select(
    data: Data,
    *,
    output: Annotated[Path, _file("JSONL file for the kept rows.")],
    method: Annotated[str, typer.Option(metavar="NAME", help="See --list.")] = "cdas",
    budget: _Budget = "0.4",
    scores: _Files = None,
    score: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column to use as the first that the method reads."),
    ] = None,
    embeddings: Annotated[Path | None, _file("Matrix of codeact embed or score (.npy).")] = None,
    queries: Annotated[Path | None, _file("Matrix of the examples to resemble (.npy).")] = None,
    weak_scores: Annotated[Path | None, _file("Table of a weaker model, for qaq.")] = None,
    reference: Annotated[Path | None, _file("Subset whose lengths are to be matched.")] = None,
    strata: Annotated[
        str | None, typer.Option(metavar="FIELD|language", help="Groups of stratified-random.")
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Count tokens with it where no table has them."),
    ] = None,
    set_: _Set = None,
    table: Annotated[
        Path | None, _file("Also write every row with its reason (.parquet, .jsonl).")
    ] = None,
    report: Annotated[Path | None, _file("Also write a page about the selection (.html).")] = None,
    compare: _Names = None,
    epochs: _Epochs = 3,
    list_: _List = False,
    column: Column = None,
    device: Device = "auto",
    seed: Seed = 42,
) -> None:
    """Choose rows by any of the methods of --list.

    The budget is met exactly: what cannot be met is refused. The report holds the selection against
    random rows, always.
    """
    from codeact.cli import checks
    from codeact.cli.quiet import quiet_libraries
    from codeact.cli.select_inputs import SelectFiles
    from codeact.cli.tables import write_table
    from codeact.selection import parse_budget

    checks.check_output(output, (".jsonl",))
    checks.check_output(table, option="--table")
    checks.check_output(report, (".html",), option="--report")
    checks.check_positive(epochs=epochs)
    checks.check_seed(seed)
    asked = parse_budget(budget)
    files = SelectFiles(
        tuple(scores or ()), embeddings, queries, weak_scores, reference, strata, tokenizer
    )
    quiet_libraries()
    options = _check_methods(method, compare or [], report, set_ or [], asked, seed)
    from codeact.data import load_examples
    from codeact.pipeline.selection_arms import choose

    columns = checks.parse_columns(column)
    examples = load_examples(data, columns=columns)
    needed = [_columns_of(method, score), *map(_columns_of, compare or [])]
    candidates = files.read(examples, data, needed, columns)
    _check_inputs(files, candidates, method, compare or [], asked)
    arm = choose(method, candidates, asked, seed=seed, score=score, device=device, **options)
    if report is not None:  # before anything is written: a method to compare with may refuse
        from codeact.pipeline.selection_report import SelectionFacts, write_selection_report

        facts = SelectionFacts.compare(
            arm, examples, candidates, asked,
            score=score, compare=compare or [], score_files=files.all_scores, epochs=epochs,
            seed=seed, device=device, command=_command(),
        )  # fmt: skip
        write_selection_report(facts, report)
    if table is not None:
        write_table(_reasons(candidates, arm, score), table)
    examples.select(sorted(arm.selected.tolist())).write_jsonl(output)
    print(f"kept {len(arm.selected)} of {len(examples)} rows", file=sys.stderr)


def _check_methods(
    method: str,
    compare: list[str],
    report: Path | None,
    set_: list[str],
    budget: Budget,
    seed: int,
) -> dict[str, Any]:
    """The options of the method; names and options are refused before anything is read."""
    from codeact.errors import InputError
    from codeact.pipeline.recipe_text import apply_override
    from codeact.selection.registry import find_method

    if compare and report is None:
        raise InputError("--compare needs --report: further methods are shown there and only there")
    for name in (method, *compare):
        find_method(name)
    options: dict[str, Any] = {}
    for override in set_:
        apply_override(options, override)
    find_method(method).make(budget, seed, **options)
    return options


def _check_inputs(
    files: SelectFiles, candidates: Candidates, method: str, compare: list[str], budget: Budget
) -> None:
    """Refuse what no method reads, and a budget in tokens that nothing counts."""
    from codeact.errors import InputError
    from codeact.pipeline.selection_arms import LENGTH_MATCHED
    from codeact.selection.budget import TokenBudget

    # As a control, it matches the selection and reads no file.
    files.check_use([method, *(name for name in compare if name != LENGTH_MATCHED)])
    if isinstance(budget, TokenBudget) and candidates.num_tokens is None:
        raise InputError(
            "--budget in tokens needs the tokens of every row: give --scores with a table of "
            "codeact score, or --tokenizer"
        )


def _columns_of(method: str, score: str | None = None) -> list[str]:
    """Names of the score columns that a method reads."""
    from codeact.selection.candidates import is_column
    from codeact.selection.registry import METHODS

    columns = [name.removeprefix("column:") for name in METHODS[method].inputs if is_column(name)]
    return columns if score is None else [score, *columns[1:]][: len(columns)]


def _reasons(candidates: Candidates, arm: Arm, score: str | None) -> pa.Table:
    """Every row with what the method saw of it, its place, and why it was kept or not."""
    import numpy as np
    import pyarrow as pa

    kept = np.zeros(len(arm.selector.ranks_), dtype=bool)
    kept[arm.selected] = True
    columns: dict[str, Any] = {"id": list(candidates.ids or ())}
    labels = getattr(arm.selector, "cluster_labels_", None)
    if labels is not None:
        columns["cluster"] = pa.array(labels, pa.int32())
    for name in _columns_of(arm.name, score):
        columns[name] = pa.array(candidates.columns[name], from_pandas=True)
    columns["kept"] = kept
    columns["rank"] = pa.array(arm.selector.ranks_, pa.int32())
    columns["reason"] = list(arm.selector.reasons_)
    return pa.table(columns)


def _command() -> str:
    """The words of this command, as a shell takes them."""
    import shlex

    return shlex.join(["codeact", *sys.argv[1:]])
