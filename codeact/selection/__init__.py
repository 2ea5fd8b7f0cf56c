"""Which examples to keep: scores, clusters, diversity, random baselines, and their budgets."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codeact.selection.budget import Budget, TokenBudget, parse_budget, resolve_budget
    from codeact.selection.candidates import Candidates
    from codeact.selection.cdas import CDAS
    from codeact.selection.cdas_report import CDASReport, ClusterCounts
    from codeact.selection.cluster_prune import ClusterPruner
    from codeact.selection.clustering import (
        Clusters,
        choose_num_clusters,
        cluster_agglomerative,
        cluster_hdbscan,
        cluster_kmeans,
    )
    from codeact.selection.deita import Deita
    from codeact.selection.facility_location import FacilityLocation
    from codeact.selection.influence import TopInfluence
    from codeact.selection.influence_report import InfluenceReport
    from codeact.selection.judge import RatingReport, TopRating
    from codeact.selection.kcenter import KCenter
    from codeact.selection.length_bands import LengthMatchReport
    from codeact.selection.length_matched import LengthMatchedRandom
    from codeact.selection.parametric import Parametric
    from codeact.selection.qaq import QAQ
    from codeact.selection.random_selection import RandomSelection
    from codeact.selection.ranked import LongestResponse, TopIFD, TopPerplexity
    from codeact.selection.rds import RDSPlus
    from codeact.selection.registry import METHODS, Method, find_method, select_rows
    from codeact.selection.rows import Rows
    from codeact.selection.selector import SelectionReport, Selector
    from codeact.selection.stratified_random import StratifiedRandom
    from codeact.selection.superfilter_d import SuperfilterD
    from codeact.selection.tshirt import TShirt

__all__ = [
    "CDAS",
    "METHODS",
    "QAQ",
    "Budget",
    "CDASReport",
    "Candidates",
    "ClusterCounts",
    "ClusterPruner",
    "Clusters",
    "Deita",
    "FacilityLocation",
    "InfluenceReport",
    "KCenter",
    "LengthMatchReport",
    "LengthMatchedRandom",
    "LongestResponse",
    "Method",
    "Parametric",
    "RDSPlus",
    "RandomSelection",
    "RatingReport",
    "Rows",
    "SelectionReport",
    "Selector",
    "StratifiedRandom",
    "SuperfilterD",
    "TShirt",
    "TokenBudget",
    "TopIFD",
    "TopInfluence",
    "TopPerplexity",
    "TopRating",
    "choose_num_clusters",
    "cluster_agglomerative",
    "cluster_hdbscan",
    "cluster_kmeans",
    "find_method",
    "parse_budget",
    "resolve_budget",
    "select_rows",
]

# Imported on first use: scikit-learn takes a second to load, and a recipe or the list of methods
# does without it.
_MODULES = {
    "budget": "Budget TokenBudget parse_budget resolve_budget",
    "candidates": "Candidates",
    "cdas": "CDAS",
    "cdas_report": "CDASReport ClusterCounts",
    "cluster_prune": "ClusterPruner",
    "clustering": "Clusters choose_num_clusters cluster_agglomerative cluster_hdbscan "
    "cluster_kmeans",
    "deita": "Deita",
    "facility_location": "FacilityLocation",
    "influence": "TopInfluence",
    "influence_report": "InfluenceReport",
    "judge": "RatingReport TopRating",
    "kcenter": "KCenter",
    "length_bands": "LengthMatchReport",
    "length_matched": "LengthMatchedRandom",
    "parametric": "Parametric",
    "qaq": "QAQ",
    "random_selection": "RandomSelection",
    "ranked": "LongestResponse TopIFD TopPerplexity",
    "rds": "RDSPlus",
    "registry": "METHODS Method find_method select_rows",
    "rows": "Rows",
    "selector": "SelectionReport Selector",
    "stratified_random": "StratifiedRandom",
    "superfilter_d": "SuperfilterD",
    "tshirt": "TShirt",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
