"""Draws a pipeline's graph as Mermaid text and as SVG."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamline.pipeline.graph_view import Edge, EdgeKind, GraphView, Node

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 220, 66, 80, 24, 20
"""Sizes of an SVG's boxes and gaps, in pixels."""

_FILLS = {
    "data_loader": ("#e8f1fb", "#3d6ea5"),
    "transformer": ("#f1ecfa", "#6a4fa3"),
    "data_exporter": ("#e9f6ec", "#3b8152"),
    "sensor": ("#fdf3e1", "#a9761b"),
    "custom": ("#f3f3f3", "#666666"),
    "dbt": ("#fdebe6", "#b3502f"),
    "conditional": ("#fffbe0", "#8f8420"),
    "callback": ("#f9e9f1", "#a33d6f"),
}
"""Fill and line colours by block type."""

# Mermaid's arrows, with their labels.
_ARROWS: dict[EdgeKind, str] = {
    "flow": "-->",
    "items": '== "per item" ==>',
    "gathered": '-- "gathered" -->',
    "gates": '-. "gates" .->',
    "tells": '-. "tells" .->',
}
_SHAPES = {"conditional": ("{{", "}}"), "callback": ("([", "])"), "sensor": ("[/", "/]")}


def mermaid(view: GraphView) -> str:
    """Draw the graph as Mermaid text."""
    number = {node.uuid: f"b{at}" for at, node in enumerate(view.nodes)}
    lines = ["flowchart LR"]
    for node in view.nodes:
        opened, closed = _SHAPES.get(node.type, ("[", "]"))
        words = "<br/>".join(map(_escaped, (node.uuid, node.kind, *node.marks)))
        lines.append(f'    {number[node.uuid]}{opened}"{words}"{closed}:::{node.type}')
    lines += [f"    {number[edge.start]} {_ARROWS[edge.kind]} {number[edge.end]}" for edge in view.edges]
    for kind in dict.fromkeys(node.type for node in view.nodes):
        fill, line = _FILLS[kind]
        lines.append(f"    classDef {kind} fill:{fill},stroke:{line},color:#222")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return "".join(c if c.isalnum() or c in " _-.,:/()" or ord(c) > 127 else f"#{ord(c)};" for c in text)


def svg(view: GraphView) -> str:
    """Draw the graph as an SVG, with one column for each step away from the sources."""
    from xml.sax.saxutils import escape

    corner, waypoints = _layout(view)
    width = max((x for x, _ in corner.values()), default=0) + WIDTH + MARGIN
    height = max((y for _, y in corner.values()), default=0) + HEIGHT + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
        'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z" fill="#666"/></marker></defs>',
    ]
    for edge in view.edges:
        path = _line([corner[name] for name in (edge.start, *waypoints[edge], edge.end)])
        style = {"gates": ' stroke-dasharray="5 4"', "tells": ' stroke-dasharray="2 4"', "items": ' stroke-width="3"'}
        parts.append(
            f'<path class="{edge.kind}" d="{path}" fill="none" stroke="#666"{style.get(edge.kind, "")} '
            'marker-end="url(#tip)"/>'
        )
    for node in view.nodes:
        x, y = corner[node.uuid]
        fill, line = _FILLS[node.type]
        round_ = HEIGHT // 2 if node.type in ("callback", "conditional") else 6
        parts.append(f'<g class="{node.type}"><title>{escape(_title(node))}</title>')
        parts.append(
            f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="{round_}" fill="{fill}" stroke="{line}"/>'
        )
        for at, text, size in ((24, node.uuid, 14), (42, node.kind, 11), (57, ", ".join(node.marks), 10)):
            if text:
                parts.append(
                    f'<text x="{x + WIDTH // 2}" y="{y + at}" font-size="{size}" text-anchor="middle" fill="#222">'
                    f"{escape(_short(text, size))}</text>"
                )
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _title(node: Node) -> str:
    return ", ".join([node.uuid, f"{node.kind} ({node.language})", *node.marks])


def _short(text: str, size: int) -> str:
    """Shorten a text to the width of a box; the tooltip has the full text."""
    room = int((WIDTH - 16) / (size * 0.56))
    return text if len(text) <= room else text[: room - 1] + "…"


def _line(corners: list[tuple[int, int]]) -> str:
    """Draw a path from the right side of the first box to the left side of the last, through the others."""
    x, y = corners[0][0] + WIDTH, corners[0][1] + HEIGHT // 2
    path = f"M{x} {y}"
    for left, top in corners[1:]:
        end = top + HEIGHT // 2
        path += f"C{x + GAP_X // 2} {y} {left - GAP_X // 2} {end} {left} {end}"
        x, y = left + WIDTH, end
        if left != corners[-1][0]:
            path += f"H{x}"
    return path


def _layout(view: GraphView) -> tuple[dict[str, tuple[int, int]], dict[Edge, list[str]]]:
    """Return the upper left corner of each box and waypoint, and the names of the waypoints of long edges.

    Within a column, boxes and waypoints are sorted by the average row of the nodes that lead to them.
    """
    column = _columns(view)
    before: dict[str, list[str]] = {node.uuid: [] for node in view.nodes}
    waypoints: dict[Edge, list[str]] = {}
    for at, edge in enumerate(view.edges):
        # No uuid contains a newline.
        between = range(column[edge.start] + 1, column[edge.end])
        waypoints[edge] = [f"{at}\n{number}" for number in between]
        column |= dict(zip(waypoints[edge], between, strict=True))
        path = [edge.start, *waypoints[edge], edge.end]
        for above, below in pairwise(path):
            before.setdefault(below, []).append(above)
    row: dict[str, int] = {}
    for number in range(max(column.values(), default=0) + 1):
        members = [uuid for uuid, at in column.items() if at == number]
        members.sort(key=lambda uuid: _average_row(row, before[uuid]))
        row |= {uuid: at for at, uuid in enumerate(members)}
    corner = {
        uuid: (MARGIN + at * (WIDTH + GAP_X), MARGIN + row[uuid] * (HEIGHT + GAP_Y)) for uuid, at in column.items()
    }
    return corner, waypoints


def _columns(view: GraphView) -> dict[str, int]:
    before: dict[str, list[str]] = {node.uuid: [] for node in view.nodes}
    for edge in view.edges:
        before[edge.end].append(edge.start)
    conditionals = [node.uuid for node in view.nodes if node.type == "conditional"]
    column = dict.fromkeys(conditionals, 0)
    for node in view.nodes:
        if node.type != "conditional":
            column[node.uuid] = 1 + max((column[above] for above in before[node.uuid]), default=-1)
    for uuid in conditionals:
        gated = [column[edge.end] for edge in view.edges if edge.start == uuid]
        column[uuid] = min(gated, default=1) - 1
    last = max(column.values(), default=0)
    for node in view.nodes:
        if node.type == "callback" and not before[node.uuid]:
            column[node.uuid] = last
    # Keep the order of the nodes: the rows of equal boxes depend on it.
    return {node.uuid: column[node.uuid] for node in view.nodes}


def _average_row(row: dict[str, int], above: list[str]) -> float:
    known = [row[uuid] for uuid in above if uuid in row]
    return sum(known) / len(known) if known else float("inf")
