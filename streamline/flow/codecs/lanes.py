"""The lanes of a batch, and the conversions between them.

raw ⇄ rows and raw ⇄ arrow are converted directly; rows ⇄ arrow go through the JSON text, which is exact and the
fastest way. A reader is made once per schema of a stream and used for its batches.

- A batch is cut where the records' `version` changes, for arrow also where their set of fields changes
  (absent is not null), and around records with values that do not fit the schema, however many they are: the types of
  the other records never change.
- Numbers are exact: see `jsontext`. Tables are read by `arrow_reader`.
- `time_extracted` of a batch is its first record's, the earliest.
- What msgspec refuses is read once more by the standard library's parser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.errors import StreamlineError
from streamline.flow.codecs import jsontext
from streamline.flow.codecs.envelope import record_prefix
from streamline.flow.codecs.schemas import is_decimal, properties, types
from streamline.flow.items import ArrowBatch, Batch, Buffer, JSONObject, RawBatch, RowBatch

if TYPE_CHECKING:
    import pyarrow as pa

Refuse = Callable[[bytes, str], None]
"""Called with a record's JSON text (or the whole line, where the record cannot be found) and the error."""

_ROWS_AT_A_TIME = 1_000  # rows that fit the processor's cache are written twice as fast
_MAX_TEXT = 1 << 30  # Arrow's strings have 32-bit offsets


class _RecordEnvelope(msgspec.Struct, gc=False):
    record: dict[str, Any]
    version: int | None = None
    time_extracted: str | None = None


class _TextEnvelope(msgspec.Struct, gc=False):
    record: msgspec.Raw


_text_decoder = msgspec.json.Decoder(_TextEnvelope)
_version = attrgetter("version")


class RowReader:
    """Decodes RECORD lines of one stream to rows.

    Args:
        schema: the stream's JSON Schema. Its decimal properties (`multipleOf`, decimal formats) are `Decimal`
            in every row; other fractions are `float` where a float means the same number.
    """

    def __init__(self, schema: Mapping[str, Any] | None = None) -> None:
        declared = properties(schema)
        self._decimals = [name for name, prop in declared.items() if is_decimal(prop)]
        self._floats = [name for name in declared if name not in self._decimals and _may_hold_numbers(declared[name])]
        hook: Callable[[str], Any] = Decimal if self._decimals else jsontext.exact_fraction
        self._decoder = msgspec.json.Decoder(_RecordEnvelope, float_hook=hook)

    def read(self, batch: RawBatch, refuse: Refuse | None = None) -> list[RowBatch]:
        """Return the batch's records, cut where the version changes.

        Args:
            batch: RECORD lines.
            refuse: called for lines that are not a RECORD message in UTF-8 JSON.

        Raises:
            StreamlineError: there is such a line and no `refuse`.
        """
        envelopes: list[_RecordEnvelope] = []
        for piece in batch.slices:
            try:
                envelopes += self._decoder.decode_lines(piece)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                for line in lines_of(piece):
                    envelope = self._read_line(batch.stream, line, refuse)
                    if envelope is not None:
                        envelopes.append(envelope)
        if self._decimals:
            for envelope in envelopes:
                self._settle_numbers(envelope.record)
        return [
            RowBatch(batch.stream, [envelope.record for envelope in run], version, run[0].time_extracted)
            for version, run in version_runs(envelopes)
        ]

    def _read_line(self, stream: str, line: bytes, refuse: Refuse | None) -> _RecordEnvelope | None:
        try:
            return self._decoder.decode(line)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            message = parse_line(stream, line, refuse, decimals=bool(self._decimals))
        if message is None:
            return None
        return _RecordEnvelope(message["record"], message.get("version"), message.get("time_extracted"))

    def _settle_numbers(self, row: JSONObject) -> None:
        for name in self._decimals:
            value = row.get(name)
            if isinstance(value, int) and not isinstance(value, bool):
                row[name] = Decimal(value)
        for name in self._floats:
            value = row.get(name)
            if type(value) is Decimal:
                row[name] = jsontext.plain_number(value)
            elif isinstance(value, (dict, list)):
                row[name] = _plain(value)


def rows_to_raw(batch: RowBatch) -> RawBatch:
    """Write rows as RECORD lines.

    Args:
        batch: rows of JSON values, `Decimal`s, dates, UUIDs, NumPy scalars. Datetimes should have an offset.

    Raises:
        StreamlineError: a row contains a value that cannot be written as JSON.
    """
    if not batch.rows:
        return RawBatch(batch.stream, [], 0, 0)
    head = record_prefix(batch.stream, version=batch.version, time_extracted=batch.time_extracted)
    slices: list[Buffer] = []
    for start in range(0, len(batch.rows), _ROWS_AT_A_TIME):
        try:
            lines = jsontext.dump_lines(batch.rows[start : start + _ROWS_AT_A_TIME])
        except TypeError as error:
            raise StreamlineError(str(error), where=f"stream {batch.stream}", code="record.not_json") from None
        # JSON text has no raw newline in a value, so each newline ends a row.
        slices.append(b"".join((head, lines[:-1].replace(b"\n", b"}\n" + head), b"}\n")))
    return RawBatch(batch.stream, slices, len(batch.rows), sum(map(len, slices)), head)


def arrow_to_raw(batch: ArrowBatch, like: pa.Schema | None = None) -> RawBatch:
    """Write a table as RECORD lines.

    Args:
        batch: a table of any types.
        like: fields that define, by name, how columns are written (see `arrow_columns.text_column`); timestamps
            without a zone in other columns are UTC. By default the table's own fields.

    Raises:
        StreamlineError: a column has a type that cannot be written as JSON.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from streamline.flow.codecs.arrow_columns import text_column
    from streamline.flow.codecs.arrow_types import is_json

    table = batch.table
    count = table.num_rows
    if count == 0 or table.num_columns == 0:
        return RawBatch(batch.stream, [], 0, 0)
    if table.nbytes * 4 > _MAX_TEXT and count > 1:
        halves = (table.slice(0, count // 2), table.slice(count // 2))
        return join_raw([arrow_to_raw(msgspec.structs.replace(batch, table=half), like) for half in halves])
    marks = {field.name: field for field in like} if like is not None else {}
    head = record_prefix(batch.stream, version=batch.version, time_extracted=batch.time_extracted)
    parts: list[Any] = []
    pending = head + b"{"
    for field, chunked in zip(table.schema, table.columns, strict=True):
        array = chunked.combine_chunks()
        if isinstance(array, pa.ChunkedArray):
            array = pa.concat_arrays(array.chunks)
        try:
            mark = field if like is None or is_json(field) else marks.get(field.name) or pa.field(field.name, pa.null())
            text = text_column(mark, array)
        except TypeError as error:
            message = f"column {field.name}: {error}"
            raise StreamlineError(message, where=f"stream {batch.stream}", code="record.not_json") from None
        parts += [pa.scalar(pending + jsontext.dumps(field.name) + b":", pa.string()), pc.fill_null(text, "null")]
        pending = b","
    parts.append(pa.scalar(b"}}\n", pa.string()))
    lines = pc.binary_join_element_wise(*parts, "")
    offsets = memoryview(lines.buffers()[1]).cast("i")
    data = memoryview(lines.buffers()[2])[offsets[lines.offset] : offsets[lines.offset + count]]
    return RawBatch(batch.stream, [data], count, len(data), head)


def to_raw(batch: Batch) -> RawBatch:
    """Return RECORD lines of a batch of any lane; a raw batch is returned unchanged.

    Raises:
        StreamlineError: a value that JSON has no word for.
    """
    if isinstance(batch, RawBatch):
        return batch
    return rows_to_raw(batch) if isinstance(batch, RowBatch) else arrow_to_raw(batch)


def join_raw(batches: Sequence[RawBatch]) -> RawBatch:
    """Join batches of one stream, in their order; nothing is copied."""
    first = batches[0]
    if len(batches) == 1:
        return first
    prefix = first.prefix if all(batch.prefix == first.prefix for batch in batches) else None
    slices = [piece for batch in batches for piece in batch.slices]
    return RawBatch(first.stream, slices, sum(b.count for b in batches), sum(b.nbytes for b in batches), prefix)


def lines_of(piece: bytes | memoryview) -> Iterator[bytes]:
    """Return the lines of a slice, without their ends; blank ones are left out."""
    return (line for line in bytes(piece).split(b"\n") if line.strip())


def record_text(line: bytes) -> bytes:
    """Return the JSON text of the record in a RECORD line; the whole line if it cannot be found."""
    try:
        return bytes(_text_decoder.decode(line).record)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        try:
            return bytes(jsontext.split_object(line)["record"])
        except (ValueError, KeyError):
            return line


def version_runs(envelopes: Sequence[Any]) -> Iterator[tuple[int | None, Sequence[Any]]]:
    """Yield runs of envelopes with the same version, in order."""
    if not envelopes:
        return
    if len(set(map(_version, envelopes))) == 1:
        yield envelopes[0].version, envelopes
        return
    for version, group in groupby(envelopes, _version):
        yield version, list(group)


def parse_line(stream: str, line: bytes, refuse: Refuse | None, *, decimals: bool) -> JSONObject | None:
    """Return a RECORD message read by the standard library's parser; None if it was refused."""
    try:
        message = jsontext.loads(line, decimals=decimals)
    except (ValueError, RecursionError) as error:
        refuse_record(stream, line, f"not valid JSON: {error}", refuse)
        return None
    if not isinstance(message, dict) or not isinstance(message.get("record"), dict):
        refuse_record(stream, line, "not a RECORD message whose record is an object", refuse)
        return None
    return message


def refuse_record(stream: str, text: bytes, error: str, refuse: Refuse | None) -> None:
    """Pass a record's text and its error to `refuse`, or raise a StreamlineError without one."""
    if refuse is None:
        raise StreamlineError(error, where=f"stream {stream}", code="record.invalid")
    refuse(text, error)


def _may_hold_numbers(prop: Mapping[str, Any]) -> bool:
    return bool(types(prop) & {"number", "integer", "object", "array"})


def _plain(value: Any) -> Any:
    """Return nested values, with fractions as floats where that is exact."""
    if type(value) is Decimal:
        return jsontext.plain_number(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
