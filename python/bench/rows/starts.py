"""The whole life of a pool and of a process, by start method."""

import os
import subprocess
import sys
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

from bench.row import Row, Unit
from bench.tasks import nothing

__all__ = ["ROWS"]

GIB = 1 << 30
# Seconds after which no more lives begin, but for the first few.
ENOUGH, FEW = 15.0, 3


def median_of(count: int, life: Callable[[], object]) -> float:
    """The first one starts servers and fills caches, and is not counted."""
    life()
    took: list[float] = []
    while len(took) < count and (len(took) < FEW or sum(took) < ENOUGH):
        begin = perf_counter()
        life()
        took.append(perf_counter() - begin)
    return median(took)


def pool_life(system: Any) -> None:
    pool = system.Pool(2)
    pool.apply(nothing)
    pool.close()
    pool.join()


def pool(system: Any) -> float:
    return median_of(15, lambda: pool_life(system))


def process_life(system: Any) -> None:
    process = system.Process(target=nothing)
    process.start()
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"the process ended with {process.exitcode}")


def process(system: Any) -> float:
    return median_of(40, lambda: process_life(system))


def process_of_large_parent(system: Any) -> float:
    ballast = bytearray(GIB)
    ballast[::4096] = bytes([1]) * (GIB // 4096)
    return process(system)


def bare_fork() -> float:
    def life() -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)

    return median_of(200, life)


def bare_interpreter() -> float:
    return median_of(20, lambda: subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=True))


METHODS = ("fork", "forkserver", "spawn")
FLOORS = {
    "fork": {"bare fork, _exit, wait": bare_fork},
    "forkserver": {"bare fork, _exit, wait": bare_fork},
    "spawn": {"bare interpreter": bare_interpreter},
}

ROWS = (
    *(
        Row(
            f"start-pool-{method}",
            f"Pool(2), one task, end: {method}",
            Unit.SECONDS,
            "Pool",
            pool,
            method,
        )
        for method in METHODS
    ),
    *(
        Row(
            f"start-process-{method}",
            f"Process, start and join: {method}",
            Unit.SECONDS,
            "Process",
            process,
            method,
            FLOORS[method],
        )
        for method in METHODS
    ),
    Row(
        "start-process-1-gib",
        "Process by forkserver, parent of 1 GiB",
        Unit.SECONDS,
        "Process",
        process_of_large_parent,
        "forkserver",
    ),
)
