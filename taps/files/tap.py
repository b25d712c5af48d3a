"""Discovery and reading of files."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from kit.connector import Arguments, Config, ConfigError, ConnectorError, log, read_json

from ..common.catalog import Stream, catalog_entry, unreadable_entry
from ..common.output import State, StreamOutput
from ..common.streams import read_selected
from . import csvfile, jsonlfile, kinds, parquetfile
from .positions import MODIFIED_AT, ColumnPosition, File, FilePosition, stat
from .reading import Block
from .sources import Source, sources

_FORMATS = {"csv": csvfile, "jsonl": jsonlfile, "parquet": parquetfile}
_ENCODER = msgspec.json.Encoder(decimal_format="number")


Wants = Callable[[dict[str, Any], bytes], bool]


def work(config: Config, args: Arguments) -> None:
    """Discover, or read the selected streams."""
    by_name, failed = sources(config)
    path = args.catalog or args.properties
    if args.discover or not path:
        catalog = {"streams": _discovered(by_name, failed)}
        if args.discover:
            json.dump(catalog, sys.stdout, indent=2, ensure_ascii=False)
            print()
            return
    else:
        catalog = read_json(path, "--catalog")
    state = State(read_json(args.state, "--state") if args.state else {})

    def read(stream: Stream) -> None:
        source = by_name.get(stream.id)
        if source is None:
            raise failed.get(stream.id) or ConnectorError(
                f"stream {stream.name!r}: no files found for stream {stream.id!r}", "run --discover again"
            )
        Reader(source, stream, state, config["state_interval"]).read()

    read_selected(catalog, read)


def _discovered(by_name: Mapping[str, Source], failed: Mapping[str, ConnectorError]) -> list[dict[str, Any]]:
    """Return the catalog's entries, also of streams that cannot be read.

    Raises:
        ConnectorError: none can be read.
    """
    entries: dict[str, dict[str, Any]] = {}
    errors = dict(failed)
    for name, source in by_name.items():
        try:
            entries[name] = _discover(source)
        except ConnectorError as error:
            errors[name] = error
    if errors and not entries:
        raise next(iter(errors.values()))
    for name, failure in errors.items():
        log("WARNING", f"a stream is left out: {failure}")
        entries[name] = unreadable_entry(name, failure)
    return [entries[name] for name in sorted(entries)]


def _discover(source: Source) -> dict[str, Any]:
    """Return the stream's catalog entry, its types inferred from the first rows of its files."""
    reader = _FORMATS[source.format]
    limit: int = source.options["sample_rows"]
    kinds_by_column: dict[str, set[str]] = {}
    # Each file has its share of the sample, so that the last one counts as much as the first.
    share = max(100, limit // len(source.files)) if limit else 0
    left = limit
    for path in source.files:
        left -= reader.infer(source, path, share, kinds_by_column)
        if limit and left <= 0 and source.format != "parquet":
            break
    if not kinds_by_column:
        raise ConfigError(f"stream {source.stream!r}: its files are empty, so it has no columns")
    keys = [str(key) for key in source.options["key_properties"]]
    missing = [key for key in keys if key not in kinds_by_column]
    if missing:
        raise ConfigError(
            f"stream {source.stream!r} has no column {missing[0]!r} for its key", f"it has {', '.join(kinds_by_column)}"
        )
    properties = {name: kinds.schema(reader.settle(seen)) for name, seen in kinds_by_column.items()}
    properties.setdefault(MODIFIED_AT, {"type": ["string"], "format": "date-time"})
    return catalog_entry(
        source.stream,
        properties,
        key_properties=keys,
        root={},
        columns={MODIFIED_AT: {"selected-by-default": False}},
    )


class Reader:
    """Reads one stream.

    Args:
        interval: records between two STATEs.

    Raises:
        ConnectorError: a file is broken; it is named, with the line.
    """

    def __init__(self, source: Source, stream: Stream, state: State, interval: int) -> None:
        self._source = source
        self._stream = stream
        self._state = state
        self._interval = interval
        self._with_time = MODIFIED_AT in stream.schema["properties"]
        # A selection that leaves columns out was made for those that were known; new ones are not part of it.
        self._whole = not stream.deselected - {MODIFIED_AT}

    def read(self) -> None:
        """Send the stream's messages."""
        files = [stat(path) for path in self._source.files]
        keys = self._stream.replication_keys
        if self._stream.method == "FULL_TABLE":
            self._full_table(files)
        elif keys in ([], [MODIFIED_AT]):
            self._by_file(files)
        else:
            self._by_columns(files)

    def _output(self, version: int | None = None) -> StreamOutput:
        out = StreamOutput(self._stream, self._state, interval=self._interval, version=version)
        out.write_schema()
        return out

    def _full_table(self, files: list[File]) -> None:
        old = self._state.bookmark(self._stream.id).get("version")
        version = int(time.time() * 1000)
        if isinstance(old, int):
            # Versions must rise, even if the clock was set back.
            version = max(version, old + 1)
        out = self._output(version)
        for file in files:
            for records in self._blocks(out, file):
                if out.write_records(records):
                    out.write_state()
        out.activate_version()
        out.write_state({"version": version})
        out.close()

    def _by_file(self, files: list[File]) -> None:
        out = self._output()
        position = FilePosition(self._state.bookmark(self._stream.id))
        for file in position.pending(files):
            due = False
            for records in self._blocks(out, file):
                due = out.write_records(records)
            position.done(file)
            if due:
                out.write_state(position.bookmark())
        out.write_state(position.bookmark())
        out.close()

    def _by_columns(self, files: list[File]) -> None:
        out = self._output()
        columns = self._stream.replication_keys
        position = ColumnPosition(columns, out.properties, self._state.bookmark(self._stream.id))
        for file in files:
            for records in self._blocks(out, file, position.wants):
                if out.write_records(records):
                    out.write_state()
        if position.without_value and position.continues:
            names = ", ".join(columns)
            out.warn(f"{position.without_value} rows have NULL in {names}; they come with full syncs only")
        out.write_state(position.bookmark())
        out.close()

    def _blocks(self, out: StreamOutput, file: File, wants: Wants | None = None) -> Iterator[list[bytes]]:
        """Yield the file's records, some at a time; the schema is widened before the first that wants it."""
        reader = _FORMATS[self._source.format]
        encode = _ENCODER.encode
        for block in reader.read(self._source, file.path, out.properties, everything=self._whole):
            if block.kinds.keys() - out.properties.keys() and not self._whole:
                block = _narrowed(block, out.properties)
            _fit(out, block)
            if self._with_time:
                moment = file.modified_at
                for row in block.rows:
                    row[MODIFIED_AT] = moment
            records = [encode(row) for row in block.rows]
            if wants is None:
                yield records
            else:
                yield _wanted(block, records, wants, file)


def _narrowed(block: Block, properties: dict[str, Any]) -> Block:
    """Return the block without columns that are not among the properties."""
    rows = [{name: value for name, value in row.items() if name in properties} for row in block.rows]
    return Block(
        rows, {name: column_kinds for name, column_kinds in block.kinds.items() if name in properties}, block.lines
    )


def _fit(out: StreamOutput, block: Block) -> None:
    """Widen the stream's schema to what the block holds."""
    for name, column_kinds in block.kinds.items():
        if name not in out.properties:
            out.add_column(name, kinds.schema(column_kinds))
            continue
        for kind in sorted(kinds.misfits(column_kinds, kinds.kinds_of(out.properties[name]))):
            if kind in ("string", "date", "date-time", "base64"):
                out.widen(name, "string", drop_format=True)
            else:
                out.widen(name, kind)


def _wanted(block: Block, records: list[bytes], wants: Wants, file: File) -> list[bytes]:
    wanted_records = []
    for row, record, line in zip(block.rows, records, block.lines, strict=True):
        try:
            if wants(row, record):
                wanted_records.append(record)
        except ConnectorError as error:
            raise ConnectorError(f"{file.path}:{line}: {error}") from error
    return wanted_records
