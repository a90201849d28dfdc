"""A row of the table: one kind of work, the same for all systems."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

__all__ = ["Row", "Unit"]


class Unit(Enum):
    """What the number of a measurement means."""

    PER_SECOND = "1/s"
    BYTES_PER_SECOND = "B/s"
    SHARE = "share of the ideal"
    SECONDS = "s"
    BYTES = "B"

    @property
    def more_is_better(self) -> bool:
        return self in (Unit.PER_SECOND, Unit.BYTES_PER_SECOND, Unit.SHARE)


@dataclass(frozen=True)
class Row:
    """How to measure one kind of work."""

    name: str
    title: str
    unit: Unit
    # What a system must offer to take part, such as "Queue" or "Pool.imap".
    needs: str
    # Takes an opened system, returns one number.
    measure: Callable[[Any], float]
    # A start method, if the row is about one; else each system uses its own.
    method: str | None = None
    # What no system can beat, measured beside them: by name, functions without arguments.
    floors: Mapping[str, Callable[[], float]] = field(default_factory=dict)
