"""The pictures, drawn from the JSON that this bench and the Rust one write.

- of a table: bars, how many times as good tenfold is in each row
- of curves: small panels, both systems

It needs no package but the standard library: `python -m bench.picture FILE.json` writes FILE.svg.
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.curve import Scale
from bench.figures import figure, mark, size, times
from bench.row import Unit
from bench.svg import Drawing
from bench.systems import STANDARD, TENFOLD

__all__ = ["draw"]

Json = dict[str, Any]

# Of the bars.
LABEL, PLOT, NOTE = 190, 460, 250
BAR, GAP, TOP = 12, 9, 50
# Of the panels.
COLUMNS, PANEL, TALL = 3, 330, 230
LEFT, RIGHT, ABOVE, BELOW = 62, 22, 34, 42


def draw(numbers: Path) -> None:
    """Draw what is in a JSON of the bench; the picture lies beside it."""
    report = json.loads(numbers.read_text())
    drawing = _panels(report["curves"]) if "curves" in report else _bars(report["rows"])
    drawing.write(numbers.with_suffix(".svg"))
    print(f"\nwritten to {numbers} and {numbers.with_suffix('.svg')}")


def _bars(rows: Sequence[Json]) -> Drawing:
    """On a logarithmic scale, from 1/10 or the smallest ratio to the largest; 1 is a line."""
    groups = [(row["name"], _bars_of(row)) for row in rows]
    ratios = [ratio for _, bars in groups for _, _, ratio in bars]
    low = min(-1, math.floor(math.log10(min(ratios, default=1.0))))
    high = max(1, math.ceil(math.log10(max(ratios, default=1.0))))

    def x(ratio: float) -> float:
        return LABEL + PLOT * (math.log10(ratio) - low) / (high - low)

    height = TOP + sum(BAR * max(1, len(bars)) + GAP for _, bars in groups) + 10
    drawing = Drawing(LABEL + PLOT + NOTE, height)
    legend = [("first", f"tenfold over {STANDARD.name}"), ("second", "tenfold over the best peer")]
    if not any(colour == "first" for _, bars in groups for colour, _, _ in bars):
        legend = [("second", "tenfold over a peer")]
    for index, (colour, text) in enumerate(legend):
        drawing.box(colour, LABEL + index * 210, 8, 10, 10)
        drawing.text(LABEL + index * 210 + 15, 17, text)
    for power in range(low, high + 1):
        at = x(10.0**power)
        drawing.line("axis" if power == 0 else "grid", [(at, TOP - 8), (at, height - 8)])
        drawing.text(at, TOP - 12, f"x{10.0**power:g}", "middle")
    top = float(TOP)
    for name, bars in groups:
        drawing.text(LABEL - 8, top + BAR * max(1, len(bars)) / 2 + 4, name, "end")
        for line, (colour, note, ratio) in enumerate(bars):
            begin, end = sorted((x(1.0), x(ratio)))
            drawing.box(colour, begin, top + line * BAR, max(end - begin, 1), BAR - 1)
            drawing.text(end + 4, top + line * BAR + 10, note)
        top += BAR * max(1, len(bars)) + GAP
    return drawing


def _bars_of(row: Json) -> list[tuple[str, str, float]]:
    """Colour, note and length of each bar: the standard library and the best peer, else all."""
    medians = {system["system"]: system["median"] for system in row["systems"]}
    ours = medians.get(TENFOLD.name)
    if "best_peer" in row:
        chosen = [STANDARD.name, row["best_peer"]]
    else:
        chosen = [name for name in medians if not name.startswith(TENFOLD.name)]
    found = []
    for name in chosen:
        theirs = medians.get(name)
        if ours and theirs:
            ratio = ours / theirs if row["more_is_better"] else theirs / ours
            standard = name == STANDARD.name
            note = times(ratio) if standard else f"{times(ratio)} {name}"
            found.append(("first" if standard else "second", note, ratio))
    return found


def _panels(curves: Sequence[Json]) -> Drawing:
    lines = -(-len(curves) // COLUMNS)
    drawing = Drawing(COLUMNS * PANEL, 30 + lines * TALL)
    legend = [("first", TENFOLD.name), ("second", STANDARD.name), ("third", "no library at all")]
    for index, (colour, text) in enumerate(legend):
        left = LEFT + index * 130
        drawing.line(colour, [(left, 15), (left + 22, 15)], 2, dashed=colour == "third")
        drawing.text(left + 28, 19, text)
    for index, curve in enumerate(curves):
        line, column = divmod(index, COLUMNS)
        _panel(drawing, curve, column * PANEL, 30 + line * TALL)
    return drawing


def _panel(drawing: Drawing, curve: Json, left: float, top: float) -> None:
    """Both axes are logarithmic; a system that failed at a size has no dot there."""
    unit, scale = Unit(curve["unit"]), Scale(curve["scale"])
    lines = _lines_of(curve)
    sizes = [point["at"] for point in curve["points"]]
    values = [value for points in lines.values() for _, value in points] or [1.0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    right, bottom = left + PANEL - RIGHT, top + TALL - BELOW
    left, above = left + LEFT, top + ABOVE

    def x(at: float) -> float:
        share = math.log(at / sizes[0]) / math.log(sizes[-1] / sizes[0])
        return left + 8 + (right - left - 16) * share

    def y(value: float) -> float:
        return bottom - (bottom - above) * (math.log10(value) - low) / (high - low)

    drawing.text(left, above - 10, curve["title"], bold=True)
    for power in range(low, high + 1):
        drawing.line("grid", [(left, y(10.0**power)), (right, y(10.0**power))])
        drawing.text(left - 5, y(10.0**power) + 4, mark(unit, 10.0**power), "end")
    drawing.line("axis", [(left, above), (left, bottom), (right, bottom)])
    for index, at in enumerate(sizes):
        drawing.line("axis", [(x(at), bottom), (x(at), bottom + 4)])
        if len(sizes) < 8 or index % 2 == 0:
            drawing.text(x(at), bottom + 16, size(scale, at), "middle")
    drawing.text((left + right) / 2, bottom + 31, curve["along"], "middle")
    for name, points in lines.items():
        colour = {TENFOLD.name: "first", STANDARD.name: "second"}.get(name, "third")
        corners = [(x(at), y(value)) for at, value in points]
        drawing.line(colour, corners, 2, dashed=colour == "third")
        for (at, value), (across, down) in zip(points, corners, strict=True):
            drawing.dot(colour, across, down, f"{name}, {size(scale, at)}: {figure(unit, value)}")


def _lines_of(curve: Json) -> dict[str, list[tuple[int, float]]]:
    """By system, the sizes at which there is a number, and the number; tenfold on top."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for point in curve["points"]:
        for system in reversed(point["systems"]):
            if system["median"] is not None and system["median"] > 0:
                lines.setdefault(system["system"], []).append((point["at"], system["median"]))
    return lines


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
