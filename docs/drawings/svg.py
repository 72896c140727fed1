"""A sheet to draw on, which becomes SVG in the colors of the page."""

from __future__ import annotations

from html import escape


class Sheet:
    """A drawing of a width and height, in pixels at its natural size."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.parts: list[str] = []

    def rect(self, x: float, y: float, width: float, height: float, kind: str = "box", r: float = 4) -> None:
        """Draw a rectangle with round corners."""
        self.parts.append(
            f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{r:g}"/>'
        )

    def circle(self, x: float, y: float, radius: float, kind: str = "box", opacity: float = 1) -> None:
        """Draw a circle."""
        self.parts.append(
            f'<circle class="{kind}" cx="{x:g}" cy="{y:g}" r="{radius:g}" opacity="{opacity:.3g}"/>'
        )

    def text(
        self, x: float, y: float, text: str, kind: str = "", size: float = 14, anchor: str = "middle"
    ) -> None:
        """Write a text around, from or up to a point."""
        self.parts.append(
            f'<text class="{kind}" x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}"'
            f' xml:space="preserve">{escape(text)}</text>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str = "line") -> None:
        """Draw a straight line."""
        self.path(f"M{x1:g} {y1:g}L{x2:g} {y2:g}", kind)

    def arrow(self, x1: float, y1: float, x2: float, y2: float, kind: str = "line", head: float = 5) -> None:
        """Draw a straight arrow."""
        length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
        dx, dy = (x2 - x1) / length * head, (y2 - y1) / length * head
        left = (x2 - dx - dy * 0.7, y2 - dy + dx * 0.7)
        right = (x2 - dx + dy * 0.7, y2 - dy - dx * 0.7)
        self.path(
            f"M{x1:g} {y1:g}L{x2:g} {y2:g}M{left[0]:.1f} {left[1]:.1f}L{x2:g} {y2:g}"
            f"L{right[0]:.1f} {right[1]:.1f}",
            kind,
        )

    def path(self, commands: str, kind: str = "line") -> None:
        """Draw a path."""
        self.parts.append(f'<path class="{kind}" d="{commands}"/>')

    def svg(self) -> str:
        """Return the drawing for a page, whose style sheet has the colors."""
        size = f'viewBox="0 0 {self.width:g} {self.height:g}" width="{self.width:g}"'
        return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(self.parts)}</svg>'
