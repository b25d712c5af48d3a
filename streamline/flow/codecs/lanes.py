"""The lanes of a batch, and the conversions between them.

raw ⇄ rows and raw ⇄ arrow are converted directly; rows ⇄ arrow go through the JSON text, which is exact and the
fastest way. A reader is made once per schema of a stream and used for its batches.

- A batch is cut where the records' `version` changes, for arrow also where their set of fields changes
  (absent is not null), and around records with values that do not fit the schema, however many they are: the types of
  the other records never change.
- Numbers are exact: see `jsontext`. Types of arrow columns come from the schema: see `arrow_types`.
- `time_extracted` of a batch is its first record's, the earliest.
- What msgspec refuses is read once more by the standard library's parser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

_MAX_PLANS = 256
_ODD_IN_NAMES = frozenset(map(chr, range(0x20))) | {'"', "\\"}  # msgspec does not accept such names
_ROWS_AT_A_TIME = 1_000  # rows that fit the processor's cache are written twice as fast
_MAX_TEXT = 1 << 30  # Arrow's strings have 32-bit offsets


class _RecordEnvelope(msgspec.Struct, gc=False):
    record: dict[str, Any]
    version: int | None = None
    time_extracted: str | None = None


class _TextsEnvelope(msgspec.Struct, gc=False):
    record: dict[str, msgspec.Raw]
    version: int | None = None
    time_extracted: str | None = None


class _TextEnvelope(msgspec.Struct, gc=False):
    record: msgspec.Raw


_texts_decoder = msgspec.json.Decoder(_TextsEnvelope)
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
            for version, run in _runs(envelopes)
        ]

    def _read_line(self, stream: str, line: bytes, refuse: Refuse | None) -> _RecordEnvelope | None:
        try:
            return self._decoder.decode(line)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            message = _parsed_line(stream, line, refuse, decimals=bool(self._decimals))
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


class ArrowReader:
    """Decodes RECORD lines of one stream to tables, typed by the stream's JSON Schema (see `arrow_types`).

    Fields that the schema does not declare are read as JSON text, so that they are not lost.
    """

    def __init__(self, schema: Mapping[str, Any] | None = None) -> None:
        self._declared = properties(schema)
        self._fields: dict[str, pa.Field] = {}
        self._plans: dict[tuple[str, ...], _Plan | None] = {}
        self._last: _Plan | None = None

    def read(self, batch: RawBatch, refuse: Refuse | None = None) -> list[ArrowBatch]:
        """Return the batch's records as tables, cut where the version or the set of fields changes.

        Args:
            batch: RECORD lines.
            refuse: called for lines that are not a RECORD message in UTF-8 JSON, and for records without fields.

        Raises:
            StreamlineError: there is such a line and no `refuse`.
        """
        if not batch.slices:
            return []
        tables = self._read_uniform(batch)
        return self._read_texts(batch, refuse) if tables is None else tables

    def field(self, name: str) -> pa.Field:
        """Return the Arrow field of a property, declared or not."""
        field = self._fields.get(name)
        if field is None:
            from streamline.flow.codecs.arrow_types import arrow_field

            field = self._fields[name] = arrow_field(name, self._declared.get(name))
        return field

    def _plan(self, names: tuple[str, ...]) -> _Plan | None:
        if names not in self._plans:
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            plain = bool(names) and not any(set(name) & _ODD_IN_NAMES for name in names)
            self._plans[names] = _Plan([self.field(name) for name in names]) if plain else None
        return self._plans[names]

    def _read_uniform(self, batch: RawBatch) -> list[ArrowBatch] | None:
        """Read records that all have the same fields, of the declared types (the fast path); None for other batches."""
        import pyarrow as pa

        if self._last is None:
            first = next(lines_of(batch.slices[0]), b"")
            try:
                names = tuple(_texts_decoder.decode(first).record)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                return None
            self._last = self._plan(names)
            if self._last is None:
                return None
        from streamline.flow.codecs.arrow_columns import clashes_of, column, column_from_json, is_mixed
        from streamline.flow.codecs.arrow_types import spellings

        plan = self._last
        long = plan.holds_long_numbers(batch.slices)
        envelopes: list[Any] = []
        try:
            decoder = plan.decoder(keep_numbers=long)
            for piece in batch.slices:
                envelopes += decoder.decode_lines(piece)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        if not envelopes:
            return []
        records = [envelope.record for envelope in envelopes]
        fields, arrays = [], []
        for field, value_of, is_float in zip(plan.fields, plan.getters, plan.floats, strict=True):
            # One list per column: one tuple per record would keep the garbage collector busy.
            values: list[Any] = list(map(value_of, records))
            built = column_from_json(field, list(map(bytes, values))) if long and is_float else column(field, values)
            if built is None or is_mixed(*built, field):
                return None
            if spellings(built[0]) and clashes_of(*built, _numbers(map(bytes, values)) if is_float else values):
                return None
            fields.append(built[0])
            arrays.append(built[1])
        table = pa.Table.from_arrays(arrays, schema=pa.schema(fields))
        start = 0
        tables = []
        for version, run in _runs(envelopes):
            part = table if len(run) == len(envelopes) else table.slice(start, len(run))
            tables.append(ArrowBatch(batch.stream, part, version, run[0].time_extracted))
            start += len(run)
        return tables

    def _read_texts(self, batch: RawBatch, refuse: Refuse | None) -> list[ArrowBatch]:
        """Read any batch, every value as its JSON text first (the slow path)."""
        envelopes: list[_TextsEnvelope] = []
        for piece in batch.slices:
            try:
                str(piece, "utf-8")  # msgspec does not check that skipped values are UTF-8
                envelopes += _texts_decoder.decode_lines(piece)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                for line in lines_of(piece):
                    envelope = _texts_of_line(batch.stream, line, refuse)
                    if envelope is not None:
                        envelopes.append(envelope)
        tables = []
        for (version, names), group in groupby(
            envelopes, lambda envelope: (envelope.version, frozenset(envelope.record))
        ):
            run = list(group)
            if names:
                tables += self._tables_of_texts(batch.stream, version, run)
            else:
                for _ in run:
                    _refused(batch.stream, b"{}", "a record without fields cannot be a row of a table", refuse)
        return tables

    def misfits(self, table: pa.Table) -> list[str]:
        """Return the columns of a table that have another kind of type, because their values do not fit the schema."""
        from streamline.flow.codecs.arrow_columns import same_kind

        return [field.name for field in table.schema if not same_kind(field, self.field(field.name))]

    def _tables_of_texts(self, stream: str, version: int | None, run: list[_TextsEnvelope]) -> list[ArrowBatch]:
        """Return one table, or several: records with values that do not fit the schema get tables of their own."""
        from streamline.flow.codecs.arrow_columns import clashes_of, is_mixed, misfits_of
        from streamline.flow.codecs.arrow_types import spellings

        whole = self._table_of_texts(stream, version, run)
        apart: dict[int, set[str]] = {}
        for built, chunked in zip(whole.table.schema, whole.table.columns, strict=True):
            field = self.field(built.name)
            texts = [bytes(each.record[built.name]) for each in run]
            if is_mixed(built, chunked.chunk(0), field):
                misfits = misfits_of(field, texts)
                if len(misfits) < len(run) - texts.count(b"null"):
                    for place in misfits:
                        apart.setdefault(place, set()).add(built.name)
            clashes = clashes_of(built, chunked.chunk(0), _numbers(texts)) if spellings(built) else {}
            for place, text in clashes.items():
                apart.setdefault(place, set()).add(f"{built.name}={text}")
        if not apart:
            return [whole]
        groups = groupby(range(len(run)), lambda place: apart.get(place))
        return [self._table_of_texts(stream, version, [run[place] for place in group]) for _, group in groups]

    def _table_of_texts(self, stream: str, version: int | None, run: list[_TextsEnvelope]) -> ArrowBatch:
        import pyarrow as pa

        from streamline.flow.codecs.arrow_columns import column_from_json

        names = tuple(run[0].record)
        self._last = self._plan(names)
        built = [column_from_json(self.field(name), [bytes(each.record[name]) for each in run]) for name in names]
        table = pa.Table.from_arrays([array for _, array in built], schema=pa.schema([field for field, _ in built]))
        return ArrowBatch(stream, table, version, run[0].time_extracted)


class _Plan:
    """How to decode records with one set of fields: a struct of exactly these, and their columns."""

    def __init__(self, fields: list[pa.Field]) -> None:
        from streamline.flow.codecs.arrow_columns import holds_floats

        self.fields = fields
        self.floats = [holds_floats(field) for field in fields]
        self.getters = [attrgetter(f"f{number}") for number in range(len(fields))]
        self._decoders: dict[bool, msgspec.json.Decoder[Any]] = {}

    def holds_long_numbers(self, slices: Sequence[Buffer]) -> bool:
        """Return whether floats may change numbers of these records."""
        from streamline.flow.codecs.arrow_columns import has_long_numbers

        return any(self.floats) and any(map(has_long_numbers, slices))

    def decoder(self, *, keep_numbers: bool) -> msgspec.json.Decoder[Any]:
        """Return a decoder of RECORD lines; with `keep_numbers` it leaves floats as their texts."""
        decoder = self._decoders.get(keep_numbers)
        if decoder is None:
            from streamline.flow.codecs.arrow_columns import value_type

            types_of = [
                msgspec.Raw if keep_numbers and is_float else value_type(field)
                for field, is_float in zip(self.fields, self.floats, strict=True)
            ]
            record = msgspec.defstruct(
                "Record",
                [(f"f{number}", type_) for number, type_ in enumerate(types_of)],
                rename={f"f{number}": field.name for number, field in enumerate(self.fields)},
                forbid_unknown_fields=True,
                gc=False,
            )
            envelope = msgspec.defstruct(
                "Envelope",
                [("record", record), ("version", int | None, None), ("time_extracted", str | None, None)],
                gc=False,
            )
            decoder = self._decoders[keep_numbers] = msgspec.json.Decoder(envelope)
        return decoder


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


def _numbers(texts: Iterable[bytes]) -> list[str | None]:
    """Return the texts of numbers, without the quotes of those that are strings."""
    return [None if text == b"null" else text.decode(errors="replace").strip('"') for text in texts]


def _runs(envelopes: Sequence[Any]) -> Iterator[tuple[int | None, Sequence[Any]]]:
    """Yield runs of envelopes with the same version, in order."""
    if not envelopes:
        return
    if len(set(map(_version, envelopes))) == 1:
        yield envelopes[0].version, envelopes
        return
    for version, group in groupby(envelopes, _version):
        yield version, list(group)


def _texts_of_line(stream: str, line: bytes, refuse: Refuse | None) -> _TextsEnvelope | None:
    try:
        return _texts_decoder.decode(line.decode())
    except (msgspec.MsgspecError, ValueError, RecursionError):
        message = _parsed_line(stream, line, refuse, decimals=True)
    if message is None:
        return None
    texts = {name: msgspec.Raw(jsontext.dumps(value)) for name, value in message["record"].items()}
    return _TextsEnvelope(texts, message.get("version"), message.get("time_extracted"))


def _parsed_line(stream: str, line: bytes, refuse: Refuse | None, *, decimals: bool) -> JSONObject | None:
    try:
        message = jsontext.loads(line, decimals=decimals)
    except (ValueError, RecursionError) as error:
        _refused(stream, line, f"not valid JSON: {error}", refuse)
        return None
    if not isinstance(message, dict) or not isinstance(message.get("record"), dict):
        _refused(stream, line, "not a RECORD message whose record is an object", refuse)
        return None
    return message


def _refused(stream: str, text: bytes, error: str, refuse: Refuse | None) -> None:
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
