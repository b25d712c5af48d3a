"""The dead letters of one attempt: where they are kept, and the keys of the messages that they are of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from streamline.connectors.stream_connector import TransactionalSink
from streamline.execution.flow_runs import open_planning
from streamline.execution.run import Run, RunOptions
from streamline.execution.streaming.letters import (
    AttemptLetters,
    LetterMaker,
    Letters,
    StoredLetters,
    TopicLetters,
    letter_keys,
)
from streamline.execution.streaming.plan import Plan
from streamline.execution.streaming.planner import context_of, make_plan
from streamline.flow.items import BadRecord
from streamline.flow.protocols import Stage
from streamline.flow.stages.park import KeyStage, LetterKeys, ParkStage
from streamline.state.store import DeadLetter, Store

if TYPE_CHECKING:
    from streamline.pipeline.model import PipelineModel
    from streamline.project.project import Project


READING_SECONDS = 15.0
"""How long a command waits for a topic of dead letters that cannot be reached."""


def open_letters(run: Run, plan: Plan, *, reading: bool = False) -> Letters:
    """Return where a pipeline's dead letters are kept: in its topic, which is made if it is missing, or in the state
    store. Blocks.

    Args:
        reading: nothing will be added; a topic that is missing has no letters.

    Raises:
        StreamlineError: the topic cannot be used.
    """
    stored = StoredLetters(run.store, plan.pipeline)
    if plan.dead_letter is None:
        return stored
    # Imported here: pipelines without such a topic need no Kafka client.
    from streamline.connectors.kafka.clients import kafka_client
    from streamline.connectors.kafka.dead_letter_topic import DeadLetterTopic
    from streamline.connectors.kafka.settings import sink_settings

    end = plan.dead_letter
    context = context_of(run, plan.pipeline, plan.settings, end.id)
    settings = sink_settings(end.config, context, end.where)
    topic = DeadLetterTopic(
        kafka_client(settings.connection.client, where=end.where("client")),
        settings.connection,
        settings.topic,
        plan.pipeline,
        timeout=min(plan.settings.startup_timeout, READING_SECONDS) if reading else plan.settings.startup_timeout,
        ending=lambda: run.interrupted is not None,
        note=context.note,
    )
    try:
        if not reading:
            topic.open()
    except BaseException:
        topic.close()
        raise
    return TopicLetters(topic, stored, lambda message: run.warn("streamline", message))


@contextmanager
def pipeline_letters(project: Project, store: Store, model: PipelineModel) -> Iterator[Letters]:
    """Open the dead letters of a pipeline outside of a run, to list and discard them.

    Raises:
        StreamlineError: they are kept in a topic, and it cannot be read.
    """
    if model.type != "streaming" or not model.options.get("dead_letter"):
        yield StoredLetters(store, model.uuid)
        return
    with open_planning(project, model, RunOptions(), "dead-letters") as run:
        letters = open_letters(run, make_plan(run, model), reading=True)
        try:
            yield letters
        finally:
            letters.close()


class LetterBox:
    """Takes what an attempt refuses.

    Args:
        letters: see `open_letters`.
        sink: takes them in its transactions; None: they are kept with the next position.
    """

    def __init__(self, run: Run, plan: Plan, letters: Letters, sink: TransactionalSink | None) -> None:
        self._run = run
        self._plan = plan
        self._letters = letters
        self._maker = LetterMaker(plan.pipeline, run.run_id, starts_with_value=plan.gets_values, mask=run.masker.mask)
        self._keys = {source: letter_keys(letters, source, park=plan.settings.park) for source in plan.sources}
        self._sink = sink
        if sink is not None:
            assert plan.dead_letter is not None
            sink.dead_letter_topic = str(plan.dead_letter.config["topic"])
            sink.letters_refused = self._keep_refused

    @property
    def kept_with_positions(self) -> AttemptLetters | None:
        """What keeps them with the positions; None: the sink does."""
        return AttemptLetters(self._maker, self._letters) if self._sink is None else None

    def keys_of(self, source: str) -> LetterKeys:
        """Return what watches the keys of a source's messages."""
        return self._keys[source]

    def first_stages(self, source: str) -> list[Stage]:
        """Return the stages right behind a source: its keys are watched where that makes a difference."""
        park = self._plan.settings.park
        replaces = any(self._plan.sinks[sink].traits.replaces for sink in self._plan.sinks_of(source))
        return [KeyStage(self._keys[source], park=park)] if park or replaces else []

    def last_stages(self, source: str, sink: str) -> list[Stage]:
        """Return the stages right before a sink."""
        return [ParkStage(self._keys[source], sink)] if self._plan.settings.park else []

    def refuse(self, source: str, records: Sequence[BadRecord]) -> None:
        """Take refused messages of a source, before anything that comes after them passes."""
        self._keys[source].opened(records)
        if self._sink is not None:
            self._sink.dead_letters(source, [self._maker.letter(source, record) for record in records])

    def close(self) -> None:
        """Free everything. Blocks."""
        self._letters.close()

    def _keep_refused(self, letters: Sequence[DeadLetter]) -> None:
        """Keep letters that the topic cannot take in the state store."""
        for block in dict.fromkeys(letter.block for letter in letters):
            own = [letter for letter in letters if letter.block == block]
            self._run.store.save(self._plan.pipeline, block, self._run.run_id, [], own)
        if isinstance(self._letters, TopicLetters):
            self._letters.warn_of(len(letters), "the broker refused it")
