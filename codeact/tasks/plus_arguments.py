"""Arguments of MBPP+ with the types that JSON lost: tuples, sets and complex numbers.

EvalPlus 0.3.1 lists by task what its evaluator makes of the lists in the file; here is the same
list, by form. Verdicts agree only if the arguments do, also where an assert of the task's statement
would say another type (Mbpp/98 and 145 get lists there).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Arguments = list[Any]


def typed_arguments(task_id: str, arguments: Arguments) -> tuple[Any, ...]:
    """The arguments of one call of an MBPP+ task, as its functions are called.

    Args:
        task_id: ``"Mbpp/2"``; of a task that is not in the list the arguments stay what they are.
        arguments: As JSON has them.

    Raises:
        TypeError: They are not of the form that this task has.
        ValueError: Likewise.
    """
    form = _FORMS.get(task_id.removeprefix("Mbpp/"))
    return tuple(form(arguments) if form else arguments)


def _tuples(arguments: Arguments) -> Arguments:
    return [tuple(argument) for argument in arguments]


def _lists_of_tuples(arguments: Arguments) -> Arguments:
    return [[tuple(item) for item in argument] for argument in arguments]


def _first_list_of_tuples(arguments: Arguments) -> Arguments:
    return [[tuple(item) for item in arguments[0]], *arguments[1:]]


def _tuples_of_tuples(arguments: Arguments) -> Arguments:
    return [tuple(tuple(item) for item in argument) for argument in arguments]


def _first_tuple(arguments: Arguments) -> Arguments:
    return [tuple(arguments[0]), *arguments[1:]]


def _second_tuple(arguments: Arguments) -> Arguments:
    return [arguments[0], tuple(arguments[1]), *arguments[2:]]


def _sets(arguments: Arguments) -> Arguments:
    """An empty set is an empty dict there."""
    return [[set(item) if isinstance(item, list) and item else {} for item in arguments[0]]]


def _float_and_complex(arguments: Arguments) -> Arguments:
    return [float(arguments[0]), complex(arguments[1])]


def _complex(arguments: Arguments) -> Arguments:
    return [complex(arguments[0])]


def _tuple_of_items(arguments: Arguments) -> Arguments:
    """Lists directly within it are tuples too."""
    return [tuple(tuple(i) if isinstance(i, list) else i for i in arguments[0])]


def _dict_of_tuples(arguments: Arguments) -> Arguments:
    return [{key: tuple(value) for key, value in arguments[0].items()}, *arguments[1:]]


def _only_tuples(arguments: Arguments) -> Arguments:
    return [_as_tuples(argument) for argument in arguments]


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


_BY_FORM: dict[Callable[[Arguments], Arguments], str] = {
    _tuples: "2 116 132 143 222 261 273 394 399 421 424 429 470 560 579 596 616 630 726 740 744 "
    "809",
    _lists_of_tuples: "63 64 70 94 120 237 272 299 400 409 417 438 473 614 780",
    _first_list_of_tuples: "75 413 444 753",
    _tuples_of_tuples: "259 401 445",
    _first_tuple: "250 307 405 446 617 720 763 808",
    _second_tuple: "106 750",
    _sets: "115",
    _float_and_complex: "124",
    _complex: "252",
    _tuple_of_items: "278",
    _dict_of_tuples: "722",
    _only_tuples: "580 615 791",
}
_FORMS = {number: form for form, numbers in _BY_FORM.items() for number in numbers.split()}
