"""The result of comparing two models on the same examples."""

from __future__ import annotations

import math
from dataclasses import dataclass

from codeact.evaluation.comparing.effect_sizes import Discordant


@dataclass(frozen=True)
class Comparison:
    """A paired difference, its interval and its test.

    Attributes:
        difference: a - b, in the unit of what was compared (share of passes, nats per token).
        interval: (low, high), two-sided, of the difference.
        p_value: Two-sided.
        test: Name of the test behind the p-value.
        num_pairs: Examples compared.
        confidence: Of the interval; the test's level is 1 - confidence.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float
    test: str
    num_pairs: int
    confidence: float

    @property
    def significant(self) -> bool:
        """True when the test rejects at 1 - confidence and the interval leaves out 0."""
        return self._rejects(self.p_value)

    def verdict(self, name_a: str, name_b: str, lower_is_better: bool) -> str:
        """One sentence for a reader: who is better by how much, or that nobody is.

        Args:
            name_a: What stands for a.
            name_b: What stands for b.
            lower_is_better: True for losses, False for pass rates.
        """
        evidence = self._evidence()
        if not self.significant:
            return f"no significant difference between {name_a} and {name_b} ({evidence})"
        a_wins = (self.difference < 0) == lower_is_better
        return f"{name_a} is {'better' if a_wins else 'worse'} than {name_b} ({evidence})"

    def _evidence(self) -> str:
        low, high = self.interval
        return (
            f"difference {self.difference:+.4g}, {100 * self.confidence:g} % interval "
            f"{low:+.4g} to {high:+.4g}, {p_text(self.p_value)}, {self.num_pairs} pairs, "
            f"{self.test}"
        )

    def _rejects(self, p_value: float) -> bool:
        low, high = self.interval
        level = round(1 - self.confidence, 12)  # 1 - 0.95 is 0.05000000000000004
        return p_value < level and not low <= 0 <= high


@dataclass(frozen=True)
class PassComparison(Comparison):
    """The same of pass rates, with effect sizes and what the tasks could have shown at all.

    Attributes:
        rate_a: Pass rate of a, in [0, 1]; the mean over its runs and their answers.
        rate_b: The same of b.
        cohens_h: Difference of the rates on the arcsine scale; 0.2 is small, 0.5 medium.
        detectable: Smallest true difference that would be found in 4 of 5 such comparisons: "no
            significant difference" says nothing of smaller ones. NaN where there is none.
        discordant: Of the tasks that one side alone solves; None where a task has several
            answers, as these may differ.
        adjusted_p_value: Holm's, where this is one of several comparisons; else None.
    """

    rate_a: float
    rate_b: float
    cohens_h: float
    detectable: float
    discordant: Discordant | None = None
    adjusted_p_value: float | None = None

    @property
    def significant(self) -> bool:
        """As of every comparison, by the adjusted p-value where there is one."""
        adjusted = self.adjusted_p_value
        return self._rejects(self.p_value if adjusted is None else adjusted)

    def power_words(self) -> str:
        """What a reader must not take from "no significant difference"; empty where there is one.

        It is not "equal": a true difference up to ``detectable`` would often stay unseen.
        """
        if self.significant:
            return ""
        if math.isnan(self.detectable):
            return "no difference, however large, would be found in 4 of 5 such comparisons"
        return (
            f"a true difference below {100 * self.detectable:.1f} points would be missed in more "
            f"than 1 of 5 such comparisons"
        )

    def _evidence(self) -> str:
        low, high = (100 * end for end in self.interval)
        alone = self.discordant
        solved = f", {alone.only_a} and {alone.only_b} tasks solved by one alone" if alone else ""
        return (
            f"{self._rates()}: {100 * self.difference:+.1f} points, {100 * self.confidence:g} % "
            f"interval {low:+.1f} to {high:+.1f}, Cohen's h {self.cohens_h:+.2f}, "
            f"{self._p_values()}, {self.num_pairs} tasks{solved}, {self.test}"
        )

    def _rates(self) -> str:
        return f"{100 * self.rate_a:.1f} % against {100 * self.rate_b:.1f} %"

    def _p_values(self) -> str:
        plain = p_text(self.p_value)
        if self.adjusted_p_value is None:
            return plain
        adjusted = p_text(self.adjusted_p_value)
        if adjusted == plain:
            return f"{plain} before and after Holm's correction"
        return f"{plain}, {adjusted} after Holm's correction"


def p_text(p_value: float) -> str:
    """A p-value as one reads it: ``p = 0.012``, ``p < 0.0001``."""
    return "p < 0.0001" if p_value < 1e-4 else f"p = {p_value:.2g}"
