"""Sends dead letters again, from where each was refused to the destinations. No bookmark moves.

The flow is that of a run, with a source that gives the letters one by one in place of the tap. A letter has arrived
once every target that its stream goes to has ended with exit code 0.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import anyio
import msgspec

from streamline.connectors.singer.settings import Resolved
from streamline.connectors.singer.state import join_state
from streamline.errors import StreamlineError
from streamline.execution.flow_runs import renderer_of
from streamline.execution.integration.endpoints import build_sinks
from streamline.execution.integration.plan import GroupPlan, PathPlan, Plan, SinkPlan, SourcePlan
from streamline.execution.integration.planner import make_plan
from streamline.execution.integration.route_builder import RouteBuilder
from streamline.execution.integration.schema_book import destination_schemas, saved_schemas
from streamline.execution.run import Run, RunOptions, end_killed_runs, open_run
from streamline.execution.user_code import user_code
from streamline.flow.codecs.envelope import wrap
from streamline.flow.items import BadRecord, Item, Schema
from streamline.flow.protocols import Emit
from streamline.flow.runtime import Flow, Runtime
from streamline.flow.stages.schema_change import ADDED
from streamline.pipeline.model import PipelineModel
from streamline.pipeline.reader import load_pipeline
from streamline.state.store import DeadLetter, Store

if TYPE_CHECKING:
    from streamline.project.project import Project

AT_DESTINATION = frozenset({"validate", "schema_change"})
"""Stages that refuse records right before a destination."""

MAX_ROUNDS = 10
"""How often the flow is started again after a letter on which a block failed; the letters after that stay."""


class LetterGroup(msgspec.Struct, kw_only=True):
    """Letters of one stream of one source that enter the flow at the same place.

    Args:
        stream: name of the stream at that place.
        path: the path after the place.
        schema: the SCHEMA at the place.
        fresh: there is no transformer between the source and the place.
    """

    source: str
    stream: str
    path: PathPlan
    schema: Schema
    fresh: bool
    letters: list[DeadLetter]


class _UnsendableError(Exception):
    """A letter cannot be sent; the text says why."""


PlanLetters = Callable[[Run, PipelineModel, Sequence[DeadLetter]], Awaitable[Plan]]
"""Makes the plan that letters are sent by."""


async def plan_letters(run: Run, model: PipelineModel, letters: Sequence[DeadLetter]) -> Plan:
    """Return the plan of an integration pipeline, which says where letters enter; raises as `make_plan`."""
    return await make_plan(run, model, retry=True)


def resend(
    project: Project,
    store: Store,
    pipeline: str,
    run_id: str,
    letters: Sequence[DeadLetter],
    planning: PlanLetters = plan_letters,
) -> dict[int, str]:
    """Send dead letters again, as a run with the given id, without moving any position.

    Each record enters after its source, or where it was refused, under the schema that its stream was last loaded with,
    and passes the blocks and the validation from there. A letter that is refused again gets the new error; it is not
    added a second time. The caller holds the pipeline's lease.

    Returns:
        The error of each letter that was not delivered, by id.

    Raises:
        StreamlineError: the flow could not be built.
    """
    model = load_pipeline(project, pipeline)
    # A destination that lacks earlier records does not matter here: these records go to all of them.
    options = RunOptions(accept_gap=True)
    end_killed_runs(store, project, pipeline)
    with (
        open_run(project, store, pipeline, run_id, options) as context,
        user_code(project, model, renderer_of(context, model)),
        context.record() as record,
    ):
        try:
            errors = anyio.run(_resend, context, model, letters, planning)
        finally:
            record.summary = context.progress.summary()
        record.status = "failed" if errors else "completed"
    errors = {number: context.masker.mask(error) for number, error in errors.items()}
    again = [
        msgspec.structs.replace(letter, error=errors[letter.id], run_id=run_id)
        for letter in letters
        if letter.id in errors
    ]
    if again:
        store.save(pipeline, again[0].block, run_id, [], again)
    return errors


async def _resend(
    context: Run, model: PipelineModel, letters: Sequence[DeadLetter], planning: PlanLetters
) -> dict[int, str]:
    plan = await planning(context, model, letters)
    errors: dict[int, str] = {}
    for entry in entries_of(context.store, plan, letters, errors):
        await _send(context, plan, entry, errors)
    return errors


# -- where letters enter


def entries_of(store: Store, plan: Plan, letters: Sequence[DeadLetter], errors: dict[int, str]) -> list[LetterGroup]:
    """Group letters by where they enter; for those that cannot be sent, set an error in `errors`."""
    entries: dict[tuple[str, str, str | None, bool, str], LetterGroup | _UnsendableError] = {}
    for letter in letters:
        key = (letter.block, letter.stage, letter.destination, letter.output, letter.stream)
        if key not in entries:
            try:
                entries[key] = _entry(store, plan, letter)
            except _UnsendableError as error:
                entries[key] = error
        entry = entries[key]
        if isinstance(entry, LetterGroup):
            entry.letters.append(letter)
        else:
            errors[letter.id] = str(entry)
    return [entry for entry in entries.values() if isinstance(entry, LetterGroup)]


def _entry(store: Store, plan: Plan, letter: DeadLetter) -> LetterGroup:
    source = plan.sources.get(letter.block)
    if source is None:
        raise _UnsendableError(f"'{letter.block}' is no longer a source of this pipeline")
    whole, stream = plan.paths[source.id], letter.stream
    before: Sequence[str]
    if all(plan.sinks[sink].plan_of(source.id, stream) is None for sink in whole.all_sinks()):
        raise _UnsendableError(f"no destination takes stream '{stream}'")
    if letter.stage in AT_DESTINATION:
        # A letter that does not name the destination that refused it goes to all, as after any failure.
        sinks = [
            sink
            for sink in whole.all_sinks()
            if plan.sinks[sink].plan_of(source.id, stream) is not None and letter.destination in (None, sink)
        ]
        if not sinks:
            raise _UnsendableError(f"destination '{letter.destination}' no longer takes stream '{stream}'")
        ways = {tuple(whole.transforms_before(sink)) for sink in sinks}
        if len(ways) > 1:
            raise _UnsendableError(
                f"one of the destinations {', '.join(sinks)} refused it, it is not known which, and they are "
                "downstream of different transformers; read the stream again"
            )
        path, place, before = PathPlan(transforms=[], sinks=sinks, branches=[]), sinks[0], next(iter(ways))
    else:
        rest = _path_from(whole, letter.stage)
        if rest is None:
            raise _UnsendableError(
                f"block '{letter.stage}', which refused it, is no longer downstream of '{source.id}'"
            )
        path, before = rest
        place = letter.stage
        if letter.output:
            # The block returned it; it must not pass the block again.
            path = msgspec.structs.replace(path, transforms=path.transforms[1:])
            before = [*before, letter.stage]
            place = path.blocks()[0]
    emptied = [sink for sink in path.all_sinks() if plan.sinks[sink].overwrites]
    if emptied:
        raise _UnsendableError(
            f"the config of {', '.join(emptied)} makes the target drop its table first, so the table would hold "
            "nothing but this record; read the stream again"
        )
    schema = _schema(store, plan, source, place, stream, fresh=not before)
    return LetterGroup(source=source.id, stream=stream, path=path, schema=schema, fresh=not before, letters=[])


def _path_from(path: PathPlan, block: str) -> tuple[PathPlan, list[str]] | None:
    """Return the part of a path from a transformer block on, and the transformers before it; None if it has none."""
    before: list[str] = []
    for number, transform in enumerate(path.transforms):
        if transform.block.uuid == block:
            return msgspec.structs.replace(path, transforms=path.transforms[number:]), before
        before.append(transform.block.uuid)
    for branch in path.branches:
        rest = _path_from(branch, block)
        if rest is not None:
            return rest[0], [*before, *rest[1]]
    return None


def _schema(store: Store, plan: Plan, source: SourcePlan, place: str, stream: str, *, fresh: bool) -> Schema:
    """Return the SCHEMA of a stream at a place: that of the last run, else that of the catalog."""
    saved = saved_schemas(store, plan.pipeline, source.id, place).get(stream)
    if saved is not None:
        return saved
    selected = source.find(stream)
    keys = selected.key_properties if selected is not None else None
    last = destination_schemas(store, plan.pipeline, source.id, place).get(stream)
    if last is not None:
        return Schema(stream, {word: value for word, value in last.items() if word != ADDED}, keys)
    entry = source.catalog.get(selected.id) if source.catalog is not None and selected is not None else None
    if entry is not None and fresh:
        return Schema(stream, entry.schema, keys)
    raise _UnsendableError(f"the schema of stream '{stream}' before '{place}' is not known; read the stream again")


# -- sending


async def _send(context: Run, plan: Plan, entry: LetterGroup, errors: dict[int, str]) -> None:
    """Send an entry's letters; for those that are not delivered, set an error in `errors`."""
    reduced = _reduced(plan, entry)
    letters = entry.letters
    for _ in range(MAX_ROUNDS):
        delivery = _Delivery(context, reduced, entry, letters)
        error = await delivery.run()
        errors.update(delivery.refused)
        if error is None:
            return
        reason = _words(error)
        if delivery.targets_failed or delivery.current is None:
            # It is not known which letters arrived.
            errors.update({letter.id: reason for letter in letters if letter.id not in errors})
            return
        # A block failed on one letter. The targets exited with 0, so the letters before it have arrived.
        if letters[delivery.current].id not in delivery.refused:
            context.progress.of(entry.source).refused(entry.stream, 1)
        errors[letters[delivery.current].id] = reason
        letters = letters[delivery.current + 1 :]
        if not letters:
            return
    errors.update({letter.id: f"not tried; {MAX_ROUNDS} others before it failed" for letter in letters})


def _words(error: Exception) -> str:
    return error.message if isinstance(error, StreamlineError) else f"{type(error).__name__}: {error}"


def _reduced(plan: Plan, entry: LetterGroup) -> Plan:
    """Return the plan of a run of these letters alone."""
    source = plan.sources[entry.source]
    rows = {stream: text for group in source.groups for stream, text in group.rows.items()}
    group = GroupPlan(
        id=source.id,
        source=source.id,
        # The stages of the source's settings stand right behind it; after a transformer they must not run again.
        streams=tuple(source.selected) if entry.fresh else (),
        catalog=None,
        state=join_state(rows),
        rows=rows,
    )
    return msgspec.structs.replace(
        plan,
        sources={
            source.id: msgspec.structs.replace(
                source, groups=[group], cause_of={}, overrides={}, left_out=[], endless=False
            )
        },
        mappers={},
        paths={source.id: entry.path},
        sinks={sink: _for_letters(plan.sinks[sink]) for sink in entry.path.all_sinks()},
    )


def _for_letters(sink: SinkPlan) -> SinkPlan:
    """Return the destination changed to replace no table and to quarantine any number of bad records."""

    def settings_of(source: str, stream: str) -> Resolved | None:
        settings = sink.settings_of(source, stream)
        if settings is None:
            return None
        policies = ("on_bad_record", "max_bad_records")
        values = {name: value for name, value in settings.values.items() if name not in policies}
        return msgspec.structs.replace(settings, values=values)

    spec = msgspec.structs.replace(sink.spec, on_bad_record="quarantine", max_bad_records=sys.maxsize)
    return msgspec.structs.replace(sink, spec=spec, settings_of=settings_of, replaces=False)


class _Letters:
    """A `flow.protocols.Source` of dead letters: the SCHEMA, then one record at a time."""

    stopped: str | None = None

    def __init__(self, id: str, entry: LetterGroup, letters: Sequence[DeadLetter]) -> None:
        self.id = id
        self._entry = entry
        self._letters = letters

    async def run(self, emit: Emit) -> None:
        """See `Source.run`."""
        stream = self._entry.stream
        await emit([self._entry.schema])
        for letter in self._letters:
            await emit([wrap(stream, [letter.record.encode("utf-8", "surrogateescape")])])

    def stop(self, reason: str) -> None:
        """See `Source.stop`. There are few of them; all are sent."""

    async def confirm(self, parts: Mapping[str, bytes]) -> None:
        """See `Source.confirm`."""

    async def release(self, keys: Collection[str]) -> None:
        """See `Source.release`."""


class _NoPositions:
    """A `flow.protocols.PositionStore` that keeps nothing: letters that are refused again stay where they are."""

    def save(
        self, source: str, parts: Mapping[str, bytes], refused: Sequence[BadRecord], number: int = 0
    ) -> Mapping[str, bytes]:
        """See `PositionStore.save`."""
        return {}


class _Delivery:
    """Sends letters once. Each passes all stages before the next, so that a failure can be traced to its letter.

    Attributes:
        current: index of the letter that is being processed, or was last; None before the first.
        refused: errors by letter's id.
        targets_failed: whether a target has not proven all that it was sent.
    """

    def __init__(self, context: Run, plan: Plan, entry: LetterGroup, letters: Sequence[DeadLetter]) -> None:
        self._context = context
        self._plan = plan
        self._entry = entry
        self._letters = letters
        self.current: int | None = None
        self.refused: dict[int, str] = {}
        self.targets_failed = False
        self._observed = 0

    async def run(self) -> Exception | None:
        """Send the letters; return the error that ended the flow, if any."""
        (group,) = self._plan.groups()
        routes = RouteBuilder(self._context, self._plan, validate=True, version=0)
        sinks = build_sinks(self._context, self._plan, [group])
        route = routes.route(group, self._plan.paths[group.source], sinks)
        runtime = Runtime(
            [
                Flow(
                    source=_Letters(group.id, self._entry, self._letters),
                    route=route,
                    prompt=True,
                    observe=self._observe,
                    refused=self._refuse,
                )
            ],
            store=_NoPositions(),
            on_failed=lambda id, error: self._context.note(id, f"failed: {error}", "ERROR"),
        )
        (outcome,) = await runtime.run()
        self.targets_failed = bool(runtime.failures)
        return outcome.error

    def _observe(self, items: Sequence[Item]) -> None:
        # The SCHEMA comes first, then each letter by itself.
        if self._observed:
            self.current = self._observed - 1
            self._context.progress.of(self._entry.source).read(self._entry.stream, 1)
        self._observed += 1

    def _refuse(self, bad: Sequence[BadRecord]) -> None:
        if self.current is None:
            return
        letter = self._letters[self.current]
        if letter.id not in self.refused:
            self._context.progress.of(self._entry.source).refused(self._entry.stream, 1)
        self.refused[letter.id] = bad[0].error
