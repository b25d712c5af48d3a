"""The command `tap-sqlite`."""

from __future__ import annotations

from collections.abc import Sequence

from kit.connector import Arguments, Config, Connector, Setting, run

CONNECTOR = Connector(
    name="tap-sqlite",
    description="Reads tables and views of a SQLite database.",
    capabilities=("about", "catalog", "discover", "properties", "state", "multiple-bookmarks", "activate-version"),
    settings=(
        Setting("path", "string", "the database file; it is opened for reading only", required=True),
        Setting(
            "tables", "array", "names or globs of the tables and views to discover; all if left out", items="string"
        ),
        Setting("state_interval", "integer", "records between two STATEs", default=10_000, minimum=1),
        Setting("busy_timeout", "number", "seconds to wait for a writer's lock", default=30, minimum=0),
    ),
)


def main(argv: Sequence[str]) -> int:
    """Run the tap; return its exit code."""
    return run(CONNECTOR, argv, _work, tap=True)


def _work(config: Config, args: Arguments) -> None:
    from .tap import work

    work(config, args)
