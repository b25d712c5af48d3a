"""A pipeline as a picture: its blocks with what is special about them, and the lines between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import msgspec

from streamline.pipeline.block_settings import BlockSettings, block_settings
from streamline.pipeline.graph import downstream_of

if TYPE_CHECKING:
    from streamline.pipeline.model import Block, PipelineModel

EdgeKind = Literal["flow", "items", "gathered", "gates", "tells"]
"""Of an edge: an output that is handed on whole; item by item; the outputs of children as a list. Or: a conditional
that decides, a callback that is told."""


class Node(msgspec.Struct, kw_only=True, frozen=True):
    """A block, conditional or callback. `marks` say what is special about it, in a word or two each."""

    uuid: str
    type: str
    language: str
    marks: tuple[str, ...] = ()


class Edge(msgspec.Struct, frozen=True):
    """A line from one node to another."""

    start: str
    end: str
    kind: EdgeKind


class Picture(msgspec.Struct, kw_only=True, frozen=True):
    """All of it.

    Args:
        nodes: blocks in an order in which paths stay together, each after what is before it; then the conditionals,
            then the callbacks.
        edges: by where they end, in the order of that block's inputs.
    """

    nodes: list[Node]
    edges: list[Edge]


def picture_of(model: PipelineModel) -> Picture:
    """The picture of a pipeline of any type."""
    settings = {uuid: block_settings(model, block) for uuid, block in model.blocks.items()}
    axes = item_axes(model)
    nodes = [_node(model.blocks[uuid], settings[uuid], axes[uuid]) for uuid in drawing_order(model.upstream())]
    edges = [
        Edge(above, node.uuid, _kind(settings[above], axes[above]))
        for node in nodes
        for above in model.blocks[node.uuid].upstream
    ]
    for each in model.conditionals.values():
        nodes.append(Node(uuid=each.uuid, type=each.type, language=each.language))
        edges += [Edge(each.uuid, gated, "gates") for gated in each.upstream]
    for each in model.callbacks.values():
        marks = () if each.upstream else ("of the pipeline",)
        nodes.append(Node(uuid=each.uuid, type=each.type, language=each.language, marks=marks))
        edges += [Edge(watched, each.uuid, "tells") for watched in each.upstream]
    return Picture(nodes=nodes, edges=edges)


def item_axes(model: PipelineModel) -> dict[str, list[str]]:
    """For each block the dynamic blocks for whose items it runs, once per item or combination of items."""
    found: dict[str, list[str]] = {}
    for uuid in model.order():
        axes: dict[str, None] = {}
        for name in model.blocks[uuid].upstream:
            above = block_settings(model, model.blocks[name])
            if above.reduce_output and found[name]:
                continue
            axes |= dict.fromkeys(found[name])
            if above.dynamic:
                axes[name] = None
        found[uuid] = list(axes)
    return found


def drawing_order(upstream: Mapping[str, list[str]]) -> list[str]:
    """Every block after its upstream blocks; where it can be, right after one of them."""
    waiting = {uuid: len(above) for uuid, above in upstream.items()}
    below = downstream_of(upstream)
    ready = [uuid for uuid in reversed(list(upstream)) if not waiting[uuid]]
    order = []
    while ready:
        uuid = ready.pop()
        order.append(uuid)
        for child in reversed(below[uuid]):
            waiting[child] -= 1
            if not waiting[child]:
                ready.append(child)
    return order


def _node(block: Block, settings: BlockSettings, axes: list[str]) -> Node:
    marks = []
    if settings.dynamic and not (settings.reduce_output and axes):
        marks.append("dynamic")
    if axes:
        marks.append(f"per item of {' × '.join(axes)}")
    if settings.isolated:
        marks.append("isolated")
    if settings.secret_output:
        marks.append("secret")
    return Node(uuid=block.uuid, type=block.type, language=block.language, marks=tuple(marks))


def _kind(above: BlockSettings, axes: list[str]) -> EdgeKind:
    if above.reduce_output and axes:
        return "gathered"
    return "items" if above.dynamic else "flow"
