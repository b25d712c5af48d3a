"""What a streaming pipeline asks of a connector: its settings, what it promises, and how it is opened.

A connector is a `StreamConnector`, named in the registry by `InProcess.stream`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from streamline.errors import PipelineFailed, StreamlineError
from streamline.flow.items import Origin, Schema
from streamline.flow.protocols import Decoder as Decoder
from streamline.flow.protocols import LastingSource, Sink, Source
from streamline.state.store import DeadLetter

Config: TypeAlias = Mapping[str, Any]
Delivery: TypeAlias = Literal["at-least-once", "exactly-once"]
Side: TypeAlias = Literal["source", "destination"]
Where: TypeAlias = Callable[..., str]
"""Called with the path of a key in the block's config; returns `file:line`."""


class PositionLost(StreamlineError):
    """What a source's position stands for is no longer there, and its settings say to stop then."""


class NothingWritten(PipelineFailed):
    """A sink writes none of many messages, and nothing tells whether it is they or the system behind it."""

    code = "streaming_class.nothing_written"


class Serializer(Protocol):
    """Turns data into values to write: the counterpart of `Decoder`.

    None stays None. Bytes are taken for a value that is ready, such as one that nothing has decoded: they are written
    as they are.
    """

    def encode(self, data: Any, topic: str, stream: str, origin: Origin | None = None) -> bytes | None:
        """Return the value of one message.

        Args:
            topic: it is written to.
            stream: of its batch.
            origin: of the message that it is, if any.

        Raises:
            ValueError: it cannot be encoded; the message is refused, and no other.
            StreamlineError: nothing can be encoded now (the registry does not answer, access is denied).
        """
        ...

    def encode_batch(
        self, data: Sequence[Any], topic: str, stream: str, origins: Sequence[Origin | None] | None = None
    ) -> list[bytes | None]:
        """Return the values of many messages for one topic, in their order. Faster than one by one.

        Raises:
            ValueError: one of them cannot be encoded, it is not said which.
        """
        ...


class SourceTraits(msgspec.Struct, frozen=True, kw_only=True):
    """What a source promises.

    Args:
        replays: what was not proven is read again after a failure.
        would_replay: what would do so, for `streamline explain`.
        positions: where its positions are kept, for `streamline explain`: `consumer group g`, `the state store`.
        keeps_positions: it keeps them itself (see `SelfKeptSource`).
        cluster: the Kafka cluster that it reads, if its offsets can be part of a transaction.
        client: the client library, which has to be that of the transaction.
        topics: that it reads there, by name.
        topic_pattern: or by a regular expression that matches their whole names.
        decoder: makes what decodes its values; None: they come decoded.
        key_decoder: makes what decodes the keys that transformers get as metadata (it is given them as values); None:
            they are text, or bytes where they are not UTF-8.
        format: name of the values' format; sinks of the same format need not have them decoded.
        include_metadata: transformers get `{data, metadata}`.
        batch_size: the most messages of one call of a transformer.
        ends: it ends by itself.
        ordered: its messages may have keys, and have offsets, which order those of a key.
    """

    replays: bool
    positions: str
    would_replay: str = "a source that can be read again, such as a Kafka topic"
    keeps_positions: bool = False
    cluster: str | None = None
    client: str | None = None
    topics: Sequence[str] = ()
    topic_pattern: str | None = None
    decoder: Callable[[], Decoder] | None = None
    key_decoder: Callable[[], Decoder] | None = None
    format: str | None = None
    include_metadata: bool = False
    batch_size: int = 100
    ends: bool = False
    ordered: bool = False

    def reads(self, topic: str) -> bool:
        """Return whether it reads a topic of its cluster."""
        pattern = self.topic_pattern
        return topic in self.topics or (pattern is not None and re.fullmatch(pattern, topic) is not None)


class SinkTraits(msgspec.Struct, frozen=True, kw_only=True):
    """What a sink promises.

    Args:
        proof: when messages count as durable, for `streamline explain`.
        cluster: the Kafka cluster that it writes, if it can do so in transactions.
        client: the client library.
        topic: that it writes to there; `{stream}` stands for the stream.
        replaces: a message that is written again replaces what the first one wrote.
        changes_data: it may change the data that it is given (a user's code).
        keeps_data: it uses the data after `send` has returned.
        format: name of its values' format, if it writes undecoded values of that format as they are.
        note_schema: called with the SCHEMAs of records that become messages, before these; None: they are of no use.
    """

    proof: str
    cluster: str | None = None
    client: str | None = None
    topic: str | None = None
    replaces: bool = False
    changes_data: bool = False
    keeps_data: bool = True
    format: str | None = None
    note_schema: Callable[[Schema], None] | None = None


class StreamContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a source or sink is opened with.

    Args:
        block: uuid of its block; also its id in the flow.
        root: the project's folder, which relative paths are relative to.
        slot: number of this process among those of the pipeline, from 0 on; stable over restarts.
        checkout: tells the project's folder from its copies and other checkouts; stable over restarts.
        start: saved parts of a source's position; of one that keeps them itself, the copy that it gave to be shown.
        memory: what the next attempt of the same run is to know.
        startup_timeout: seconds that the other side may be unreachable at the start.
        until_caught_up: a source ends when it has given all that there was when it began.
        set_aside: messages that a sink cannot deliver are refused while later ones are delivered; if not, the first of
            them is refused before anything after it is delivered, which ends the run.
        must_arrive: of what a sink is opened for, ids whose messages must not be refused: that fails the sink.
        letters: what a sink is sent are dead letters of earlier runs.
        note: writes a line to the run's log, with its level (`INFO`, `WARNING`); secrets are masked.
        secret: has a value masked from now on.
    """

    pipeline: str
    block: str
    root: Path
    run_id: str = ""
    slot: int = 0
    checkout: str = ""
    delivery: Delivery = "at-least-once"
    checkpoint_interval: float = 1.0
    startup_timeout: float = 60.0
    until_caught_up: bool = False
    set_aside: bool = True
    start: Mapping[str, bytes] = {}
    memory: MutableMapping[str, Any] = {}
    must_arrive: frozenset[str] = frozenset()
    letters: bool = False
    note: Callable[[str, str], None] = lambda message, level: None
    secret: Callable[[str], None] = lambda value: None


class SelfKeptSource(LastingSource, Protocol):
    """A source that keeps its positions where it reads, as a consumer group does."""

    def commit(self, parts: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Save parts; blocks, and is called in a worker thread.

        Returns:
            what is saved. What cannot be saved now, and is still its own, it saves later by itself, at the latest when
            it is closed.

        Raises:
            StreamlineError: positions can never be saved.
        """
        ...

    def shown(self, parts: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Return saved parts as the state store has a copy of them: to be shown, and for `StreamContext.start`."""
        ...


class OffsetSource(SelfKeptSource, Protocol):
    """A source whose offsets a sink commits in its transactions."""

    def transaction_offsets(self, parts: Mapping[str, bytes]) -> tuple[Mapping[Any, Any], Any]:
        """Return offsets as `Producer.send_offsets` takes them, and the group's metadata now. Blocks, and is called in
        the sink's thread.

        Args:
            parts: of all positions in the transaction; of two of the same key the newer one.

        Raises:
            KafkaError: one of them belongs to somebody else by now (`NotMember`), or the source has ended: the
                transaction must be aborted, because messages of it are read again.
        """
        ...

    def committed(self, parts: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Return parts that a transaction has committed as they are saved, for display."""
        ...


class TransactionalSink(Sink, Protocol):
    """A sink that commits messages, dead letters and the offsets of its sources in one transaction.

    Its flows are `prompt`: everything before a position has been sent when the position is. When it refuses a record
    itself, it calls `refused`; the letters that `dead_letters` is given within that call are part of the transaction.
    """

    offsets_from: Mapping[str, OffsetSource]
    """Its sources by id. Set before `run`."""

    dead_letter_topic: str | None
    """Set before `run`; None: there are no dead letters."""

    letters_refused: Callable[[Sequence[DeadLetter]], None]
    """Set before `run`. Called, in the sink's thread and before the transaction is committed, with dead letters that
    their topic cannot take (too large, not allowed); blocks until they are kept elsewhere."""

    def dead_letters(self, source: str, letters: Sequence[DeadLetter]) -> None:
        """Take letters of records that stages refused; in the loop's thread, in order with what is sent.
        `kafka/dead_letter_messages.py` makes messages of them."""
        ...


class Lag(msgspec.Struct, frozen=True):
    """How far a source is behind.

    Args:
        name: of a partition or file.
        behind: messages that are not read yet; None: not known.
        position: offset of the next message; None: not known.
    """

    name: str
    behind: int | None
    position: int | None = None


class LaggingSource(Source, Protocol):
    """A source that knows how far it is behind."""

    def lag(self) -> Sequence[Lag]:
        """Return what was known last; does not block."""
        ...


class StreamConnector(Protocol):
    """One kind of source and sink. Methods raise ConfigError for a config that cannot be used; `where` names its lines.

    A side that it does not have raises `ConfigError(code="connector.wrong_side")`.
    """

    name: str

    def describe_source(self, config: Config, context: StreamContext, where: Where) -> SourceTraits:
        """Check a source's config, without connecting, and return what it promises."""
        ...

    def describe_sink(self, config: Config, context: StreamContext, where: Where) -> SinkTraits:
        """Check a sink's config, without connecting, and return what it promises."""
        ...

    def open_source(self, config: Config, context: StreamContext, where: Where) -> Source:
        """Make the source. It connects when it is run."""
        ...

    def open_sink(self, configs: Mapping[str, Config], context: StreamContext, where: Mapping[str, Where]) -> Sink:
        """Make the sink of one or several destination blocks: several only under exactly-once delivery, where they
        share one transaction.
        """
        ...

    def check(self, side: Side, config: Config, context: StreamContext, where: Where) -> str:
        """Connect, and return what was found in one line, for `streamline check`.

        Raises:
            StreamlineError: it cannot connect, or what the config names is not there.
        """
        ...

    def template(self, side: Side, pipeline: str, block: str) -> str:
        """Return the YAML that `streamline add` writes."""
        ...


class MovingConnector(StreamConnector, Protocol):
    """A connector whose sources keep their positions themselves; these can be set while nothing reads them."""

    def set_positions(self, config: Config, context: StreamContext, where: Where, parts: Mapping[str, bytes]) -> None:
        """Set parts of a source's position; those that are `FORGOTTEN` are deleted. Blocks.

        Raises:
            ConfigError: a part cannot be a position of the source.
            StreamlineError: something reads with them, or the system does not answer.
        """
        ...
