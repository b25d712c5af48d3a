"""Every value that a tap may send, through each lane into each target: what is stored means what was sent.

What a target cannot store it refuses, with the names of the stream and the record.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kit.connector import ConnectorError
from streamline.blocks.python.function import Shape
from streamline.blocks.python.live.frames import to_shape, to_table
from streamline.flow.codecs.arrow_reader import ArrowReader
from streamline.flow.codecs.jsontext import split_object
from streamline.flow.codecs.lanes import RowReader, arrow_to_raw, join_raw, rows_to_raw
from streamline.flow.items import RawBatch
from targets.common.messages import RecordMessage, decode_lines
from targets.common.runner import Block
from targets.common.streams import StreamSettings
from targets.duckdb.sink import DuckDBSink
from targets.files.sink import FilesSink

JSONObject = dict[str, Any]
TEXT: JSONObject = {"type": ["null", "string"]}
MOMENT, DAY, TIME = ({**TEXT, "format": name} for name in ("date-time", "date", "time"))
INTEGER, NUMBER, BOOLEAN, OBJECT = ({"type": ["null", name]} for name in ("integer", "number", "boolean", "object"))
MONEY: JSONObject = {**NUMBER, "multipleOf": 0.01}
DECIMAL: JSONObject = {**TEXT, "format": "singer.decimal"}
TEXTS: JSONObject = {"type": ["null", "array"], "items": TEXT}
NUMBERS: JSONObject = {"type": ["null", "array"], "items": NUMBER}
BYTES: JSONObject = {**TEXT, "contentEncoding": "base64"}
ANY: JSONObject = {}

TYPED = frozenset(("duckdb", "parquet"))
JSON_ONLY = frozenset(("jsonl",))
EVERY = TYPED | JSON_ONLY | {"csv"}


class Case(NamedTuple):
    schema: JSONObject
    text: str
    refused: frozenset[str] = frozenset()
    """Targets that refuse it."""


def cases(schema: JSONObject, *texts: str, refused: frozenset[str] = frozenset()) -> list[Case]:
    return [Case(schema, text, refused) for text in texts]


def quoted(*texts: str) -> list[str]:
    return [json.dumps(text) for text in texts]


CASES = [
    *cases(TIME, *quoted("10:00:00", "10:00", "10:00:00.123456", "10:00:00.1234567", "10:00:00.123456789")),
    *cases(TIME, *quoted("10:00:00Z", "10:00:00+02:00", "24:00:00", "23:59:60", "838:59:59", "-10:00:00", "")),
    *cases(MOMENT, *quoted("2024-01-01T10:00:00Z", "2024-01-01 10:00:00", "2024-01-01T10:00Z", "2024-01-01")),
    *cases(MOMENT, *quoted("2024-01-01T10:00:00+02:00", "2024-01-01T10:00:00-0330", "2024-01-01T10:00:00+02")),
    *cases(MOMENT, *quoted("2024-01-01T10:00:00.123456Z", "2024-01-01T10:00:00.1234567Z")),
    *cases(MOMENT, *quoted("2024-01-01T10:00:00.123456789Z", "2024-01-01T10:00:00.1234567891Z")),
    *cases(MOMENT, *quoted("2300-01-01T00:00:00.123456789Z", "2024-01-01T24:00:00Z", "2016-12-31T23:59:60Z")),
    *cases(MOMENT, *quoted("0000-01-01T00:00:00Z", "0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59.999999Z")),
    *cases(MOMENT, *quoted("9999-12-31T23:59:59-10:00", "10000-01-01T00:00:00Z", "-0044-03-15T00:00:00Z")),
    *cases(MOMENT, *quoted("0044-03-15 00:00:00 BC", "infinity", "2024-02-30T00:00:00Z", "0000-00-00 00:00:00", "")),
    *cases(DAY, *quoted("2024-01-31", "2024-02-30", "0001-01-01", "9999-12-31", "10000-01-01", "-0044-03-15")),
    *cases(DAY, *quoted("2024-01-31T10:00:00Z", "2024-01-31 00:00:00.0000001", "2024-1-5", "01/31/2024", "")),
    *cases(NUMBER, "0", "-0", "-0.0", "1.10", "1e5", "1E5", "1e308", "5e-324", "0.1", "1e22", "1e23", "null"),
    *cases(NUMBER, "1e400", "-1e400", "1e-400", "1.23456789e-320", "-1E-0400", "0.001e-322"),
    *cases(NUMBER, "9007199254740993", "12345678901234567.25", "0.1000000000000000055511151231257827", "1" * 39),
    *cases(NUMBER, "18446744073709551616", "12345678901234567890123456789012345678.5"),
    *cases(NUMBER, "NaN", "Infinity", "-Infinity", refused=JSON_ONLY),
    *cases(NUMBER, "true", '"n/a"', '"5"', '""', refused=TYPED),
    *cases(INTEGER, "0", "1.0", "1e3", "9223372036854775807", "9223372036854775808", "-9223372036854775809"),
    *cases(INTEGER, "18446744073709551616", "1" * 39, "1" * 77, "1" * 5000),
    *cases(INTEGER, "1.5", "true", '"7"', '""', refused=TYPED),
    *cases(BOOLEAN, "true", "false", "null"),
    *cases(BOOLEAN, "0", "1", '"true"', '""', refused=TYPED),
    *cases(MONEY, "19.90", "19.999", "1", "1e-9", "12345678901234567890123456789012345678.12", "9" * 41, "1e-400"),
    *cases(MONEY, "NaN", refused=TYPED | JSON_ONLY),
    *cases(DECIMAL, *quoted("1.10", "1E+5", "0.1234567890123", "12345678901234567890123456789012345678.5", "-0.0")),
    *cases(DECIMAL, *quoted("", "NaN", "n/a")),
    *cases(DECIMAL, "true", refused=TYPED),
    *cases(TEXT, *quoted("", "NULL", "null", "None", "NaN", "\\N", "-", "true", "1E5", "1.10", "007", " x ", "5")),
    *cases(TEXT, *quoted("2024-01-01", "line\nfeed", "cr\rlf\r\n", "a,b", 'q"q', "\u2028", "\ufeffx", "\x7f\x01")),
    *cases(TEXT, r'"a\u0000b"', r'"\ud83d\ude00"', json.dumps("x" * 200_000), "null"),
    *cases(TEXT, r'"\ud800"', refused=EVERY),
    *cases(OBJECT, '{"a":{"b":[1,2.50,null,true,""]}}', "{}", '{"":1}', r'{"a":"\u0000"}', "null"),
    *cases(OBJECT, '{"a":1e400}', '{"a":1e-400}', '{"a":12345678901234567890.5}', '{"a":' + "1" * 5000 + "}"),
    *cases(OBJECT, '{"a":NaN}', r'{"a":"\ud800"}', refused=EVERY),
    *cases(TEXTS, '["a",null,""]', "[]", "[1]", "[[1]]"),
    *cases(NUMBERS, "[1,2.5,null]", "[1e400]", "[1e-400]", "[12345678901234567.25]"),
    *cases(BYTES, *quoted("aGVsbG8=", "/w==", "", "not base64!", "aGVsbG8", "_w==")),
    *cases(ANY, "1", '"1"', "true", '""', "null", '"null"', "1e400", "1e-400", "{}", "12345678901234567.25"),
]


def named(case: Case) -> str:
    return f"{case.schema.get('format') or case.schema.get('type')}-{case.text[:50]}"


# What values mean -----------------------------------------------------------------------------------------------------

_MOMENT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(\.\d+)?)?(Z|[+-]\d\d(?::?\d\d)?)?)?", re.ASCII
)


def moment(text: str) -> Any:
    """The microseconds since 1970; the text where it is no moment."""
    match = _MOMENT.fullmatch(text)
    if match is None or int(match[4] or 0) > 23 or int(match[6] or 0) > 59:
        return text
    try:
        # The calendar repeats after 400 years, of 146,097 days; Python's has no year 0.
        days = date(int(match[1]) or 400, int(match[2]), int(match[3])).toordinal() - date(1970, 1, 1).toordinal()
        days -= 0 if int(match[1]) else 146_097
    except ValueError:
        return text
    zone = (match[8] or "Z").replace("Z", "+0").replace(":", "")
    offset = int(zone[1:3]) * 60 + int(zone[3:] or 0)
    seconds = days * 86_400 + int(match[4] or 0) * 3600 + int(match[5] or 0) * 60 + int(match[6] or 0)
    seconds -= offset * 60 * (-1 if zone[0] == "-" else 1)
    return (seconds + Decimal(match[7] or 0)) * 1_000_000


def day_time(text: str) -> str:
    """A time without what says nothing: seconds that are zero, the zone UTC."""
    text = re.sub(r"(\.\d*?)0*$", r"\1", text.removesuffix("Z")).rstrip(".")
    return text + ":00" if re.fullmatch(r"\d\d:\d\d", text) else text


def meaning(schema: JSONObject, text: str) -> Any:
    """What a value's JSON text means in a column of this schema."""
    return _meaning(schema, json.loads(text, parse_float=Decimal, parse_int=Decimal))


def _meaning(schema: JSONObject, value: Any) -> Any:
    if isinstance(value, str):
        read: dict[str, Callable[[str], Any]] = {
            "date-time": moment,
            "date": moment,
            "time": day_time,
            "singer.decimal": _decimal,
        }
        return read.get(schema.get("format", ""), str)(value)
    return str(value) if isinstance(value, float) else value  # NaN is no NaN's equal


def _decimal(text: str) -> Any:
    try:
        return text if Decimal(text).is_nan() else Decimal(text)
    except ArithmeticError:
        return text


def read_text(schema: JSONObject, text: str | None) -> Any:
    """What the text in a cell of a table, or of a CSV file, means."""
    if text is None:
        return None
    types = schema.get("type", ["object"])
    if types[-1] in ("object", "array"):
        return _meaning(schema, json.loads(text, parse_float=Decimal, parse_int=Decimal))
    if types[-1] in ("number", "integer"):
        special = {"nan": "nan", "inf": "inf", "-inf": "-inf", "true": True}
        return special[text] if text in special else _decimal(text)
    if types[-1] == "boolean":
        return {"true": True, "false": False}.get(text, text)
    return _meaning(schema, text)


# The lanes ------------------------------------------------------------------------------------------------------------


def through_rows(batch: RawBatch, schema: JSONObject) -> RawBatch:
    return join_raw([rows_to_raw(rows) for rows in RowReader(schema).read(batch)])


def through_tables(batch: RawBatch, schema: JSONObject) -> RawBatch:
    return join_raw([arrow_to_raw(table) for table in ArrowReader(schema).read(batch)])


def through_frames(batch: RawBatch, schema: JSONObject) -> RawBatch:
    """As a transformer does that gives back the DataFrame that it was given."""
    parts = []
    for table in ArrowReader(schema).read(batch):
        result = to_table(to_shape(table.table, Shape.PANDAS), table.table)
        assert isinstance(result, pa.Table)
        parts.append(arrow_to_raw(msgspec.structs.replace(table, table=result), table.table.schema))
    return join_raw(parts)


LANES = {"rows": through_rows, "tables": through_tables, "frames": through_frames}


def record_of(texts: Sequence[str]) -> str:
    return "{" + ",".join(f'"c{number}":{text}' for number, text in enumerate(texts)) + "}"


def schema_of(schemas: Sequence[JSONObject]) -> JSONObject:
    return {"properties": {f"c{number}": schema for number, schema in enumerate(schemas)}}


def message_of(stream: str, texts: Sequence[str]) -> bytes:
    return f'{{"type":"RECORD","stream":"{stream}","record":{record_of(texts)}}}\n'.encode()


def sent_by(lane: str, schemas: Sequence[JSONObject], records: Sequence[Sequence[str]]) -> list[list[str]]:
    """The texts of the values of one batch of records after a lane."""
    lines = [message_of("s", texts) for texts in records]
    batch = RawBatch("s", lines, len(lines), sum(map(len, lines)))
    after = LANES[lane](batch, schema_of(schemas))
    read = [split_object(line)["record"] for piece in after.slices for line in bytes(piece).split(b"\n") if line]
    return [[bytes(split_object(bytes(record))[f"c{n}"]).decode() for n in range(len(schemas))] for record in read]


@pytest.fixture(scope="module")
def after_lanes() -> dict[str, list[str]]:
    """The text of each case's value after each lane."""
    schemas, texts = [case.schema for case in CASES], [case.text for case in CASES]
    return {lane: sent_by(lane, schemas, [texts])[0] for lane in LANES}


@pytest.mark.parametrize("lane", LANES)
def test_lanes(after_lanes: dict[str, list[str]], lane: str) -> None:
    wrong = [
        (named(case), after[:80])
        for case, after in zip(CASES, after_lanes[lane], strict=True)
        if meaning(case.schema, after) != meaning(case.schema, case.text)
    ]
    assert not wrong


@pytest.mark.parametrize("lane", LANES)
def test_lanes_with_all_values_of_a_schema_in_one_batch(lane: str) -> None:
    for schema in (TIME, MOMENT, DAY, NUMBER, INTEGER, MONEY, DECIMAL, NUMBERS, ANY):
        texts = [case.text for case in CASES if case.schema is schema]
        after = [text for (text,) in sent_by(lane, [schema], [[text] for text in texts])]
        assert [meaning(schema, text) for text in after] == [meaning(schema, text) for text in texts]


@pytest.mark.parametrize("lane", LANES)
def test_a_fraction_that_is_zero_keeps_its_sign(lane: str) -> None:
    assert sent_by(lane, [NUMBER], [["-0.0"], ["0.5"]]) == [["-0.0"], ["0.5"]]


# The targets ----------------------------------------------------------------------------------------------------------

Sink = DuckDBSink | FilesSink


def duckdb_target(folder: Path) -> Sink:
    config = {"path": str(folder / "w.duckdb"), "schema": "main", "load_method": None, "streams": {}}
    config |= {"memory_limit": None, "threads": None, "lock_timeout": 1}
    return DuckDBSink(config, StreamSettings(config))


def files_target(format_: str, folder: Path) -> Sink:
    config = {"path": str(folder), "format": format_, "compression": None, "load_method": "append", "streams": {}}
    return FilesSink(config, StreamSettings(config, upsert=False))


Values = dict[str, Any]


def read_duckdb(folder: Path, stream: str, schemas: dict[str, JSONObject]) -> Values:
    with duckdb.connect(str(folder / "w.duckdb"), read_only=True) as connection:
        kinds = {row[0]: row[1] for row in connection.execute(f"DESCRIBE {stream}").fetchall()}
        forms = {"BLOB": "to_base64({})", "DATE": "epoch_us({})::VARCHAR", "TIMESTAMP": "epoch_us({})::VARCHAR"}
        columns = ", ".join(forms.get(kind, "{}::VARCHAR").format(name) for name, kind in kinds.items())
        (row,) = connection.execute(f"SELECT {columns} FROM {stream}").fetchall()
    return {
        name: Decimal(text) if kind in ("DATE", "TIMESTAMP") else read_text(schemas[name], text)
        for (name, kind), text in zip(kinds.items(), row, strict=True)
    }


def read_parquet(folder: Path, stream: str, schemas: dict[str, JSONObject]) -> Values:
    (path,) = (folder / stream).glob("*.parquet")
    return {name: _read_array(pq.read_table(path, columns=[name]).column(0), schemas[name]) for name in schemas}


def _read_array(column: pa.ChunkedArray, schema: JSONObject) -> Any:
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("us"))
    if pa.types.is_timestamp(column.type):
        return Decimal(column.cast(pa.int64())[0].as_py())
    if pa.types.is_binary(column.type):
        return b64encode(column[0].as_py()).decode()
    return read_text(schema, column.cast(pa.string())[0].as_py())


_CELL = re.compile(r'("(?:[^"]|"")*"|[^",\r\n]*)(,|\r\n)')


def read_csv(folder: Path, stream: str, schemas: dict[str, JSONObject]) -> Values:
    (path,) = (folder / stream).glob("*.csv")
    cells = [match[1] for match in _CELL.finditer(path.read_bytes().decode())]
    assert cells[: len(schemas)] == list(schemas)
    return {name: _read_cell(cell, schemas[name]) for name, cell in zip(schemas, cells[len(schemas) :], strict=True)}


def _read_cell(cell: str, schema: JSONObject) -> Any:
    if not cell:
        return None
    text = cell[1:-1].replace('""', '"') if cell[0] == '"' else cell
    if schema is TEXTS or schema is NUMBERS or schema is OBJECT:
        return read_text(schema, text)
    return text if cell[0] == '"' else read_text(schema, text)


def read_jsonl(folder: Path, stream: str, schemas: dict[str, JSONObject]) -> Values:
    (path,) = (folder / stream).glob("*.jsonl")
    texts = split_object(path.read_bytes().rstrip())
    return {name: meaning(schema, bytes(texts[name]).decode()) for name, schema in schemas.items()}


TARGETS: dict[str, tuple[Callable[[Path], Sink], Callable[[Path, str, dict[str, JSONObject]], Values]]] = {
    "duckdb": (duckdb_target, read_duckdb),
    "parquet": (partial(files_target, "parquet"), read_parquet),
    "csv": (partial(files_target, "csv"), read_csv),
    "jsonl": (partial(files_target, "jsonl"), read_jsonl),
}


def load(sink: Sink, stream: str, schemas: Sequence[JSONObject], texts: Sequence[str]) -> None:
    sink.schema(stream, schema_of(schemas), [])
    (message,) = decode_lines(message_of(stream, texts), 1)
    assert isinstance(message, RecordMessage)
    sink.write(Block(stream, None, [message.record], 1))


@pytest.mark.parametrize("target", TARGETS)
def test_targets(tmp_path: Path, after_lanes: dict[str, list[str]], target: str) -> None:
    """In each form that a lane gives a value."""
    open_, read = TARGETS[target]
    sink = open_(tmp_path)
    forms = [
        (case, text)
        for number, case in enumerate(CASES)
        for text in sorted({case.text, *(after[number] for after in after_lanes.values())})
    ]
    kept = [(case, text) for case, text in forms if target not in case.refused]
    load(sink, "kept", [case.schema for case, _ in kept], [text for _, text in kept])
    for number, (case, text) in enumerate(form for form in forms if target in form[0].refused):
        with pytest.raises(ConnectorError) as caught:
            load(sink, f"refused_{number}", [case.schema], [text])
        assert f"stream 'refused_{number}', record 1" in str(caught.value)
    sink.finish()
    sink.close()
    values = read(tmp_path, "kept", schema_of([case.schema for case, _ in kept])["properties"])
    wrong = [
        (named(case), text[:80], str(value)[:80])
        for (case, text), value in zip(kept, values.values(), strict=True)
        if value != meaning(case.schema, text) and not (target == "csv" and is_untyped(case, text, value))
    ]
    assert not wrong


def is_untyped(case: Case, text: str, value: Any) -> bool:
    """Whether it is right but for its type: a CSV file does not say whether a cell is a number, a text or another."""
    return (case.schema is ANY or bool(case.refused)) and str(value).lower().replace("none", "null") == text.strip(
        '"'
    ).lower()
