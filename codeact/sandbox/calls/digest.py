"""Large answers inside the sandbox: the SHA-256 of a text that equal values share.

An answer of a million values costs seconds to write and to read, and a benchmark has hundreds of
them. A digest says as much: without knowing the right answer nobody finds its digest. The text is
one for all values that are equal in Python (``True == 1 == 1.0``, ``{1} == frozenset({1})``), and
for no others; only a complex number is never taken for a real one. The driver gets this file in the
header of the tests that need it.
"""

from itertools import chain
from marshal import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from codeact.sandbox.calls.encoding import Encoder

NUM_CHUNK = 4096  # items of the outermost list that are text at a time: memory stays bounded
PLAIN_NUMBERS = {bool, int, float}


class InexactError(Exception):
    """A number that is no integer: it may need a tolerance, which a digest has not."""


class EqualEncoder(Encoder):
    """Writes values that are equal in Python as the same text; of any size."""

    def __init__(self, *, only_exact: bool, is_strict: bool) -> None:
        super().__init__({})
        self.only_exact = only_exact
        self.is_strict = is_strict

    def spend(self, items: int) -> None:
        """Any number of values: their text is never kept."""

    def text(self, value: "Any") -> str:
        kind = type(value)
        if kind is float and value.is_integer():
            value, kind = int(value), int
        if kind is float and self.only_exact:
            raise InexactError
        if kind is int or kind is bool:
            return str(int(value)) if -(2**63) < value < 2**63 else f"{value:#x}"
        if kind is frozenset:
            value = set(value)
        return super().text(value)

    def items(self, values: "list[Any]", *, ordered: bool = True) -> str:
        if ordered and set(map(type, values)) <= PLAIN_NUMBERS:
            try:
                whole = list(map(int, values))
            except (ValueError, OverflowError):  # nan, inf
                whole = []
            if values and whole == values and min(whole) > -(2**63) and max(whole) < 2**63:
                return str(whole)
        self.descend()
        texts = list(map(self.text, values))
        self.depth -= 1
        return "[" + ", ".join(texts if ordered else sorted(texts)) + "]"


def digest_text(value: "Any", *, is_strict: bool, inexact: "str | None" = None) -> str:
    """An answer as JSON of its digest: of its kind, and of its items piece by piece.

    Args:
        value: Any answer.
        is_strict: Refuse generators and the like, which are no lists.
        inexact: What to return for an answer with a number that is no integer; None digests it.

    Raises:
        UnsupportedError: It holds a type that cannot cross, or is too deep.
    """
    encoder = EqualEncoder(only_exact=inexact is not None, is_strict=is_strict)
    try:
        return f'{{"digest": ["{_digest(value, encoder)}"]}}'
    except InexactError:
        return str(inexact)


def _digest(value: "Any", encoder: EqualEncoder) -> str:
    """64 hexadecimal digits."""
    state = new_sha256()
    if type(value) is not list and type(value) is not tuple:
        state.update(encoder.text(value).encode("utf-8", "surrogatepass"))
        return str(state.hexdigest())
    state.update(b"list" if type(value) is list else b"tuple")
    for start in range(0, len(value), NUM_CHUNK):
        chunk = list(value[start : start + NUM_CHUNK])
        # Tuples of text equal only themselves, and marshal writes them fifty times faster.
        if set(map(type, chunk)) == {tuple} and set(map(type, chain(*chunk))) == {str}:
            state.update(dumps(chunk, 2))
        else:
            state.update(encoder.items(chunk).encode("utf-8", "surrogatepass"))
    return str(state.hexdigest())


def new_sha256() -> "Any":
    """The built-in SHA-256, by the name that this version of Python has for it."""
    for name in ("_sha2", "_sha256", "hashlib"):  # 3.12 and later, earlier, a build without either
        try:
            return __import__(name).sha256()
        except ImportError:
            pass
    raise ImportError("no SHA-256 in this Python")
