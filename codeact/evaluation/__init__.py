"""Did it help? Benchmarks judged twice, paired comparisons, pass@k, and rank correlation."""

from codeact.evaluation.comparing.comparison import Comparison, PassComparison
from codeact.evaluation.comparing.correlation import Correlation, spearman
from codeact.evaluation.comparing.paired import compare, compare_losses
from codeact.evaluation.comparing.pass_at_k import mean_pass_at_k, pass_at_k
from codeact.evaluation.comparing.seeds import compare_runs
from codeact.evaluation.evaluate import evaluate
from codeact.evaluation.summary import Evaluation

__all__ = [
    "Comparison",
    "Correlation",
    "Evaluation",
    "PassComparison",
    "compare",
    "compare_losses",
    "compare_runs",
    "evaluate",
    "mean_pass_at_k",
    "pass_at_k",
    "spearman",
]
