"""How the report speaks of the score by which a run judges its rows."""

from __future__ import annotations

from typing import NamedTuple

from codeact.pipeline.recipe import Recipe


class ScoreWords(NamedTuple):
    """How the report speaks of the score of a preset.

    Attributes:
        column: Of scores.parquet.
        name: Short, as on an axis.
        title: Of its section.
        meaning: What it is and how to read it, in sentences.
        cap: A value that means something by itself, drawn as a line; None if there is none.
        cap_label: What stands at that line.
    """

    column: str
    name: str
    title: str
    meaning: str
    cap: float | None = None
    cap_label: str = ""


def _ifd_words(column: str, measure: str) -> ScoreWords:
    meaning = (
        f"IFD is the {measure} of the answer given its instruction, divided by the {measure} of "
        "the answer alone. Near 0 the instruction gives the answer away; at 1 or above it does "
        "not help at all, which usually means that the two do not belong together."
    )
    return ScoreWords(column, "IFD", "Instruction-following difficulty", meaning, 1.0, "no help")


_S_IFD = ScoreWords(
    "s_ifd",
    "S-IFD",
    "Selective instruction-following difficulty",
    "S-IFD is IFD over the answer tokens whose loss the instruction changes most, averaged over "
    "copies with noise on the embeddings. At 1 or above the instruction does not help.",
    1.0,
    "no help",
)
_RMI = ScoreWords(
    "rmi",
    "RMI",
    "Reverse mutual information",
    "RMI is how many nats per token of the instruction the answer saves in predicting it. Where it "
    "is low, the answer tells little of what was asked; where it is highest, it repeats it.",
)


_INFLUENCE = (
    "Influence is how much one training step on a row lowers the loss on validation tasks, to "
    "first order and per unit of the learning rate: below 0, the step raises it"
)
_RATING = "Ratings are those of the table that was given; what they stand for only its maker knows."


def column_meaning(column: str) -> str:
    """What a column of a table by the user is, in sentences; "" where its name says enough."""
    if column == "rating":
        return _RATING
    if column == "influence":
        return f"{_INFLUENCE}. Here it is the mean over the tasks."
    if column.startswith("influence_"):
        task, _, checkpoint = column.removeprefix("influence_").partition("@")
        where = f" at the checkpoint {checkpoint}" if checkpoint else ""
        return f"{_INFLUENCE}. Here the task is {task}{where}."
    return ""


def score_text(value: float) -> str:
    """A score with three decimals, or three digits where decimals show none or far too many."""
    decimals = value == 0 or 0.01 <= abs(value) < 1e5
    return f"{value:.3f}" if decimals else f"{value:.3g}"


def score_words(recipe: Recipe) -> ScoreWords:
    """The score by which a run judges its rows. (codeact.scoring knows it, but loads PyTorch.)"""
    if recipe.score.preset in ("tshirt", "qaq"):
        return _S_IFD if recipe.score.preset == "tshirt" else _RMI
    by_loss = recipe.score.preset == "cherry"
    return _ifd_words("ifd_loss", "mean loss") if by_loss else _ifd_words("ifd_ppl", "perplexity")
