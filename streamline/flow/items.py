"""The items of a flow: batches of one stream's records, and what comes between them.

A batch is in one of three lanes (`codecs/lanes.py` converts between them):

- raw: whole RECORD lines, byte for byte as the source wrote them;
- rows: decoded records;
- arrow: a `pyarrow.Table`, typed by the stream's schema.

Messages of streaming pipelines are batches of their own kind: values of any type, each with its origin.

Schemas, positions, table versions and files of records are items of their own, in order with the batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

if TYPE_CHECKING:
    import pyarrow as pa

Buffer: TypeAlias = bytes | memoryview
JSONObject: TypeAlias = dict[str, Any]
DataForm: TypeAlias = Literal["json", "bytes", "text"]
"""How a message's data is written down (`codecs/message_data.py`): as JSON text, as the bytes that it is, or as text
for people, from which it cannot be restored."""

REST = "*"
"""Key of the part of a position that belongs to no single stream or partition."""

FORGOTTEN = b""
"""Value of a part that its source no longer has: the saved one is deleted."""


class RawBatch(msgspec.Struct, gc=False):
    """RECORD lines of one stream, as read.

    Args:
        stream: the name in the messages.
        slices: each holds one or more whole lines, the newlines included.
        count: number of records.
        nbytes: sum of the slices' lengths.
        prefix: the common beginning of all lines, up to and including `"record":`; None if not known.
    """

    stream: str
    slices: list[Buffer]
    count: int
    nbytes: int
    prefix: bytes | None = None


class RowBatch(msgspec.Struct):
    """Decoded records of one stream, all of the same table version.

    Numbers are exact: integers of any size are `int`, fractions are `decimal.Decimal` where a float would
    not give the same digits back.
    """

    stream: str
    rows: list[JSONObject]
    version: int | None = None
    time_extracted: str | None = None

    @property
    def count(self) -> int:
        """Number of records."""
        return len(self.rows)


class ArrowBatch(msgspec.Struct):
    """Records of one stream as a table; every record has every column of it (null is null, not absent)."""

    stream: str
    table: pa.Table
    version: int | None = None
    time_extracted: str | None = None

    @property
    def count(self) -> int:
        """Number of records."""
        return int(self.table.num_rows)


class FirstPlace(msgspec.Struct, frozen=True, gc=False):
    """Where a message was read before it was written to a repartition topic, and the key that it had there."""

    topic: str
    partition: int
    offset: int
    key: bytes | None = None


class Origin(msgspec.Struct, gc=False):
    """Where a message was read, and what stands beside its value there.

    Args:
        topic: or the stream, of a message that was read from no topic. Its offset is below 0, and its partition the one
            to write it to, or below 0, too: by its key.
        key, value: as read; a value of None is a tombstone.
        headers: in their order, as read; None: it has none.
        time: milliseconds since 1970 in UTC; None: not known.
        first: where it was read before it was written to a repartition topic.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]] | None = None
    time: int | None = None
    first: FirstPlace | None = None


class MessageBatch(msgspec.Struct):
    """Messages in order; of each partition in the order of its offsets.

    Args:
        stream: the topic, the Singer stream, or the uuid of a Python source block.
        data: value of each message: bytes or None as read, until a stage decodes them.
        origins: origin of each message, if it has one; None: none of them has.
        sink: uuid of the destination block that it is for, where one sink serves several.
        lineage: of messages that a block has made: the origin of the message that each was most likely made of. For
            dead letters, and never for what is written.
    """

    stream: str
    data: list[Any]
    origins: list[Origin | None] | None = None
    sink: str | None = None
    lineage: list[Origin | None] | None = None

    @property
    def count(self) -> int:
        """Number of messages."""
        return len(self.data)

    def only(self, numbers: Sequence[int]) -> MessageBatch:
        """Return some of the messages, by their places."""
        origins, lineage = self.origins, self.lineage
        return MessageBatch(
            self.stream,
            [self.data[number] for number in numbers],
            [origins[number] for number in numbers] if origins is not None else None,
            self.sink,
            [lineage[number] for number in numbers] if lineage is not None else None,
        )

    def made_of(self, number: int) -> tuple[Origin | None, bool]:
        """Return the origin of the message that one is, or is most likely made of, and whether the latter."""
        origin = self.origins[number] if self.origins is not None else None
        if origin is not None or self.lineage is None:
            return origin, False
        return self.lineage[number], True

    def made_of_all(self) -> Sequence[Origin | None]:
        """Return the origin of each message that it is, or is most likely made of."""
        if self.lineage is None:
            return self.origins if self.origins is not None else [None] * len(self.data)
        if self.origins is None:
            return self.lineage
        return [own or other for own, other in zip(self.origins, self.lineage, strict=True)]


class Schema(msgspec.Struct, frozen=True):
    """A SCHEMA message.

    Args:
        raw: the line as the source wrote it, while nothing has changed it.
        added: columns that the source does not have: a transformer block adds them.
        assumed: a transformer block has returned no record, so its output may have other columns.
    """

    stream: str
    schema: JSONObject
    key_properties: Sequence[str] | None = None
    bookmark_properties: Sequence[str] | None = None
    raw: bytes | None = None
    added: frozenset[str] = frozenset()
    assumed: bool = False


class Position(msgspec.Struct, frozen=True):
    """How far a source has come: everything that it sent before is covered by `parts`.

    Args:
        source: id of the source.
        number: rises strictly from one position of the source to the next, from 1 on; orders them without looking
            inside.
        parts: value by key (the bookmark of a stream, the offset of a partition), as the source wrote it, or
            `FORGOTTEN`. A key that is missing keeps the value that was saved before.
        withheld: keys that must not be saved yet, because records of theirs are still held back.
        awaited: its source gives no more before this is saved: sinks prove it as soon as they can.
    """

    source: str
    number: int
    parts: Mapping[str, bytes]
    withheld: frozenset[str] = frozenset()
    awaited: bool = False

    @property
    def nbytes(self) -> int:
        """Size of the values, for bounds on memory."""
        size: int | None = getattr(self.parts, "nbytes", None)
        return size if size is not None else sum(map(len, self.parts.values()))


class ActivateVersion(msgspec.Struct, frozen=True):
    """An ACTIVATE_VERSION message: rows of the stream with another version are stale, or stay with `keep_old`."""

    stream: str
    version: int
    raw: bytes | None = None
    keep_old: bool = False


class FileBatch(msgspec.Struct, frozen=True):
    """A BATCH message: records that wait in files; `dialect` is `sdk` (manifest) or `pipelinewise` (filepath)."""

    stream: str
    dialect: str
    files: Sequence[str]
    format: str
    compression: str | None
    version: int | None
    raw: bytes
    count: int | None = None


class BadRecord(msgspec.Struct, frozen=True):
    """A record that a stage refused. A stage returns it in order with the other items; the router takes it out.

    Args:
        stream: name of the stream.
        record: JSON text of the record (not of the message). Of a streaming pipeline: the message's data as the stage
            got it, as `codecs.message_data.dump_data` writes it.
        error: the reason, for an operator.
        stage: the stage that refused it: `validate`, `schema_change`, `decode`, or the uuid of a transformer or sink
            block.
        sink: uuid of the destination block for which it was refused, if only for one.
        output: the record was returned by the transformer block; otherwise it is the block's input.
        origin: of a message, where it was read.
        trace: the traceback of the user's code that raised, if that was the reason.
        form: how `record` is written.
        inferred: `origin` is that of the message that this one was most likely made of.
    """

    stream: str
    record: bytes
    error: str
    stage: str
    sink: str | None = None
    output: bool = False
    origin: Origin | None = None
    trace: str | None = None
    form: DataForm = "json"
    inferred: bool = False


Batch: TypeAlias = RawBatch | RowBatch | ArrowBatch
Item: TypeAlias = Batch | MessageBatch | Schema | Position | ActivateVersion | FileBatch | BadRecord
