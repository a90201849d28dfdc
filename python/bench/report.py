"""The table and the JSON."""

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from bench.row import Unit
from bench.summary import RowResult
from bench.systems import STANDARD, TENFOLD

__all__ = ["figure", "print_demo_head", "print_demo_row", "print_head", "print_row", "write_json"]

_SCALES: dict[Unit, list[tuple[float, str]]] = {
    Unit.PER_SECOND: [(1e6, "M/s"), (1e3, "k/s"), (1.0, "/s")],
    Unit.BYTES_PER_SECOND: [(1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s")],
    Unit.SECONDS: [(1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")],
    Unit.BYTES: [(2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")],
    Unit.SHARE: [(0.01, "%")],
}


def figure(unit: Unit, value: float) -> str:
    """A number with three digits and the fitting prefix."""
    if value == 0:
        return "0"
    scales = _SCALES[unit]
    size, name = next(((size, name) for size, name in scales if value >= size), scales[-1])
    value /= size
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f} {name}"


def times(ratio: float | None) -> str:
    """A ratio with three digits."""
    if ratio is None:
        return ""
    digits = 0 if ratio >= 100 else 1 if ratio >= 10 else 2 if ratio >= 0.1 else 3
    return f"x{ratio:.{digits}f}"


def _machine(repeat: int) -> dict[str, object]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "repeat": repeat,
    }


def print_head(repeat: int) -> None:
    machine = _machine(repeat)
    print(
        f"Python {machine['python']}, {machine['cores']} cores, load {machine['load']} before; "
        f"{repeat} runs a cell, in turn, each in a fresh process"
    )
    print(f"times: how many times as good as {STANDARD.name}, whatever the unit\n")
    print(f"{'':<34}{'median':>12}{'spread':>9}{'times':>9}", flush=True)


def print_row(result: RowResult) -> None:
    print(f"{result.row.title} ({result.row.name})")
    for system in result.systems:
        name = f"({system.name})" if system.is_floor else system.name
        if system.median is None:
            print(f"  {name:<32}{system.error:>12}")
            continue
        spread = "" if system.spread is None else f"{system.spread:.0%}"
        ratio = times(result.ratio(system.name, STANDARD.name))
        line = f"  {name:<32}{figure(result.row.unit, system.median):>12}{spread:>9}{ratio:>9}"
        best = result.best_peer()
        if system.name == TENFOLD.name and best is not None:
            line += f"   {times(result.ratio(TENFOLD.name, best))} the best peer, {best}"
        if system.error is not None:
            line += f"   then: {system.error}"
        print(line)
    by_reason: dict[str, list[str]] = {}
    for name, reason in result.absent.items():
        by_reason.setdefault(reason, []).append(name)
    if by_reason:
        print(
            "  without "
            + "; ".join(f"{', '.join(names)} ({reason})" for reason, names in by_reason.items())
        )
    print(flush=True)


def print_demo_head() -> None:
    print(f"{'':<54}{STANDARD.name:>16}{TENFOLD.name:>12}{'times':>9}", flush=True)


def print_demo_row(result: RowResult) -> None:
    cells = []
    for system in (STANDARD, TENFOLD):
        median = result.median(system.name)
        cells.append("failed" if median is None else figure(result.row.unit, median))
    ratio = times(result.ratio(TENFOLD.name, STANDARD.name))
    print(f"{result.row.title:<54}{cells[0]:>16}{cells[1]:>12}{ratio:>9}", flush=True)


def write_json(path: Path, results: Sequence[RowResult], repeat: int) -> None:
    rows = [
        {
            "name": result.row.name,
            "title": result.row.title,
            "unit": result.row.unit.value,
            "more_is_better": result.row.unit.more_is_better,
            "best_peer": result.best_peer(),
            "systems": [
                {
                    "system": system.name,
                    "floor": system.is_floor,
                    "median": system.median,
                    "spread": system.spread,
                    "times_standard": result.ratio(system.name, STANDARD.name),
                    "samples": system.samples,
                    "error": system.error,
                }
                for system in result.systems
            ],
            "absent": result.absent,
        }
        for result in results
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**_machine(repeat), "rows": rows}, indent=2) + "\n")
