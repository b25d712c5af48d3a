"""Sends dead letters of a streaming pipeline again, from where each was refused to the sinks. No position moves.

The flows are those of a run, with sources that give letters in place of its own (`letter_waves.py`). A letter has
arrived once every sink that it goes to has proven it. That is at least once, also where the pipeline is exactly once:
letters are no part of its transactions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import msgspec

from streamline.execution.flow_runs import INTERRUPT_SECONDS, renderer_of
from streamline.execution.run import CANCELLED, COMPLETED, FAILED, Run, RunOptions, end_killed_runs, open_run
from streamline.execution.streaming.attempt import INTERRUPT_MARGIN
from streamline.execution.streaming.letter_box import open_letters
from streamline.execution.streaming.letter_routes import Entry, UnsendableError, entry_of, route_of
from streamline.execution.streaming.letter_waves import WAVE, LetterSource, SentLetters, Waves, key_of, place_in_queue
from streamline.execution.streaming.letters import LetterMaker, Letters
from streamline.execution.streaming.plan import Plan
from streamline.execution.streaming.planner import make_plan
from streamline.execution.streaming.route_builder import RouteBuilder
from streamline.execution.streaming.singer import plan_plugins_now
from streamline.execution.streaming.stored_state import StateChanges
from streamline.execution.user_code import user_code
from streamline.flow.items import BadRecord, Item, MessageBatch, Position
from streamline.flow.protocols import ImmediateStage
from streamline.flow.router import Route
from streamline.flow.runtime import Flow, Runtime
from streamline.flow.tasks import keep_shields, task_group
from streamline.pipeline.reader import load_pipeline
from streamline.state.store import DeadLetter, LetterKey, Store

if TYPE_CHECKING:
    from streamline.project.project import Project

INTERRUPTED = "interrupted; what was not delivered stays a dead letter"

CHECKPOINT_SECONDS = 0.05
"""How often sinks prove what they were given: a letter waits for the one before it with its key."""


class Outcome(msgspec.Struct):
    """What became of letters.

    Args:
        arrived: how many were delivered.
        refused: how many were refused again.
        errors: why, by the ids of letters.
        unsendable: why letters were not sent, by id.
        held: how many were not sent because one before them with their key stays.
        failure: what ended the sending early. Letters that are in none of these may have arrived, and are kept.
        interrupted: the signal that ended it early.
    """

    arrived: int = 0
    refused: int = 0
    errors: dict[int, str] = {}
    unsendable: dict[int, str] = {}
    held: int = 0
    failure: Exception | None = None
    interrupted: int | None = None


def resend(
    project: Project,
    store: Store,
    pipeline: str,
    run_id: str,
    letters: Sequence[DeadLetter],
    *,
    overwrite: bool,
    notify: Callable[[str], None] = lambda message: None,
) -> Outcome:
    """Send dead letters again, as a run with the given id. The caller holds the pipeline's lease.

    A letter that arrives is discarded. One that is refused again stays, with the new error and the stage that refused
    it now; letters behind it with its key are not sent.

    Args:
        letters: as `Letters.find` gives them.
        overwrite: send also what replaces, in a sink that replaces by key, what a later message has written, and what
            has a letter of an earlier message before it that is not sent.
        notify: told what the user should know before anything is sent.

    Raises:
        StreamlineError: the flows could not be built.
    """
    model = load_pipeline(project, pipeline)
    end_killed_runs(store, project, pipeline)
    with (
        open_run(project, store, pipeline, run_id, RunOptions()) as run,
        user_code(project, model, renderer_of(run, model)),
        run.record() as record,
    ):
        try:
            plan = _for_letters(make_plan(run, model))
            plan_plugins_now(run, model, plan)
            kept = open_letters(run, plan)
            try:
                sending = _Resend(run, plan, kept, letters, overwrite=overwrite)
                if sinks := sending.replaced_unawares(letters):
                    notify(
                        f"{', '.join(sinks)}: a message without key or offset that arrives now replaces what a later "
                        "one has written"
                    )
                outcome = anyio.run(sending.run)
            finally:
                kept.close()
        finally:
            record.summary = {**run.progress.summary(), "retried_dead_letters": len(letters)}
        record.status = FAILED if outcome.refused or outcome.unsendable or outcome.failure else COMPLETED
        if outcome.interrupted is not None:
            record.status = CANCELLED
    return outcome


def _for_letters(plan: Plan) -> Plan:
    settings = msgspec.structs.replace(
        plan.settings,
        delivery="at-least-once",
        checkpoint_interval=CHECKPOINT_SECONDS,
        on_error="dead-letter",
        park=False,
        max_dead_letters=None,
    )
    return msgspec.structs.replace(plan, settings=settings)


class _Resend:
    """Sends letters once. Implements `flow.protocols.PositionStore`: a position stands for a wave."""

    def __init__(self, run: Run, plan: Plan, kept: Letters, letters: Sequence[DeadLetter], *, overwrite: bool) -> None:
        self._run = run
        self._plan = plan
        self._kept = kept
        self._outcome = Outcome()
        self._maker = LetterMaker(plan.pipeline, run.run_id, starts_with_value=plan.gets_values, mask=run.masker.mask)
        self._entries: dict[int, Entry] = {}
        """Where letters enter, by id."""
        self._left_out = self._first_left_out(letters)
        self._waves = Waves(self._by_source(letters, overwrite=overwrite))
        self._sent = {entry.source: SentLetters() for entry in self._entries.values()}
        self._places = Counter(map(_place, letters))
        self._again: dict[int, tuple[BadRecord, DeadLetter | None]] = {}
        """Refused records, and the letters that they are of, by the record's id."""
        self._states: list[StateChanges] = []
        self._refused: set[int] = set()
        self._stay: set[int] = set()
        """Letters that were refused, and those of them at the same place."""

    async def run(self) -> Outcome:
        """Send them. A signal ends it in order, a second one at once."""
        with self._run.signals(lambda: None, message=INTERRUPTED):
            return await keep_shields(self._send())

    async def _send(self) -> Outcome:
        if self._entries:
            sinks = {sink for entry in set(self._entries.values()) for sink in self._sinks(entry)}
            builder = RouteBuilder(self._run, self._plan, 1, sinks)
            self._states = list(builder.stored.values())
            runtime = Runtime(
                [self._flow(builder, source) for source in self._sent],
                store=self,
                on_saved=self._saved,
                on_failed=self._failed,
                save_interval=CHECKPOINT_SECONDS,
            )
            async with task_group() as background:
                background.start_soon(self._pass_on_interrupt, runtime, background.cancel_scope)
                for outcome in await runtime.run():
                    self._outcome.failure = self._outcome.failure or outcome.error
                background.cancel_scope.cancel()
        self._outcome.held = len(self._waves.held)
        self._outcome.interrupted = self._run.interrupted
        return self._outcome

    async def _pass_on_interrupt(self, runtime: Runtime, scope: anyio.CancelScope) -> None:
        while self._run.interrupted is None:
            await anyio.sleep(0.05)
        runtime.stop("the retry was interrupted", within=INTERRUPT_SECONDS)
        await anyio.sleep(INTERRUPT_SECONDS + INTERRUPT_MARGIN)
        scope.cancel()

    def _first_left_out(self, letters: Sequence[DeadLetter]) -> dict[Hashable, DeadLetter]:
        """Return, by key, the first open letter that is not among those to be sent."""
        sent = {letter.id for letter in letters}
        keys = {key_of(letter) for letter in letters if letter.key is not None}
        first: dict[Hashable, DeadLetter] = {}
        for letter in sorted(self._kept.find(), key=place_in_queue, reverse=True):
            if letter.id not in sent and key_of(letter) in keys:
                first[key_of(letter)] = letter
        return first

    def replaced_unawares(self, letters: Sequence[DeadLetter]) -> list[str]:
        """Return the sinks that replace by key, and get letters of which no one knows whether later messages came."""
        entries = {self._entries[each.id] for each in letters if each.id in self._entries and not _has_order(each)}
        return sorted({sink for entry in entries for sink in self._replacing(entry)})

    def _by_source(self, letters: Sequence[DeadLetter], *, overwrite: bool) -> dict[str | None, list[DeadLetter]]:
        """Group letters by their source; find out where each enters."""
        by_source: dict[str | None, list[DeadLetter]] = {}
        for letter in letters:
            source: str | None = letter.block
            try:
                entry = entry_of(self._plan, letter)
                if not overwrite:
                    self._check_newer(entry, letter)
                    self._check_earlier(letter)
                self._entries[letter.id] = entry
            except UnsendableError as error:
                self._outcome.unsendable[letter.id] = str(error)
                source = None
            by_source.setdefault(source, []).append(letter)
        return by_source

    def _check_newer(self, entry: Entry, letter: DeadLetter) -> None:
        if letter.written_since is None:
            return
        if replacing := self._replacing(entry):
            raise UnsendableError(
                f"{', '.join(replacing)} would replace what a later message of its key has written (offset "
                f"{letter.written_since}); --overwrite sends it nevertheless"
            )

    def _check_earlier(self, letter: DeadLetter) -> None:
        first = self._left_out.get(key_of(letter))
        if first is not None and place_in_queue(first) < place_in_queue(letter):
            raise UnsendableError(
                f"dead letter {first.id} is of an earlier message with its key: send both, or discard that one; "
                "--overwrite sends it nevertheless"
            )

    def _replacing(self, entry: Entry) -> list[str]:
        """Return the sinks of an entry that replace by key."""
        sinks = [sink for sink in self._sinks(entry) if sink in self._plan.sinks]
        return [sink for sink in sinks if self._plan.sinks[sink].traits.replaces]

    def _sinks(self, entry: Entry) -> list[str]:
        return route_of(self._plan, entry).all_sinks()

    def _flow(self, builder: RouteBuilder, source: str) -> Flow:
        branches = []
        for entry in dict.fromkeys(self._entries.values()):
            if entry.source == source:
                # From its beginning, the way of messages in Singer's format is that of records.
                records = entry.stage is None and builder.reads_singer(source)
                route = builder.route(route_of(self._plan, entry), self._plan.sources[source], records=records)
                if records and builder.singer is not None:
                    route.stages[:0] = builder.singer.source_stages(source)
                route.stages.insert(0, _EntryStage(partial(self._enters_at, entry)))
                branches.append(route)
        return Flow(
            source=LetterSource(source, self._waves, self._sent[source]),
            route=Route(branches=branches),
            prompt=True,
            observe=partial(self._observe, source),
            refused=partial(self._refuse, source),
        )

    # -- what happens, in the loop

    def _enters_at(self, entry: Entry, batch: MessageBatch) -> bool:
        return self._entries[self._sent[entry.source].by_batch(batch).id] == entry

    def _observe(self, source: str, items: Sequence[Item]) -> None:
        counts = self._run.progress.of(source)
        for item in items:
            if isinstance(item, MessageBatch):
                self._sent[source].current = self._sent[source].by_batch(item)
                counts.read(item.stream, item.count)

    def _refuse(self, source: str, records: Sequence[BadRecord]) -> None:
        counts, sent = self._run.progress.of(source), self._sent[source]
        for record in records:
            letter = sent.by_origin(record.origin)
            if letter is None and record.stage not in self._plan.sinks:
                letter = sent.current
            self._again[id(record)] = (record, letter)
            counts.refused(record.stream, 1, record.sink, record.stream)
            # A sink may refuse what a block has made of any of them.
            for each in [letter] if letter is not None else sent.letters:
                self._waves.refused(each)

    def _failed(self, id: str, error: Exception) -> None:
        self._run.note(id, f"failed: {error}", "ERROR")
        self._waves.end()

    async def _saved(self, position: Position, moved: Mapping[str, bytes]) -> None:
        self._waves.settled(position.source)

    # -- in a thread

    def save(
        self, source: str, parts: Mapping[str, bytes], refused: Sequence[BadRecord], number: int = 0
    ) -> Mapping[str, bytes]:
        """See `PositionStore.save`: keeps what was refused again, and discards what has arrived."""
        again = [self._letter_of(source, record) for record in refused]
        in_database = self._kept.keep(again) if again else ()
        state = [change for each in self._states for change in each.until(source, number)]
        if in_database or state:
            self._run.store.save(self._plan.pipeline, source, self._run.run_id, [], in_database, state=state)
        for each in self._states:
            each.saved(source, number)
        if WAVE in parts:
            letters = self._sent[source].letters
            arrived = [letter for letter in letters if letter.id not in self._refused]
            for letter in arrived:
                self._note_written(letter)
            self._kept.discard([letter for letter in letters if letter.id not in self._stay])
            self._outcome.arrived += len(arrived)
        return parts

    def _note_written(self, letter: DeadLetter) -> None:
        """Remember that a letter has overtaken one of an earlier message with its key."""
        first = self._left_out.get(key_of(letter))
        if first is None or place_in_queue(first) > place_in_queue(letter) or letter.topic is None:
            return
        self._kept.note_key_written(
            LetterKey(
                block=letter.block,
                topic=letter.topic,
                partition=letter.partition or 0,
                key=letter.key or b"",
                written=letter.offset,
            )
        )

    def _letter_of(self, source: str, record: BadRecord) -> DeadLetter:
        """Return the letter of a record that was refused again: the old one, if it was at the same place."""
        _, letter = self._again.get(id(record), (record, None))
        made = self._maker.letter(source, record)
        if letter is None:
            self._outcome.refused += 1
            return made
        if letter.id not in self._refused:
            self._outcome.refused += 1
            self._refused.add(letter.id)
            self._outcome.errors[letter.id] = made.error
        if _place(made)[-3:] == _place(letter)[-3:]:
            self._stay.add(letter.id)
            return msgspec.structs.replace(letter, error=made.error, trace=made.trace, run_id=made.run_id)
        if self._places[_place(letter)] > 1:
            made.copy = f"{letter.id} {made.copy}"
        return made


class _EntryStage(ImmediateStage):
    """Lets in the letters that enter here, and everything that is no message."""

    def __init__(self, enters: Callable[[MessageBatch], bool]) -> None:
        self._enters = enters

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`."""
        return [] if isinstance(item, MessageBatch) and not self._enters(item) else [item]


def _has_order(letter: DeadLetter) -> bool:
    return letter.key is not None and letter.topic is not None


def _place(letter: DeadLetter) -> tuple[object, ...]:
    """Return which message a letter is of, and where it was refused."""
    message = (letter.block, letter.topic, letter.partition, letter.offset)
    return (*message, letter.stage, letter.destination, letter.output)
