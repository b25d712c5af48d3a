"""A running Singer mapper: it reads what a source gives and is itself the source of what comes after it."""

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
"""How long it may be silent once its input has ended."""

STOP_SECONDS = 20.0
"""How long it may be silent once the source was asked to end."""


class MapperProcess(TapProcess):
    """A mapper behind `upstream`.

    Positions pass through it in their order: a STATE that it prints was read after all records before it. They bear
    the id of `upstream`, whose positions they are. It ends when its input does, so that to stop it is to stop what is
    before it.
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
        """Stop what it reads from; it ends after that."""
        self._upstream.stop(reason)

    @property
    def stopped(self) -> str | None:
        """Why what it reads from was asked to end, if it was."""
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
            # A source that failed is the cause of whatever the mapper made of its end.
            raise (failure or [error])[0] from None
        if failure:
            raise failure[0]
        # Exit code 0 says nothing about records that it has not read.
        unread = child.stdin.unread() if child.stdin is not None else 0
        if not self._fed or unread:
            raise TapFailed(
                f"it exited with code 0 and left {unread:,} bytes of its input unread"
                if self._fed
                else "it exited with code 0 before the end of its input",
                where=self._command.name,
                hint="what it has not read is read again by the next run; report this to its authors",
            )

    async def _bound(self) -> None:
        """Give it up if it says nothing for long after its input has ended, or after the source was stopped."""
        since: float | None = None
        while True:
            await anyio.sleep(0.1)
            now = anyio.current_time()
            stopped = self.stopped is not None
            if since is None and (self._input_over or stopped):
                since = now
            # What it printed and nobody has taken yet is no silence.
            if since is None or self._waiting_since is None:
                continue
            if now - max(since, self._waiting_since) >= (STOP_SECONDS if stopped else DRAIN_SECONDS):
                self._give_up(
                    "it did not end after its input had" if self._input_over else "it does not take its input"
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
            pass  # it is gone; its exit code says why
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
