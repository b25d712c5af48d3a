"""Draw a pipeline's graph in a terminal: one line per block, with the edges in lanes on the left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from streamline.cli.output import cell

if TYPE_CHECKING:
    from streamline.pipeline.graph_view import GraphView, Node

_MARKS = {"flow": "●", "items": "◆", "gathered": "◇"}


def drawn(view: GraphView) -> list[tuple[str, Node | None]]:
    """Return the lines: the lanes, padded to the same width, and the block on that line, if any."""
    below: dict[str, list[str]] = {}
    sign: dict[str, str] = {}
    for edge in view.edges:
        if edge.kind in _MARKS:
            below.setdefault(edge.start, []).append(edge.end)
            sign[edge.start] = _MARKS[edge.kind]
    lanes: list[str | None] = []
    """The block that each lane leads to; None: the lane is free."""
    lines: list[tuple[str, Node | None]] = []
    for node in view.nodes:
        if node.type in ("conditional", "callback"):
            continue
        mine = [at for at, end in enumerate(lanes) if end == node.uuid]
        if not mine:
            mine = [_free(lanes, 0)]
            if lines and lines[-1][0][2 * mine[0] :].strip():  # would look connected to the line above
                lines.append((_row(lanes, mine[0], " "), None))
            lanes[mine[0]] = node.uuid
        at, *others = mine
        if others:
            lines.append((_turn(lanes, at, others, "╯", "┴"), None))
            for other in others:
                lanes[other] = None
        elif lines and lines[-1][1] is not None and lines[-1][0][2 * at : 2 * at + 1] not in ("", " ", "│"):
            lines.append((_row(lanes, at, "│"), None))  # separate it from the block directly above
        lines.append((_row(lanes, at, sign.get(node.uuid, "●")), node))
        first, *more = below.get(node.uuid, [None])
        lanes[at] = first
        new = []
        for end in more:
            lane = _free(lanes, at + 1)
            lanes[lane] = end
            new.append(lane)
        if new:
            lines.append((_turn(lanes, at, sorted(new), "╮", "┬"), None))
        while lanes and lanes[-1] is None:
            lanes.pop()
    width = max((len(text) for text, _ in lines), default=0)
    return [(text.ljust(width), node) for text, node in lines]


def _free(lanes: list[str | None], start: int) -> int:
    for at in range(start, len(lanes)):
        if lanes[at] is None:
            return at
    lanes.append(None)
    return len(lanes) - 1


def _row(lanes: Sequence[str | None], at: int, sign: str) -> str:
    signs = [sign if lane == at else "│" if end is not None else " " for lane, end in enumerate(lanes)]
    return " ".join(signs).rstrip()


def _turn(lanes: Sequence[str | None], at: int, others: Sequence[int], last: str, between: str) -> str:
    """Draw a row in which lanes join the lane at `at` or leave it, crossing those between."""
    text = ""
    for lane, end in enumerate(lanes):
        inside = at < lane <= others[-1]
        sign = "│" if end is not None else "─" if inside else " "
        if lane == at:
            sign = "├"
        elif lane in others:
            sign = last if lane == others[-1] else between
        text += ("─" if inside else " ") + sign if lane else sign
    return text.rstrip()


def notes(view: GraphView, uuid: str) -> list[str]:
    """Describe the conditionals and callbacks of a block."""
    gates = [cell(edge.start) for edge in view.edges if edge.end == uuid and edge.kind == "gates"]
    callbacks = [cell(edge.end) for edge in view.edges if edge.start == uuid and edge.kind == "tells"]
    conditions = [f"if {' and '.join(gates)}"] if gates else []
    return [*conditions, f"notifies {', '.join(callbacks)}"] if callbacks else conditions
