"""Opens the sinks of a streaming pipeline, and makes the ways into them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from streamline.connectors.stream_connector import StreamContext
from streamline.execution.flow_runs import block_keywords
from streamline.execution.run import Run
from streamline.execution.streaming.plan import PYTHON, EndPlan, Plan, SinkPlan, SourcePlan, TransformPlan
from streamline.execution.streaming.planner import context_of
from streamline.execution.streaming.routes import RoutePlan, RouteStep
from streamline.execution.streaming.stages import AddressStage, CountStage, SchemaNoteStage, StateFilter
from streamline.execution.streaming.states import open_state
from streamline.execution.streaming.stored_state import StateChanges, place_of_source
from streamline.flow.protocols import Sink, Stage
from streamline.flow.router import Route
from streamline.project.checkout import checkout_id

if TYPE_CHECKING:
    from streamline.blocks.python.messages.worker import MessageWorker
    from streamline.blocks.python.streaming import PythonConnector
    from streamline.execution.connector_blocks.streams import SingerAttempt
    from streamline.flow.keyed_state import StateStore


class RouteBuilder:
    """Makes the routes of one attempt.

    Args:
        attempt: its number, from 1.
        only: uuids of the sinks to open, for dead letters; None: all.

    Attributes:
        singer: the taps and targets among the blocks.
        sinks: by the uuids of their blocks.
        stored: of them, those for state that the state store keeps.
    """

    def __init__(self, run: Run, plan: Plan, attempt: int, only: Collection[str] | None = None) -> None:
        self.run = run
        self.plan = plan
        self.attempt = attempt
        self._letters = only is not None
        self._workers: dict[str, MessageWorker] = {}
        self.singer: SingerAttempt | None = None
        if plan.singer is not None:
            from streamline.execution.connector_blocks.streams import SingerAttempt

            self.singer = SingerAttempt(run, plan.singer, number=attempt)
        opened = {uuid: sink for uuid, sink in plan.sinks.items() if only is None or uuid in only}
        states = [state for state in plan.states.values() if only is None or state.sink in only]
        self._logs = {state.sink: state.log for state in states if state.log is not None}
        self.stored = {state.sink: StateChanges(state.sink, state.block) for state in states if state.log is None}
        self.sinks: dict[str, Sink] = {**self._open_sinks(opened), **self.stored}

    def _open_sinks(self, plans: Mapping[str, SinkPlan]) -> dict[str, Sink]:
        for sink in plans.values():
            self.tell(sink)
        if not self.plan.exactly_once:
            return {
                uuid: self.singer.sink(uuid)
                if self.singer is not None and self.singer.is_target(uuid)
                else self._open_sink(uuid, {uuid: sink})
                for uuid, sink in {**plans, **self._logs}.items()
            }
        # One transaction holds what all of them get.
        together = {**plans, **self._logs}
        return dict.fromkeys(together, self._open_sink(next(iter(plans)), together))

    def _open_sink(self, id: str, plans: Mapping[str, SinkPlan]) -> Sink:
        return plans[id].connector.open_sink(
            {uuid: sink.config for uuid, sink in plans.items()},
            self.context(id, memory=plans[id].memory, must_arrive=frozenset(plans.keys() & self._logs.keys())),
            {uuid: sink.where for uuid, sink in plans.items()},
        )

    def context(self, block: str, **more: Any) -> StreamContext:
        """Return what the connector of a block is opened with."""
        project = self.run.project
        checkout = checkout_id(project.root, project.ensure_work_dir())
        return context_of(
            self.run,
            self.plan.pipeline,
            self.plan.settings,
            block,
            checkout=checkout,
            letters=self._letters,
            **more,
        )

    def tell(self, end: EndPlan) -> None:
        """Give a class of the user what other functions of blocks get as keyword arguments."""
        if end.name == PYTHON:
            keywords = block_keywords(self.run, self.plan.variables, end.block, self.attempt)
            cast("PythonConnector", end.connector).keywords = keywords

    def route(self, route: RoutePlan, source: SourcePlan, *, records: bool = False) -> Route:
        """Make a route; `records`: what comes into it are records of a tap that are no messages yet."""
        stages: list[Stage] = []
        for step in route.steps:
            if records and step.kind != "address":
                assert self.singer is not None
                stages += self.singer.message_stages(source.id)
                records = False
            stages.append(self._stage(step, source))
        alone = len(route.sinks) == 1 and not route.branches
        ends = [Route(self.last_stages(source, uuid, records), [self.sinks[uuid]]) for uuid in route.sinks]
        if alone:
            return Route([*stages, *ends[0].stages], ends[0].sinks)
        branches = [self.route(branch, source, records=records) for branch in route.branches]
        return Route(stages, branches=[*ends, *branches])

    def reads_singer(self, source: str) -> bool:
        """Return whether the messages of a source are those of a Singer stream."""
        return self.singer is not None and self.singer.gives_records(source) and not self.singer.is_tap(source)

    def last_stages(self, source: SourcePlan, sink: str, records: bool) -> list[Stage]:
        """Return the stages right before a sink."""
        stages: list[Stage] = []
        if sink in self._logs or sink in self.stored:
            return stages
        if self.singer is not None:
            metadata = source.traits.include_metadata
            note = self.plan.sinks[sink].traits.note_schema
            behind_blocks = any(path[-1] == sink and len(path) > 2 for path in self.plan.paths(source.id))
            # Behind a transformer, the records are others.
            if note is not None and self.singer.gives_records(source.id) and not behind_blocks:
                stages.append(SchemaNoteStage(note))
            stages += self.singer.sink_stages(sink, source.id, messages=not records, include_metadata=metadata)
            if self.singer.is_target(sink):
                return stages  # it counts by itself
        return [*stages, CountStage(self.run.progress.of(source.id), sink)]

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
        elif step.kind == "rekey":
            from streamline.flow.stages.repartition import RekeyStage

            repartition = self.plan.rekeyed(step.block)
            assert repartition is not None
            stage = RekeyStage(step.block, repartition.field)
        elif step.kind == "address":
            stage = AddressStage(step.block)
        elif step.kind in ("messages", "changes"):
            stage = StateFilter(self.plan.states[step.block].sink, changes=step.kind == "changes")
        elif step.block in self.plan.states:
            from streamline.blocks.python.messages.stateful import StatefulTransform

            # In transactions all that came before a position has to be covered by it.
            interval = 0.0 if self.plan.exactly_once else self.plan.settings.checkpoint_interval
            worker, state = self._worker(self.plan.transforms[step.block]), self.plan.states[step.block]
            place = place_of_source(source.id) if state.log is None else None
            stage = StatefulTransform(worker, state.sink, interval=interval, place=place)
        else:
            from streamline.blocks.python.messages.transform import MessageTransform

            # Also with `on_error: stop`, so that the message on which the function raises is found.
            stage = MessageTransform(self._worker(self.plan.transforms[step.block]))
        return stage

    def _worker(self, transform: TransformPlan) -> MessageWorker:
        """Return the worker of a transformer block: one, whatever feeds it."""
        from streamline.blocks.python.messages.caller import MessageSettings
        from streamline.blocks.python.messages.worker import MessageWorker

        block = transform.block
        if block.uuid not in self._workers:
            feeding = [
                source.traits
                for source in self.plan.sources.values()
                if any(block.uuid in path for path in self.plan.paths(source.id))
            ]
            self._workers[block.uuid] = MessageWorker(
                MessageSettings(
                    block=transform.file,
                    batch_size=min(traits.batch_size for traits in feeding),
                    keywords=block_keywords(self.run, self.plan.variables, block, self.attempt),
                    include_metadata=any(traits.include_metadata for traits in feeding),
                    timeout=block.timeout,
                    park=self.plan.settings.park,
                    max_raised=self.plan.settings.max_dead_letters,
                    state=self._state_of(block.uuid),
                )
            )
        return self._workers[block.uuid]

    def _state_of(self, block: str) -> Callable[[], StateStore] | None:
        """Return what makes the store of a block's state."""
        state = self.plan.states.get(block)
        return partial(open_state, self.run, self.plan, state, self.context) if state is not None else None
