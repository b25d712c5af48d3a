"""The arrow lane: RECORD lines of one stream as tables.

Records with values that do not fit the schema are in tables of their own. Types of columns come from the schema: see
`arrow_types`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.flow.codecs import jsontext
from streamline.flow.codecs.lanes import Refuse, lines_of, parse_line, refuse_record, version_runs
from streamline.flow.codecs.schemas import properties
from streamline.flow.items import ArrowBatch, Buffer, RawBatch

if TYPE_CHECKING:
    import pyarrow as pa

_MAX_PLANS = 256
_ODD_IN_NAMES = frozenset(map(chr, range(0x20))) | {'"', "\\"}  # msgspec does not accept such names


class _TextsEnvelope(msgspec.Struct, gc=False):
    record: dict[str, msgspec.Raw]
    version: int | None = None
    time_extracted: str | None = None


_texts_decoder = msgspec.json.Decoder(_TextsEnvelope)


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
        from streamline.flow.codecs.arrow_columns import (
            clashes_of,
            column,
            column_from_json,
            has_small_numbers,
            is_mixed,
            is_near_zero,
        )
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
            if is_float and not long and is_near_zero(built[1]) and any(map(has_small_numbers, batch.slices)):
                return None
            if spellings(built[0]) and clashes_of(*built, _numbers(map(bytes, values)) if is_float else values):
                return None
            fields.append(built[0])
            arrays.append(built[1])
        table = pa.Table.from_arrays(arrays, schema=pa.schema(fields))
        start = 0
        tables = []
        for version, run in version_runs(envelopes):
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
                    refuse_record(batch.stream, b"{}", "a record without fields cannot be a row of a table", refuse)
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


def _numbers(texts: Iterable[bytes]) -> list[str | None]:
    """Return the texts of numbers, without the quotes of those that are strings."""
    return [None if text == b"null" else text.decode(errors="replace").strip('"') for text in texts]


def _texts_of_line(stream: str, line: bytes, refuse: Refuse | None) -> _TextsEnvelope | None:
    try:
        return _texts_decoder.decode(line.decode())
    except (msgspec.MsgspecError, ValueError, RecursionError):
        message = parse_line(stream, line, refuse, decimals=True)
    if message is None:
        return None
    texts = {name: msgspec.Raw(jsontext.dumps(value)) for name, value in message["record"].items()}
    return _TextsEnvelope(texts, message.get("version"), message.get("time_extracted"))
