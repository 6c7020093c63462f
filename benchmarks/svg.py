"""Functions that return the parts of a chart as SVG. Both charts use these functions."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

# In dark mode, other colors replace the colors of the bars, so that the lines on the bars stay visible.
_STYLE = """\
<style>
svg { color: #222 }
.paper { fill: #fff }
@media (prefers-color-scheme: dark) {
svg { color: #e8eaed }
.paper { fill: #16191d }
[fill="#a9c9dd"] { fill: #5b7f96 }
[fill="#4a86b8"] { fill: #2d628f }
}
</style>
"""


def text(x: float, y: float, content: str, anchor: str, weight: str = "normal") -> str:
    """Return a text element. `anchor` is `start` or `end`, and `weight` is `normal` or `bold`."""
    style = f'text-anchor="{anchor}" font-weight="{weight}" fill="currentColor"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(content)}</text>'


def document(parts: Sequence[str], *, title: str, description: str, width: int, height: int) -> str:
    """Return an SVG document for light and dark mode, with a title and a description for screen readers."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' role="img" font-family="sans-serif" font-size="13">\n'
        f"<title>{title}</title>\n<desc>{escape(description)}</desc>\n"
        f'{_STYLE}<rect class="paper" width="{width}" height="{height}"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )
