"""BATCH messages: records that a tap left in files, read here where a target or a block cannot.

Both dialects are known: Meltano's SDK (`encoding` and `manifest`) and PipelineWise (`filepath`, `format`,
`compression`). A file may be far larger than memory, so this is no stage (those return all they have at once)
but wraps the source: what reads it slowly makes the file be read slowly.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec
from anyio import to_thread

from streamline.flow.items import FileBatch, Item, Position
from streamline.flow.protocols import Emit, Source, WrappedSource

CHUNK_BYTES = 1 << 20


class FileSource(WrappedSource):
    """A source whose BATCH messages are forwarded or expanded, and whose files are deleted when they are proven.

    That parts are confirmed says nothing of files: a stream whose bookmark did not move may be unproven.

    Args:
        source: the tap.
        run_dir: only files under this folder are deleted.
        root: folder of relative paths (the project's, where the tap runs).
        passed: the dialects (`sdk`, `pipelinewise`) that are forwarded, because every target takes them and no block
            has to see the records. Files of other dialects are expanded.
        chunk_bytes: size of a batch of records, about.
    """

    def __init__(
        self,
        source: Source,
        *,
        run_dir: Path,
        root: Path,
        passed: Collection[str] = (),
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        super().__init__(source)
        self._run_dir = run_dir.resolve()
        self._root = root
        self._passed = frozenset(passed)
        self._chunk_bytes = chunk_bytes
        self._unmarked: list[Path] = []  # files of BATCHes that no position covers yet
        self._marked: list[tuple[int, list[Path]]] = []  # (number of the position that covers them, files)

    async def run(self, emit: Emit) -> None:
        """See `Source.run`.

        Raises:
            StreamlineError: the source failed, or a file is missing, broken or of an unknown encoding.
        """

        async def take(items: Sequence[Item]) -> None:
            ready: list[Item] = []
            for item in items:
                if isinstance(item, Position):
                    self._mark(item)
                elif isinstance(item, FileBatch):
                    from streamline.connectors.singer import batch_records

                    paths = [batch_records.local_path(item, name, self._root) for name in item.files]
                    self._unmarked += paths
                    if item.dialect not in self._passed:
                        if ready:
                            await emit(ready)
                            ready = []
                        for path in paths:
                            await batch_records.read_records(item, path, self._chunk_bytes, emit)
                        continue
                    if item.count is None:
                        count = await to_thread.run_sync(batch_records.count_records, item, paths)
                        item = msgspec.structs.replace(item, count=count)
                ready.append(item)
            if ready:
                await emit(ready)

        await self._source.run(take)

    async def delete_until(self, position: Position) -> None:
        """Delete the files that a position covers: every record before it is proven by every sink."""
        proven = [path for number, paths in self._marked if number <= position.number for path in paths]
        self._marked = [entry for entry in self._marked if entry[0] > position.number]
        await self._delete(proven)

    async def delete_all(self) -> None:
        """Delete what files are left: everything that the source gave is proven by every sink."""
        left = [path for _, paths in self._marked for path in paths] + self._unmarked
        self._marked.clear()
        self._unmarked.clear()
        await self._delete(left)

    def _mark(self, position: Position) -> None:
        if self._unmarked:
            self._marked.append((position.number, self._unmarked))
            self._unmarked = []

    async def _delete(self, paths: Sequence[Path]) -> None:
        ours = [path for path in paths if path.resolve().is_relative_to(self._run_dir)]

        def delete() -> None:
            for path in ours:
                path.unlink(missing_ok=True)

        if ours:
            await to_thread.run_sync(delete)
