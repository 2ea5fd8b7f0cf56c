"""Which examples to keep: CDAS, the random baselines, clusters and budgets."""

from codeact.selection.baselines import LengthMatchedRandom, RandomReport, RandomSelection
from codeact.selection.budget import resolve_budget
from codeact.selection.cdas import CDAS
from codeact.selection.cdas_report import CDASReport, ClusterCounts
from codeact.selection.clustering import Clusters, cluster_kmeans
from codeact.selection.length_bands import LengthMatchReport

__all__ = [
    "CDAS",
    "CDASReport",
    "ClusterCounts",
    "Clusters",
    "LengthMatchReport",
    "LengthMatchedRandom",
    "RandomReport",
    "RandomSelection",
    "cluster_kmeans",
    "resolve_budget",
]
