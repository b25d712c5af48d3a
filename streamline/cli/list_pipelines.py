"""`streamline list`: the pipelines of a project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from streamline.cli.app import App, pass_app
from streamline.cli.output import json_option, moment, print_json, print_table
from streamline.errors import StreamlineError

if TYPE_CHECKING:
    from streamline.state.store import Store


@click.command("list")
@json_option
@pass_app
def command(app: App, as_json: bool) -> None:
    """List the project's pipelines, each with its last run."""
    with app.store() as store:
        rows = [_row(app, store, pipeline) for pipeline in app.project.pipelines()]
    if as_json:
        print_json(rows)
        return
    print_table(
        ["PIPELINE", "TYPE", "BLOCKS", "LAST RUN", "STARTED", "ERROR"],
        [
            (row["pipeline"], row["type"], row["blocks"], row["status"], moment(row["started"]), row["error"])
            for row in rows
        ],
        empty="The project has no pipelines: streamline create NAME",
    )


def _row(app: App, store: Store, pipeline: str) -> dict[str, Any]:
    from streamline.pipeline.reader import load_pipeline
    from streamline.state.store import current_run

    type_, blocks, error = None, None, None
    try:
        model = load_pipeline(app.project, pipeline)
        type_, blocks = model.type, len(model.blocks)
    except StreamlineError as failure:  # the list helps to find it
        error = f"{failure.where}: {failure.message}" if failure.where else failure.message
    runs = [current_run(store, run) for run in store.runs(pipeline, limit=1)]
    return {
        "pipeline": pipeline,
        "type": type_,
        "blocks": blocks,
        "run_id": runs[0].run_id if runs else None,
        "status": runs[0].status if runs else None,
        "started": runs[0].started if runs else None,
        "error": error,
    }
