"""``codeact evaluate``: pass@1 on HumanEval(+) and MBPP(+)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codeact.cli.options import Device, Dtype, Seed

if TYPE_CHECKING:
    from codeact.evaluation.summary import BenchmarkSummary, Evaluation


def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Folder or Hugging Face id; none with --samples."),
    ] = None,
    *,
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where answers and verdicts are kept.")
    ],
    samples: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Judge these answers: our samples.jsonl, or lines for EvalPlus."
        ),
    ] = None,
    benchmark: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="humaneval or mbpp; both by default, repeatable."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="With HumanEvalPlus*.jsonl and MbppPlus*.jsonl."),
    ] = None,
    num_samples: Annotated[
        int | None, typer.Option(metavar="N", help="Answers to each task; 1 by default.")
    ] = None,
    temperature: Annotated[
        float, typer.Option(metavar="T", help="0 takes the likeliest token.")
    ] = 0.0,
    top_p: Annotated[float, typer.Option(metavar="P", help="Nucleus sampling.")] = 1.0,
    max_new_tokens: Annotated[
        int, typer.Option(metavar="N", help="Where an answer is cut.")
    ] = 1024,
    style: Annotated[
        str,
        typer.Option(metavar="STYLE", help="auto, chat, completion, deepseek or alpaca."),
    ] = "auto",
    response_prefix: Annotated[
        bool,
        typer.Option(
            "--response-prefix/--no-response-prefix",
            help="Begin the model's answers for it with an open code block.",
        ),
    ] = True,
    adapter: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="PEFT adapter of the model.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="The first N tasks of each benchmark only.")
    ] = None,
    evalplus: Annotated[
        bool | None,
        typer.Option("--evalplus/--no-evalplus", help="Run EvalPlus too; if installed."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Programs at a time; one a CPU by default.")
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on with what is in the folder.")
    ] = True,
) -> None:
    """pass@1 of a model on HumanEval+ and MBPP+, its answers run.

    Answers run in a sandbox: by our own check, and by EvalPlus, unmodified, where it is installed;
    both numbers and where they differ are kept. An interrupted command goes on where it stopped.
    Writes evaluation.json, samples.jsonl, results.jsonl and disagreements.jsonl; codeact compare
    reads the folder. Exit status 3 means that nothing could be run safely.
    """
    from codeact.cli import checks
    from codeact.cli.display import Bars
    from codeact.errors import InputError

    if (model is None) == (samples is None):
        raise InputError("evaluate needs either MODEL or --samples, got both or neither")
    checks.check_at_least(
        1, num_samples=num_samples, limit=limit, workers=workers, max_new_tokens=max_new_tokens
    )
    checks.check_seed(seed)
    _quieten(model)
    from codeact.evaluation.evaluate import evaluate as run

    with Bars() as bars:
        found = run(
            model, output=output, samples=samples, benchmarks=benchmark or None, data=data,
            style=style, response_prefix=response_prefix, num_samples=num_samples,
            temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens, limit=limit,
            seed=seed, evalplus=evalplus, workers=workers, adapter=adapter, device=device,
            dtype=dtype, resume=resume, announce=bars,
        )  # fmt: skip
    for line in evaluation_words(found):
        print(line, file=sys.stderr)
    sys.stdout.write(json.dumps(found.to_json(), indent=2, ensure_ascii=False) + "\n")


def evaluation_words(found: Evaluation) -> list[str]:
    """A small table, and a line for each thing that a reader of it must know."""
    lines = [f"{'':<20}{'pass@1':>8}  {'95 % interval':<16}{'EvalPlus':>8}"]
    for each in found.benchmarks:
        lines += _rows(each)
    lines += [_answers(each) for each in found.benchmarks]
    if found.style is not None:
        lines.append(_style(found))
    lines += list(found.faults)
    if found.disagreements:
        where = found.folder / "disagreements.jsonl"
        lines.append(f"{len(found.disagreements)} verdicts differ from EvalPlus's: {where}")
    if found.evalplus_error is not None:
        lines.append(f"no number of EvalPlus: {found.evalplus_error}")
    return lines


def _rows(each: BenchmarkSummary) -> list[str]:
    """pass@1 of both test sets, and pass@k where there are more samples."""
    from codeact.evaluation.results import TITLES

    lines = []
    columns = (("", each.base, each.evalplus_base), ("+", each.plus, each.evalplus_plus))
    for mark, values, evalplus in columns:
        for value in values:
            title = TITLES[each.benchmark] + mark + ("" if value.k == 1 else f" pass@{value.k}")
            low, high = (f"{100 * edge:.1f}" for edge in value.interval)
            other = f"{100 * evalplus:.1f}" if evalplus is not None and value.k == 1 else "-"
            lines.append(
                f"{title:<20}{100 * value.value:>8.1f}  {f'{low} to {high}':<16}{other:>8}"
            )
    return lines


def _answers(each: BenchmarkSummary) -> str:
    """How many answers, and how many of them are no program or were cut."""
    from codeact.evaluation.results import TITLES

    kinds = each.kinds
    total = sum(kinds[name] for name in ("whole", "empty", "truncated"))
    words = [f"{kinds[name]} {name}" for name in ("empty", "unparsable") if kinds[name]]
    if kinds["truncated"]:
        passed = kinds["truncated_passed"]
        words.append(f"{kinds['truncated']} cut at their length, of which {passed} pass")
    odd = ", ".join(words) or "all of them whole"
    return f"{TITLES[each.benchmark]}: {total} answers to {each.num_tasks} tasks, {odd}"


def _style(found: Evaluation) -> str:
    style = found.style
    if style is None:
        return ""
    why = "" if style.name == "chat" or style.asked == style.name else ", as there is no template"
    return f"prompts in style {style.name}{why}"


def _quieten(model: str | None) -> None:
    from codeact.cli.quiet import quiet_libraries, quiet_models

    if model is None:
        quiet_libraries()
    else:
        quiet_models()
