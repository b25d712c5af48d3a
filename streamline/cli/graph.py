"""`streamline graph`: a pipeline's blocks and what lies behind what, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamline.cli.app import App, pass_app
from streamline.errors import ConfigError

if TYPE_CHECKING:
    from streamline.pipeline.model import PipelineModel

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 200, 52, 70, 24, 20
"""Of the boxes of an SVG, in pixels."""


@click.command("graph")
@click.argument("pipeline")
@click.option(
    "--output",
    "-o",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write it there, as .svg or .mmd (Mermaid); else Mermaid text is printed.",
)
@pass_app
def command(app: App, pipeline: str, output: Path | None) -> None:
    """Draw the blocks of a pipeline."""
    from streamline.pipeline.model import load_pipeline

    model = load_pipeline(app.project, pipeline)
    if output is None:
        click.echo(mermaid(model), nl=False)
        return
    drawings = {".svg": svg, ".mmd": mermaid}
    draw = drawings.get(output.suffix.lower())
    if draw is None:
        raise ConfigError(f"--output {output}: it must end in .svg or .mmd")
    output.write_text(draw(model), encoding="utf-8")
    click.echo(f"Wrote {output}")


def mermaid(model: PipelineModel) -> str:
    """The graph in Mermaid's language."""
    number = {uuid: f"b{at}" for at, uuid in enumerate(model.order())}
    lines = ["flowchart LR"]
    for uuid, name in number.items():
        words = uuid.replace('"', "#quot;")
        lines.append(f'    {name}["{words}<br/>{model.blocks[uuid].type}"]')
    lines += [f"    {number[above]} --> {number[uuid]}" for uuid in number for above in model.blocks[uuid].upstream]
    return "\n".join(lines) + "\n"


def svg(model: PipelineModel) -> str:
    """The graph as an SVG: a column for each step away from the sources."""
    from xml.sax.saxutils import escape

    column: dict[str, int] = {}
    rows: dict[int, int] = {}
    place: dict[str, tuple[int, int]] = {}
    for uuid in model.order():
        column[uuid] = 1 + max((column[above] for above in model.blocks[uuid].upstream), default=-1)
        row = rows.get(column[uuid], 0)
        rows[column[uuid]] = row + 1
        place[uuid] = (MARGIN + column[uuid] * (WIDTH + GAP_X), MARGIN + row * (HEIGHT + GAP_Y))
    width = max((x for x, _ in place.values()), default=0) + WIDTH + MARGIN
    height = max((y for _, y in place.values()), default=0) + HEIGHT + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#666"/></marker></defs>',
    ]
    for uuid, (x, y) in place.items():
        for above in model.blocks[uuid].upstream:
            x1, y1 = place[above][0] + WIDTH, place[above][1] + HEIGHT // 2
            x2, y2 = x, y + HEIGHT // 2
            bend = f"C{x1 + GAP_X // 2} {y1} {x2 - GAP_X // 2} {y2} {x2} {y2}"
            parts.append(f'<path d="M{x1} {y1}{bend}" fill="none" stroke="#666" marker-end="url(#tip)"/>')
    for uuid, (x, y) in place.items():
        parts.append(f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#f4f6fa" stroke="#456"/>')
        for at, text, size in ((22, uuid, 14), (41, model.blocks[uuid].type, 11)):
            parts.append(
                f'<text x="{x + WIDTH // 2}" y="{y + at}" font-size="{size}" text-anchor="middle">{escape(text)}</text>'
            )
    return "\n".join([*parts, "</svg>"]) + "\n"


__all__ = ["command", "mermaid", "svg"]
