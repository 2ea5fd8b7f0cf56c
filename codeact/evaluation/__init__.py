"""Did it help? Paired comparisons with an interval and a p-value, and rank correlation."""

from codeact.evaluation.comparison import Comparison
from codeact.evaluation.correlation import Correlation, spearman
from codeact.evaluation.paired import compare, compare_losses

__all__ = ["Comparison", "Correlation", "compare", "compare_losses", "spearman"]
