"""What a streaming run shows of itself while it runs."""

from __future__ import annotations

import time
from collections.abc import Mapping

import anyio

from streamline.connectors.stream_connector import LaggingSource
from streamline.execution.events import StreamProgress
from streamline.execution.run import Run
from streamline.flow.protocols import Source

LIVE_SECONDS = 1.0
"""How often counts are published."""


async def publish_live(run: Run, sources: Mapping[str, Source]) -> None:
    """Publish the counts every second, until it is cancelled."""
    while True:
        await anyio.sleep(LIVE_SECONDS)
        run.bus.publish(progress_of(run, sources))


def progress_of(run: Run, sources: Mapping[str, LaggingSource | Source]) -> StreamProgress:
    """Return the counts so far."""
    summary = run.progress.summary()
    saved = max(run.progress.saved.values(), default=None)
    return StreamProgress(
        read=summary["records"],
        written=sum(table["written"] for table in summary["tables"]),
        in_flight=run.progress.unsaved,
        dead_letters=summary["quarantined"],
        lag=[
            {"block": uuid, "name": lag.name, "behind": lag.behind, "position": lag.position}
            for uuid, source in sources.items()
            if hasattr(source, "lag")
            for lag in source.lag()
        ],
        seconds=run.progress.seconds,
        saved_ago=time.monotonic() - saved if saved is not None else None,
        streams=summary["streams"],
        tables=summary["tables"],
    )
