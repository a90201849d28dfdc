"""A queue and a lock shared by ever more processes, on the same processors."""

from typing import Any

from bench.curve import Curve, Scale
from bench.row import Unit
from bench.rows import locks, queues

__all__ = ["CURVES"]

CROWDS = (1, 2, 4, 8, 16, 32, 64)


def queue(system: Any, processes: int) -> float:
    """Messages a second, of as many consumers as producers."""
    return queues.rate(system, range(queues.MESSAGES), pairs=processes // 2)


def lock(system: Any, processes: int) -> float:
    return locks.contended(processes)(system)


CURVES = (
    Curve(
        "queue-processes",
        "Queue: half put, half get",
        "processes",
        Scale.COUNT,
        CROWDS[1:],
        Unit.PER_SECOND,
        "Queue",
        queue,
    ),
    Curve(
        "lock-processes",
        "Lock: all add to a RawValue",
        "processes",
        Scale.COUNT,
        CROWDS,
        Unit.SECONDS,
        "Lock",
        lock,
    ),
)
