"""A small drawing board for the pictures of docs/concepts.md: SVG in the style of docs/topology.svg.

Colours are classes, so that a picture follows the reader's light or dark scheme; every picture brings its own
ground, so that it can be read on any page.
"""

from dataclasses import dataclass, field
from html import escape

FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"

LIGHT = {
    "ground": "#fbfaf7",
    "edge": "#b9b4a7",
    "ink": "#26302f",
    "muted": "#565f5e",
    "note": "#7a3a1c",
    "box": "#ffffff",
    "line": "#26302f",
    "band": "#f0ead9",
    "rim": "#a89b78",
    "pill": "#ffffff",
    "c0": "#1b7286",
    "c1": "#b4532a",
    "c2": "#7b4b94",
    "c3": "#4a5568",
}
DARK = {
    "ground": "#1d2221",
    "edge": "#4b524f",
    "ink": "#efebe0",
    "muted": "#b9b6ab",
    "note": "#eba585",
    "box": "#2a3130",
    "line": "#c9c5b9",
    "band": "#35322a",
    "rim": "#9a8f70",
    "pill": "#14201f",
    "c0": "#5fbdd1",
    "c1": "#e98a5c",
    "c2": "#c096d8",
    "c3": "#a5b1c6",
}


def _rules(colours: dict[str, str]) -> str:
    fills = "".join(f".f-{name}{{fill:{value}}}" for name, value in colours.items())
    return fills + "".join(f".s-{name}{{stroke:{value}}}" for name, value in colours.items())


@dataclass
class Board:
    """One picture; things are drawn in the order of the calls, the later ones on top. Units are pixels."""

    width: int
    height: int
    title: str
    description: str
    _parts: list[str] = field(default_factory=list)

    def box(self, x: float, y: float, width: float, height: float, title: str, *lines: str) -> None:
        """A pool or a replica: its name, and what is in it; `y` is its top."""
        self.rect(x, y, width, height, "box", "line", radius=8)
        step = 17
        first = y + height / 2 + 5 - step * len(lines) / 2
        self.text(x + width / 2, first, title, size=15, weight=600)
        for number, line in enumerate(lines, 1):
            self.text(x + width / 2, first + number * step + 1, line, "muted", size=12)

    def pill(self, x: float, y: float, width: float, text: str, colour: str, height: float = 36) -> None:
        """A model, in its colour; `y` is its top."""
        self.rect(x, y, width, height, colour, radius=height / 2)
        self.text(x + width / 2, y + height / 2 + 5, text, "pill", size=15, weight=600)

    def rect(
        self, x: float, y: float, width: float, height: float, fill: str, stroke: str = "", radius: float = 4
    ) -> None:
        """A filled rectangle; a `rim` is dashed."""
        line = f' class="f-{fill} s-{stroke}" stroke-width="1.6"' if stroke else f' class="f-{fill}"'
        dashes = ' stroke-dasharray="5 4"' if stroke == "rim" else ""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}"{line}{dashes}/>'
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        colour: str = "ink",
        *,
        size: float = 13,
        weight: int = 400,
        anchor: str = "middle",
    ) -> None:
        """One line; `y` is its base line."""
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" class="f-{colour}" font-size="{size:g}" font-weight="{weight}" '
            f'text-anchor="{anchor}">{escape(text)}</text>'
        )

    def arrow(
        self, x: float, y: float, to_x: float, to_y: float, colour: str, *, dashed: bool = False
    ) -> None:
        """From the left to the right, or back; it leaves and arrives level."""
        way = 9 if to_x > x else -9
        end, bend = to_x - way, (to_x - x) * 0.45
        dashes = ' stroke-dasharray="6 5"' if dashed else ""
        self._parts.append(
            f'<path d="M{x:g} {y:g} C{x + bend:g} {y:g} {end - bend:g} {to_y:g} {end:g} {to_y:g}" '
            f'fill="none" class="s-{colour}" stroke-width="2.4"{dashes}/>'
            f'<path d="M{to_x:g} {to_y:g} l{-way - way / 9:g} -5.5 v11 z" class="f-{colour}"/>'
        )

    def svg(self) -> str:
        """The whole file."""
        rows = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}" role="img" aria-labelledby="title desc" '
            f'font-family="{FONT}">',
            f'<title id="title">{escape(self.title)}</title>',
            f'<desc id="desc">{escape(self.description)}</desc>',
            f"<style>{_rules(LIGHT)}@media (prefers-color-scheme:dark){{{_rules(DARK)}}}</style>",
            f'<rect x="1" y="1" width="{self.width - 2}" height="{self.height - 2}" rx="12" '
            'class="f-ground s-edge" stroke-width="1.5"/>',
            *self._parts,
            "</svg>",
        ]
        return "\n".join(rows) + "\n"
