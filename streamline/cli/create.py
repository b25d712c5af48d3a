"""`streamline create`: create a pipeline."""

from __future__ import annotations

import click

from streamline.cli.app import App, pass_app


@click.command("create")
@click.argument("pipeline")
@click.option(
    "--type",
    "pipeline_type",
    metavar="TYPE",
    default="python",
    show_default=True,
    help="python (also: standard, batch), integration, streaming or dbt.",
)
@click.option("--description", metavar="TEXT", help="The pipeline's description.")
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="Add a tag; may be given several times.")
@pass_app
def command(app: App, pipeline: str, pipeline_type: str, description: str | None, tags: tuple[str, ...]) -> None:
    """Create PIPELINE without blocks."""
    from streamline.pipeline.edit import create_pipeline

    folder = create_pipeline(app.project, pipeline, pipeline_type, description=description, tags=tags)
    click.echo(f"Created {app.project.shown(folder / 'metadata.yaml')}")
    kind = {"integration": "source", "streaming": "source", "dbt": "dbt"}.get(pipeline_type, "data_loader")
    click.echo(f"Next: streamline add {kind} NAME --pipeline {pipeline}")
