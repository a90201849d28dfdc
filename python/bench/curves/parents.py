"""The start of a process against the memory that its parent has touched."""

from collections.abc import Callable
from typing import Any, TypeVar

from bench.curve import Curve, Scale
from bench.row import Unit
from bench.rows.starts import METHODS, bare_fork, median_of, process_life

__all__ = ["CURVES"]

MIB = 1 << 20
PARENTS = (10 * MIB, 64 * MIB, 256 * MIB, 1024 * MIB, 4096 * MIB)
STARTS = 20

T = TypeVar("T")


def with_ballast(size: int, measure: Callable[[], T]) -> T:
    """Measure while this process holds so many bytes, each page of them written to."""
    ballast = bytearray(size)
    ballast[::4096] = bytes([1]) * len(range(0, size, 4096))
    return measure()


def start(system: Any, size: int) -> float:
    return with_ballast(size, lambda: median_of(STARTS, lambda: process_life(system)))


def plain_fork(size: int) -> float:
    return with_ballast(size, bare_fork)


CURVES = tuple(
    Curve(
        f"start-{method}",
        f"Process, start and join: {method}",
        "bytes of the parent",
        Scale.BYTES,
        PARENTS,
        Unit.SECONDS,
        "Process",
        start,
        method,
        {"bare fork, _exit, wait": plain_fork} if method == "fork" else {},
    )
    for method in METHODS
)
