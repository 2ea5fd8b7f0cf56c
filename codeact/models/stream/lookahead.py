"""Run an iterator ahead of its reader, in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

_T = TypeVar("_T")
_END = object()


def ahead(items: Iterable[_T], depth: int) -> Iterator[_T]:
    """The items in order, up to ``depth`` of them made before they are asked for.

    An exception of the iterator reaches the reader where its item would have been. A reader that
    stops early stops the thread after the item it is at.
    """
    ready: queue.Queue[object] = queue.Queue(maxsize=depth)
    stopped = threading.Event()
    failure: list[BaseException] = []

    def put(item: object) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    return
        except BaseException as error:  # handed to the reader, whatever it is
            failure.append(error)
        put(_END)

    thread = threading.Thread(target=work, name="lookahead", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not _END:
            yield item  # type: ignore[misc]  # the queue holds items of the iterator and _END
        if failure:
            raise failure[0]
    finally:
        stopped.set()
        thread.join()
