"""The table and the JSON."""

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from bench.figures import figure, size, times
from bench.summary import CurveResult, RowResult
from bench.systems import STANDARD, TENFOLD

__all__ = [
    "print_curve",
    "print_curves_head",
    "print_demo_head",
    "print_demo_row",
    "print_head",
    "print_row",
    "write_curves",
    "write_rows",
]


def _machine(repeat: int) -> dict[str, object]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "repeat": repeat,
    }


def _print_machine(repeat: int) -> None:
    machine = _machine(repeat)
    print(
        f"Python {machine['python']}, {machine['cores']} cores, load {machine['load']} before; "
        f"{repeat} runs a cell, in turn, each in a fresh process"
    )
    print(f"times: how many times as good as {STANDARD.name}, whatever the unit\n")


def print_head(repeat: int) -> None:
    _print_machine(repeat)
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


def print_curves_head(repeat: int) -> None:
    _print_machine(repeat)


def print_curve(result: CurveResult) -> None:
    """A line for each size: both systems, how they compare, and the floors."""
    curve = result.curve
    names = [TENFOLD.name, STANDARD.name]
    heads = "".join(f"{name:>17}" for name in names) + f"{'times':>9}"
    heads += "".join(f"   ({name})" for name in curve.floors)
    print(f"{curve.title} ({curve.name})\n  {curve.along:<20}{heads}")
    for point, row in result.points:
        found = {system.name: system for system in row.systems}
        cells = []
        for name in (*names, *curve.floors):
            system = found[name]
            if system.median is None:
                cells.append(system.error or "not measured")
            else:
                cells.append(figure(curve.unit, system.median))
        line = "".join(f"{cell:>17}" for cell in cells[: len(names)])
        line += f"{times(row.ratio(*names)):>9}"
        line += "".join(f"   {cell}" for cell in cells[len(names) :])
        print(f"  {size(curve.scale, point):<20}{line}", flush=True)
    print(flush=True)


def _row(result: RowResult) -> dict[str, object]:
    """A row for the JSON."""
    return {
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


def _write(path: Path, report: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")


def write_rows(path: Path, results: Sequence[RowResult], repeat: int) -> None:
    _write(path, {**_machine(repeat), "rows": [_row(result) for result in results]})


def write_curves(path: Path, results: Sequence[CurveResult], repeat: int) -> None:
    curves = [
        {
            "name": result.curve.name,
            "title": result.curve.title,
            "along": result.curve.along,
            "scale": result.curve.scale.value,
            "unit": result.curve.unit.value,
            "points": [{"at": point, **_row(row)} for point, row in result.points],
        }
        for result in results
    ]
    _write(path, {**_machine(repeat), "curves": curves})
