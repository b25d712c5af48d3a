"""Runs flows: any sources, through their routes, into any sinks, with positions and proof.

Everything a source gave is processed, sent and proven by all its sinks before its position is saved. A source that
fails leaves the others running; a sink that fails ends the flows that feed it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import cast

import anyio
import anyio.lowlevel
import msgspec
from anyio.abc import TaskGroup

from streamline.errors import StreamlineError
from streamline.flow.checkpoint import SAVE_INTERVAL, Checkpoint
from streamline.flow.items import BadRecord, Item, Position
from streamline.flow.ledger import Ledger
from streamline.flow.protocols import (
    HandingOverSink,
    KeyedStage,
    LastingSource,
    PositionStore,
    RefusingSink,
    SharedSource,
    Sink,
    Source,
)
from streamline.flow.router import Route, Router
from streamline.flow.stops import StopPolicy
from streamline.flow.tasks import task_group


class Flow(msgspec.Struct, kw_only=True):
    """A source and the way of its items.

    Args:
        prompt: what the source gives at a time has left all stages before more of it is processed.
        limits: of each, the flow holds one token while it runs.
        before: awaited right before the source is run.
        observe: called with all that the source gave, before it is processed.
        refused: called with records of one stream that a stage refused, after they were passed to the checkpoint. What
            it raises stops the stream.
        stops: how a stream that fails is stopped alone; None: the flow ends with its error.
    """

    source: Source
    route: Route
    prompt: bool = False
    limits: Sequence[anyio.CapacityLimiter] = ()
    before: Callable[[], Awaitable[None]] | None = None
    observe: Callable[[Sequence[Item]], None] = lambda items: None
    refused: Callable[[Sequence[BadRecord]], None] = lambda records: None
    stops: StopPolicy | None = None

    @property
    def id(self) -> str:
        """The source's id."""
        return self.source.id


class FlowOutcome(msgspec.Struct):
    """How a flow ended.

    Args:
        error: None if everything that the source gave is proven.
        sink: id of the sink that failed, if that was the cause.
        began, ended: seconds of the event loop's clock; `began` is None if the source was never run.
    """

    source: str
    error: Exception | None = None
    sink: str | None = None
    began: float | None = None
    ended: float | None = None


class _Running(msgspec.Struct):
    """A flow that runs."""

    flow: Flow
    outcome: FlowOutcome
    router: Router
    scope: anyio.CancelScope | None = None
    ended: bool = False


class Runtime:
    """Runs flows once, all at the same time as far as their limits allow.

    Args:
        store: keeps positions and refused records.
        on_saved: called with each position that was saved, and what of it was new.
        on_failed: called with the id of a source or sink and its error, when it fails.
        save_interval: seconds between two saves.

    Attributes:
        failures: error by sink that failed.
    """

    def __init__(
        self,
        flows: Sequence[Flow],
        *,
        store: PositionStore,
        on_saved: Callable[[Position, Mapping[str, bytes]], Awaitable[None]] | None = None,
        on_failed: Callable[[str, Exception], None] = lambda id, error: None,
        save_interval: float = SAVE_INTERVAL,
    ) -> None:
        self.failures: dict[str, Exception] = {}
        self._on_failed = on_failed
        self._sinks = {sink.id: sink for flow in flows for sink in flow.route.all_sinks()}
        self._checkpoint = Checkpoint(
            store,
            Ledger({flow.id: frozenset(sink.id for sink in flow.route.all_sinks()) for flow in flows}),
            {flow.id: flow.source for flow in flows},
            on_saved=on_saved,
            interval=save_interval,
        )
        self._running = {flow.id: _Running(flow, FlowOutcome(flow.id), self._router(flow)) for flow in flows}
        self._closing: dict[str, anyio.CancelScope] = {}
        self._closed: dict[str, anyio.Event] = {sink: anyio.Event() for sink in self._sinks}
        self._stopping = False
        for flow in flows:
            if hasattr(flow.source, "give_up"):
                cast(SharedSource, flow.source).give_up = partial(self._give_up, flow.id)
        for sink in self._sinks.values():
            if hasattr(sink, "refused"):
                cast(RefusingSink, sink).refused = self._refuse

    async def run(self) -> list[FlowOutcome]:
        """Run everything to its end; failures are in the outcomes, one for each flow.

        Raises:
            StreamlineError: a stage could not be started; nothing was run.
        """
        try:
            for running in self._running.values():
                await running.router.start()
            async with task_group() as background:
                for sink in self._sinks.values():
                    background.start_soon(self._run_sink, sink)
                background.start_soon(self._checkpoint.run)
                await anyio.lowlevel.checkpoint()  # each of them has begun
                async with task_group() as flows:
                    for running in self._running.values():
                        flows.start_soon(self._run_flow, running, background)
                async with task_group() as closing:
                    for sink in self._sinks.values():
                        closing.start_soon(self._close, sink)
                background.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                for running in self._running.values():
                    await running.router.close()
                try:
                    await self._checkpoint.flush()
                finally:
                    for running in self._running.values():
                        if hasattr(running.flow.source, "close"):
                            await cast(LastingSource, running.flow.source).close()
        for running in self._running.values():
            self._judge(running)
        return [running.outcome for running in self._running.values()]

    def stop(self, reason: str, *, within: float | None = None) -> None:
        """Stop all sources at the next good place, and start no more. What they gave is processed and proven.

        Args:
            within: seconds that sinks get from now on.
        """
        self._stopping = True
        for running in self._running.values():
            running.flow.source.stop(reason)
        if within is not None:
            for sink in self._sinks.values():
                sink.limit(within)

    async def release(self, source: str, keys: Collection[str], *, within: float) -> None:
        """Give up keys of a source: save what is proven of them within some seconds; after that nothing is saved.

        A flow that has failed is not waited for: what it gave last may never be proven.

        Keys that come back are saved from the first position on that the source gives after this.
        """
        running = self._running[source]
        await running.flow.source.release(keys)
        newest = running.router.newest
        sinks = [cast(HandingOverSink, sink) for sink in running.flow.route.all_sinks() if hasattr(sink, "hurry")]
        for sink in sinks:
            sink.hurry(source, newest)
        with anyio.move_on_after(within):
            outcome = running.outcome
            while outcome.error is None and outcome.ended is None and self._checkpoint.saved(source) < newest:
                await anyio.sleep(0.01)
        await self._checkpoint.flush()
        await self._checkpoint.release(source, keys, newest)
        for sink in sinks:
            sink.forget(source, keys, newest)
        for stage in running.flow.route.all_stages():
            if hasattr(stage, "forget"):
                cast(KeyedStage, stage).forget(keys, newest)

    async def settled(self, source: str) -> None:
        """Wait until a flow has ended, and what it gave is saved; or it has failed."""
        running = self._running[source]
        while not running.ended or (
            running.outcome.error is None and self._checkpoint.saved(source) < running.router.newest
        ):
            await anyio.sleep(0.02)

    async def _give_up(self, source: str, keys: Collection[str], within: float) -> None:
        await self.release(source, keys, within=within)

    def _refuse(self, source: str, records: Sequence[BadRecord]) -> None:
        # First, so that records that are one too many are still saved.
        self._checkpoint.refuse(source, records)
        self._running[source].flow.refused(records)

    # -- flows

    def _router(self, flow: Flow) -> Router:
        return Router(
            flow.source,
            flow.route,
            prompt=flow.prompt,
            observe=flow.observe,
            on_bad=partial(self._refuse, flow.id),
            on_position=self._checkpoint.sent,
            complete=lambda: flow.source.stopped is None,
            stops=flow.stops,
        )

    async def _run_flow(self, running: _Running, background: TaskGroup) -> None:
        outcome = running.outcome
        async with AsyncExitStack() as tokens:
            for limit in running.flow.limits:
                await tokens.enter_async_context(limit)
            if not self._stopping and outcome.error is None:
                outcome.began = anyio.current_time()
                await self._move(running)
        running.ended = True
        for sink in running.flow.route.all_sinks():
            if all(each.ended for each in self._feeding(sink.id)):
                background.start_soon(self._close, sink)

    async def _move(self, running: _Running) -> None:
        outcome = running.outcome
        try:
            with anyio.CancelScope() as running.scope:
                if running.flow.before is not None:
                    await running.flow.before()
                await running.router.run()
            if not running.scope.cancelled_caught:
                return
            outcome.error = outcome.error or StreamlineError("cancelled", where=running.flow.id, code="flow.cancelled")
        except Exception as error:
            outcome.sink = self._failed_sink(running)
            outcome.error = self.failures[outcome.sink] if outcome.sink is not None else error
        self._on_failed(running.flow.id, outcome.error)

    def _judge(self, running: _Running) -> None:
        """Fail a flow whose source ended well if a sink did not prove everything."""
        failed = self._failed_sink(running)
        if failed is not None and running.outcome.error is None:
            running.outcome.error = self.failures[failed]
            running.outcome.sink = failed
        running.outcome.ended = anyio.current_time()

    # -- sinks

    def _feeding(self, sink: str) -> list[_Running]:
        return [
            running
            for running in self._running.values()
            if any(each.id == sink for each in running.flow.route.all_sinks())
        ]

    def _failed_sink(self, running: _Running) -> str | None:
        return next((sink.id for sink in running.flow.route.all_sinks() if sink.id in self.failures), None)

    async def _run_sink(self, sink: Sink) -> None:
        def proven(source: str, number: int) -> None:
            self._checkpoint.proven(sink.id, source, number)

        def failed(error: Exception) -> None:
            self._sink_failed(sink.id, error)

        try:
            await sink.run(proven, failed)
        except Exception as error:
            failed(error)
            self._closed[sink.id].set()
            if sink.id in self._closing:
                self._closing[sink.id].cancel()

    def _sink_failed(self, sink: str, error: Exception) -> None:
        if sink in self.failures:
            return
        self.failures[sink] = error
        self._on_failed(sink, error)
        for running in self._feeding(sink):
            if running.ended:
                continue
            if running.outcome.error is None:
                running.outcome.error = error
                running.outcome.sink = sink
            if running.scope is not None:
                running.scope.cancel()

    async def _close(self, sink: Sink) -> None:
        """Close a sink once, whoever asks for it first; one whose `run` has raised needs no closing."""
        closed = self._closed[sink.id]
        if sink.id in self._closing or closed.is_set():
            await closed.wait()
            return
        with anyio.CancelScope() as self._closing[sink.id]:
            try:
                await sink.close()
            except Exception as error:
                self._sink_failed(sink.id, error)
            finally:
                closed.set()
