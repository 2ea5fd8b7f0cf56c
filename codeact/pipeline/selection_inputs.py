"""What a run can give to a method of selection, and whether that is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from codeact.errors import InputError
from codeact.pipeline.score_words import score_words
from codeact.selection import Candidates
from codeact.selection.budget import Budget, parse_budget
from codeact.selection.registry import find_method

if TYPE_CHECKING:
    from codeact.pipeline.recipe import Recipe

_IFD_COLUMNS = ("nll_cond", "nll_direct", "ppl_cond", "ppl_direct", "ppl_response", "ifd_ppl")
_COLUMNS = {
    "tshirt": ("ifd_ppl", "ifd_noisy_mean", "ifd_noisy_std", "s_ifd", "s_ifd_std"),
    "qaq": ("nll_cond", "nll_direct", "ppl_cond", "ppl_direct", "rmi"),
}
_GIVEN = ("num_rows", "embeddings", "num_tokens", "response_tokens", "strata", "clusters")
_IFD = "column:ifd_ppl"


def budget_of(recipe: Recipe) -> Budget:
    """The budget of a recipe as selectors take it."""
    budget = recipe.select.budget
    return parse_budget(budget) if isinstance(budget, str) else budget


def score_override(recipe: Recipe) -> str | None:
    """The column that a method of IFD ranks by under the preset of a recipe, None for its own."""
    words = score_words(recipe)
    ranks_by_ifd = _IFD in find_method(recipe.select.method).inputs
    return words.column if ranks_by_ifd and words.cap is not None else None


def check_method(recipe: Recipe) -> None:
    """Refuse a method that the run could not feed, before hours of scoring.

    Raises:
        InputError: An option is unknown or of another kind, or an input would be missing.
    """
    section = recipe.select
    method = find_method(section.method)
    try:
        method.make(budget_of(recipe), recipe.seed, **section.options)
    except InputError as error:
        raise InputError(f"select.options: {error}") from None
    if method.name == "qaq" and section.options.get("rule") == "difference":
        raise InputError(
            "select.options: rule = difference needs the RMI of a weaker model too, which a run "
            "does not have: codeact select with --weak-scores compares two"
        )
    if recipe.embed.model == "scoring-model" and recipe.score.preset == "qaq":
        raise InputError(
            "embed.model = scoring-model embeds an answer after its question, but score.preset = "
            "qaq puts them the other way round; leave embed.model out, or name an encoder"
        )
    columns = _COLUMNS.get(recipe.score.preset, (*_IFD_COLUMNS, "ifd_loss"))
    given = {*_GIVEN, *(f"column:{name}" for name in columns)}
    given |= {"queries"} if section.queries is not None else set()
    missing = [name for name in method.inputs if name not in given]
    if missing:
        presets = {"column:s_ifd": "tshirt", "column:rmi": "qaq", _IFD: "codeact"}
        preset = next((presets[name] for name in missing if name in presets), None)
        hint = f"; set score.preset = {preset}" if preset else ""
        hint = "; set select.queries" if "queries" in missing else hint
        names = ", ".join(name.removeprefix("column:") for name in missing)
        raise InputError(
            f"select.method = {method.name} needs {names}, which a run with score.preset = "
            f"{recipe.score.preset} does not have{hint}"
        )


def candidates(
    recipe: Recipe,
    scores: pa.Table,
    embeddings: np.ndarray[tuple[int, int], np.dtype[np.float32]],
    labels: np.ndarray[tuple[int], np.dtype[np.int32]],
    queries: np.ndarray[tuple[int, int], np.dtype[np.float32]] | None,
) -> Candidates:
    """What the stages before have found out about the rows.

    CDAS selects in the run's clusters; other methods make their own, since theirs are of
    embeddings treated in their own way. Strata are the clusters.
    """
    columns = {
        name: scores[name].to_numpy(zero_copy_only=False)
        for name in scores.schema.names
        if pa.types.is_floating(scores.schema.field(name).type)
    }
    if "ppl_cond" in columns and recipe.score.preset != "qaq":
        columns["ppl_response"] = columns["ppl_cond"]  # the same number under another name
    num_tokens = pc.add(scores["num_prompt_tokens"], scores["num_response_tokens"]).to_numpy()
    return Candidates(
        ids=scores["id"].to_pylist(),
        columns=columns,
        embeddings=embeddings,
        queries=queries,
        num_tokens=np.maximum(num_tokens, 1).astype(np.int64),
        response_tokens=scores["num_response_tokens"].to_numpy().astype(np.int64),
        strata=labels,
        clusters=labels if recipe.select.method == "cdas" else None,
    )
