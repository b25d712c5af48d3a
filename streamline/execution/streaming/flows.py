"""Builds the flows of one attempt: opens sources and sinks, and makes the stages between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from streamline.connectors.stream_connector import OffsetSource, StreamContext, TransactionalSink
from streamline.errors import PipelineFailed
from streamline.execution.flow_runs import block_keywords
from streamline.execution.run import Run
from streamline.execution.streaming.letter_box import LetterBox
from streamline.execution.streaming.letters import Letters
from streamline.execution.streaming.plan import PYTHON, EndPlan, Plan, SourcePlan, TransformPlan
from streamline.execution.streaming.planner import context_of
from streamline.execution.streaming.routes import RoutePlan, RouteStep, route_plan
from streamline.execution.streaming.stages import AddressStage, CountStage
from streamline.flow.items import ArrowBatch, BadRecord, Item, MessageBatch, Position, RawBatch, RowBatch
from streamline.flow.protocols import Sink, Source, Stage
from streamline.flow.router import Route
from streamline.flow.runtime import Flow

if TYPE_CHECKING:
    from streamline.blocks.python.messages.worker import MessageWorker
    from streamline.blocks.python.streaming import PythonConnector
    from streamline.execution.connector_blocks.streams import SingerAttempt


class MessageRefused(PipelineFailed):
    """A message cannot be processed or delivered, and `on_error` is `stop`."""

    code = "message.refused"


class Flows:
    """The flows of one attempt.

    Args:
        attempt: its number, from 1.
        letters: where dead letters are kept; None: there are none.

    Attributes:
        sources, sinks: by the uuids of their blocks.
        singer: the taps and targets among them.
        box: takes what is refused; None: there are no dead letters.
        given: whether a source has given anything.
    """

    def __init__(self, run: Run, plan: Plan, attempt: int, letters: Letters | None) -> None:
        self._run = run
        self._plan = plan
        self._attempt = attempt
        self._workers: dict[str, MessageWorker] = {}
        self.given = False
        self.singer: SingerAttempt | None = None
        if plan.singer is not None:
            from streamline.execution.connector_blocks.streams import SingerAttempt

            self.singer = SingerAttempt(run, plan.singer, number=attempt)
        self.sources: dict[str, Source] = {uuid: self._source(source) for uuid, source in plan.sources.items()}
        self.sinks: dict[str, Sink] = self._open_sinks()
        transaction: TransactionalSink | None = None
        if plan.exactly_once:
            transaction = cast(TransactionalSink, next(iter(self.sinks.values())))
            transaction.offsets_from = cast(Mapping[str, OffsetSource], self.sources)
            transaction.dead_letter_topic = None
        self.box = LetterBox(run, plan, letters, transaction) if letters is not None else None

    def flows(self) -> list[Flow]:
        """Return the flows, one of each source."""
        flows = []
        for uuid, source in self.sources.items():
            counts = self._run.progress.of(uuid)
            counts.rewind()
            records = self.singer is not None and self.singer.gives_records(uuid)
            route = self._route(route_plan(self._plan, uuid), self._plan.sources[uuid], records=records)
            if self.singer is not None:
                route.stages[:0] = self.singer.source_stages(uuid)
            if self.box is not None:
                route.stages.insert(0, self.box.first_stage(uuid))
            flows.append(
                Flow(
                    source=source,
                    route=route,
                    observe=partial(self._observe, uuid),
                    refused=self._refuser(uuid),
                )
            )
        return flows

    # -- ends

    def _source(self, source: SourcePlan) -> Source:
        run, start = self._run, {}
        if self.singer is not None and self.singer.is_tap(source.id):
            return self.singer.source(source.id, until_caught_up=run.options.until_caught_up)
        if not source.traits.keeps_positions:
            saved = run.store.bookmarks(run.pipeline, source.id)
            start = {key: mark.value.encode("utf-8", "surrogateescape") for key, mark in saved.items()}
        context = self._context(source.id, start=start)
        self._tell(source)
        return source.connector.open_source(source.config, context, source.where)

    def _open_sinks(self) -> dict[str, Sink]:
        plans = self._plan.sinks
        for sink in plans.values():
            self._tell(sink)
        if not self._plan.exactly_once:
            return {
                uuid: self.singer.sink(uuid)
                if self.singer is not None and self.singer.is_target(uuid)
                else sink.connector.open_sink({uuid: sink.config}, self._context(uuid), {uuid: sink.where})
                for uuid, sink in plans.items()
            }
        # One transaction holds what all of them get.
        first = next(iter(plans.values()))
        shared = first.connector.open_sink(
            {uuid: sink.config for uuid, sink in plans.items()},
            self._context(first.id),
            {uuid: sink.where for uuid, sink in plans.items()},
        )
        return dict.fromkeys(plans, shared)

    def _context(self, block: str, **more: Any) -> StreamContext:
        return context_of(self._run, self._plan.pipeline, self._plan.settings, block, **more)

    def _tell(self, end: EndPlan) -> None:
        """Give a class of the user what other functions of blocks get as keyword arguments."""
        if end.name == PYTHON:
            keywords = block_keywords(self._run, self._plan.variables, end.block, self._attempt)
            cast("PythonConnector", end.connector).keywords = keywords

    # -- routes

    def _route(self, route: RoutePlan, source: SourcePlan, *, records: bool) -> Route:
        """Make a route; `records`: what comes into it are records of a tap that are no messages yet."""
        stages: list[Stage] = []
        for step in route.steps:
            if records and step.kind != "address":
                assert self.singer is not None
                stages += self.singer.message_stages(source.id)
                records = False
            stages.append(self._stage(step, source))
        alone = len(route.sinks) == 1 and not route.branches
        ends = [Route(self._last(source, uuid, records), [self.sinks[uuid]]) for uuid in route.sinks]
        if alone:
            return Route([*stages, *ends[0].stages], ends[0].sinks)
        branches = [self._route(branch, source, records=records) for branch in route.branches]
        return Route(stages, branches=[*ends, *branches])

    def _last(self, source: SourcePlan, sink: str, records: bool) -> list[Stage]:
        """Return the stages right before a sink."""
        stages = self.box.last_stages(source.id, sink) if self.box is not None else []
        if self.singer is not None:
            metadata = source.traits.include_metadata
            stages += self.singer.sink_stages(sink, source.id, messages=not records, include_metadata=metadata)
            if self.singer.is_target(sink):
                return stages  # it counts by itself
        return [*stages, CountStage(self._run.progress.of(source.id), sink)]

    def _stage(self, step: RouteStep, source: SourcePlan) -> Stage:
        stage: Stage
        if step.kind == "decode":
            from streamline.flow.stages.decode import DecodeStage

            traits = source.traits
            stage = DecodeStage(
                traits.decoder() if traits.decoder is not None else None,
                include_metadata=traits.include_metadata,
                key_decoder=traits.key_decoder() if traits.key_decoder is not None else None,
            )
        elif step.kind == "copy":
            from streamline.flow.stages.copies import CopyStage

            stage = CopyStage()
        elif step.kind == "address":
            stage = AddressStage(step.block)
        else:
            from streamline.blocks.python.messages.transform import MessageTransform

            # Also with `on_error: stop`, so that the message on which the function raises is found.
            stage = MessageTransform(self._worker(self._plan.transforms[step.block]))
        return stage

    def _worker(self, transform: TransformPlan) -> MessageWorker:
        """Return the worker of a transformer block: one, whatever feeds it."""
        from streamline.blocks.python.messages.caller import MessageSettings
        from streamline.blocks.python.messages.worker import MessageWorker

        block = transform.block
        if block.uuid not in self._workers:
            feeding = [
                source.traits
                for source in self._plan.sources.values()
                if any(block.uuid in path for path in self._plan.paths(source.id))
            ]
            self._workers[block.uuid] = MessageWorker(
                MessageSettings(
                    block=transform.file,
                    batch_size=min(traits.batch_size for traits in feeding),
                    keywords=block_keywords(self._run, self._plan.variables, block, self._attempt),
                    include_metadata=any(traits.include_metadata for traits in feeding),
                    timeout=block.timeout,
                )
            )
        return self._workers[block.uuid]

    # -- what happens

    def _observe(self, source: str, items: Sequence[Item]) -> None:
        counts = self._run.progress.of(source)
        self.given = True
        for item in items:
            if isinstance(item, MessageBatch | RawBatch | RowBatch | ArrowBatch):
                counts.read(item.stream, item.count)
            elif isinstance(item, Position):
                counts.position_read(item.number)

    def _refuser(self, source: str) -> Callable[[Sequence[BadRecord]], None]:
        counts = self._run.progress.of(source)

        def refuse(records: Sequence[BadRecord]) -> None:
            if self._plan.settings.on_error == "stop":
                raise refusal(source, records[0])
            for record in records:
                counts.refused(record.stream, 1, record.sink, record.stream)
            if self.box is not None:
                self.box.refuse(source, records)

        return refuse


def refusal(source: str, record: BadRecord) -> MessageRefused:
    """Return the error that ends a run because of a message."""
    origin = record.origin
    place = f"{origin.topic}, partition {origin.partition}, offset {origin.offset}" if origin is not None else source
    trace = f"\n{record.trace}" if record.trace else ""
    return MessageRefused(
        f"a message was refused at {record.stage}: {record.error}{trace}",
        blocks=[record.sink or (source if record.stage == "decode" else record.stage)],
        where=place,
        hint="on_error: stop ended the run before it; correct the message or the block, or write on_error: dead-letter",
    )
