"""The SCHEMA of a transformer block's output, derived from what the block returns.

- The schema is known with the first output that has a record. Columns that the block added are in it with the types
  of their values. A column that is all null so far has the type of earlier runs; without one, it is left out of the
  records until it has a value.
- Columns that the input has and the first output has not are dropped.
- A declared column whose values all have another type in the first output gets that type.
- After that, types only widen (integer to number, any to nullable, a date to a string). A row with a value that fits
  neither the type nor a wider one is a misfit.
- Values that the tap sent are never misfits: unchanged values pass as they would without the block.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.blocks.python.live.frames import as_before
from streamline.blocks.python.live.kinds import (
    FORMATS,
    fits,
    kind_of,
    kind_of_property,
    loses_digits,
    loses_format,
    most_digits,
    nullable,
    property_of_kind,
    widened,
)
from streamline.errors import StreamFailed
from streamline.flow.codecs.schemas import decimal_scale, is_decimal, properties, types
from streamline.flow.items import JSONObject, Schema

if TYPE_CHECKING:
    import pyarrow as pa

_MAX_SIGNATURES = 20_000


class FunctionInput(msgspec.Struct, frozen=True):
    """The input of a call of the function; needed only when its output has something new.

    Args:
        fields: gives the fields that any of its records have.
        complete: gives the fields that all of its records have.
        kinds: gives the kinds of values that the tap sent in these records, by field.
        digits: gives how many digits after the point the numbers of a field have at most.
    """

    fields: Callable[[], Set[str]]
    complete: Callable[[], Set[str]]
    kinds: Callable[[], Mapping[str, frozenset[str]]]
    digits: Callable[[str], int]


_Row = dict[str, Any]


class Misfit(msgspec.Struct, frozen=True):
    """A row that does not fit the SCHEMA, given the block's earlier output.

    Args:
        row: the row.
        error: the column, the kind of its value, and the kinds that it may have.
    """

    row: Any
    error: str


class OutputSchema:
    """The SCHEMA of one stream downstream of one block.

    Args:
        source: the SCHEMA that the block's input has.
        block: uuid of the block, for errors.
        before: the stream's output under the SCHEMA before this one; columns that the block added keep their types.
        earlier: properties of columns that blocks added in earlier runs.
    """

    def __init__(
        self,
        source: Schema,
        block: str,
        before: OutputSchema | None = None,
        earlier: Mapping[str, JSONObject] | None = None,
    ) -> None:
        self.source = source
        self.sent = False
        self._block = block
        self._declared = properties(source.schema)
        self._props = dict(self._declared)
        self._keys = frozenset(source.key_properties or ())
        self._own: dict[str, JSONObject] = dict(before._own if before is not None else earlier or {})
        self._decimals = {
            name: scale
            for name, prop in self._declared.items()
            if is_decimal(prop) and "number" in types(prop) and (scale := decimal_scale(prop)) is not None
        }
        self._ready = False
        self._fitted: set[str] = set()
        self._known: dict[tuple[Any, ...], frozenset[str] | str] = {}

    def message(self) -> Schema:
        """Return the SCHEMA as it is now."""
        if self._props == self._declared:
            unchanged = self._ready is not self.source.assumed
            return self.source if unchanged else msgspec.structs.replace(self.source, assumed=not self._ready)
        schema = {**self.source.schema, "properties": dict(self._props)}
        if isinstance(schema.get("required"), list):
            schema["required"] = [name for name in schema["required"] if name in self._props]
        bookmarks = self.source.bookmark_properties
        if bookmarks is not None:
            bookmarks = [name for name in bookmarks if name in self._props]
        added = (self.source.added | (self._props.keys() - self._declared.keys())) & self._props.keys()
        return msgspec.structs.replace(
            self.source,
            schema=schema,
            bookmark_properties=bookmarks,
            raw=None,
            added=added,
            assumed=not self._ready,
        )

    def settle_rows(self, rows: list[_Row], function_input: FunctionInput) -> tuple[list[_Row], list[Misfit]]:
        """Fit the schema to rows that the block returned, and the rows to the schema.

        Returns:
            the rows that fit, and those that do not. Datetimes without an offset are UTC now.

        Raises:
            StreamFailed: a row lacks a key column.
        """
        if not rows:
            return rows, []
        # The keys and types of a row decide; there are few such signatures, and many rows.
        signatures = {(*row, *map(type, row.values())) for row in rows}
        if not signatures <= self._known.keys() or not self._ready:
            self._learn(dict.fromkeys((*row, *map(type, row.values())) for row in rows), function_input)
        if any(kind is dt.datetime for signature in signatures for kind in signature):
            _give_offsets(rows)
        if self._decimals:
            self._admit_digits(rows, function_input)
        verdicts = {signature: self._known[signature] for signature in signatures}
        if not any(verdicts.values()):
            return rows, []
        fitting: list[_Row] = []
        misfits: list[Misfit] = []
        for row in rows:
            verdict = verdicts[(*row, *map(type, row.values()))]
            if isinstance(verdict, str):
                misfits.append(Misfit(row, verdict))
            elif verdict:
                fitting.append({name: value for name, value in row.items() if name not in verdict})
            else:
                fitting.append(row)
        return fitting, misfits

    def settle_table(
        self, table: pa.Table, source_schema: pa.Schema, function_input: FunctionInput
    ) -> tuple[pa.Table, pa.Table | None, str]:
        """Fit the schema to a table that the block returned, and the table to the schema.

        Args:
            table: what the block returned.
            source_schema: of the table that the block was given.
            function_input: what it was given.

        Returns:
            the records that fit; those that do not, or None; and why they do not.

        Raises:
            StreamFailed: the table lacks a key column.
        """
        if table.num_rows == 0:
            return table, None, ""
        import pyarrow as pa

        from streamline.flow.codecs.arrow_types import copy_of, property_of

        self._check_keys(table.column_names, function_input)
        refused: dict[str, str] = {}
        inputs = {field.name: field for field in source_schema}
        for number, field in enumerate(table.schema):
            source = inputs.get(field.name)
            column = table.column(number)
            if source is not None:
                column = as_before(column, source)
                if column.type != field.type:
                    table = table.set_column(number, field.with_type(column.type), column)
                if column.type == source.type:
                    self._restore(field.name)
                    self._fitted.add(field.name)
                    continue
            copied = copy_of(field)
            if copied in self._declared:
                prop = nullable(self._declared[copied])
            else:
                prop = property_of(pa.field(field.name, column.type))
            kind = "null" if column.null_count == table.num_rows else kind_of_property(prop)
            held = kind_of_property(property_of(source)) if source is not None else None
            verdict = self._admit(field.name, kind, function_input, prop, reformatted=held in FORMATS and kind != held)
            if verdict:
                refused[field.name] = verdict
        self._learned(table.column_names, function_input)
        waiting = [name for name, verdict in refused.items() if verdict == _NO_TYPE_YET]
        table = table.drop_columns(waiting) if waiting else table
        misfits = {name: verdict for name, verdict in refused.items() if verdict not in (_NO_TYPE_YET, _null_key(name))}
        without_key = [
            name
            for name in sorted(self._keys & set(table.column_names))
            if table.column(name).null_count and "null" not in _sent(name, function_input)
        ]
        return _without_misfits(table, misfits, without_key)

    def _admit_digits(self, rows: Sequence[_Row], function_input: FunctionInput) -> None:
        """Widen declared decimals where the block computed numbers with more digits after the point."""
        for name, scale in list(self._decimals.items()):
            if name not in self._props or name in self._own:
                del self._decimals[name]
            elif (digits := most_digits(rows, name)) > scale and digits > function_input.digits(name):
                self._admit(name, "number", function_input, {"type": ["null", "number"]})

    def _learn(self, signatures: Iterable[tuple[Any, ...]], function_input: FunctionInput) -> None:
        signatures = list(signatures)
        while True:
            if len(self._known) > _MAX_SIGNATURES:
                self._known.clear()
            before = {**self._props}
            names: dict[str, None] = {}
            for signature in signatures:
                half = len(signature) // 2
                names.update(dict.fromkeys(signature[:half]))
                if signature not in self._known:
                    self._known[signature] = self._verdict(signature[:half], signature[half:], function_input)
            self._learned(names, function_input)
            if self._props == before:
                return
            # Columns without a type, and misfits, may fit now.
            self._known.clear()

    def _verdict(
        self, names: tuple[str, ...], kinds: tuple[type, ...], function_input: FunctionInput
    ) -> frozenset[str] | str:
        self._check_keys(names, function_input)
        waiting = set()
        for name, kind in zip(names, kinds, strict=True):
            verdict = self._admit(name, kind_of(kind), function_input)
            if verdict == _NO_TYPE_YET:
                waiting.add(name)
            elif verdict:
                return verdict
        return frozenset(waiting)

    def _admit(
        self,
        name: str,
        kind: str,
        function_input: FunctionInput,
        prop: JSONObject | None = None,
        *,
        reformatted: bool = False,
    ) -> str:
        """Widen the schema so that column `name` allows `kind`. Empty if it does, else the reason why it cannot.

        Args:
            prop: the property of the values, where it is known.
            reformatted: the values were dates or times, and are text now.
        """
        self._restore(name)
        current = self._props.get(name)
        if current is None:
            return self._admit_new(name, kind, function_input, prop)
        if kind == "null":
            if kind in _sent(name, function_input):
                return ""
            if name in self._keys:
                return _null_key(name)
            if "null" not in types(current):
                self._change(name, nullable(current))
            return ""
        reformatted = reformatted or (name in self._own and loses_format(current, kind))
        more_digits = prop is not None and loses_digits(current, kind, prop)
        if fits(current, kind) and not reformatted and not more_digits:
            self._fitted.add(name)
            return ""
        if not reformatted and not more_digits and name not in self._own and kind in _sent(name, function_input):
            return ""
        if not self._ready and name not in self._fitted and not more_digits:
            self._own.pop(name, None)
            self._change(name, self._fresh(name, kind, prop))
            self._fitted.add(name)
            return ""
        wider = widened(current, kind, prop)
        if wider is None:
            allowed = " or ".join(sorted(types(current) - {"null"}))
            return f"column {name} has a value of type {kind}, but its earlier values are {allowed}"
        self._change(name, wider)
        return ""

    def _restore(self, name: str) -> None:
        """Add a declared column to the schema again that the block had dropped at first."""
        if name not in self._props and name in self._declared:
            self._props[name] = self._declared[name]
            self.sent = False

    def _admit_new(self, name: str, kind: str, function_input: FunctionInput, prop: JSONObject | None) -> str:
        if name in function_input.kinds():  # undeclared, but sent by the tap: as it would be without the block
            return ""
        if kind == "null" and name not in self._own:
            return _NO_TYPE_YET
        self._change(name, self._fresh(name, kind, prop))
        self._fitted.add(name)
        return ""

    def _fresh(self, name: str, kind: str, prop: JSONObject | None) -> JSONObject:
        """The property of a new or retyped column; the one under the SCHEMA before, or wider, if it had one."""
        earlier = self._own.get(name)
        if earlier is not None:
            if kind == "null":
                return nullable(earlier)
            return earlier if fits(earlier, kind) else widened(earlier, kind, prop) or earlier
        fresh = prop or property_of_kind(kind)
        if name in self._keys:
            return {**fresh, "type": sorted(types(fresh) - {"null"})}
        return fresh

    def _change(self, name: str, prop: JSONObject) -> None:
        self._props[name] = prop
        self._own[name] = prop
        self.sent = False

    def _learned(self, names: Iterable[str], function_input: FunctionInput) -> None:
        """Note an output with records; columns that the first one lacks were dropped by the block."""
        if self._ready:
            return
        self._ready = True
        self.sent = False  # if it was, it was assumed
        dropped = (function_input.fields() & self._props.keys()) - set(names)
        for name in dropped:
            del self._props[name]

    def _check_keys(self, names: Iterable[str], function_input: FunctionInput) -> None:
        lost = self._keys - set(names)
        lost = lost and lost & function_input.complete()
        if lost:
            named = ", ".join(sorted(lost))
            raise StreamFailed(
                self.source.stream,
                f"the records that the block returned for stream {self.source.stream} lack the key column {named}",
                blocks=[self._block],
                where=f"block {self._block}",
                hint="return the stream's key columns; the target identifies rows by them",
                code="stream.key_missing",
            )


_NO_TYPE_YET = "is all null so far"


def _sent(name: str, function_input: FunctionInput) -> frozenset[str]:
    return function_input.kinds().get(name, frozenset())


def _give_offsets(rows: list[_Row]) -> None:
    for row in rows:
        for name, value in row.items():
            if type(value) is dt.datetime and value.tzinfo is None:
                row[name] = value.replace(tzinfo=dt.UTC)


def _null_key(name: str) -> str:
    return f"the key column {name} is null, but was not null before the block"


def _without_misfits(
    table: pa.Table, misfits: Mapping[str, str], without_key: Sequence[str]
) -> tuple[pa.Table, pa.Table | None, str]:
    """Split off rows with a value in a column that does not fit, or without a key."""
    if not misfits and not without_key:
        return table, None, ""
    import pyarrow.compute as pc

    masks = [pc.is_valid(table.column(name)) for name in misfits]
    masks += [pc.is_null(table.column(name)) for name in without_key]
    bad = masks[0]
    for mask in masks[1:]:
        bad = pc.or_(bad, mask)
    reasons = [*misfits.values(), *map(_null_key, without_key)]
    return table.filter(pc.invert(bad)), table.filter(bad), "; ".join(reasons)
