"""A Singer mapper process as a source, which reads the items of the source before it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import anyio
import anyio.to_thread

from streamline.connectors.singer.messages import activate_version_line, schema_line, state_line
from streamline.connectors.singer.state import state_of
from streamline.connectors.singer.tap import TapCommand, TapFailed, TapProcess
from streamline.flow.items import (
    ActivateVersion,
    ArrowBatch,
    Buffer,
    FileBatch,
    Item,
    Position,
    RawBatch,
    RowBatch,
    Schema,
)
from streamline.flow.protocols import Emit, Source
from streamline.flow.tasks import task_group
from streamline.processes.child import Child, TextMasker

DRAIN_SECONDS = 3600.0
"""Seconds without output after the end of its input until it is taken for stuck."""

STOP_SECONDS = 20.0
"""Seconds without output after the source was stopped until it is taken for stuck."""


class MapperProcess(TapProcess):
    """A mapper behind `upstream`.

    Positions pass through it in order: a STATE that it prints was read after all records before it. They bear the id of
    `upstream`. A mapper exits at the end of its input, so stopping it means stopping `upstream`.
    """

    def __init__(
        self,
        command: TapCommand,
        upstream: Source,
        *,
        run_dir: Path,
        masker: TextMasker,
        log: Callable[[str], None],
    ) -> None:
        super().__init__(command, run_dir=run_dir, masker=masker, log=log)
        self.id = upstream.id
        self._upstream = upstream
        self._fed = False
        self._input_over = False

    def stop(self, reason: str) -> None:
        """Stop `upstream`; the mapper exits after that."""
        self._upstream.stop(reason)

    @property
    def stopped(self) -> str | None:
        """See `Source.stopped`."""
        return self._upstream.stopped

    async def confirm(self, parts: Mapping[str, bytes]) -> None:
        """See `Source.confirm`."""
        await self._upstream.confirm(parts)

    async def release(self, keys: Collection[str]) -> None:
        """See `Source.release`."""
        await self._upstream.release(keys)

    def _start_child(self, argv: list[str]) -> Child:
        command = self._command
        return Child.start(command.name, argv, env=command.env, cwd=command.cwd, stdin=True)

    async def _follow(self, child: Child, emit: Emit) -> None:
        failure: list[Exception] = []
        try:
            async with task_group() as tasks:
                tasks.start_soon(self._feed, child, failure)
                tasks.start_soon(self._bound)
                await super()._follow(child, emit)
                tasks.cancel_scope.cancel()
        except Exception as error:
            # If the source failed, that is the cause of whatever the mapper did after it.
            raise (failure or [error])[0] from None
        if failure:
            raise failure[0]
        # Exit code 0 proves nothing about records that it did not read.
        unread = child.stdin.unread() if child.stdin is not None else 0
        if not self._fed or unread:
            raise TapFailed(
                f"exited with code 0 and left {unread:,} bytes of its input unread"
                if self._fed
                else "exited with code 0 before the end of its input",
                where=self._command.name,
                hint="the next run reads again what it did not read; report this to its authors",
                code="mapper.input_unread",
            )

    async def _bound(self) -> None:
        """Fail if it prints nothing for long after the end of its input, or after the source was stopped."""
        since: float | None = None
        while True:
            await anyio.sleep(0.1)
            now = anyio.current_time()
            stopped = self.stopped is not None
            if since is None and (self._input_over or stopped):
                since = now
            # Output that is not processed yet does not count as silence.
            if since is None or self._waiting_since is None:
                continue
            if now - max(since, self._waiting_since) >= (STOP_SECONDS if stopped else DRAIN_SECONDS):
                self._give_up(
                    TapFailed(
                        "did not exit after the end of its input" if self._input_over else "does not read its input",
                        where=self._command.name,
                        code="mapper.timed_out",
                    )
                )
                return

    async def _feed(self, child: Child, failure: list[Exception]) -> None:
        stdin = child.stdin
        assert stdin is not None

        async def write(items: Sequence[Item]) -> None:
            buffers: list[Buffer] = []
            for item in items:
                buffers += await _lines(item)
            await stdin.send(buffers)

        try:
            await self._upstream.run(write)
            self._fed = True
        except BrokenPipeError:
            pass  # it has exited; its exit code says why
        except Exception as error:
            failure.append(error)
        finally:
            with contextlib.suppress(OSError):
                stdin.close()
            self._input_over = True


async def _lines(item: Item) -> Sequence[Buffer]:
    match item:
        case RawBatch():
            return item.slices
        case RowBatch() | ArrowBatch():
            from streamline.flow.codecs.lanes import to_raw

            return (await anyio.to_thread.run_sync(to_raw, item)).slices
        case Schema():
            return [schema_line(item)]
        case Position():
            return [state_line(state_of(item.parts))]
        case ActivateVersion():
            return [activate_version_line(item)]
        case FileBatch():
            return [item.raw]
        case _:
            return []
