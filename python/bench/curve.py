"""A curve: one kind of work at several sizes, each of them a row of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any

from bench.row import Row, Unit

__all__ = ["Curve", "Scale"]


class Scale(Enum):
    """How the sizes along a curve are written."""

    COUNT = "count"
    BYTES = "bytes"


@dataclass(frozen=True)
class Curve:
    """How to measure one kind of work at one size, and at which sizes to do it."""

    name: str
    title: str
    # What grows, for the axis; and its scale.
    along: str
    scale: Scale
    points: tuple[int, ...]
    unit: Unit
    needs: str
    # Takes an opened system and the size, returns one number.
    measure: Callable[[Any, int], float]
    # As in a row, but that floors take the size.
    method: str | None = None
    floors: Mapping[str, Callable[[int], float]] = field(default_factory=dict)

    def at(self, point: int) -> Row:
        """The row of one size."""
        return Row(
            f"{self.name}@{point}",
            self.title,
            self.unit,
            self.needs,
            lambda system: self.measure(system, point),
            self.method,
            {name: partial(floor, point) for name, floor in self.floors.items()},
        )
