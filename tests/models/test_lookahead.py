"""Items come in order, made ahead; errors and early ends leave no thread behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from codeact.models.stream.lookahead import ahead


def num_threads() -> int:
    return sum(thread.name == "lookahead" for thread in threading.enumerate())


def test_order_and_end() -> None:
    assert list(ahead(range(50), 2)) == list(range(50))
    assert num_threads() == 0


def test_items_are_made_before_they_are_asked_for() -> None:
    made = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        yield 1
        made.set()
        yield 2

    stream = ahead(items(), 2)
    assert next(stream) == 0
    assert made.wait(timeout=5)
    assert list(stream) == [1, 2]


def test_an_error_comes_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise KeyError("broken")

    stream = ahead(items(), 4)
    assert next(stream) == 0
    with pytest.raises(KeyError, match="broken"):
        next(stream)
    assert num_threads() == 0


def test_a_reader_that_stops() -> None:
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1000):
            drawn.append(item)
            yield item

    stream = ahead(items(), 2)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert num_threads() == 0
    assert len(drawn) <= 4
