"""`streamline graph`: draw a pipeline's blocks and their dependencies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamline.cli.app import App, pass_app
from streamline.cli.output import cell, columns_of, has_colour, padded
from streamline.errors import ConfigError

if TYPE_CHECKING:
    from streamline.pipeline.graph_view import GraphView, Node
    from streamline.pipeline.model import PipelineModel

FORMATS = {".svg": "svg", ".mmd": "mermaid", ".mermaid": "mermaid", ".txt": "text"}
"""Formats by the file's suffix."""


@click.command("graph")
@click.argument("pipeline")
@click.option(
    "--output",
    "-o",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the graph to this file: .svg, .mmd (Mermaid) or .txt.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "mermaid", "svg"]),
    help="The output format; the default depends on the suffix of FILE, and is text without FILE.",
)
@pass_app
def command(app: App, pipeline: str, output: Path | None, format_: str | None) -> None:
    """Draw the blocks of PIPELINE, their dependencies and settings.

    Lines lead from a block down to those that get its output. \u25c6 marks a dynamic block: its downstream blocks run
    once per item. \u25c7 marks a block with reduce_output: its children's outputs are collected into a list.
    """
    from streamline.pipeline.reader import load_pipeline

    if output is not None and format_ is None:
        format_ = FORMATS.get(output.suffix.lower())
        if format_ is None:
            raise ConfigError(
                f"--output {output} must end in .svg, .mmd or .txt", hint="or add --format", code="option.invalid"
            )
    model = load_pipeline(app.project, pipeline)
    text = draw(model, format_ or "text", colour=output is None and has_colour(sys.stdout))
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--output {output} cannot be written: {error.strerror}", code="file.not_writable") from None
    click.echo(f"Wrote {output}")


def draw(model: PipelineModel, format_: str, *, colour: bool = False) -> str:
    """Draw the pipeline as `text`, `mermaid` or `svg`."""
    from msgspec.structs import replace

    from streamline.blocks.connector.role import connector_role
    from streamline.cli.graph_formats import mermaid, svg
    from streamline.pipeline.graph_view import graph_view

    view = graph_view(model)
    roles = {uuid: connector_role(block) for uuid, block in model.blocks.items()}
    view = replace(view, nodes=[replace(node, role=roles.get(node.uuid)) for node in view.nodes])
    if format_ == "svg":
        return svg(view)
    return mermaid(view) if format_ == "mermaid" else text(view, colour=colour)


def text(view: GraphView, *, colour: bool = False) -> str:
    """Draw the graph as lines of text."""
    from streamline.cli.graph_terminal import drawn, notes

    lines = []
    width = max((columns_of(cell(node.uuid)) for node in view.nodes), default=0)
    for lanes, node in drawn(view):
        if node is None:
            lines.append(lanes)
            continue
        name = padded(cell(node.uuid), width)
        words = ", ".join([_kind(node), *node.marks, *notes(view, node.uuid)])
        lines.append(f"{lanes}  {click.style(name, bold=True) if colour else name}  {words}")
    pipeline_callbacks = [cell(node.uuid) for node in view.nodes if node.type == "callback" and node.marks]
    if pipeline_callbacks:
        lines += ["", f"called when the pipeline ends: {', '.join(pipeline_callbacks)}"]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _kind(node: Node) -> str:
    return f"{node.kind} ({node.language})"


__all__ = ["command", "draw", "text"]
