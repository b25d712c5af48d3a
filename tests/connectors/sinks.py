"""Runs a sink of messages to its end, with what a test wants to see of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import msgspec

from streamline.connectors.stream_connector import StreamConnector, StreamContext
from streamline.flow.items import BadRecord, MessageBatch, Origin, Position
from streamline.flow.protocols import Sink

PATIENCE = 60.0


class Outcome:
    """What a sink reported."""

    def __init__(self) -> None:
        self.proven: dict[str, int] = {}
        self.refused: list[BadRecord] = []
        self.failures: list[Exception] = []
        self.notes: list[tuple[str, str]] = []


def where(*path: str) -> str:
    """The place of a setting."""
    return ":".join(("block.yaml", *path))


def context(root: Path, **given: Any) -> StreamContext:
    """The context of a sink `export`."""
    return StreamContext(**{"pipeline": "p", "block": "export", "root": root, "startup_timeout": 5.0, **given})


def batch(
    data: Sequence[Any],
    *,
    stream: str = "orders",
    keys: Sequence[str | None] | None = None,
    at: int = 0,
    partition: int = 0,
) -> Any:
    """Messages, read from offset `at` on."""
    origins: list[Origin | None] = [
        Origin(
            stream,
            partition,
            at + number,
            None if keys is None or (key := keys[number]) is None else key.encode(),
            None if message is None else msgspec.json.encode(message, enc_hook=repr),
            time=1_700_000_000_000,
        )
        for number, message in enumerate(data)
    ]
    return MessageBatch(stream, list(data), origins)


def written(
    connector: StreamConnector,
    config: dict[str, Any],
    root: Path,
    sent: Sequence[MessageBatch],
    *,
    refuse: Callable[[BadRecord], None] = lambda record: None,
    **about: Any,
) -> Outcome:
    """Send batches, each with a position after it, and close the sink."""
    outcome = Outcome()
    about = {"note": lambda text, level: outcome.notes.append((level, text)), **about}
    made: Any = connector.open_sink({"export": config}, context(root, **about), {"export": where})

    def refused(source: str, records: Sequence[BadRecord]) -> None:
        outcome.refused += records
        for record in records:
            refuse(record)

    made.refused = refused
    anyio.run(_run, made, sent, outcome)
    return outcome


async def _run(sink: Sink, sent: Sequence[MessageBatch], outcome: Outcome) -> None:
    async def run() -> None:
        await sink.run(outcome.proven.__setitem__, outcome.failures.append)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await anyio.lowlevel.checkpoint()
            for number, each in enumerate(sent, 1):
                if outcome.failures:
                    break
                await sink.send("load", [each, Position("load", number, {})])
            await sink.close()
            tasks.cancel_scope.cancel()
