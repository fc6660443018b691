"""A family tree as SVG: boxes in columns, parents on the left, each box near those that it is joined to."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .family_tree import Arrow, Box, Tree

CHARACTER, ROW, TITLE = 7.3, 18.0, 26.0  # width of a character of the monospaced face at 12 px; heights of the lines
PADDING, GAP, MARGIN, CHANNEL = 12.0, 14.0, 16.0, 90.0  # inside a box, between boxes, around all, between columns
SWEEPS = 6  # back and forth through the columns

STYLE = """\
text { font: 12px ui-monospace, Menlo, Consolas, monospace; fill: #1f2328 }
.title { font-weight: 600 }
.derived { fill: #818b98 }
rect { fill: #ffffff; stroke: #d1d9e0 }
path { fill: none; stroke: #818b98; stroke-width: 1.2 }
.dotted { stroke-dasharray: 3 3 }
marker path { fill: #818b98; stroke: none }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  .derived { fill: #9198a1 }
  rect { fill: #0d1117; stroke: #3d444d }
}"""


def draw(tree: Tree) -> str:
    """The whole picture; it needs nothing but a viewer, and is dark where the viewer is."""
    columns = _columns(tree)
    widths = {box.key: _width(box) for box in tree.boxes}
    heights = {box.key: TITLE + ROW * len(box.rows) + (PADDING / 2 if box.rows else 0) for box in tree.boxes}
    tops = _tops(tree, columns, heights)
    lefts: dict[str, float] = {}
    x = MARGIN
    for column in columns:
        lefts |= dict.fromkeys(column, x)
        x += max(widths[key] for key in column) + CHANNEL
    rows = [_arrow(arrow, tree, lefts, tops, widths) for arrow in tree.arrows]
    rows += [_draw_box(box, lefts[box.key], tops[box.key], widths[box.key], heights[box.key]) for box in tree.boxes]
    width = max((x - CHANNEL + MARGIN, 2 * MARGIN))
    height = max((tops[box.key] + heights[box.key] for box in tree.boxes), default=MARGIN) + MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}">',
            f"<style>\n{STYLE}\n</style>",
            '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">',
            '<path d="M0 0 8 4 0 8z"/></marker>',
            *rows,
            "</svg>",
        ]
    )


def _width(box: Box) -> float:
    return CHARACTER * max(len(text) for text in (box.title, *(name for name, _ in box.rows))) + 2 * PADDING


def _columns(tree: Tree) -> list[list[str]]:
    """The boxes' keys by the longest way up: those without parents first."""
    depth: dict[str, int] = {}
    for box in tree.boxes:  # parents come first
        above = [depth[arrow.parent] for arrow in tree.arrows if arrow.child == box.key and arrow.parent in depth]
        depth[box.key] = max(above, default=-1) + 1
    return [[key for key in depth if depth[key] == level] for level in range(max(depth.values(), default=-1) + 1)]


def _tops(tree: Tree, columns: list[list[str]], heights: Mapping[str, float]) -> dict[str, float]:
    """The upper edge of each box: as near to the middle of its neighbours as the others of its column let it."""
    joined: dict[str, set[str]] = {box.key: set() for box in tree.boxes}
    for arrow in tree.arrows:
        joined[arrow.child].add(arrow.parent)
        joined[arrow.parent].add(arrow.child)
    middles: dict[str, float] = {}
    for column in columns:
        _place(column, dict.fromkeys(column, 0.0), heights, middles)
    for sweep in range(SWEEPS):
        for column in columns if sweep % 2 == 0 else reversed(columns):
            wanted = {
                key: sum(middles[other] for other in joined[key]) / len(joined[key]) if joined[key] else middles[key]
                for key in column
            }
            _place(sorted(column, key=lambda key: (wanted[key], key)), wanted, heights, middles)
    tops = {key: middle - heights[key] / 2 for key, middle in middles.items()}
    highest = min(tops.values(), default=0.0)
    return {key: top - highest + MARGIN for key, top in tops.items()}


def _place(
    column: list[str], wanted: Mapping[str, float], heights: Mapping[str, float], middles: dict[str, float]
) -> None:
    """Put a column's boxes one under the other, each where it is wanted or below, then all up by the mean of their delay."""
    floor = float("-inf")
    for key in column:
        middles[key] = max(wanted[key], floor + heights[key] / 2)
        floor = middles[key] + heights[key] / 2 + GAP
    delay = sum(middles[key] - wanted[key] for key in column) / max(1, len(column))
    for key in column:
        middles[key] -= delay


def _draw_box(box: Box, left: float, top: float, width: float, height: float) -> str:
    rows = [
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="6"/>',
        f'<text class="title" x="{left + PADDING:.1f}" y="{top + 17:.1f}">{escape(box.title)}</text>',
    ]
    for number, (name, own) in enumerate(box.rows):
        style = "" if own else ' class="derived"'
        y = top + TITLE + ROW * number + 12
        rows.append(f'<text{style} x="{left + PADDING:.1f}" y="{y:.1f}">{escape(name)}</text>')
    return "\n".join(rows)


def _arrow(
    arrow: Arrow, tree: Tree, lefts: Mapping[str, float], tops: Mapping[str, float], widths: Mapping[str, float]
) -> str:
    boxes = {box.key: box for box in tree.boxes}
    x1, y1 = lefts[arrow.child], tops[arrow.child] + _row(boxes[arrow.child], arrow.child_row)
    x2, y2 = (
        lefts[arrow.parent] + widths[arrow.parent],
        tops[arrow.parent] + _row(boxes[arrow.parent], arrow.parent_row),
    )
    bend = max((x1 - x2) / 2, CHANNEL / 2)
    style = ' class="dotted"' if arrow.dotted else ""
    curve = f"M{x1:.1f} {y1:.1f}C{x1 - bend:.1f} {y1:.1f} {x2 + bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
    return f'<path{style} d="{curve}" marker-end="url(#head)"/>'


def _row(box: Box, name: str) -> float:
    """How far below a box's upper edge an arrow meets it: at a class, or at its title."""
    names = [row for row, _ in box.rows]
    return TITLE + ROW * names.index(name) + 8 if name in names else TITLE / 2
