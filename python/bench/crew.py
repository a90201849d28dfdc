"""Processes that work at once, and tell when they began and ended.

They are forked, so that a system's queues and locks need not travel; start and results go through
the standard library's pipes, whatever system is measured.
"""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any

__all__ = ["Job", "clock", "span", "together"]

Job = tuple[Callable[..., Any], tuple[Any, ...]]


def _work(
    start: int, results: Connection, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    os.read(start, 1)
    try:
        results.send((True, function(*args)))
    except Exception as error:
        results.send((False, f"{type(error).__name__}: {error}"))
        raise


def together(process_class: Callable[..., Any], jobs: list[Job]) -> list[Any]:
    """Run each job in a process, all from the same moment; return their results in order."""
    start, go = os.pipe()
    crew = []
    for function, args in jobs:
        receive, send = multiprocessing.Pipe(duplex=False)
        process = process_class(target=_work, args=(start, send, function, args))
        process.start()
        send.close()
        crew.append((process, receive))
    os.write(go, bytes(len(crew)))
    results = []
    for _, receive in crew:
        good, result = receive.recv()
        if not good:
            raise RuntimeError(result)
        results.append(result)
    for process, _ in crew:
        process.join()
    return results


def span(times: list[tuple[float, float]]) -> float:
    """Seconds from the first beginning to the last end."""
    return max(end for _, end in times) - min(begin for begin, _ in times)


def clock(function: Callable[..., Any], *args: Any) -> tuple[float, float]:
    """Call a function; return when it began and ended."""
    begin = perf_counter()
    function(*args)
    return begin, perf_counter()
