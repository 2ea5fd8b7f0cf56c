"""Every method of selection by its name: what it needs, what it can be told, how to run it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_type_hints

from codeact.errors import InputError
from codeact.selection.budget import Budget
from codeact.selection.candidates import Candidates, describe_input, is_column
from codeact.selection.option_types import check_option

if TYPE_CHECKING:
    from codeact.selection.selector import Selector

__all__ = ["METHODS", "Candidates", "Method", "find_method", "select_rows"]

# Set apart from the options of a method: every method is asked for them in the same way.
_COMMON = ("budget", "seed", "device")


@dataclass(frozen=True)
class Method:
    """A way to choose rows.

    Attributes:
        name: As users write it.
        where: Its class, ``module:name``; imported only when it is used.
        inputs: What ``fit`` takes by position: attributes of :class:`Candidates`, or
            ``column:NAME`` of its columns.
        summary: One line.
        source: arXiv id, or where else the rule is from.
        optional: What ``fit`` takes by keyword, under the same names.
        instead: Inputs that may be missing when another is there: fit gets None for them.
    """

    name: str
    where: str
    inputs: tuple[str, ...]
    summary: str
    source: str = ""
    optional: tuple[str, ...] = ()
    instead: Mapping[str, str] = field(default_factory=dict)

    def options(self) -> dict[str, Any]:
        """Its options and their defaults: the constructor's but budget, seed and device."""
        return {name: value for name, value in self._parameters().items() if name not in _COMMON}

    def make(
        self, budget: Budget, seed: int = 42, *, device: str = "auto", **options: Any
    ) -> Selector:
        """The estimator, not fitted; seed and device go to the methods that have a use for them.

        Raises:
            InputError: An option is unknown, or its value is of another kind.
        """
        known, parameters = self.options(), self._parameters()
        hints = get_type_hints(self.load().__init__)
        checked = {}
        for name, value in options.items():
            if name not in known:
                raise InputError(f"{self.name} has no option {name!r}{_among(name, known)}")
            checked[name] = check_option(f"option {name} of {self.name}", hints[name], value)
        common = {"budget": budget, "seed": seed, "device": device}
        given = {name: value for name, value in common.items() if name in parameters}
        return self.load()(**given, **checked)

    def load(self) -> type[Selector]:
        """Its class."""
        module, name = self.where.split(":")
        return getattr(import_module(module), name)  # type: ignore[no-any-return]

    def _parameters(self) -> dict[str, Any]:
        return dict(_defaults(self.where))


@cache
def _defaults(where: str) -> Mapping[str, Any]:
    module, name = where.split(":")
    signature = inspect.signature(getattr(import_module(module), name))
    return {name: parameter.default for name, parameter in signature.parameters.items()}


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        InputError: There is none.
    """
    if name not in METHODS:
        raise InputError(f"there is no method {name!r}{_among(name, METHODS)}")
    return METHODS[name]


def select_rows(
    method: str,
    candidates: Candidates,
    budget: Budget,
    *,
    seed: int = 42,
    score: str | None = None,
    device: str = "auto",
    **options: Any,
) -> Selector:
    """Choose rows of ``candidates`` by a method of :data:`METHODS`.

    Args:
        method: Its name.
        candidates: What is known of the rows.
        budget: Share, count or :class:`TokenBudget`.
        seed: For methods that draw.
        score: Column to use as the first one the method reads, such as ``ifd_loss`` for CDAS.
        device: For methods that compute with torch.
        **options: Of the method, see :meth:`Method.options`.

    Returns:
        The fitted estimator.

    Raises:
        InputError: Method or option are unknown, an input is missing (and what makes it), or the
            method refuses what it got.
    """
    chosen = find_method(method)
    selector = chosen.make(budget, seed, device=device, **options)
    inputs = _with_score(chosen, score)
    missing = [
        name
        for name in inputs
        if candidates.find(name) is None and candidates.find(chosen.instead.get(name, name)) is None
    ]
    if missing:
        raise InputError(f"{method} needs {'; '.join(map(describe_input, missing))}")
    extra = {name: candidates.find(name) for name in chosen.optional}
    return selector.fit(  # type: ignore[no-any-return]
        *(candidates.find(name) for name in inputs),
        **extra,
        ids=candidates.ids,
        num_tokens=candidates.num_tokens,
    )


def _with_score(method: Method, score: str | None) -> tuple[str, ...]:
    """The inputs, the first column replaced by ``score``."""
    if score is None:
        return method.inputs
    first = next(filter(is_column, method.inputs), None)
    if first is None:
        raise InputError(f"score = {score!r} has no use: {method.name} reads no column of scores")
    return tuple(f"column:{score}" if name == first else name for name in method.inputs)


def _among(name: str, known: Mapping[str, Any]) -> str:
    """The nearest name and all of them, to end an error with."""
    near = get_close_matches(name, known, n=1)
    guess = f", do you mean {near[0]!r}?" if near else ";"
    return f"{guess} there are: {', '.join(known)}" if known else "; it has none"


def _register(*methods: Method) -> Mapping[str, Method]:
    return MappingProxyType({method.name: method for method in methods})


_HOME = "codeact.selection."

METHODS = _register(
    Method(
        "cdas",
        _HOME + "cdas:CDAS",
        ("embeddings", "column:ifd_ppl"),
        "Per cluster, the highest IFD below 1",
        "arXiv:2408.02193",
        optional=("clusters",),
        instead={"embeddings": "clusters"},
    ),
    Method(
        "ifd",
        _HOME + "ranked:TopIFD",
        ("column:ifd_ppl",),
        "The highest IFD below 1 of the whole set",
        "arXiv:2402.00530",
    ),
    Method(
        "ppl",
        _HOME + "ranked:TopPerplexity",
        ("column:ppl_response",),
        "The highest, lowest or middle perplexity of the response",
        "arXiv:2309.04564",
    ),
    Method(
        "longest",
        _HOME + "ranked:LongestResponse",
        ("response_tokens",),
        "The longest responses",
        "arXiv:2402.04833",
    ),
    Method(
        "tshirt",
        _HOME + "tshirt:TShirt",
        ("column:s_ifd", "column:s_ifd_std", "column:ifd_noisy_mean"),
        "High selective IFD that holds under small noise",
        "arXiv:2506.01317",
    ),
    Method(
        "qaq",
        _HOME + "qaq:QAQ",
        ("column:rmi", "column:ppl_direct"),
        "Answers that tell neither too little nor too much of their question",
        "arXiv:2603.12165",
        optional=("weak_rmi",),
    ),
    Method(
        "random",
        _HOME + "random_selection:RandomSelection",
        ("num_rows",),
        "Uniform random rows: the baseline of every comparison",
    ),
    Method(
        "stratified-random",
        _HOME + "stratified_random:StratifiedRandom",
        ("strata",),
        "Random rows, each stratum with its share",
    ),
    Method(
        "length-matched-random",
        _HOME + "length_matched:LengthMatchedRandom",
        ("response_tokens", "reference"),
        "Random rows with the response lengths of another selection",
    ),
    Method(
        "cluster-prune",
        _HOME + "cluster_prune:ClusterPruner",
        ("embeddings",),
        "Per cluster of reduced embeddings, drawn in proportion to a pruning metric",
        "arXiv:2407.05040",
        optional=("clusters",),
    ),
    Method(
        "kcenter",
        _HOME + "kcenter:KCenter",
        ("embeddings",),
        "Greedy farthest points, so that every row is near a kept one",
        "arXiv:1708.00489",
    ),
    Method(
        "facility-location",
        _HOME + "facility_location:FacilityLocation",
        ("embeddings",),
        "Greedy sum of each row's similarity to its nearest kept row",
        "arXiv:2402.00530",
    ),
    Method(
        "parametric",
        _HOME + "parametric:Parametric",
        ("embeddings",),
        "Rows nearest to centroids trained to follow the distribution",
        "arXiv:2303.14382",
    ),
    Method(
        "deita",
        _HOME + "deita:Deita",
        ("column:complexity", "column:quality", "embeddings"),
        "Complex and good rows that do not resemble one kept before",
        "arXiv:2312.15685",
    ),
    Method(
        "superfilter-d",
        _HOME + "superfilter_d:SuperfilterD",
        ("column:ifd_ppl", "embeddings"),
        "The top IFD below 1, thinned by facility location",
        "arXiv:2402.00530",
    ),
    Method(
        "rds+",
        _HOME + "rds:RDSPlus",
        ("embeddings", "queries"),
        "Rows nearest to a set of queries, taken in turn",
        "arXiv:2503.01807",
        optional=("query_tasks",),
    ),
    Method(
        "influence",
        _HOME + "influence:TopInfluence",
        ("column:influence",),
        "Rows on which a training step lowers the loss of validation tasks most",
        "arXiv:2604.07769",
        optional=("task_influence", "task_names"),
    ),
    Method(
        "judge", _HOME + "judge:TopRating", ("column:rating",),
        "The highest ratings of a judge, from a table of one's own",
        "arXiv:2307.08701",
    ),
)  # fmt: skip
