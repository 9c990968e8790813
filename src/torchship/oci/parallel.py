"""Several transfers at once; the first failure ends them all, and so does Ctrl-C."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

WORKERS = 6
"""Transfers at once: more gain nothing on one connection to the outside."""

_GRACE = 2.0  # seconds for the others to clean up after a failure


class Stopped(Exception):
    """Another transfer failed: this one is over too."""


def each(
    items: Sequence[_Item],
    work: Callable[[_Item, Callable[[], None]], _Result],
    *,
    workers: int = WORKERS,
) -> list[_Result]:
    """Do ``work`` for all items, a few at a time; return the results in the items' order.

    ``work`` calls its second argument often: that raises `Stopped` once all is over. The
    first error is raised here. The threads are daemons: none keeps an ended program alive.
    """
    todo = deque(enumerate(items))
    done: SimpleQueue[tuple[int, Future[_Result]]] = SimpleQueue()
    over = threading.Event()

    def beat() -> None:
        if over.is_set():
            raise Stopped

    def run() -> None:
        while not over.is_set():
            try:
                place, item = todo.popleft()
            except IndexError:
                return
            outcome: Future[_Result] = Future()
            try:
                outcome.set_result(work(item, beat))
            except BaseException as fault:  # noqa: BLE001 (raised again in the caller's thread)
                outcome.set_exception(fault)
            done.put((place, outcome))
            if outcome.exception() is not None:
                over.set()

    count = min(workers, len(items))
    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    results: dict[int, _Result] = {}
    try:
        for thread in threads:
            thread.start()
        while len(results) < len(items):
            place, outcome = done.get()
            results[place] = outcome.result()
    finally:
        over.set()
        for thread in threads:
            thread.join(_GRACE)
    return [results[place] for place in range(len(items))]
