"""What comparing two authors gives, and how it is said."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from codeact.efficiency.comparing.metrics import Estimate, Normalised


@dataclass(frozen=True)
class MetricComparison:
    """One of ET, MU and TMU over the tasks that both solve.

    Attributes:
        metric: ``"et_seconds"``, ``"mu_bytes"`` or ``"tmu_byte_seconds"``.
        mean_a: Mean over tasks of a's value, in the metric's unit; the largest tasks decide it.
        mean_b: The same of b.
        ratio: Geometric mean over tasks of a's value / b's, with a bootstrap interval: below 1 if
            a is better. Between two measurements, each value is first divided by the reference's
            in the same measurement.
        num_better: Tasks on which that ratio is below 1.
        num_worse: Tasks on which it is above 1.
        sign_p_value: Two-sided sign test: of the tasks that differ, either author is as likely to
            be the better one.
        wilcoxon_p_value: Two-sided signed-rank test on the logarithm of the ratio.
        normalised_a: NET, NMU or NTMU of a over the tasks with a ranked reference, None without
            any; its three ways are the papers' two and the geometric mean.
        normalised_b: The same of b.
        confidence: Of every interval; the tests' level is 1 - confidence.
    """

    metric: str
    mean_a: float
    mean_b: float
    ratio: Estimate
    num_better: int
    num_worse: int
    sign_p_value: float
    wilcoxon_p_value: float
    normalised_a: Normalised | None
    normalised_b: Normalised | None
    confidence: float

    @property
    def significant(self) -> bool:
        """True when both tests reject and the interval leaves out 1."""
        level = round(1 - self.confidence, 12)  # 1 - 0.95 is 0.05000000000000004
        p_value = max(self.sign_p_value, self.wilcoxon_p_value)
        return p_value < level and not self.ratio.low <= 1 <= self.ratio.high


@dataclass(frozen=True)
class EfficiencyComparison:
    """Efficiency of a beside b, and how many tasks it speaks of.

    Attributes:
        name_a: Origin of a's answers.
        name_b: Origin of b's.
        num_tasks: Tasks, by language, that both answered, rightly or not.
        num_both_solved: Those that both solve.
        num_compared: Those of them with ranked measurements (and, between two measurements, a
            ranked reference in both).
        overlap: num_both_solved / num_tasks.
        pass_at_1_a: Mean over ``num_tasks`` of the share of a's samples that pass.
        pass_at_1_b: The same of b.
        same_run: Whether the two raced each other in one measurement.
        et: Net CPU time.
        mu: Peak memory.
        tmu: Memory integrated over CPU time.
    """

    name_a: str
    name_b: str
    num_tasks: int
    num_both_solved: int
    num_compared: int
    overlap: float
    pass_at_1_a: float
    pass_at_1_b: float
    same_run: bool
    et: MetricComparison
    mu: MetricComparison
    tmu: MetricComparison

    def verdict(self) -> str:
        """One sentence for a reader, on CPU time."""
        ratio, a, b = self.et.ratio, self.name_a, self.name_b
        evidence = (
            f"{ratio.value:.3f} times the CPU time, {100 * self.et.confidence:g} % interval "
            f"{ratio.low:.3f} to {ratio.high:.3f}, sign test p = {self.et.sign_p_value:.2g}, "
            f"Wilcoxon p = {self.et.wilcoxon_p_value:.2g}, {self.num_compared} tasks that both "
            f"solve out of {self.num_tasks}"
        )
        if not self.et.significant:
            return f"no significant difference between {a} and {b} ({evidence})"
        return f"{a} is {'more' if ratio.value < 1 else 'less'} efficient than {b} ({evidence})"

    def to_row(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)
