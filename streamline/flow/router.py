"""Moves items from one source through stages into sinks.

The source is read a few steps ahead of the processing, and no further: that bounds memory by what the source gives at
a time. One task does all the processing, which keeps the order within each stream.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import groupby
from typing import cast

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from streamline.errors import StreamFailed
from streamline.flow.items import BadRecord, Item, Position
from streamline.flow.merge import Merge
from streamline.flow.protocols import FlushableStage, Sink, Source, Stage, StartableStage
from streamline.flow.stops import StoppedStreams, StopPolicy
from streamline.flow.tasks import task_group

AHEAD = 3
"""Reads that may wait to be processed."""


class Route:
    """The way of items: through `stages`, then into `sinks` and `branches`."""

    def __init__(
        self, stages: Sequence[Stage] = (), sinks: Sequence[Sink] = (), branches: Sequence[Route] = ()
    ) -> None:
        self.stages = list(stages)
        self.sinks = list(sinks)
        self.branches = list(branches)

    def all_stages(self) -> list[Stage]:
        """Return the stages of this route and of its branches."""
        return [stage for route in self.all_routes() for stage in route.stages]

    def all_sinks(self) -> list[Sink]:
        """Return the sinks of this route and of its branches, each once."""
        return list({sink.id: sink for route in self.all_routes() for sink in route.sinks}.values())

    def all_routes(self) -> list[Route]:
        """Return this route and its branches."""
        return [self, *(route for branch in self.branches for route in branch.all_routes())]


class Router:
    """Runs one source to its end.

    Args:
        prompt: flush stages after each read, also where more is waiting.
        observe: called with all that the source gave, before it is processed.
        on_bad: called with records of one stream that a stage refused, in order, before any later position is sent.
            What it raises stops the stream.
        on_position: called with a sink's id and each position that it is about to be sent.
        stops: how a stream that fails is stopped alone; None: the flow ends with its error.
        complete: called when the source has ended well; whether it was its own end, and not our asking.

    Attributes:
        newest: number of the newest position that the source gave; 0 before the first.
    """

    def __init__(
        self,
        source: Source,
        route: Route,
        *,
        observe: Callable[[Sequence[Item]], None],
        on_bad: Callable[[Sequence[BadRecord]], None],
        on_position: Callable[[str, Position], None] = lambda sink, position: None,
        complete: Callable[[], bool] = lambda: True,
        stops: StopPolicy | None = None,
        prompt: bool = False,
    ) -> None:
        self.newest = 0
        self._source = source
        self._route = route
        self._observe = observe
        self._on_bad = on_bad
        self._on_position = on_position
        self._complete = complete
        self._prompt = prompt
        self._flushable = any(hasattr(stage, "flush") for stage in route.all_stages())
        self._stopped: dict[Route, StoppedStreams] = {}
        self._branch(route, StoppedStreams(stops))
        self._paths: dict[str, list[Route]] = {}
        for each in route.all_routes():
            for sink in each.sinks:
                self._paths.setdefault(sink.id, []).append(each)
        self._merges = {sink: Merge(len(routes)) for sink, routes in self._paths.items() if len(routes) > 1}
        if sum(map(len, self._paths.values())) == 1:
            for stopped in self._stopped.values():
                stopped.rewinds = True
        self._closed = False

    def _branch(self, route: Route, stopped: StoppedStreams) -> None:
        self._stopped[route] = stopped
        for branch in route.branches:
            self._branch(branch, stopped.branch())

    async def run(self) -> None:
        """Move everything. If the source fails, what it gave before is still delivered.

        Raises:
            StreamlineError: the source, a stage or a sink raised it.
        """
        failure: list[Exception] = []
        try:
            await self._pump(failure)
            complete = not failure and self._complete()
            if complete:
                await self._finish(self._route)
            else:
                await self._flush(self._route)
            for sink in self._route.all_sinks():
                if complete and sink.id in self._merges:
                    await self._send(sink, self._merges[sink.id].finish())
                await sink.source_ended(self._source.id)
            if failure:
                raise failure[0]
        finally:
            # An error here must not hide an earlier one.
            errors = await self.close()
        if errors:
            raise errors[0]

    async def start(self) -> None:
        """Get the stages ready.

        Raises:
            StreamlineError: one of them cannot be used.
        """
        for stage in self._route.all_stages():
            if hasattr(stage, "start"):
                await cast(StartableStage, stage).start()

    async def close(self) -> list[Exception]:
        """Close all stages, once; `run` does so at its end. Return the errors that they raised."""
        errors: list[Exception] = []
        if self._closed:
            return errors
        self._closed = True
        with anyio.CancelScope(shield=True):
            for stage in self._route.all_stages():
                try:
                    await stage.close()
                except Exception as error:
                    errors.append(error)
        return errors

    async def _pump(self, failure: list[Exception]) -> None:
        send, receive = anyio.create_memory_object_stream[Sequence[Item]](AHEAD)
        async with task_group() as tasks:
            tasks.start_soon(self._read, send, failure)
            await self._process(receive)

    async def _read(self, send: MemoryObjectSendStream[Sequence[Item]], failure: list[Exception]) -> None:
        async def emit(items: Sequence[Item]) -> None:
            for item in reversed(items):
                if isinstance(item, Position):
                    self.newest = item.number
                    break
            await send.send(items)

        async with send:
            try:
                await self._source.run(emit)
            except Exception as error:  # raised again once what came before it is delivered
                failure.append(error)

    async def _process(self, receive: MemoryObjectReceiveStream[Sequence[Item]]) -> None:
        async with receive:
            async for items in receive:
                self._observe(items)
                await self._deliver(self._route, items, 0)
                if self._flushable and (self._prompt or not receive.statistics().current_buffer_used):
                    await self._flush(self._route)

    async def _deliver(self, route: Route, items: Sequence[Item], first_stage: int) -> None:
        stopped = self._stopped[route]
        for number in range(first_stage, len(route.stages)):
            out: list[Item] = []
            for item in items:
                if stopped.drops(item):
                    continue
                try:
                    out += await route.stages[number].process(item)
                except Exception as error:
                    # The items before the one that it failed on are whole: deliver them.
                    await self._deliver(route, self._without_bad(route, out), number + 1)
                    out = []
                    stopped.add(item, error)
            items = self._without_bad(route, out)
            if not items:
                return
        items = [item for item in items if not stopped.drops(item)]
        if not items:
            return
        held = [stopped.position(item) if isinstance(item, Position) else item for item in items] if route.sinks else []
        for sink in route.sinks:
            sent = held
            if sink.id in self._merges:
                sent = self._merges[sink.id].take(self._paths[sink.id].index(route), held)
            await self._send(sink, sent)
        for branch in route.branches:
            await self._deliver(branch, items, 0)

    async def _send(self, sink: Sink, items: Sequence[Item]) -> None:
        for item in items:
            if isinstance(item, Position):
                self._on_position(sink.id, item)
        if items:
            await sink.send(self._source.id, items)

    async def _flush(self, route: Route) -> None:
        for number, stage in enumerate(route.stages):
            if hasattr(stage, "flush"):
                flushable = cast(FlushableStage, stage)
                while flushable.pending:
                    await self._deliver_rest(route, number, flushable.flush)
        for branch in route.branches:
            await self._flush(branch)

    async def _finish(self, route: Route) -> None:
        for number, stage in enumerate(route.stages):
            await self._deliver_rest(route, number, stage.finish)
        for branch in route.branches:
            await self._finish(branch)

    async def _deliver_rest(self, route: Route, number: int, rest: Callable[[], Awaitable[Sequence[Item]]]) -> None:
        """Deliver what a stage still holds; it is asked again after the failure of a stream."""
        while True:
            try:
                items = await rest()
            except StreamFailed as error:
                self._stopped[route].add(None, error)
            else:
                await self._deliver(route, self._without_bad(route, items), number + 1)
                return

    def _without_bad(self, route: Route, items: Sequence[Item]) -> Sequence[Item]:
        bad = [item for item in items if isinstance(item, BadRecord)]
        if not bad:
            return items
        for _, records in groupby(bad, key=lambda each: each.stream):
            refused = list(records)
            try:
                self._on_bad(refused)
            except Exception as error:
                self._stopped[route].add(refused[0], error)
        return [item for item in items if not isinstance(item, BadRecord)]
