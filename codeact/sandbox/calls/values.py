"""Values that cross the border of the sandbox, and how they are written.

None, bool, int, float, str and list are JSON's own. Everything else is an object with one key:

====================  ==========================================================
tag                   body
====================  ==========================================================
``tuple``             items
``set frozenset``     items, sorted by their text
``dict``              [key, value] pairs, sorted by the text of the key
``bytes``             hexadecimal digits
``complex``           [real, imaginary]
``float``             ``"nan"``, ``"inf"`` or ``"-inf"``
``int``               hexadecimal digits, for |value| >= 2**63
``str``               code points, for text with lone surrogates
``linked_list``       the values of the nodes
``binary_tree``       the values in level order, null for an absent node
``digest``            64 hexadecimal digits, see `digest.py`
====================  ==========================================================

A candidate's ``defaultdict``, ``OrderedDict`` and ``Counter`` cross as dict; ``deque``, ``range``,
generators, ``map``, ``zip`` and their like as list (at most 1,000,000 values). Any other type,
subclasses of the above included, is refused. So are answers nested deeper than 200 levels, of more
than 1,000,000 values (16 characters of text count as one) or with an int of more than 10,000
digits. What arrives is checked again here, in linear time: the process that wrote it is the
candidate's.
"""

from __future__ import annotations

import json
import marshal
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

from codeact.sandbox.calls.encoding import (
    MAX_DEPTH,
    MAX_INT_BITS,
    MAX_ITEMS,
    Encoder,
    UnsupportedError,
)
from codeact.sandbox.tests import BinaryTree, Call, Digest, LinkedList

__all__ = ["UnsupportedError", "decode", "encode", "encode_call", "from_json"]

_NODES: dict[type, Any] = {
    LinkedList: ("linked_list", lambda chain: list(chain.values)),
    BinaryTree: ("binary_tree", lambda tree: list(tree.values)),
    Digest: ("digest", lambda digest: [digest.sha256]),
}
_PLAIN = frozenset({type(None), bool, int, float, str, bytes, complex})
# Longer runs of digits take a slow path that bounds them: text to int takes quadratic time.
_MANY_DIGITS = re.compile(rb"[0-9]{25}")
_HEX = re.compile(r"-?[0-9a-f]+\Z")
_STRING = re.compile(rb'"[^"]*"?')  # once escapes are gone; never tries a place twice
_MAX_MARKS = 3 * MAX_ITEMS  # commas and brackets: a pair of a dict takes three
_MAX_ALIKE = 256  # items of one hash; more are no accident, and take quadratic time to store
_NUMBER_CHARS = 25  # of a float by repr, or an int below 2**63


def encode(value: Any) -> str:
    """A value as canonical JSON: equal values of equal types give equal text.

    Raises:
        UnsupportedError: It holds a type that cannot cross, or is too deep or too large.
    """
    return Encoder(_NODES).text(value)


def decode(text: bytes | str) -> Any:
    """The value of a text by `encode`, or by a candidate.

    Raises:
        UnsupportedError: It is no such text: bad JSON, an unknown tag, too deep, too many
            digits.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if _num_marks(data) > _MAX_MARKS and _num_marks(_outside_strings(data)) > _MAX_MARKS:
        raise UnsupportedError(f"an answer of more than {MAX_ITEMS} values")
    bounded = _MANY_DIGITS.search(data) is not None
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=_tagged,
            parse_constant=_refuse_constant,
            parse_int=_short_int if bounded else None,
            parse_float=_short_float if bounded else None,
        )
    except UnsupportedError:
        raise
    except RecursionError:
        raise UnsupportedError(f"nested deeper than {MAX_DEPTH} levels") from None
    except (ValueError, TypeError, OverflowError, AttributeError):
        raise UnsupportedError("an answer that is not JSON as we write it") from None
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH:
        _check_depth(value)
    return value


def from_json(data: Any) -> Any:
    """The value of parsed JSON that a person wrote: tags as above, any other object a dict.

    Raises:
        UnsupportedError: The body of a tag does not fit it.
    """
    if isinstance(data, list):
        return [from_json(item) for item in data]
    if not isinstance(data, dict):
        return data
    if len(data) == 1:
        ((tag, body),) = data.items()
        if tag in _BUILDERS:
            try:
                return _tagged([(tag, from_json(body))])
            except (ValueError, TypeError, OverflowError, AttributeError):
                raise UnsupportedError(f"a body that does not fit the tag {tag!r}") from None
    return {key: from_json(item) for key, item in data.items()}


def encode_call(call: Call) -> bytes:
    """The arguments for the driver: ``marshal`` of (has nodes, args, kwargs), nodes as triples.

    `marshal` and not JSON, because the driver reads it fifty times faster and without an import;
    it goes only from the trusted side to the other. Version 2, which shares no objects: arguments
    are never aliases of each other.

    Raises:
        UnsupportedError: An argument holds a type that cannot cross.
    """
    encoder = Encoder(_NODES)
    for value in (*call.args, *call.kwargs.values()):
        encoder.text(value)  # the same bounds as for answers
    texts = [name for name in call.kwargs if type(name) is not str or not name.isidentifier()]
    if texts:
        raise UnsupportedError(f"a keyword argument named {texts[0]!r}")
    args = tuple(_triples(value) for value in call.args)
    kwargs = {name: _triples(value) for name, value in call.kwargs.items()}
    has_nodes = has_node([*call.args, *call.kwargs.values()])
    try:
        return marshal.dumps((has_nodes, args, kwargs), 2)
    except ValueError:
        raise UnsupportedError("a node as a key or in a set") from None


def has_node(value: Any) -> bool:
    """Whether a linked list or a tree is anywhere in a value."""
    kind = type(value)
    if kind in _NODES:
        return True
    if kind is dict:
        return any(has_node(item) for item in value.values())
    return kind in (list, tuple) and any(has_node(item) for item in value)


def _triples(value: Any) -> Any:
    """A value as `marshal` writes it, its linked lists and trees as (..., tag, values)."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind in _NODES:
        return (..., _NODES[kind][0], [_triples(item) for item in value.values])
    if kind is dict:
        return {key: _triples(item) for key, item in value.items()}
    return value if kind in (set, frozenset) else kind(_triples(item) for item in value)


def _tagged(pairs: list[tuple[str, Any]]) -> Any:
    """One JSON object of ours; its body is read already."""
    if len(pairs) != 1:
        raise UnsupportedError("an object that is not one tag")
    tag, body = pairs[0]
    build = _BUILDERS.get(tag)
    if build is None:
        raise UnsupportedError(f"the unknown tag {tag[:20]!r}")
    return build(body)


def _list(body: Any) -> list[Any]:
    if type(body) is not list:
        raise ValueError
    return body


def _text(body: Any) -> str:
    if type(body) is not str:
        raise ValueError
    return body


def _outside_strings(data: bytes) -> bytes:
    return _STRING.sub(b"", data.replace(b"\\\\", b"").replace(b'\\"', b""))


def _num_marks(data: bytes) -> int:
    return data.count(b",") + data.count(b"[") + data.count(b"{")


def _hashed(
    build: Callable[[list[Any]], Any], keys: Callable[[list[Any]], Any] = iter
) -> Callable[[Any], Any]:
    def checked(body: Any) -> Any:
        if len(_list(body)) > _MAX_ALIKE:
            hashes = Counter(map(hash, keys(body)))
            if max(hashes.values()) > _MAX_ALIKE:
                raise UnsupportedError("a set or dict whose items hash alike")
        built = build(body)
        if len(built) != len(body):
            raise UnsupportedError("a set or dict with an item twice")
        return built

    return checked


def _integer(body: Any) -> int:
    digits = _text(body)
    if len(digits) > MAX_INT_BITS // 4 + 2 or not _HEX.match(digits):
        raise UnsupportedError(f"an int of more than {MAX_INT_BITS} bits")
    return int(digits, 16)


def _float(body: Any) -> float:
    if body not in ("nan", "inf", "-inf"):
        raise ValueError
    return float(body)


def _complex(body: Any) -> complex:
    real, imaginary = _list(body)
    if not {type(real), type(imaginary)} <= {int, float}:
        raise ValueError
    return complex(real, imaginary)


_BUILDERS: dict[str, Callable[[Any], Any]] = {
    "tuple": lambda body: tuple(_list(body)),
    "set": _hashed(set),
    "frozenset": _hashed(frozenset),
    "dict": _hashed(dict, lambda pairs: (key for key, _ in pairs)),
    "bytes": lambda body: bytes.fromhex(_text(body)),
    "complex": _complex,
    "float": _float,
    "int": _integer,
    "str": lambda body: "".join(map(chr, _list(body))),
    "linked_list": lambda body: LinkedList(tuple(_list(body))),
    "binary_tree": lambda body: BinaryTree(tuple(_list(body))),
    "digest": lambda body: Digest(*map(_text, _list(body))),
}


def _refuse_constant(name: str) -> NoReturn:
    raise UnsupportedError(f"the bare constant {name}")


def _short_int(digits: str) -> int:
    if len(digits) > _NUMBER_CHARS:
        raise UnsupportedError(f"an int of {len(digits)} digits that is not in base 16")
    return int(digits)


def _short_float(digits: str) -> float:
    if len(digits) > _NUMBER_CHARS:
        raise UnsupportedError(f"a float of {len(digits)} characters")
    return float(digits)


def _check_depth(value: Any) -> None:
    """Level by level, without recursion."""
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise UnsupportedError(f"nested deeper than {MAX_DEPTH} levels")
        below: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is dict:
                below.extend(item.keys())
                below.extend(item.values())
            elif kind in (LinkedList, BinaryTree):
                below.extend(item.values)
            elif kind in (list, tuple, set, frozenset):
                below.extend(item)
        level, depth = below, depth + 1
