"""The picture: how many times as good tenfold is in each row.

As the standard library (upper bar), and as the best peer (lower bar).
"""

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
    rows = [(result.row.name, _bars_of(result)) for result in results]
    largest = max((ratio for _, bars in rows for _, _, ratio in bars), default=1.0)
    decades = max(1, math.ceil(math.log10(max(largest, 1.0)) + 1e-9))

    def x(ratio: float) -> float:
        return LABEL + PLOT * (math.log10(max(ratio, 0.1)) + 1) / (decades + 1)

    width, height = LABEL + PLOT + MARGIN, TOP + ROW * len(rows) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for index, (name, colour) in enumerate(COLOURS.items()):
        left = LABEL + index * 210
        parts.append(f'<rect x="{left}" y="8" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(left + 15, 17, f"tenfold over {name}"))
    for power in range(-1, decades + 1):
        at = x(10.0**power)
        colour = "#444" if power == 0 else "#ddd"
        parts.append(f'<path d="M{at:.1f} {TOP - 8}V{height - 15}" stroke="{colour}"/>')
        parts.append(_text(at, TOP - 12, f"{10.0**power:g}", "middle"))
    for index, (title, bars) in enumerate(rows):
        top = TOP + index * ROW
        parts.append(_text(LABEL - 8, top + 16, title, "end"))
        for line, (colour, note, ratio) in enumerate(bars):
            begin, end = sorted((x(1.0), x(ratio)))
            y = top + 2 + line * (BAR + 1)
            size = f'width="{end - begin:.1f}" height="{BAR}"'
            parts.append(f'<rect x="{begin:.1f}" y="{y}" {size} fill="{colour}"/>')
            parts.append(_text(end + 4, y + 10, note))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _bars_of(result: RowResult) -> list[tuple[str, str, float]]:
    """Colour, note and length of each bar."""
    found = []
    over = result.ratio(TENFOLD.name, STANDARD.name)
    if over is not None:
        found.append((COLOURS[STANDARD.name], times(over), over))
    best = result.best_peer()
    if best is not None:
        over = result.ratio(TENFOLD.name, best)
        if over is not None:
            found.append((COLOURS["best peer"], f"{times(over)} {best}", over))
    return found
