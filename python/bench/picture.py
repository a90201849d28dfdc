"""The picture: for each row, how many times as good tenfold is as the standard library and as the best peer."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from bench.report import times
from bench.summary import RowResult
from bench.systems import STANDARD, TENFOLD

__all__ = ["write_svg"]

LABEL, PLOT, MARGIN = 300, 460, 150
ROW, BAR, TOP = 34, 12, 50
COLOURS = {STANDARD.name: "#2b6cb0", "best peer": "#d69e2e"}


def write_svg(path: Path, results: Sequence[RowResult]) -> None:
    """Draw bars on a logarithmic scale, from 1/10 to beyond the largest ratio; 1 is a line."""
    bars = [_bars_of(result) for result in results]
    largest = max((ratio for _, found in bars for _, _, ratio in found), default=1.0)
    decades = max(1, math.ceil(math.log10(max(largest, 1.0)) + 1e-9))

    def x(ratio: float) -> float:
        return LABEL + PLOT * (math.log10(max(ratio, 0.1)) + 1) / (decades + 1)

    height = TOP + ROW * len(bars) + 20
    width = LABEL + PLOT + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for index, (name, colour) in enumerate(COLOURS.items()):
        left = LABEL + index * 210
        parts.append(f'<rect x="{left}" y="8" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{left + 15}" y="17">tenfold over {escape(name)}</text>')
    for power in range(-1, decades + 1):
        left = x(10.0**power)
        stroke = "#444" if power == 0 else "#ddd"
        parts.append(f'<line x1="{left:.1f}" y1="{TOP - 8}" x2="{left:.1f}" y2="{height - 15}" stroke="{stroke}"/>')
        parts.append(f'<text x="{left:.1f}" y="{TOP - 12}" text-anchor="middle" fill="#666">{10.0**power:g}</text>')
    for index, (title, found) in enumerate(bars):
        top = TOP + index * ROW
        parts.append(f'<text x="{LABEL - 8}" y="{top + 16}" text-anchor="end">{escape(title)}</text>')
        for line, (colour, note, ratio) in enumerate(found):
            left, right = sorted((x(1.0), x(ratio)))
            y = top + 2 + line * (BAR + 1)
            parts.append(
                f'<rect x="{left:.1f}" y="{y}" width="{right - left:.1f}" height="{BAR}" fill="{colour}"/>'
                f'<text x="{right + 4:.1f}" y="{y + 10}" fill="#444">{escape(note)}</text>'
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def _bars_of(result: RowResult) -> tuple[str, list[tuple[str, str, float]]]:
    """The row's title, and colour, note and length of each bar."""
    found = []
    over = result.ratio(TENFOLD.name, STANDARD.name)
    if over is not None:
        found.append((COLOURS[STANDARD.name], times(over), over))
    best = result.best_peer()
    if best is not None:
        over = result.ratio(TENFOLD.name, best)
        if over is not None:
            found.append((COLOURS["best peer"], f"{times(over)} {best}", over))
    return result.row.name, found
