"""From single measurements to medians, spreads and ratios."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.cell import Failure, measure_apart
from bench.curve import Curve
from bench.row import Row
from bench.systems import STANDARD, TENFOLD, System

__all__ = ["CurveResult", "RowResult", "SystemResult", "measure", "measure_curve"]


@dataclass
class SystemResult:
    """What one system did in a row."""

    name: str
    is_floor: bool = False
    # In the order of time.
    samples: list[float] = field(default_factory=list)
    # Why there are no more samples.
    error: str | None = None

    @property
    def median(self) -> float | None:
        return statistics.median(self.samples) if self.samples else None

    @property
    def spread(self) -> float | None:
        """(largest - smallest) / median."""
        if not self.median or len(self.samples) < 2:
            return None
        return (max(self.samples) - min(self.samples)) / self.median


@dataclass
class RowResult:
    """A row, measured."""

    row: Row
    systems: list[SystemResult]
    # Those that take no part, and why.
    absent: dict[str, str]

    def median(self, name: str) -> float | None:
        return next((system.median for system in self.systems if system.name == name), None)

    def ratio(self, name: str, over: str) -> float | None:
        """How many times as good one system is as another, whatever the unit."""
        this, that = self.median(name), self.median(over)
        if not this or not that:
            return None
        return this / that if self.row.unit.more_is_better else that / this

    def best_peer(self) -> str | None:
        """The best of those that are neither tenfold nor the standard library."""
        peers = {
            system.name: system.median
            for system in self.systems
            if system.name not in (TENFOLD.name, STANDARD.name)
            and not system.is_floor
            and system.median is not None
        }
        best = max if self.row.unit.more_is_better else min
        return best(peers, key=peers.__getitem__) if peers else None


@dataclass
class CurveResult:
    """A curve, measured: a row for each size."""

    curve: Curve
    points: list[tuple[int, RowResult]]


def measure(row: Row, systems: Sequence[System], repeat: int, limit: float) -> RowResult:
    """Measure all systems of a row in turn, `repeat` times."""
    absent = {
        system.name: reason for system in systems if (reason := system.why_not(row)) is not None
    }
    results = [SystemResult(system.name) for system in systems if system.name not in absent]
    results += [SystemResult(name, is_floor=True) for name in row.floors]
    for _ in range(repeat):
        for result in results:
            if result.error is None:
                try:
                    result.samples.append(measure_apart(row, result.name, limit))
                except Failure as failure:
                    result.error = str(failure)
    return RowResult(row, results, absent)


def measure_curve(
    curve: Curve, systems: Sequence[System], repeat: int, limit: float
) -> CurveResult:
    """Measure all systems at each size in turn."""
    points = [(point, measure(curve.at(point), systems, repeat, limit)) for point in curve.points]
    return CurveResult(curve, points)
