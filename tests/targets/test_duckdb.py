"""target-duckdb, run as a user runs it, and its tables read back."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest

from targets.duckdb.database import connect
from tests.support import connectors
from tests.support.connectors import (
    JSONObject,
    activate,
    clean_environment,
    command,
    lines,
    record,
    schema,
    state,
    written,
)
from tests.support.preloaded import Piped

ONE: JSONObject = {"id": "integer", "name": "string"}

attempt = partial(connectors.attempt, "target-duckdb", path="w.duckdb")
load = partial(connectors.load, "target-duckdb", path="w.duckdb")


def query(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(folder / "w.duckdb"), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def rows(folder: Path, table: str, order: str = "1") -> list[tuple[Any, ...]]:
    """The table's rows without the version."""
    return query(folder, f'SELECT * EXCLUDE (_sdc_table_version) FROM "{table}" ORDER BY {order}')


def plain(folder: Path, table: str, order: str = "1") -> list[tuple[Any, ...]]:
    """The rows of a table that has no versions."""
    return query(folder, f'SELECT * FROM "{table}" ORDER BY {order}')


def types(folder: Path, table: str) -> dict[str, str]:
    return {row[0]: row[1] for row in query(folder, f'DESCRIBE "{table}"')}


# Loading --------------------------------------------------------------------------------------------------------------


def test_rows_with_a_key_are_upserted(tmp_path: Path) -> None:
    outcome = load(
        tmp_path,
        [
            schema("t", ONE, ["id"]),
            record("t", {"id": 1, "name": "a"}),
            record("t", {"id": 2, "name": "b"}),
            record("t", {"id": 1, "name": "c"}),
            state({"bookmarks": {"t": {"id": 2}}}),
        ],
    )
    assert outcome.stdout == b'{"bookmarks": {"t": {"id": 2}}}\n'
    assert plain(tmp_path, "t") == [(1, "c"), (2, "b")]
    load(tmp_path, [schema("t", ONE, ["id"]), record("t", {"id": 2, "name": "d"}), record("t", {"id": 3, "name": "e"})])
    assert plain(tmp_path, "t") == [(1, "c"), (2, "d"), (3, "e")]


def test_rows_without_a_key_are_appended(tmp_path: Path) -> None:
    for _ in range(2):
        load(tmp_path, [schema("t", ONE), record("t", {"id": 1, "name": "a"})])
    assert plain(tmp_path, "t") == [(1, "a"), (1, "a")]


def test_composite_keys_and_null_in_a_key(tmp_path: Path) -> None:
    messages = [schema("t", {"a": "integer", "b": "string", "v": "integer"}, ["a", "b"])]
    messages += [record("t", {"a": a, "b": b, "v": v}) for a, b, v in [(1, "x", 1), (1, None, 2), (1, "x", 3)]]
    for _ in range(2):
        load(tmp_path, messages)
    assert plain(tmp_path, "t", "v") == [(1, None, 2), (1, "x", 3)]


def test_what_a_record_does_not_have_keeps_its_value(tmp_path: Path) -> None:
    properties = {"id": "integer", "a": "string", "b": "string"}
    load(tmp_path, [schema("t", properties, ["id"]), record("t", {"id": 1, "a": "a", "b": "b"})])
    load(
        tmp_path,
        [
            schema("t", properties, ["id"]),
            record("t", {"id": 1, "a": "A"}),
            record("t", {"id": 2, "b": "B2"}),
            record("t", {"id": 2, "a": "A2", "b": None}),
            record("t", {"id": 2, "a": "A3"}),
        ],
    )
    assert plain(tmp_path, "t") == [(1, "A", "b"), (2, "A3", None)]
    # A column that the source has no more is not emptied either.
    load(tmp_path, [schema("t", {"id": "integer", "a": "string"}, ["id"]), record("t", {"id": 1, "a": "AA"})])
    assert plain(tmp_path, "t")[0] == (1, "AA", "b")


def test_stream_settings(tmp_path: Path) -> None:
    streams = {
        "s": {"destination_table": "people", "unique_constraints": ["name"], "unique_conflict_method": "IGNORE"},
        "log": {"load_method": "append"},
    }
    messages = [
        schema("s", ONE, ["id"]),
        *(record("s", {"id": number, "name": name}) for number, name in [(1, "a"), (2, "a"), (3, "b")]),
        schema("log", ONE, ["id"]),
        record("log", {"id": 1, "name": "x"}),
    ]
    for _ in range(2):
        load(tmp_path, messages, streams=streams)
    assert plain(tmp_path, "people") == [(1, "a"), (3, "b")]
    assert plain(tmp_path, "log") == [(1, "x"), (1, "x")]


@pytest.mark.parametrize(("method", "expected"), [("UPDATE", [1, 2]), ("IGNORE", [0, 2])])
def test_columns_of_objects_are_never_taken_for_tables(tmp_path: Path, method: str, expected: list[int]) -> None:
    nested = dict.fromkeys(("t", "b", "o"), "object")
    head = schema("s", {"id": "integer", "n": "integer", **nested}, ["id"])
    streams = {"s": {"unique_conflict_method": method}}
    objects = {name: {"id": 5} for name in nested}
    load(tmp_path, [head, record("s", {"id": 5, "n": 0, **objects})], streams=streams)
    load(tmp_path, [head, record("s", {"id": 5, "n": 1}), record("s", {"id": 6, "n": 2})], streams=streams)
    assert query(tmp_path, "SELECT n FROM s ORDER BY id") == [(n,) for n in expected]
    again = [head, record("s", {"id": 5, "n": 3, **objects}, 7), record("s", {"id": 8, "n": 4, **objects}, 7)]
    load(tmp_path, [*again, activate("s", 7)], streams=streams)
    assert query(tmp_path, "SELECT n FROM s ORDER BY id") == [(3,), (4,)]


def test_a_runner_can_ask_to_keep_old_rows(tmp_path: Path) -> None:
    message = schema("t", ONE, ["id"])
    message["schema"]["x-unique-conflict-method"] = "IGNORE"
    load(tmp_path, [message, record("t", {"id": 1, "name": "a"}), record("t", {"id": 1, "name": "b"})])
    assert plain(tmp_path, "t") == [(1, "a")]


def test_an_empty_stream_makes_its_table_and_no_input_makes_nothing(tmp_path: Path) -> None:
    load(tmp_path, [])
    assert not (tmp_path / "w.duckdb").exists()
    load(tmp_path, [schema("t", ONE)])
    assert plain(tmp_path, "t") == []


def test_odd_names(tmp_path: Path) -> None:
    properties = {
        'a "b"': "integer",
        "select": "string",
        "Name": "string",
        "name": "string",
        "ü.x": "boolean",
        "$ref": "integer",
    }
    values = {'a "b"': 1, "select": "s", "Name": "N", "name": "n", "ü.x": True, "$ref": 2}
    for _ in range(2):
        load(tmp_path, [schema('public-"odd" 😀', properties, ['a "b"', "name"]), record('public-"odd" 😀', values)])
    (row,) = query(tmp_path, 'SELECT * FROM "public-""odd"" 😀"')
    assert row == (1, "s", "N", "n", True, 2)


def test_names_that_the_target_uses_itself(tmp_path: Path) -> None:
    properties = {"id": "integer", "": "string", "streamline_row": "integer", "streamline_has_0": "string"}
    for stream in ("streamline_batch", "streamline_merged"):
        for v in ("a", "b"):
            rows_ = [{"id": 1, "": v, "streamline_row": 7, "streamline_has_0": v}, {"id": 2, "streamline_row": 8}]
            load(tmp_path, [schema(stream, properties, ["id"]), *(record(stream, row) for row in rows_)])
        assert plain(tmp_path, stream) == [(1, "b", 7, "b"), (2, None, 8, None)]


def test_a_property_keeps_its_column_when_the_one_that_differs_by_case_goes(tmp_path: Path) -> None:
    load(tmp_path, [schema("t", {"Name": "string", "name": "integer"}), record("t", {"Name": "a", "name": 1})])
    load(tmp_path, [schema("t", {"name": "integer"}), record("t", {"name": 2})])
    assert plain(tmp_path, "t", "2") == [("a", 1), (None, 2)]


def test_a_column_with_a_zone_takes_moments_in_utc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        connection.execute('CREATE TABLE t("at" TIMESTAMPTZ)')
    load(tmp_path, [schema("t", {"at": MOMENT}), record("t", {"at": "2026-01-31T10:00:00Z"})])
    assert query(tmp_path, 'SELECT epoch("at") FROM t') == [(1769853600.0,)]


def test_two_streams_cannot_share_a_table(tmp_path: Path) -> None:
    outcome = attempt(tmp_path, [schema("Users", ONE), schema("users", ONE)])
    assert outcome.code == 1
    assert "streams 'Users' and 'users' have one table" in outcome.errors[0]


def test_many_streams_interleaved(tmp_path: Path) -> None:
    messages = [schema(f"t{number}", ONE, ["id"]) for number in range(5)]
    messages += [record(f"t{n % 5}", {"id": n, "name": str(n)}) for n in range(1000)]
    load(tmp_path, messages, batch_rows=90)
    for number in range(5):
        assert plain(tmp_path, f"t{number}") == [(n, str(n)) for n in range(number, 1000, 5)]


# Types ----------------------------------------------------------------------------------------------------------------


def test_values_of_all_types(tmp_path: Path) -> None:
    properties = {
        "i": "integer",
        "n": "number",
        "b": "boolean",
        "s": "string",
        "day": {"type": ["null", "string"], "format": "date"},
        "at": {"type": ["null", "string"], "format": "date-time"},
        "t": {"type": "string", "format": "time"},
        "price": {"type": "number", "multipleOf": 0.01},
        "exact": {"type": ["null", "string"], "format": "singer.decimal"},
        "raw": {"type": "string", "contentEncoding": "base64"},
        "o": "object",
        "l": {"type": ["array", "null"], "items": {"type": "integer"}},
        "mixed": {"type": ["integer", "string"]},
        "any": {},
        "maybe": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
    }
    given = (
        b'{"type":"RECORD","stream":"t","record":{"i":9223372036854775807,"n":1.5,"b":true,"s":"x","day":"2026-01-31",'
        b'"at":"2026-01-31T10:00:00.5+02:00","t":"10:11:12.5","price":19.99,"exact":"0.123456789","raw":"AP8=",'
        b'"o":{"k":[1.10,12345678901234567890123]},"l":[1],"mixed":7,"any":"text","maybe":"2026-01-31 10:00"}}\n'
    )
    load(tmp_path, lines([schema("t", properties)]) + given)
    (row,) = plain(tmp_path, "t")
    assert row[:6] == (2**63 - 1, 1.5, True, "x", date(2026, 1, 31), datetime(2026, 1, 31, 8, 0, 0, 500000))
    assert str(row[6]) == "10:11:12.500000"
    assert row[7:10] == (Decimal("19.99"), Decimal("0.123456789"), b"\x00\xff")
    assert json.loads(row[10]) == {"k": [1.1, 12345678901234567890123]}
    assert row[11:] == ("[1]", "7", '"text"', datetime(2026, 1, 31, 10))
    assert types(tmp_path, "t") == {
        "i": "BIGINT",
        "n": "DOUBLE",
        "b": "BOOLEAN",
        "s": "VARCHAR",
        "day": "DATE",
        "at": "TIMESTAMP",
        "t": "TIME",
        "price": "DECIMAL(38,2)",
        "exact": "DECIMAL(38,9)",
        "raw": "BLOB",
        "o": "JSON",
        "l": "JSON",
        "mixed": "VARCHAR",
        "any": "JSON",
        "maybe": "TIMESTAMP",
    }


@pytest.mark.parametrize(
    ("property_", "values", "type_", "expected"),
    [
        ("integer", ["1", "123456789012345678901234567890"], "HUGEINT", [1, 123456789012345678901234567890]),
        ("integer", ["1", "1" + "0" * 60], "VARCHAR", ["1", "1" + "0" * 60]),
        ("integer", ["1.0", "2"], "BIGINT", [1, 2]),
        ("number", ["1.5", "9007199254740993"], "DECIMAL(38,1)", [Decimal("1.5"), Decimal(9007199254740993)]),
        ("number", ["1", "0.12345678901234567890123"], "DECIMAL(38,23)", [1, Decimal("0.12345678901234567890123")]),
        (
            "number",
            ["0.1", "1e300", "12345678901234567890123"],
            "VARCHAR",
            ["0.1", "1e+300", "12345678901234567890123"],
        ),
        ("number", ["1.1099999999999999", "2"], "DOUBLE", [1.1099999999999999, 2.0]),
        (
            {"type": "number", "multipleOf": 0.01},
            ["0.05", "0.125"],
            "DECIMAL(38,3)",
            [Decimal("0.05"), Decimal("0.125")],
        ),
        (
            {"type": "string", "format": "date"},
            ['"2026-01-31"', '"0000-00-00"'],
            "VARCHAR",
            ["2026-01-31", "0000-00-00"],
        ),
        (
            {"type": "string", "format": "date"},
            ['"2026-01-31"', '"2026-01-31T10:00:00Z"'],
            "TIMESTAMP",
            [datetime(2026, 1, 31), datetime(2026, 1, 31, 10)],
        ),
        (
            {"type": "string", "format": "date-time"},
            ['"2026-01-31T10:00:00Z"', '"2026-01-31T10:00:00.123456789Z"'],
            "VARCHAR",
            ["2026-01-31 10:00:00", "2026-01-31T10:00:00.123456789Z"],
        ),
        ({"type": "string", "contentEncoding": "base64"}, ['"AP8="', '"?"'], "VARCHAR", ["AP8=", "?"]),
        ("string", ['"x"', "1", "0.10000000000000000000001", '{"a": 1}', "true"], "VARCHAR", None),
    ],
)
def test_a_value_that_its_column_cannot_hold_widens_it(
    tmp_path: Path, property_: Any, values: list[str], type_: str, expected: list[Any] | None
) -> None:
    """Each value comes in a run of its own, so that the table has to change under rows that are there."""
    head = lines([schema("t", {"n": "integer", "v": property_})])
    for number, value in enumerate(values):
        load(tmp_path, head + f'{{"type":"RECORD","stream":"t","record":{{"n":{number},"v":{value}}}}}\n'.encode())
    assert types(tmp_path, "t")["v"] == type_
    found = [row[1] for row in plain(tmp_path, "t")]
    assert found == (expected or ["x", "1", "0.10000000000000000000001", '{"a":1}', "true"])


@pytest.mark.parametrize(("value", "type_"), [(2**53 + 1, "DECIMAL(38,0)"), (2**53 + 2, "DOUBLE")])
def test_an_integer_stays_exact_when_its_column_becomes_a_number(tmp_path: Path, value: int, type_: str) -> None:
    load(tmp_path, [schema("t", {"n": "integer", "v": "integer"}), record("t", {"n": 1, "v": value})])
    load(tmp_path, [schema("t", {"n": "integer", "v": "number"})])
    assert types(tmp_path, "t")["v"] == type_
    load(tmp_path, [schema("t", {"n": "integer", "v": "number"}), record("t", {"n": 2, "v": 1.5})])
    assert plain(tmp_path, "t") == [(1, value), (2, Decimal("1.5"))]


def test_waiting_rows_follow_the_types_of_the_table_that_they_will_replace(tmp_path: Path) -> None:
    integers = {"n": "integer", "v": "integer"}
    load(tmp_path, [schema("t", integers), record("t", {"n": 1, "v": 2**53 + 1}, 1), activate("t", 1)])
    waiting = [schema("t", integers), record("t", {"n": 2, "v": 5}, 2)]
    numbers = schema("t", {**integers, "v": "number"})
    load(tmp_path, [*waiting, numbers, record("t", {"n": 3, "v": 1e300}, 2), activate("t", 2)])
    assert [(n, float(v)) for n, v in rows(tmp_path, "t")] == [(2, 5.0), (3, 1e300)]


MOMENT: JSONObject = {"type": "string", "format": "date-time"}


@pytest.mark.parametrize(
    ("before", "after", "old", "new", "other"),
    [
        ("number", "string", ["5", "2.5"], ['"5"', '"2.50"'], '"five"'),
        ("number", "number", ["5", "1e16"], ["5", "10000000000000000"], "12345678901234567890123456789012345678901.5"),
        ("integer", ["string", "object"], ["5", "6"], ["5", '"6"'], '{"a": 1}'),
        (MOMENT, "string", ['"2026-01-31T10:00:00Z"'], ['"2026-01-31T10:00:00Z"'], '"never"'),
        (MOMENT, MOMENT, ['"2026-01-31T10:00:00Z"'], ['"2026-01-31T10:00:00Z"'], '"2026-01-31T10:00:00.1234567Z"'),
        ({"type": "string", "format": "date"}, "string", ['"2026-01-31"'], ['"2026-01-31"'], '"0000-00-00"'),
        ({"type": "string", "format": "time"}, "string", ['"10:00:00Z"'], ['"10:00:00Z"'], '"10:00:00.1234567"'),
    ],
)
def test_a_key_that_became_text_meets_its_rows(
    tmp_path: Path, before: Any, after: Any, old: list[str], new: list[str], other: str
) -> None:
    def messages(property_: Any, keys: list[str], v: int) -> bytes:
        property_ = {"type": property_} if isinstance(property_, list) else property_
        rows = [f'{{"type":"RECORD","stream":"t","record":{{"k":{key},"v":{v}}}}}\n' for key in keys]
        return lines([schema("t", {"k": property_, "v": "integer"}, ["k"])]) + "".join(rows).encode()

    load(tmp_path, messages(before, old, 1))
    load(tmp_path, messages(after, [other, *new], 2))
    load(tmp_path, messages(after, [*new, other], 3))
    assert query(tmp_path, "SELECT count(*), min(v) FROM t") == [(len(old) + 1, 3)]


def test_schema_evolution(tmp_path: Path) -> None:
    load(
        tmp_path,
        [
            schema("t", {"id": "integer", "v": "integer", "flag": "boolean"}, ["id"]),
            record("t", {"id": 1, "v": 7, "flag": True}),
            schema("t", {"id": "integer", "v": "number", "new": "string", "flag": "string"}, ["id"]),
            record("t", {"id": 2, "v": 1.5, "new": "x", "flag": "maybe"}),
        ],
    )
    assert plain(tmp_path, "t") == [(1, 7.0, "true", None), (2, 1.5, "maybe", "x")]
    load(tmp_path, [schema("t", {"id": "integer", "v": "string"}, ["id"]), record("t", {"id": 3, "v": "many"})])
    assert plain(tmp_path, "t") == [(1, "7.0", "true", None), (2, "1.5", "maybe", "x"), (3, "many", None, None)]
    load(tmp_path, [schema("t", {"id": "integer", "v": "integer"}, ["id"]), record("t", {"id": 4, "v": 8})])
    assert plain(tmp_path, "t")[-1] == (4, "8", None, None)


def test_a_table_that_was_made_by_others_is_loaded(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        connection.execute(
            "CREATE TABLE t(ID INTEGER PRIMARY KEY, name VARCHAR DEFAULT 'd', level FLOAT, note VARCHAR)"
        )
        connection.execute("INSERT INTO t VALUES (1, 'a', 1, 'kept')")
    properties = {"id": "integer", "name": "string", "level": "number"}
    messages = [schema("t", properties, ["id"])]
    messages += [record("t", {"id": n, "name": "b", "level": 2}) for n in (1, 2)]
    for _ in range(2):
        load(tmp_path, messages)
    assert plain(tmp_path, "t") == [(1, "b", 2.0, "kept"), (2, "b", 2.0, None)]
    assert types(tmp_path, "t")["ID"] == "INTEGER"


def test_nan_in_a_number_column(tmp_path: Path) -> None:
    head = lines([schema("t", {"v": "number"})])
    load(tmp_path, head + b'{"type":"RECORD","stream":"t","record":{"v":NaN}}\n')
    assert str(plain(tmp_path, "t")) == "[(nan,)]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": "x"}', "stream 't', record 2, column 'id': 'x' is not a valid integer"),
        ('{"id": 1.5}', "column 'id': 1.5 is not a valid integer"),
        ('{"id": true}', "column 'id': True is not a valid integer"),
        ('{"id": 2, "name": "\\ud800"}', "column 'name': its text has a lone surrogate"),
        ('{"id": 2, "o": {"a": NaN}}', "column 'o': JSON has no NaN or infinity"),
        ('{"id": 2, "day": 5}', "column 'day': 5 is not a valid date"),
        ('{"name": "x"}', "stream 't', record 2: the key 'id' is missing"),
        ("[1]", "record 2 is not an object"),
    ],
)
def test_bad_records_are_named_and_nothing_after_the_last_state_counts(tmp_path: Path, text: str, message: str) -> None:
    properties = {**ONE, "o": "object", "day": {"type": "string", "format": "date"}}
    head = lines([schema("t", properties, ["id"]), record("t", {"id": 1, "name": "good"}), state(1)])
    bad = f'{{"type":"RECORD","stream":"t","record":{text}}}\n'.encode()
    outcome = attempt(tmp_path, head + bad + lines([state(2)]))
    assert outcome.code == 1
    assert len(outcome.errors) == 1
    assert message in outcome.errors[0]
    assert outcome.lines in ([], [1])


def test_columns_that_the_schema_does_not_name_are_dropped_with_a_warning(tmp_path: Path) -> None:
    outcome = load(tmp_path, [schema("t", ONE), *(record("t", {"id": n, "secret": n}) for n in (1, 2))])
    assert plain(tmp_path, "t") == [(1, None), (2, None)]
    assert outcome.warnings == "WARNING stream 't': not in its SCHEMA, and so not loaded: secret"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lines([record("t", {"id": 1})]), "stream 't': a RECORD before its SCHEMA"),
        (lines([activate("t", 1)]), "stream 't': ACTIVATE_VERSION before its SCHEMA"),
        (b"hello\n", "line 1 of the input "),
        (b'\n{"type":"HELLO"}\n', "line 2 of the input is not a message of a known type"),
        (b'{"type":"RECORD","record":{}}\n', "valid RECORD message"),
        (lines([schema("t", {})]), "stream 't': its SCHEMA has no properties"),
        (lines([schema("t", ONE, ["no"])]), "stream 't': the key column 'no' is not in its schema"),
        (lines([schema("t", ONE)])[:-20], "line 1 of the input "),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, given: bytes, message: str) -> None:
    outcome = attempt(tmp_path, given)
    assert outcome.code == 1
    assert len(outcome.errors) == 1
    assert message in outcome.errors[0]
    assert "Traceback" not in outcome.stderr


def test_config_mistakes(tmp_path: Path) -> None:
    outcome = attempt(tmp_path, [], streams={"t": {"table": "x"}})
    assert (outcome.code, len(outcome.errors)) == (2, 1)
    assert re.search("stream 't': .*'table'", outcome.errors[0])
    assert "one of append, upsert, replace" in attempt(tmp_path, [], load_method="merge").errors[0]
    assert "cannot be upserted" in attempt(tmp_path, [schema("t", ONE)], load_method="upsert").errors[0]
    outcome = attempt(tmp_path, [schema("t", ONE)], path="no/such/folder/w.duckdb")
    assert outcome.code == 2
    assert "setting 'path'" in outcome.errors[0]


def test_a_file_in_use_is_waited_for_and_then_named(tmp_path: Path) -> None:
    load(tmp_path, [schema("t", ONE)])
    holder = subprocess.Popen(
        [
            command("target-duckdb")[0],
            "-c",
            "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(flush=True); sys.stdin.read()",
            str(tmp_path / "w.duckdb"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        outcome = attempt(tmp_path, [schema("t", ONE)], lock_timeout=0)
        assert outcome.code == 1
        assert "w.duckdb is in use" in outcome.errors[0]
        assert holder.stdin is not None
        holder.stdin.close()


def test_a_file_that_another_block_of_the_run_has_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMLINE_RUN_ID", "r1")
    code = "import duckdb, sys, time; c = duckdb.connect(sys.argv[1]); print(flush=True); time.sleep(1.5)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "w.duckdb")], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        load(tmp_path, [schema("t", ONE), record("t", {"id": 1, "name": "a"})], lock_timeout=0)
    assert plain(tmp_path, "t") == [(1, "a")]


# Versions -------------------------------------------------------------------------------------------------------------


def full(version: int, ids: Sequence[int], key: Sequence[str] = ("id",), *, active: bool = True) -> list[JSONObject]:
    messages = [schema("t", ONE, key)]
    messages += [record("t", {"id": n, "name": f"v{version}"}, version) for n in ids]
    return messages + ([activate("t", version)] if active else []) + [state(version)]


@pytest.mark.parametrize("key", [("id",), ()])
def test_activating_a_version_replaces_the_table(tmp_path: Path, key: tuple[str, ...]) -> None:
    load(tmp_path, full(1, [1, 2], key))
    load(tmp_path, full(2, [2, 3], key))
    assert rows(tmp_path, "t") == [(2, "v2"), (3, "v2")]
    load(tmp_path, full(3, [], key))
    assert rows(tmp_path, "t") == []
    assert [row[0] for row in query(tmp_path, "SHOW TABLES")] == ["t"]


@pytest.mark.parametrize("key", [("id",), ()])
def test_a_lower_version_replaces_the_table(tmp_path: Path, key: tuple[str, ...]) -> None:
    """A tap makes its versions of the time of day, and a machine's clock may be set back."""
    load(tmp_path, full(9, [1, 2], key))
    load(tmp_path, full(5, [2, 3], key))
    assert rows(tmp_path, "t") == [(2, "v5"), (3, "v5")]
    load(tmp_path, full(4, [], key))
    assert rows(tmp_path, "t") == []
    load(tmp_path, full(3, [4], key, active=False))
    load(tmp_path, full(2, [5], key))
    assert rows(tmp_path, "t") == [(5, "v2")], "rows of a higher version that was never activated are stale"


def test_a_late_activation_keeps_the_rows_of_a_newer_version(tmp_path: Path) -> None:
    load(tmp_path, [*full(2, [1], active=False), activate("t", 1)])
    assert rows(tmp_path, "t") == [(1, "v2")]


def test_readers_see_the_old_table_until_the_new_one_is_whole(tmp_path: Path) -> None:
    load(tmp_path, full(1, [1, 2], ()))
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        connection.execute("CHECKPOINT")
    new = full(2, range(3, 9), (), active=False)
    process = start(tmp_path, {"batch_rows": 2, "flush_seconds": 0})
    process.write(lines(new))
    assert process.stdout.readline() == b"2\n"  # all that was sent is durable
    process.process.kill()
    process.finish()
    assert rows(tmp_path, "t") == [(1, "v1"), (2, "v1")]
    # The same version goes on where it was, another one begins anew.
    load(tmp_path, full(2, [9], ()))
    assert rows(tmp_path, "t") == [(n, "v2") for n in range(3, 10)]


@pytest.mark.parametrize("key", [("id",), ()])
def test_rows_of_a_version_wait_until_it_is_activated(tmp_path: Path, key: tuple[str, ...]) -> None:
    """A tap that failed looks like one that has ended: at the end of the input nothing is replaced."""
    load(tmp_path, full(1, [1, 2, 3], key))
    outcome = load(tmp_path, full(2, [2, 3], key, active=False))
    assert outcome.lines == [2], "they are durable"
    assert "rows of version 2 wait in table 't__version_2'" in outcome.warnings
    assert rows(tmp_path, "t") == [(1, "v1"), (2, "v1"), (3, "v1")]
    load(tmp_path, [schema("t", ONE, key), activate("t", 2)])
    assert rows(tmp_path, "t") == [(2, "v2"), (3, "v2")]
    load(tmp_path, full(3, [7], key, active=False))
    load(tmp_path, full(4, [8], key))
    assert rows(tmp_path, "t") == [(8, "v4")], "a failed run's rows are dropped"


def test_a_version_can_be_shown_beside_the_old_one(tmp_path: Path) -> None:
    load(tmp_path, full(1, [1, 2]))
    load(tmp_path, [*full(2, [2, 3], active=False), {**activate("t", 2), "keep_old": True}])
    assert rows(tmp_path, "t") == [(1, "v1"), (2, "v2"), (3, "v2")]


def test_replace_of_a_stream_with_versions(tmp_path: Path) -> None:
    for version, ids in enumerate(([1, 2], [2, 3], []), 1):
        load(tmp_path, full(version, ids), load_method="replace")
        assert rows(tmp_path, "t") == [(n, f"v{version}") for n in ids]
    load(tmp_path, full(4, [1]))
    load(tmp_path, full(5, [2], active=False), load_method="replace")
    assert rows(tmp_path, "t") == [(1, "v4")]


def test_a_version_that_is_activated_first(tmp_path: Path) -> None:
    load(tmp_path, full(1, [1, 2]))
    load(tmp_path, [schema("t", ONE, ["id"]), activate("t", 2), *full(2, [2, 3], active=False)[1:]])
    assert rows(tmp_path, "t") == [(2, "v2"), (3, "v2")]


def test_rows_without_a_version_are_not_deleted_in_the_run_that_brings_them(tmp_path: Path) -> None:
    load(tmp_path, [schema("t", ONE), record("t", {"id": 1}), activate("t", 5)])
    assert [row[0] for row in plain(tmp_path, "t")] == [1]
    load(tmp_path, full(6, [2]))
    assert rows(tmp_path, "t") == [(2, "v6")]


def test_tables_that_somebody_else_made_stay(tmp_path: Path) -> None:
    load(tmp_path, full(1, [1], ()))
    others = ("t__version_0", "t__version_2", "t__replacing")
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        for name in others:
            connection.execute(f"CREATE TABLE {name} AS SELECT 42 AS id")
    load(tmp_path, full(2, [2], ()))
    assert rows(tmp_path, "t") == [(2, "v2")]
    load(tmp_path, [schema("t", ONE), record("t", {"id": 3})], load_method="replace")
    assert [row[0] for row in plain(tmp_path, "t")] == [3]
    assert [plain(tmp_path, name) for name in others] == [[(42,)]] * 3
    assert {row[0] for row in query(tmp_path, "SHOW TABLES")} == {"t", *others}


def test_replace(tmp_path: Path) -> None:
    first = [schema("t", ONE), record("t", {"id": 1}), schema("u", ONE), record("u", {"id": 1})]
    load(tmp_path, first, load_method="replace")
    second = [state(0), schema("t", ONE), record("t", {"id": 2}), state(1), record("t", {"id": 3}), state(2)]
    outcome = load(tmp_path, second, load_method="replace", batch_rows=1, flush_seconds=0)
    assert outcome.lines == [0, 2]  # nothing but the whole is durable
    assert [row[0] for row in plain(tmp_path, "t")] == [2, 3]
    assert [row[0] for row in plain(tmp_path, "u")] == [1]
    failed = attempt(
        tmp_path, [*second, record("t", {"id": "x"})], load_method="replace", batch_rows=1, flush_seconds=0
    )
    assert failed.code == 1
    assert [row[0] for row in plain(tmp_path, "t")] == [2, 3]
    load(tmp_path, [schema("t", ONE)], load_method="replace")
    assert plain(tmp_path, "t") == []
    assert [row[0] for row in query(tmp_path, "SHOW TABLES")] == ["t", "u"]


# Proof ----------------------------------------------------------------------------------------------------------------


def start(folder: Path, settings: JSONObject) -> Piped:
    config = written(folder, "start.json", {"path": "w.duckdb", **settings})
    return Piped(command("target-duckdb", "--config", config), cwd=folder, env=clean_environment())


def test_states_are_echoed_in_order_once_and_in_their_own_bytes(tmp_path: Path) -> None:
    odd = b'{"b" : 12345678901234567890123, "a":1.10, "s": "\\u00e4"}'
    given = lines([schema("t", ONE), record("t", {"id": 1})]) + b'{"type":"STATE","value":' + odd + b"}\n"
    assert load(tmp_path, given).stdout == odd + b"\n"
    messages = [state(-1), schema("t", ONE)]
    for number in range(500):
        messages += [record("t", {"id": number}), state(number)]
    found = load(tmp_path, messages, batch_rows=100).lines
    assert found[0] == -1
    assert found[-1] == 499
    assert found == sorted(set(found))


def test_a_state_is_echoed_while_the_input_rests(tmp_path: Path) -> None:
    process = start(tmp_path, {"flush_seconds": 0.1})
    process.write(lines([schema("t", ONE), record("t", {"id": 1}), state("here")]))
    assert process.stdout.readline() == b'"here"\n'
    process.write(lines([state("idle")]))
    assert process.stdout.readline() == b'"idle"\n'
    assert process.finish()[0] == 0


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_what_was_echoed_survives_a_kill(tmp_path: Path, kill: signal.Signals) -> None:
    """Killed after each echo in turn; what comes after the echo is sent again, and the table is as if never killed."""
    total = 60
    proven = 0
    kills = 0
    while proven < total:
        process = start(tmp_path, {"batch_rows": 7, "flush_seconds": 0})
        messages = [schema("t", ONE, ["id"])]
        for number in range(proven, total):
            messages += [record("t", {"id": number, "name": str(number)}), state(number + 1)]
        process.write(lines(messages[:30]))
        proven = int(process.stdout.readline())
        process.process.send_signal(kill)
        code, echoed = process.finish()
        assert code == -kill
        proven = max([proven, *map(int, echoed.split())])
        found = [row[0] for row in plain(tmp_path, "t")]
        assert found[:proven] == list(range(proven))
        kills += 1
    assert kills > 2
    assert plain(tmp_path, "t") == [(n, str(n)) for n in range(total)]


def test_input_that_ends_within_a_line_proves_what_came_before(tmp_path: Path) -> None:
    outcome = attempt(tmp_path, lines([schema("t", ONE), record("t", {"id": 1}), state(1)]) + b'{"type":"REC')
    assert outcome.code == 1
    assert outcome.lines == [1]
    assert plain(tmp_path, "t") == [(1, None)]


@pytest.mark.parametrize(("configured", "limit"), [(None, "2.0 GiB"), ("512MiB", "512.0 MiB"), ("3GiB", "3.0 GiB")])
def test_memory_has_a_limit(tmp_path: Path, configured: str | None, limit: str) -> None:
    config = {"path": str(tmp_path / "w.duckdb"), "memory_limit": configured, "threads": None, "lock_timeout": 0}
    with connect(config) as connection:
        assert connection.execute("SELECT current_setting('memory_limit')").fetchall() == [(limit,)]


def test_no_progress_bar_is_printed_among_the_states(tmp_path: Path) -> None:
    config = {"path": str(tmp_path / "w.duckdb"), "memory_limit": None, "threads": None, "lock_timeout": 0}
    with connect(config) as connection:
        assert connection.execute("SELECT current_setting('enable_progress_bar')").fetchall() == [(False,)]


def test_a_record_of_many_megabytes(tmp_path: Path) -> None:
    load(tmp_path, [schema("t", ONE), record("t", {"id": 1, "name": "x" * 50_000_000}), record("t", {"id": 2})])
    assert query(tmp_path, "SELECT id, length(name) FROM t ORDER BY 1") == [(1, 50_000_000), (2, None)]


def test_many_batches_lose_no_row(tmp_path: Path) -> None:
    messages = [schema("t", ONE), *(record("t", {"id": n, "name": "x"}) for n in range(60_000)), state(1)]
    load(tmp_path, messages, batch_rows=7_000)
    assert query(tmp_path, "SELECT count(*), count(DISTINCT id), min(id), max(id) FROM t") == [
        (60_000, 60_000, 0, 59_999)
    ]


def test_a_row_that_comes_again_without_its_mark_is_no_longer_deleted(tmp_path: Path) -> None:
    marked: JSONObject = {"id": "integer", "name": "string", "_sdc_deleted_at": {"type": ["null", "string"]}}
    deleted = [record("t", {"id": n, "_sdc_deleted_at": "2026-01-01"}) for n in (1, 2, 3)]
    load(tmp_path, [schema("t", marked, ["id"]), *deleted, record("t", {"id": 3, "name": "c"})])
    load(tmp_path, [schema("t", marked, ["id"]), record("t", {"id": 1, "name": "a"})])
    load(tmp_path, [schema("t", ONE, ["id"]), record("t", {"id": 2, "name": "b"})])
    assert plain(tmp_path, "t") == [(1, "a", None), (2, "b", None), (3, "c", None)]


def test_a_time_keeps_its_seventh_digit(tmp_path: Path) -> None:
    for value in ("10:00:00.1234560", "10:00:00.1234567"):
        load(tmp_path, [schema("t", {"at": {"type": "string", "format": "time"}}), record("t", {"at": value})])
    assert plain(tmp_path, "t") == [("10:00:00.123456",), ("10:00:00.1234567",)]
