"""`streamline clean`: delete the files of old runs."""

from __future__ import annotations

import click

from streamline.cli.app import App, pass_app
from streamline.cli.output import count
from streamline.errors import ConfigError

DEFAULT_AGE = "30d"


@click.command("clean")
@click.option(
    "--older-than",
    metavar="D",
    default=DEFAULT_AGE,
    show_default=True,
    help="The minimum age of runs to clean: seconds, or 90s, 12h, 7d.",
)
@pass_app
def command(app: App, older_than: str) -> None:
    """Delete the logs and temporary files of old runs.

    Keeps active runs, bookmarks, dead letters and the history of runs.
    """
    import shutil
    import time

    from streamline.blocks.connector.spec import duration

    try:
        newest = time.time() - (0.0 if older_than.strip() in ("0", "0s", "0d") else duration(older_than))
    except ValueError as error:
        raise ConfigError(f"--older-than: {error}", code="duration.invalid") from None
    runs = app.project.work_dir / "runs"
    if runs.is_symlink():
        raise ConfigError(
            "is a symbolic link; nothing is deleted through it",
            where=str(runs),
            hint="delete the files of old runs where they are",
            code="project.work_folder_invalid",
        )
    with app.store() as store:
        running = {
            holder.run_id for name in app.project.pipelines() if (holder := store.lease_holder(name)) is not None
        }
    deleted = 0
    for folder in sorted(runs.iterdir()) if runs.is_dir() else []:
        if folder.name in running or not folder.is_dir() or folder.is_symlink():
            continue
        # The log is written until the end of a run; the folder changes with the run's temporary files.
        if max(path.lstat().st_mtime for path in (folder, *folder.iterdir())) <= newest:
            shutil.rmtree(folder, ignore_errors=True)
            deleted += 1
    click.echo(f"Deleted the files of {count(deleted, 'run')}.")
