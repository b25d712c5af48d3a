"""The nodes and edges of a pipeline's graph, for drawing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import msgspec

from streamline.pipeline.block_settings import BlockSettings, block_settings
from streamline.pipeline.graph import downstream_of

if TYPE_CHECKING:
    from streamline.pipeline.model import Block, PipelineModel

EdgeKind = Literal["flow", "items", "gathered", "gates", "tells"]
"""What an edge stands for: a whole output (`flow`), one item of it per child (`items`), or the children's outputs as a
list (`gathered`); a conditional that gates a block; a block that notifies a callback (`tells`)."""


class Node(msgspec.Struct, kw_only=True, frozen=True):
    """A block, conditional or callback.

    Args:
        marks: labels such as `dynamic` and `isolated`.
        role: `source` or `destination`, if it is one; its type says less.
    """

    uuid: str
    type: str
    language: str
    marks: tuple[str, ...] = ()
    role: str | None = None

    @property
    def kind(self) -> str:
        """What it is called."""
        return self.role or self.type


class Edge(msgspec.Struct, frozen=True):
    """An edge from one node to another."""

    start: str
    end: str
    kind: EdgeKind


class GraphView(msgspec.Struct, kw_only=True, frozen=True):
    """The graph of a pipeline.

    Args:
        nodes: the blocks in drawing order, then the conditionals, then the callbacks.
        edges: the edges, grouped by end node, in the order of that block's inputs.
    """

    nodes: list[Node]
    edges: list[Edge]


def graph_view(model: PipelineModel) -> GraphView:
    """Return the graph of a pipeline of any type."""
    settings = {uuid: block_settings(model, block) for uuid, block in model.blocks.items()}
    axes = item_axes(model)
    nodes = [_node(model.blocks[uuid], settings[uuid], axes[uuid]) for uuid in drawing_order(model.upstream())]
    edges = [
        Edge(above, node.uuid, _kind(settings[above], axes[above]))
        for node in nodes
        for above in model.blocks[node.uuid].upstream
    ]
    for conditional in model.conditionals.values():
        nodes.append(Node(uuid=conditional.uuid, type=conditional.type, language=conditional.language))
        edges += [Edge(conditional.uuid, gated, "gates") for gated in conditional.upstream]
    for callback in model.callbacks.values():
        marks = () if callback.upstream else ("of the pipeline",)
        nodes.append(Node(uuid=callback.uuid, type=callback.type, language=callback.language, marks=marks))
        edges += [Edge(watched, callback.uuid, "tells") for watched in callback.upstream]
    return GraphView(nodes=nodes, edges=edges)


def item_axes(model: PipelineModel) -> dict[str, list[str]]:
    """Return, for each block, the dynamic blocks over whose items it runs: once per item or combination of items."""
    axes_of: dict[str, list[str]] = {}
    for uuid in model.order():
        axes: dict[str, None] = {}
        for name in model.blocks[uuid].upstream:
            above = block_settings(model, model.blocks[name])
            if above.reduce_output and axes_of[name]:
                continue
            axes |= dict.fromkeys(axes_of[name])
            if above.dynamic:
                axes[name] = None
        axes_of[uuid] = list(axes)
    return axes_of


def drawing_order(upstream: Mapping[str, list[str]]) -> list[str]:
    """Return every block after its upstream blocks, where possible directly after one of them."""
    pending = {uuid: len(above) for uuid, above in upstream.items()}
    below = downstream_of(upstream)
    ready = [uuid for uuid in reversed(list(upstream)) if not pending[uuid]]
    order = []
    while ready:
        uuid = ready.pop()
        order.append(uuid)
        for child in reversed(below[uuid]):
            pending[child] -= 1
            if not pending[child]:
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
