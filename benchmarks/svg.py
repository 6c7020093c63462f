"""Functions that write the parts of a chart as SVG, which both charts share."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def text(x: float, y: float, content: str, anchor: str, weight: str = "normal") -> str:
    """Return a text element. `anchor` is `start` or `end`, and `weight` is `normal` or `bold`."""
    style = f'text-anchor="{anchor}" font-weight="{weight}" fill="#222"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(content)}</text>'


def document(parts: Sequence[str], *, title: str, description: str, width: int, height: int) -> str:
    """Return an SVG document with a white background, a title and a description for screen readers."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' role="img" font-family="sans-serif" font-size="13">\n'
        f"<title>{title}</title>\n<desc>{escape(description)}</desc>\n"
        f'<rect width="{width}" height="{height}" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )
