"""The result of comparing two models on the same examples."""

from __future__ import annotations

from dataclasses import dataclass


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
        low, high = self.interval
        level = round(1 - self.confidence, 12)  # 1 - 0.95 is 0.05000000000000004
        return self.p_value < level and not low <= 0 <= high

    def verdict(self, name_a: str, name_b: str, lower_is_better: bool) -> str:
        """One sentence for a reader: who is better by how much, or that nobody is.

        Args:
            name_a: What stands for a.
            name_b: What stands for b.
            lower_is_better: True for losses, False for pass rates.
        """
        low, high = self.interval
        evidence = (
            f"difference {self.difference:+.4g}, {100 * self.confidence:g} % interval "
            f"{low:+.4g} to {high:+.4g}, {_p_text(self.p_value)}, {self.num_pairs} pairs, "
            f"{self.test}"
        )
        if not self.significant:
            return f"no significant difference between {name_a} and {name_b} ({evidence})"
        a_wins = (self.difference < 0) == lower_is_better
        return f"{name_a} is {'better' if a_wins else 'worse'} than {name_b} ({evidence})"


def _p_text(p_value: float) -> str:
    return "p < 0.0001" if p_value < 1e-4 else f"p = {p_value:.2g}"
