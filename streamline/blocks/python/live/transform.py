"""A transformer block as a stage of a flow: it calls the user's function with the records of each stream.

Small batches are combined up to `batch_rows` records per call, also across positions: of the positions received
meanwhile only the newest is sent, after all records before it. The order within a stream is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import anyio.to_thread

from streamline.blocks.python.function import BlockFile, UserError
from streamline.blocks.python.live.messages import CallRequest, CallSettings, Returned
from streamline.blocks.python.live.results import CallResult, Passing, StreamOutput
from streamline.blocks.python.live.workers import PendingCall, ProcessWorkers, ThreadWorker, WorkerFailed, Workers
from streamline.errors import ConfigError, PipelineFailed, StreamFailed, StreamlineError
from streamline.flow.codecs.lanes import join_raw, to_raw
from streamline.flow.items import (
    ArrowBatch,
    Item,
    JSONObject,
    Position,
    RawBatch,
    RowBatch,
    Schema,
)
from streamline.processes.job import Failure

BATCH_ROWS = 10_000
_PATIENCE = 1.0
BATCH_BYTES = 16 << 20
"""The approximate maximum size of a call, whatever `batch_rows` is: memory is bounded by configuration."""


class TransformStage:
    """Calls a transformer block's function with the records of a flow.

    Implements `flow.protocols.FlushableStage`. The annotation of the function's first parameter decides what it gets
    (see `function.Shape`). It runs outside the event loop.

    Args:
        block: its file.
        configuration: the block's. `batch_rows`: the maximum number of records per call; `workers`: the number of
            processes that run the function in parallel, 0 for one thread of this process.
        keywords: keyword arguments for the function (pipeline variables, `env`, `run_id`, `context` …); `stream` is
            added. With `workers` they must pickle.
        timeout: seconds that one call may take.
        warn: called with a message when the function seems to have a mistake.
        set_aside: whether records of a stream that the function raises on are refused. If not, the stream fails.
        earlier: properties of columns that blocks added to a stream in earlier runs.

    Raises:
        ConfigError: a setting is out of range.
    """

    def __init__(
        self,
        block: BlockFile,
        *,
        configuration: Mapping[str, Any] | None = None,
        keywords: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        warn: Callable[[str], None] = lambda message: None,
        set_aside: Callable[[str], bool] = lambda stream: False,
        earlier: Callable[[str], Mapping[str, JSONObject]] = lambda stream: {},
    ) -> None:
        self.block = block.uuid
        self._set_aside = set_aside
        self._earlier = earlier
        self._warn = warn
        self._only_none: bool | None = None
        workers = _setting(configuration or {}, "workers", 0, 0, block.uuid)
        self._batch_rows = _setting(configuration or {}, "batch_rows", 1, BATCH_ROWS, block.uuid)
        self._timeout = timeout
        call_settings = CallSettings(block, self._batch_rows, dict(keywords or {}))
        self._make_workers: Callable[[], Workers] = (
            partial(ProcessWorkers, call_settings, workers, timeout)
            if workers
            else partial(ThreadWorker, call_settings)
        )
        self._workers: Workers | None = None
        self._streams: dict[str, StreamOutput] = {}
        self._collected: dict[str, _Collected] = {}
        self._collected_all = _Collected()
        self._position: Position | None = None
        self._queue: deque[CallResult | Passing] = deque()
        self._running = 0
        self._failure: Exception | None = None
        """Raised by the next call, after the items before it."""
        self._rest: list[Item] = []
        self._taken: set[str] = set()
        """Streams of which the function took a record."""
        self._raised: dict[str, tuple[int, str]] = {}
        """By stream, how many records it raised on, and the last error."""

    async def start(self) -> None:
        """Load the block's file now, so that an error in it is found before any record is read.

        Raises:
            ConfigError: it cannot be read, is not Python, or has no function decorated with @transformer.
            PipelineFailed: it raised while it was loaded, or took longer than `timeout`.
        """
        call = PendingCall(None)
        self._submit(call)
        await self._result(call, None)

    @property
    def pending(self) -> bool:
        """Whether items are held back, or a call is running."""
        return bool(self._collected or self._queue or self._position is not None or self._failure is not None)

    async def process(self, item: Item) -> Sequence[Item]:
        """Collect records, and return the results of earlier calls; see the class.

        Raises:
            StreamlineError: records came before their SCHEMA, or contain values that cannot be written as JSON.
            StreamFailed: the function raised, or returned what cannot be written; the call is done with.
            PipelineFailed: the function took too long, or its process ended.
        """
        if isinstance(item, (RawBatch, RowBatch, ArrowBatch)):
            if item.count == 0:
                return []
            self._collect(to_raw(item))
        elif isinstance(item, Position):
            self._position = item
            if not self._collected:
                self._seal_all()
        elif isinstance(item, Schema):
            self._take_schema(item)
        else:
            self._seal(item.stream)
            self._queue.append(Passing(item, self._streams.get(item.stream)))
        return await self._drain(everything=False)

    async def flush(self) -> Sequence[Item]:
        """Return everything that is held back.

        Raises:
            PipelineFailed: see `process`, also for `StreamFailed`.
        """
        self._seal_all()
        return await self._drain(everything=True)

    async def finish(self) -> Sequence[Item]:
        """Return everything that is held back, and the SCHEMAs of streams without output.

        Raises:
            PipelineFailed: see `process`.
        """
        while self.pending:
            self._rest += await self.flush()
        for name in [name for name in self._raised if name not in self._taken]:
            count, failure = self._raised.pop(name)
            if count > 1:
                raise StreamFailed(
                    name,
                    f"transformer {self.block} failed with every record of stream {name}: {failure}",
                    blocks=[self.block],
                    where=f"block {self.block}",
                    hint="correct the block; the records are dead letters: streamline dead-letters retry PIPELINE",
                    code="transformer.failed",
                )
        items, self._rest = self._rest, []
        for stream in self._streams.values():
            items += stream.schema_if_due()
        if self._only_none:
            self._warn(
                f"transformer {self.block} returned None for every batch, so all records were dropped; "
                "is its `return` missing?"
            )
        return items

    async def close(self) -> None:
        """End the workers. A process in the middle of a call is killed; a thread is left to end by itself."""
        if self._workers is not None:
            await anyio.to_thread.run_sync(self._workers.close)
            self._workers = None

    def _collect(self, batch: RawBatch) -> None:
        if batch.stream not in self._streams:
            raise StreamlineError(
                f"records of stream {batch.stream} came before its SCHEMA",
                where=f"block {self.block}",
                hint="a transformer reads records by their SCHEMA; the tap must send it first",
                code="stream.schema_missing",
            )
        of_stream = self._collected.get(batch.stream)
        if of_stream is None:
            of_stream = self._collected[batch.stream] = _Collected()
        of_stream.batches.append(batch)
        for collected in (of_stream, self._collected_all):
            collected.rows += batch.count
            collected.nbytes += batch.nbytes
        full = of_stream.fills(self._batch_rows, BATCH_BYTES)
        if full and self._position is None:
            self._seal(batch.stream)
        elif full or self._collected_all.fills(2 * self._batch_rows, 2 * BATCH_BYTES):
            # A position is sent after all records before it, so all streams' records are sent with it.
            self._seal_all()

    def _take_schema(self, schema: Schema) -> None:
        self._seal(schema.stream)
        known = self._streams.get(schema.stream)
        if known is None or not known.matches(schema):
            self._streams[schema.stream] = StreamOutput(schema, self.block, known, self._earlier)
        else:
            self._queue.append(Passing(None, known))

    def _seal(self, stream: str) -> None:
        collected = self._collected.pop(stream, None)
        if collected is None:
            return
        self._collected_all.rows -= collected.rows
        self._collected_all.nbytes -= collected.nbytes
        raw = join_raw(collected.batches)
        of = self._streams[stream]
        call = PendingCall(
            CallRequest(stream, of.given.schema, of.number, raw.slices, raw.count, self._set_aside(stream))
        )
        self._queue.append(CallResult(call, of))
        self._submit(call)

    def _seal_all(self) -> None:
        for stream in list(self._collected):
            self._seal(stream)
        if self._position is not None:
            last = self._queue[-1] if self._queue else None
            if isinstance(last, Passing) and isinstance(last.item, Position):
                self._queue.pop()
            self._queue.append(Passing(self._position, None))
            self._position = None

    def _submit(self, call: PendingCall) -> None:
        if self._workers is None:
            self._workers = self._make_workers()
        self._running += 1
        self._workers.submit(call)

    async def _drain(self, *, everything: bool) -> list[Item]:
        """Return finished results in order; wait while more calls run than there are workers."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        items: list[Item] = []
        while self._queue:
            head = self._queue[0]
            if isinstance(head, Passing):
                items += head.items()
            else:
                must_wait = everything or self._running > (self._workers.depth if self._workers else 0)
                if not head.call.future.done() and not must_wait:
                    break
                try:
                    items += await self._settled(head)
                except Exception as error:
                    self._queue.popleft()
                    if not items:
                        raise
                    self._failure = error
                    break
            self._queue.popleft()
        return items

    async def _settled(self, job: CallResult) -> list[Item]:
        """Wait for a call, and return the items made of its result.

        Raises:
            StreamFailed: it failed because of its stream.
            PipelineFailed: see `process`.
        """
        name = job.stream.given.stream
        try:
            returned = await self._result(job.call, name)
            self._count(name, returned)
            return await anyio.to_thread.run_sync(job.items, returned, self.block)
        except PipelineFailed:
            raise
        except Exception as error:
            told = error if isinstance(error, StreamlineError) else None
            raise StreamFailed(
                name,
                f"transformer {self.block} returned records that cannot be used: {told.message if told else error}",
                blocks=[self.block],
                where=f"block {self.block}, stream {name}",
                hint=told.hint if told else None,
                code="transformer.failed",
            ) from error

    def _count(self, stream: str, returned: Sequence[Returned]) -> None:
        nothing = all(each.rows is None and each.table is None for each in returned)
        refused = [error for each in returned for _, error in each.refused]
        if refused:
            self._raised[stream] = (self._raised.get(stream, (0, ""))[0] + len(refused), refused[-1])
        if not nothing or not refused:
            self._taken.add(stream)
            self._only_none = nothing and self._only_none is not False

    async def _result(self, call: PendingCall, stream: str | None) -> list[Returned]:
        try:
            while True:
                # Not for long: a waiting thread would keep the interpreter from exiting.
                patience = _PATIENCE if self._timeout is None else min(_PATIENCE, call.remaining(self._timeout))
                try:
                    result = await anyio.to_thread.run_sync(
                        call.future.result, max(0.01, patience), abandon_on_cancel=True
                    )
                except TimeoutError:
                    if self._timeout is not None and call.remaining(self._timeout) <= 0:
                        raise self._failed(_timed_out_thread(self._timeout), stream) from None
                else:
                    return result
        except UserError as error:
            failure = Failure(message=error.summary, where=error.where, hint=error.hint, trace=error.trace)
            failed = self._failed(failure, stream)
            if stream is None:
                raise failed from None
            raise StreamFailed(
                stream, failed.message, blocks=failed.blocks, where=failed.where, hint=failed.hint, code=failed.code
            ) from None
        except WorkerFailed as error:
            raise self._failed(error.failure, stream) from None
        finally:
            self._running -= 1

    def _failed(self, failure: Failure, stream: str | None) -> PipelineFailed:
        trace = f"\n{failure.trace}" if failure.trace else ""
        return PipelineFailed(
            f"transformer {self.block} failed {_doing(stream)}: {failure.message}{trace}",
            blocks=[self.block],
            where=failure.where or f"block {self.block}",
            hint=failure.hint,
            code="transformer.failed" if failure.code == "block.failed" else failure.code,
        )


def _setting(configuration: Mapping[str, Any], name: str, least: int, default: int, block: str) -> int:
    value = configuration.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(
            f"configuration.{name} is {value!r}; it must be a whole number, at least {least}",
            where=f"block {block}",
            code="transformer.setting_invalid",
        )
    return value


def _timed_out_thread(timeout: float) -> Failure:
    return Failure(
        message=f"timed out after {timeout:g} s",
        hint="it runs on a thread, which cannot be killed; with `configuration.workers: 1` it runs in a process",
        code="block.timeout",
    )


def _doing(stream: str | None) -> str:
    return f"with records of stream {stream}" if stream is not None else "while its file was loaded"


class _Collected:
    """Batches that are collected for a call."""

    def __init__(self) -> None:
        self.batches: list[RawBatch] = []
        self.rows = 0
        self.nbytes = 0

    def fills(self, rows: int, nbytes: int) -> bool:
        """Whether it is enough for a call."""
        return self.rows >= rows or self.nbytes >= nbytes
