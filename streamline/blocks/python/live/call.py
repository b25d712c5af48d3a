"""Calls a transformer's function with batches of one stream. Runs in a worker: a thread or a process."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.blocks.python.function import PythonFunction, Shape, UserError, shape_of
from streamline.blocks.python.live.bisection import Bisection
from streamline.blocks.python.live.frames import to_shape, to_table, with_json, without_new_nan
from streamline.blocks.python.live.messages import CallRequest, CallSettings, Returned
from streamline.errors import StreamlineError
from streamline.flow.codecs.arrow_reader import ArrowReader
from streamline.flow.codecs.lanes import RowReader, arrow_to_raw, lines_of
from streamline.flow.items import ArrowBatch, RawBatch

if TYPE_CHECKING:
    import pyarrow as pa

    from streamline.processes.worker import Port


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
            return Bisection(partial(self._run, on_call=on_call), request).results(lines, error)

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
                    yield to_shape(table, self._shape), returned

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
            converted = to_table(result, given)
        except ValueError as error:
            raise self._wrong(str(error)) from None
        if converted is None:
            raise self._wrong(f"a {_name(result)}")
        if isinstance(converted, list):
            into.rows = converted
        else:
            into.table = converted if given is None else with_json(without_new_nan(converted, given.schema), given)

    def _wrong(self, what: str) -> UserError:
        path = self._settings.block.path
        line = getattr(getattr(self._function.function, "__code__", None), "co_firstlineno", None)
        where = f"{path}:{line}" if line else path
        return UserError(
            f"the function returned {what}; it must return a DataFrame, a list of dicts, an Arrow table or None",
            "",
            where,
        )


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


def _name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
