"""Drawings of text, boxes and lines, in colours that go with a light page and with a dark one."""

from html import escape
from pathlib import Path

__all__ = ["Drawing"]

# What is drawn is named by what it means; a viewer on a dark page takes the second colours.
_COLOURS = {
    "paper": ("#ffffff", "#161b22"),
    "ink": ("#1f2328", "#d7dde4"),
    "grid": ("#dfe3e8", "#30363d"),
    "axis": ("#6e7781", "#8b949e"),
    "first": ("#0a62c9", "#58a6ff"),
    "second": ("#c2570c", "#f0883e"),
    "third": ("#6e7781", "#8b949e"),
}


def _style(theme: int) -> str:
    rules = []
    for name, colours in _COLOURS.items():
        rules.append(f".{name}{{fill:{colours[theme]}}}")
        rules.append(f".{name}-line{{stroke:{colours[theme]};fill:none}}")
    return "".join(rules)


class Drawing:
    """An SVG, drawn from the top left corner, in pixels."""

    def __init__(self, width: float, height: float) -> None:
        dark = f"@media (prefers-color-scheme:dark){{{_style(1)}}}"
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}"'
            f' viewBox="0 0 {width:g} {height:g}" font-family="sans-serif" font-size="11">',
            f"<style>{_style(0)}{dark}</style>",
        ]
        self.box("paper", 0, 0, width, height)

    def text(
        self, x: float, y: float, text: str, anchor: str = "start", bold: bool = False
    ) -> None:
        weight = ' font-weight="bold"' if bold else ""
        self._parts.append(
            f'<text class="ink" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>'
            f"{escape(text)}</text>"
        )

    def box(self, colour: str, x: float, y: float, width: float, height: float) -> None:
        self._parts.append(
            f'<rect class="{colour}" x="{x:.1f}" y="{y:.1f}"'
            f' width="{width:.1f}" height="{height:.1f}"/>'
        )

    def line(
        self, colour: str, points: list[tuple[float, float]], width: float = 1, dashed: bool = False
    ) -> None:
        dashes = ' stroke-dasharray="4 3"' if dashed else ""
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        self._parts.append(
            f'<path class="{colour}-line" d="M{path}" stroke-width="{width:g}"{dashes}/>'
        )

    def dot(self, colour: str, x: float, y: float, note: str) -> None:
        """The note is shown when the pointer rests on the dot."""
        self._parts.append(
            f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3">'
            f"<title>{escape(note)}</title></circle>"
        )

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*self._parts, "</svg>"]) + "\n")
