"""What names of `typing` are in annotations of a correctness run, where importing it is saved.

`calls.py` compiles this file with the driver. A stand-in takes only what `typing` surely takes
too; for anything else it raises TypeError, upon which the candidate is run again with the real
names (`execute.py`). So a broken annotation such as ``Dict[int]`` fails as it does elsewhere.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Parameters that each takes; -1: any number of them from one on, 0: not even brackets.
NUM_PARAMETERS = {
    "Any": 0,
    "Callable": 2,
    "Dict": 2,
    "FrozenSet": 1,
    "Iterable": 1,
    "Iterator": 1,
    "List": 1,
    "Mapping": 2,
    "Optional": 1,
    "Sequence": 1,
    "Set": 1,
    "Tuple": -1,
    "Union": -1,
}


class StandIn:
    """One of these names, bare or with its parameters; or a union with it."""

    def __init__(self, name: str, *, is_bare: bool = True) -> None:
        self.name = name
        self.is_bare = is_bare

    def __getitem__(self, parameters: "Any") -> "StandIn":
        given = list(parameters) if type(parameters) is tuple else [parameters]
        if self.name == "Callable" and given and type(given[0]) is list:
            given[:1] = [None] if all(map(_fits, given[0])) else [0]
        elif self.name == "Tuple" and len(given) == 2 and given[1] is ...:
            given.pop()
        wanted = NUM_PARAMETERS[self.name]
        is_known = self.is_bare and len(given) > 0 and wanted in (len(given), -1)
        if not is_known or not all(map(_fits, given)):
            raise TypeError(f"parameters of {self.name} that need the real one")
        return StandIn(self.name, is_bare=False)

    def __or__(self, other: "Any") -> "StandIn":
        if not _fits(self) or not _fits(other) or type(other) is str:
            raise TypeError(f"a union with {self.name} that needs the real one")
        return StandIn("Union", is_bare=False)

    __ror__ = __or__


def _fits(parameter: "Any") -> bool:
    """Whether `typing` takes it as a parameter, as far as can be told here."""
    if isinstance(parameter, StandIn):
        return not (parameter.is_bare and parameter.name in ("Optional", "Union"))
    if isinstance(parameter, str):
        return parameter.isidentifier()  # it would be compiled
    kind = type(parameter)
    return parameter is None or kind is type or kind is type(list[int])
