"""Calls a transformer's function with batches of one stream. Runs in a worker: a thread or a process."""

from __future__ import annotations

import contextlib
import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.blocks.python.function import BlockFile, PythonFunction, Shape, UserError, shape_of
from streamline.errors import StreamlineError
from streamline.flow.codecs.jsontext import loads
from streamline.flow.codecs.lanes import ArrowReader, RowReader, arrow_to_raw, lines_of
from streamline.flow.items import ArrowBatch, Buffer, JSONObject, RawBatch

if TYPE_CHECKING:
    import pyarrow as pa

    from streamline.processes.worker import Port


MAX_RAISED = 1_000
"""Records of one request that the function may raise on; with more, the stream is stopped."""

MAX_RAISED_FIRST = 100
"""The same, where it has taken none of them yet."""


class CallSettings(msgspec.Struct, frozen=True):
    """What the calls of a block have in common.

    Args:
        block: its file.
        batch_rows: the maximum number of records per call.
        keywords: keyword arguments for every call; `stream` is added, and `logger` if there is none.
    """

    block: BlockFile
    batch_rows: int
    keywords: dict[str, Any]


class CallRequest(msgspec.Struct):
    """Records of one stream for the function.

    Args:
        stream: its name.
        schema: its JSON Schema.
        schema_number: counts the stream's schemas; a new number is a new schema.
        slices: RECORD lines.
        count: number of records.
        set_aside: find the records that the function raises on, and refuse them.
    """

    stream: str
    schema: JSONObject
    schema_number: int
    slices: list[Buffer]
    count: int
    set_aside: bool = False


class Returned(msgspec.Struct):
    """What one call returned: rows, a table, or neither.

    Args:
        version: the records' table version.
        time_extracted: of the first record.
        rows: records, if the function returned a list.
        table: records, if it returned a frame or a table.
        given: schema of the table that the function got; its fields define how columns are written back.
        span: the request's records in the list that the function got: the first, and how many.
        refused: lines that could not be decoded, or that the function raised on, and why.
    """

    version: int | None = None
    time_extracted: str | None = None
    rows: list[JSONObject] | None = None
    table: pa.Table | None = None
    given: pa.Schema | None = None
    span: tuple[int, int] = (0, 0)
    refused: list[tuple[bytes, str]] = []


class TransformCaller:
    """The function of a transformer block, with readers for the streams that it gets.

    Raises:
        ConfigError: see `PythonFunction`.
        UserError: the file raised while it was loaded.
    """

    def __init__(self, settings: CallSettings) -> None:
        self._settings = settings
        self._shape = shape_of(settings.block)
        self._function = PythonFunction(settings.block, "transformer")
        self._logger = logging.getLogger(f"streamline.blocks.{settings.block.uuid}")
        self._readers: dict[str, tuple[int, Any]] = {}

    def run(self, request: CallRequest, on_call: Callable[[], None] | None = None) -> list[Returned]:
        """Call the function with the request's records, in batches of at most `batch_rows`.

        Args:
            request: the records.
            on_call: called before each call.

        Where it raises and `set_aside` is requested, it is called again with halves of the records, down to single
        ones.

        Raises:
            UserError: the function raised, or returned something other than records.
        """
        try:
            return self._run(request, 0, on_call)
        except UserError as error:
            if not request.set_aside:
                raise
            lines = [line + b"\n" for piece in request.slices for line in lines_of(piece)]
            return _Bisection(partial(self._run, on_call=on_call), request).results(lines, error)

    def _run(self, request: CallRequest, first: int, on_call: Callable[[], None] | None) -> list[Returned]:
        """Call the function with records of which the first has this number."""
        offered = {"logger": self._logger, **self._settings.keywords, "stream": request.stream}
        keywords = self._function.keywords(offered, positionals=1)
        raw = RawBatch(request.stream, request.slices, request.count, sum(map(len, request.slices)))
        refused: list[tuple[bytes, str]] = []
        results: list[Returned] = []
        for argument, returned in self._arguments(request, raw, refused, first):
            if on_call is not None:
                on_call()
            try:
                self._take(self._function.call(argument, keywords=keywords), returned)
            except UserError as error:
                unfit, rest = self._unfit(request.stream, returned)
                if not unfit:
                    raise
                refused += [(line, f"{error.summary} ({error.where})") for line in unfit]
                if rest:
                    results += self._run(msgspec.structs.replace(request, slices=rest, count=len(rest)), first, on_call)
                continue
            results.append(returned)
        if refused:
            results.append(Returned(refused=refused))
        return results

    def _arguments(
        self, request: CallRequest, raw: RawBatch, refused: list[tuple[bytes, str]], first: int
    ) -> Iterator[tuple[Any, Returned]]:
        number, reader = self._readers.get(request.stream, (None, None))
        if number != request.schema_number:
            reader = (RowReader if self._shape is Shape.ROWS else ArrowReader)(request.schema)
            self._readers[request.stream] = (request.schema_number, reader)
        size = self._settings.batch_rows

        def refuse(text: bytes, error: str) -> None:
            refused.append((text, error))

        if isinstance(reader, RowReader):
            for batch in reader.read(raw, refuse):
                for start in range(0, len(batch.rows), size):
                    part = batch.rows[start : start + size] if len(batch.rows) > size else batch.rows
                    span = (first + start, len(part))
                    yield part, Returned(batch.version, batch.time_extracted, span=span)
                first += len(batch.rows)
        else:
            assert isinstance(reader, ArrowReader)
            for read in reader.read(raw, refuse):
                for start in range(0, read.table.num_rows, size):
                    table = read.table.slice(start, size)
                    # The input, until the function has returned.
                    returned = Returned(read.version, read.time_extracted, table=table, given=table.schema)
                    yield _to_shape(table, self._shape), returned

    def _unfit(self, stream: str, returned: Returned) -> tuple[list[bytes], list[bytes]]:
        """The lines of a table's records with values that do not fit their SCHEMA, and of its other records."""
        reader, table = self._readers[stream][1], returned.table
        misfits = reader.misfits(table) if table is not None and isinstance(reader, ArrowReader) else []
        if table is None or not misfits:
            return [], []
        raw = arrow_to_raw(ArrowBatch(stream, table, returned.version, returned.time_extracted))
        lines = [line + b"\n" for piece in raw.slices for line in lines_of(piece)]
        unfit: list[bytes] = []
        rest: list[bytes] = []
        for line, values in zip(lines, table.select(misfits).to_pylist(), strict=True):
            (rest if all(value is None for value in values.values()) else unfit).append(line)
        return unfit, rest

    def _take(self, result: Any, into: Returned) -> None:
        """Set `rows` or `table` from what the function returned.

        Raises:
            UserError: it returned something other than records.
        """
        given, into.table = into.table, None
        try:
            self._take_records(result, into, given)
        except UserError:
            into.table = given
            raise

    def _take_records(self, result: Any, into: Returned, given: pa.Table | None) -> None:
        if result is None:
            return
        if isinstance(result, dict):
            result = [result]
        if isinstance(result, (list, tuple)) or hasattr(result, "__next__"):
            rows = result if isinstance(result, list) else list(result)
            wrong = next((row for row in rows if not isinstance(row, dict)), None)
            if wrong is not None:
                raise self._wrong(f"a list with a {_name(wrong)} in it; each element must be a dict")
            if any(type(name) is not str for row in rows for name in row):
                raise self._wrong("a dict with keys that are not strings")
            into.rows = rows
            return
        try:
            converted = _to_table(result, given)
        except ValueError as error:
            raise self._wrong(str(error)) from None
        if converted is None:
            raise self._wrong(f"a {_name(result)}")
        if isinstance(converted, list):
            into.rows = converted
        else:
            into.table = converted if given is None else _with_json(_without_new_nan(converted, given.schema), given)

    def _wrong(self, what: str) -> UserError:
        path = self._settings.block.path
        line = getattr(getattr(self._function.function, "__code__", None), "co_firstlineno", None)
        where = f"{path}:{line}" if line else path
        return UserError(
            f"the function returned {what}; it must return a DataFrame, a list of dicts, an Arrow table or None",
            "",
            where,
        )


class _Bisection:
    """Finds the records of a request that the function raises on.

    Args:
        run: calls the function with a request; its second argument is the number of the first record.
    """

    def __init__(self, run: Callable[[CallRequest, int], list[Returned]], request: CallRequest) -> None:
        self._run = run
        self._request = request
        self._next = 0
        self._raised = 0
        self._passed = False

    def results(self, lines: Sequence[bytes], error: UserError) -> list[Returned]:
        """Return the results of the records that it takes, and refuse the others.

        Args:
            lines: a part of the request that it raised `error` on.

        Raises:
            UserError: it raised on too many records, or on all of many.
        """
        if len(lines) < 2:
            self._raised += 1
            if self._raised > MAX_RAISED or (self._raised >= MAX_RAISED_FIRST and not self._passed):
                raise error
            self._next += 1
            return [Returned(refused=[(line, f"{error.summary} ({error.where})") for line in lines])]
        results: list[Returned] = []
        half = len(lines) // 2
        for part in (lines[:half], lines[half:]):
            request = msgspec.structs.replace(self._request, slices=list(part), count=len(part))
            try:
                returned = self._run(request, self._next)
            except UserError as failure:
                results += self.results(part, failure)
            else:
                results += returned
                self._passed = True
                self._next += len(part) - sum(len(each.refused) for each in returned)
        return results


_caller: TransformCaller | None = None
"""In a worker process: the one block that it runs."""


def call_transformer(payload: tuple[bytes, CallRequest | None], port: Port) -> list[Returned] | Exception:
    """Run a call in a worker process; without a request, only load the block's file.

    Returns:
        what the function returned, tables as Arrow IPC (see `read_tables`); or the error that it is to raise.
    """
    global _caller
    settings, request = payload
    try:
        if _caller is None:
            _caller = TransformCaller(pickle.loads(settings))
        returned = _caller.run(request) if request is not None else []
    except (UserError, StreamlineError) as error:
        return error
    for each in returned:
        if each.table is not None:
            each.table = _ipc(each.table)
    return returned


def read_tables(returned: list[Returned]) -> list[Returned]:
    """What `call_transformer` returned, tables as they were."""
    for each in returned:
        if isinstance(each.table, bytes):
            import pyarrow as pa

            each.table = pa.ipc.open_stream(each.table).read_all()
    return returned


def _ipc(table: pa.Table) -> Any:
    # Pickled, a slice of a table would bring the whole table with it.
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _to_shape(table: pa.Table, shape: Shape) -> Any:
    if shape is Shape.PANDAS:
        import pandas as pd

        return table.to_pandas(types_mapper=pd.ArrowDtype)
    if shape is Shape.POLARS:
        import polars as pl

        return pl.from_arrow(table)
    if shape is Shape.RECORD_BATCH:
        return table.combine_chunks().to_batches()[0]
    return table


def _to_table(result: Any, given: pa.Table | None) -> pa.Table | list[JSONObject] | None:
    """Convert a frame of any known kind to an Arrow table; a pandas frame with a column of mixed types, to its rows.

    None if it is not a frame.

    Args:
        result: what the function returned.
        given: the table that it was given.

    Raises:
        ValueError: two of its columns have one name.
    """
    import pyarrow as pa

    package = type(result).__module__.partition(".")[0]
    if isinstance(result, pa.Table):
        return result
    if isinstance(result, pa.RecordBatch):
        return pa.Table.from_batches([result])
    if type(result).__name__ == "DataFrame" and package == "pandas":
        frame = result if all(type(name) is str for name in result.columns) else result.rename(columns=str)
        try:
            return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        except (pa.ArrowException, TypeError, ValueError):
            if frame.columns.has_duplicates:
                duplicate = frame.columns[frame.columns.duplicated()][0]
                raise ValueError(f"a DataFrame with a duplicate column {duplicate}") from None
            return _rows_of(frame, given)
    if type(result).__name__ == "LazyFrame" and package == "polars":
        result = result.collect()
    if type(result).__name__ == "DataFrame" and package == "polars":
        return result.to_arrow()
    return None


def _rows_of(frame: Any, given: pa.Table | None) -> list[JSONObject]:
    """The frame's rows; columns that the function was given, and copies of them, have the values that the tap sent."""
    import pyarrow as pa

    from streamline.flow.codecs.arrow_columns import text_column
    from streamline.flow.codecs.arrow_types import is_json

    columns: dict[str, list[Any]] = {name: frame[name].to_list() for name in frame.columns}
    arrays: dict[str, pa.Array] = {}
    for name in frame.columns if given is not None else ():
        with contextlib.suppress(pa.ArrowException, TypeError, ValueError):
            arrays[name] = pa.table({name: pa.Array.from_pandas(frame[name])}).column(0).combine_chunks()
    if given is not None and arrays:
        for field, chunked in zip((table := _with_json(pa.table(arrays), given)).schema, table.columns, strict=True):
            if field.name in given.schema.names or is_json(field):
                like = given.schema.field(field.name) if field.name in given.schema.names else field
                texts = text_column(like, chunked.combine_chunks()).to_pylist()
                columns[field.name] = [None if text is None else loads(text, decimals=True) for text in texts]
    # In a frame, a missing value may be NaN.
    rows = zip(*columns.values(), strict=True)
    return [
        {
            name: None if isinstance(value, float) and value != value else value
            for name, value in zip(columns, row, strict=True)
        }
        for row in rows
    ]


def _with_json(table: pa.Table, given: pa.Table) -> pa.Table:
    """Mark texts that are copies of JSON text under another name: a frame does not keep what its texts are."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from streamline.flow.codecs.arrow_types import copied_json, is_json, is_textual

    sources = [field.name for field in given.schema if is_json(field)]
    for number, field in enumerate(table.schema):
        if not sources or field.name in given.schema.names or not is_textual(field.type):
            continue
        texts = table.column(number).cast(pa.string())
        if texts.null_count == len(texts):
            continue
        nested = pc.all(pc.match_substring_regex(texts, r'^[\[{"]')).as_py()
        for source in sources:
            known = pc.or_(pc.is_null(texts), pc.is_in(texts, value_set=given.column(source).combine_chunks()))
            # `5` may be a text by itself; where the column has gone, it was renamed.
            if pc.all(known).as_py() and (nested or source not in table.column_names):
                table = table.set_column(number, copied_json(field.name, source), texts)
                break
    return table


def _without_new_nan(table: pa.Table, given: pa.Schema) -> pa.Table:
    """Replace NaN that the block computed with null: JSON has no NaN, and in frames it means missing."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as pt

    from streamline.flow.codecs.arrow_types import holds_nan

    for number, field in enumerate(table.schema):
        if not pt.is_floating(field.type) or (field.name in given.names and holds_nan(given.field(field.name))):
            continue
        column = table.column(number)
        if pc.any(pc.is_nan(column)).as_py():
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, field.type), column)
            table = table.set_column(number, field, column)
    return table


def _name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
