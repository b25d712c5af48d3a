"""A source of messages in files (see `reader.py`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import anyio
import anyio.to_thread

from streamline.connectors.files.reader import FileReader
from streamline.connectors.files.settings import FileSettings
from streamline.connectors.stream_connector import StreamContext
from streamline.flow.items import Item, Position
from streamline.flow.protocols import Emit


class FileSource:
    """Reads files as they grow and appear. Implements `flow.protocols.Source`.

    A position has a part for each file, by the number of its inode.
    """

    def __init__(self, settings: FileSettings, context: StreamContext) -> None:
        self.id = context.block
        self.stopped: str | None = None
        self._settings = settings
        self._context = context
        self._confirmed: list[Mapping[str, bytes]] = []
        self._stop = anyio.Event()

    async def run(self, emit: Emit) -> None:
        """See `Source.run`.

        Raises:
            StreamlineError: a file cannot be read.
        """
        context = self._context
        reader = FileReader(
            self.id,
            self._settings,
            context.start,
            root=context.root,
            until_caught_up=context.until_caught_up,
            note=lambda message, level: anyio.from_thread.run_sync(context.note, message, level),
        )
        number = 0
        try:
            while self.stopped is None:
                confirmed, self._confirmed = self._confirmed, []
                read = await anyio.to_thread.run_sync(reader.read, confirmed)
                if read is None:
                    if reader.caught_up:
                        return
                    with anyio.move_on_after(self._settings.poll_interval):
                        await self._stop.wait()
                    continue
                number += 1
                batch, parts = read
                items: list[Item] = [batch] if batch is not None else []
                await emit([*items, Position(self.id, number, parts)])
        finally:
            reader.close()

    def stop(self, reason: str) -> None:
        """See `Source.stop`."""
        self.stopped = self.stopped or reason
        self._stop.set()

    async def confirm(self, parts: Mapping[str, bytes]) -> None:
        """See `Source.confirm`."""
        self._confirmed.append(parts)

    async def release(self, keys: Collection[str]) -> None:
        """See `Source.release`; nobody else reads its files."""
