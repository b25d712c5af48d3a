"""The flows of one attempt: its sources, the ways of their messages, and what becomes of those that are refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, cast

import anyio

from streamline.connectors.stream_connector import OffsetSource, TransactionalSink
from streamline.errors import PipelineFailed
from streamline.execution.run import Run
from streamline.execution.streaming.letter_box import LetterBox
from streamline.execution.streaming.letter_limit import LetterLimit
from streamline.execution.streaming.letters import Letters
from streamline.execution.streaming.plan import Plan, RepartitionPlan, SourcePlan
from streamline.execution.streaming.route_builder import RouteBuilder
from streamline.execution.streaming.routes import route_plan
from streamline.flow.items import ArrowBatch, BadRecord, Item, MessageBatch, Position, RawBatch, RowBatch
from streamline.flow.protocols import Source, Stage
from streamline.flow.runtime import Flow
from streamline.flow.stages.repartition import FirstPlaceStage


class MessageRefused(PipelineFailed):
    """A message cannot be processed or delivered, and `on_error` is `stop`."""

    code = "message.refused"


class Flows(RouteBuilder):
    """The flows of one attempt.

    Args:
        letters: where dead letters are kept; None: there are none.

    Attributes:
        sources: by the uuids of their blocks.
        box: takes what is refused; None: there are no dead letters.
        given: whether a source has given anything.
        settled: see `Runtime.settled`. Set before the flows run.
    """

    def __init__(self, run: Run, plan: Plan, attempt: int, letters: Letters | None) -> None:
        super().__init__(run, plan, attempt)
        self.given = False
        self.settled: Callable[[str], Awaitable[None]]
        self._stateful: dict[str, list[Any]] = {}
        self._limits: dict[str, LetterLimit] = {}
        self.sources: dict[str, Source] = {uuid: self._source(source) for uuid, source in plan.sources.items()}
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
            counts = self.run.progress.of(uuid)
            counts.rewind()
            self._limits[uuid] = LetterLimit(counts, self.plan.settings.max_dead_letters, self.run.warn)
            records = self.singer is not None and self.singer.gives_records(uuid)
            route = self.route(route_plan(self.plan, uuid), self.plan.sources[uuid], records=records)
            if self.singer is not None:
                route.stages[:0] = self.singer.source_stages(uuid)
            repartition = self.plan.read_again(uuid)
            if repartition is not None:
                route.stages.insert(0, FirstPlaceStage())
            if self.box is not None:
                route.stages[:0] = self.box.first_stages(uuid)
            self._stateful[uuid] = [stage for stage in route.all_stages() if hasattr(stage, "saved")]
            flows.append(
                Flow(
                    source=source,
                    route=route,
                    # What a transaction commits is all that came before a position.
                    prompt=self.plan.exactly_once,
                    before=partial(self._before_rest, repartition) if repartition is not None else None,
                    observe=partial(self._observe, uuid),
                    refused=self._refuser(uuid),
                )
            )
        return flows

    def saved(self, position: Position, keys: Collection[str]) -> None:
        """Note that a position is saved, as far as these of its keys are concerned."""
        self._limits[position.source].saved()
        for stage in self._stateful.get(position.source, ()):
            stage.saved(position, keys)

    def last_stages(self, source: SourcePlan, sink: str, records: bool) -> list[Stage]:
        """See `RouteBuilder.last_stages`."""
        parking = self.box.last_stages(source.id, sink) if self.box is not None and sink in self.plan.sinks else []
        return [*parking, *super().last_stages(source, sink, records)]

    def _source(self, source: SourcePlan) -> Source:
        run = self.run
        if self.singer is not None and self.singer.is_tap(source.id):
            return self.singer.source(source.id, until_caught_up=run.options.until_caught_up)
        saved = run.store.bookmarks(run.pipeline, source.id)
        start = {key: mark.value.encode("utf-8", "surrogateescape") for key, mark in saved.items()}
        context = self.context(source.id, start=start, memory=source.memory)
        self.tell(source)
        return source.connector.open_source(source.config, context, source.where)

    async def _before_rest(self, repartition: RepartitionPlan) -> None:
        """Wait until all is in the repartition topic that it shall read."""
        if self.run.options.until_caught_up:
            for source in repartition.feeding:
                await self.settled(source.id)
            others = self.run.others
            if others is not None:
                others.settled(repartition.block)
                # What they have not written yet may be for any partition.
                while self.sources[repartition.source.id].stopped is None and not others.all_settled(repartition.block):
                    await anyio.sleep(0.05)

    # -- what happens

    def _observe(self, source: str, items: Sequence[Item]) -> None:
        counts = self.run.progress.of(source)
        self.given = True
        for item in items:
            if isinstance(item, MessageBatch | RawBatch | RowBatch | ArrowBatch):
                counts.read(item.stream, item.count)
            elif isinstance(item, Position):
                counts.position_read(item.number)

    def _refuser(self, source: str) -> Callable[[Sequence[BadRecord]], None]:
        counts = self.run.progress.of(source)
        told: set[str] = self.plan.sources[source].memory.setdefault("stages_that_refused", set())

        def refuse(records: Sequence[BadRecord]) -> None:
            if self.plan.settings.on_error == "stop":
                raise refusal(source, records[0])
            for record in records:
                counts.refused(record.stream, 1, record.sink, record.stream)
                if record.stage not in told:
                    told.add(record.stage)
                    self._tell_first(source, record)
                if record.sink is not None and record.stage == record.sink:
                    counts.returned(record.sink, record.stream, 1)
            if self.box is not None:
                self.box.refuse(source, records)
            self._limits[source].refused(records)

        return refuse

    def _tell_first(self, source: str, record: BadRecord) -> None:
        """Tell of the first message that a stage has refused in this run."""
        known = record.stage in self.plan.transforms or record.stage in self.plan.sinks
        block = record.stage if known else record.sink or source
        error = record.error.partition("\n")[0]
        self.run.warn(
            block, f"a message is a dead letter: {error}; `streamline dead-letters list {self.plan.pipeline}` shows all"
        )


def refusal(source: str, record: BadRecord) -> MessageRefused:
    """Return the error that ends a run because of a message."""
    origin = record.origin
    place = source
    if origin is not None and origin.offset >= 0:
        read = origin.first or origin
        place = f"{read.topic}, partition {read.partition}, offset {read.offset}"
    trace = f"\n{record.trace}" if record.trace else ""
    return MessageRefused(
        f"a message was refused at {record.stage}: {record.error}{trace}",
        blocks=[record.sink or (source if record.stage == "decode" else record.stage)],
        where=place,
        hint="on_error: stop ended the run before it; correct the message or the block, or write on_error: dead-letter",
    )
