"""tap-sqlite, run as a user runs it."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taps.common.incremental import Bookmark, Tracker
from taps.sqlite.types import convert, kind_of, schema
from tests.support.connectors import JSONObject, Outcome, choose, run, written


def database(folder: Path, *statements: str) -> Path:
    path = folder / "shop.db"
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return path


def discover(folder: Path, **settings: Any) -> JSONObject:
    outcome = run("tap-sqlite", folder, {"path": "shop.db", **settings}, "--discover")
    assert outcome.code == 0, outcome.stderr
    found: JSONObject = json.loads(outcome.stdout)
    return found


def sync(folder: Path, catalog: JSONObject | None = None, state: Any = None, **settings: Any) -> Outcome:
    arguments: list[object] = []
    if catalog is not None:
        arguments += ["--catalog", written(folder, "catalog.json", catalog)]
    if state is not None:
        arguments += ["--state", written(folder, "state.json", state)]
    outcome = run("tap-sqlite", folder, {"path": "shop.db", **settings}, *arguments)
    assert outcome.code == 0, outcome.stderr
    return outcome


def properties(catalog: JSONObject, stream: str) -> JSONObject:
    (entry,) = (entry for entry in catalog["streams"] if entry["tap_stream_id"] == stream)
    found: JSONObject = entry["schema"]["properties"]
    return found


# Discovery ------------------------------------------------------------------------------------------------------------


def test_discovery_lists_tables_views_and_keys(tmp_path: Path) -> None:
    database(
        tmp_path,
        "CREATE TABLE orders(id INTEGER PRIMARY KEY, total DECIMAL(10,2) NOT NULL)",
        "CREATE TABLE lines(item TEXT, order_id INT, PRIMARY KEY(order_id, item)) WITHOUT ROWID",
        "CREATE VIEW big AS SELECT id, total FROM orders WHERE total > 100",
        'CREATE TABLE "odd ""name"" 😀"("a b" TEXT, "select" INT, "" REAL)',
    )
    catalog = discover(tmp_path)
    keys = {entry["stream"]: entry["key_properties"] for entry in catalog["streams"]}
    assert keys == {"orders": ["id"], "lines": ["order_id", "item"], "big": [], 'odd "name" 😀': []}
    views = {entry["stream"] for entry in catalog["streams"] if entry["metadata"][0]["metadata"]["is-view"]}
    assert views == {"big"}
    assert properties(catalog, "orders") == {"id": {"type": ["integer"]}, "total": {"type": ["number"]}}
    assert list(properties(catalog, 'odd "name" 😀')) == ["a b", "select", ""]
    assert {entry["stream"] for entry in discover(tmp_path, tables=["o*"])["streams"]} == {"orders", 'odd "name" 😀'}


def test_odd_names_are_read(tmp_path: Path) -> None:
    database(tmp_path, 'CREATE TABLE "a ""b"" \'c\'"("x ""y""" INT)', 'INSERT INTO "a ""b"" \'c\'" VALUES (1)')
    assert sync(tmp_path).records("a \"b\" 'c'") == [{'x "y"': 1}]


@pytest.mark.parametrize(
    ("declared", "kind"),
    [
        ("INTEGER", "integer"),
        ("unsigned big int", "integer"),
        ("VARCHAR(20)", "string"),
        ("double precision", "number"),
        ("DECIMAL(10,2)", "decimal"),
        ("NUMERIC", "decimal"),
        ("boolean", "boolean"),
        ("DATE", "date"),
        ("DATETIME", "date-time"),
        ("TIMESTAMP WITH TIME ZONE", "date-time"),
        ("TIME", "string"),
        ("BLOB", "blob"),
        ("uuid", "string"),
        ("", None),
        ("STRING", None),
    ],
)
def test_declared_types(declared: str, kind: str | None) -> None:
    assert kind_of(declared) == kind


def test_values_of_all_kinds(tmp_path: Path) -> None:
    database(
        tmp_path,
        "CREATE TABLE t(i INT, d DECIMAL(9,2), b BOOLEAN, day DATE, at DATETIME, raw BLOB, free, epoch TIMESTAMP)",
        "INSERT INTO t VALUES (9223372036854775807, 12.34, 1, '2026-01-31', '2026-01-31 10:00:00', x'00ff', 'x', 17)",
        "INSERT INTO t VALUES (NULL, NULL, 0, '2026-01-31 00:00:00', '2026-01-31T10:00:00.5+0200', NULL, NULL, NULL)",
    )
    found = properties(discover(tmp_path), "t")
    assert found["day"] == {"type": ["null", "string"], "format": "date"}
    assert found["at"] == {"type": ["null", "string"], "format": "date-time"}
    assert found["raw"]["contentEncoding"] == "base64"
    assert found["free"] == {"type": ["null", "string"]}
    # A number in a column declared as a moment has a unit that nobody noted.
    assert found["epoch"] == {"type": ["null", "integer"]}
    assert sync(tmp_path).records() == [
        {
            "i": 9223372036854775807,
            "d": 12.34,
            "b": True,
            "day": "2026-01-31",
            "at": "2026-01-31T10:00:00Z",
            "raw": "AP8=",
            "free": "x",
            "epoch": 17,
        },
        {
            "i": None,
            "d": None,
            "b": False,
            "day": "2026-01-31",
            "at": "2026-01-31T10:00:00.5+02:00",
            "raw": None,
            "free": None,
            "epoch": None,
        },
    ]


def test_a_value_that_breaks_its_declaration_widens_the_schema_first(tmp_path: Path) -> None:
    database(tmp_path, "CREATE TABLE t(n INT NOT NULL)", "INSERT INTO t VALUES (1), ('many'), (1.5), (9e999)")
    outcome = sync(tmp_path, state_interval=1)
    schemas = [line["schema"]["properties"]["n"]["type"] for line in outcome.lines if line["type"] == "SCHEMA"]
    assert schemas[0] == ["integer"]
    assert set(schemas[-1]) == {"number", "string"}
    assert outcome.records() == [{"n": 1}, {"n": "many"}, {"n": 1.5}, {"n": "Infinity"}]
    assert outcome.kinds()[:2] == ["SCHEMA", "RECORD"]
    assert "column 'n' holds a string" in outcome.warnings


def test_values_arrive_as_they_are_stored(tmp_path: Path) -> None:
    stored = {
        "DATE": ["2026-01-31", "2026-02-30", "0000-00-00", "", "12026-01-01"],
        "DATETIME": ["2026-02-30T10:00:00Z", "2026-01-31T10:00:00.1234567Z", "2016-12-31T23:59:60Z", "never", ""],
        "TIME": ["10:00:00.123456789", "24:00:00", ""],
        "TEXT": ["", "NULL", "1E5", "1.10", "a\0b", "\u2028"],
        "INTEGER": [2**63 - 1, -(2**63), 1.5, "7x", ""],
        "REAL": [-0.0, 5e-324, 1e308, "1e400x"],
        "DECIMAL(38,2)": ["1e-400", 1.5, "n/a", ""],
        "BOOLEAN": [0, 1, 2, "true", ""],
        "": [1, 1.0, "1", "", None],
    }
    database(tmp_path, *(f"CREATE TABLE t{n}(id INTEGER PRIMARY KEY, v {kind})" for n, kind in enumerate(stored)))
    with closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
        for number, values in enumerate(stored.values()):
            connection.executemany(f"INSERT INTO t{number}(v) VALUES (?)", [(value,) for value in values])
        connection.execute("INSERT INTO t3(v) VALUES (x'00ff')")
        connection.commit()
    catalog = discover(tmp_path)
    days, moments = (properties(catalog, stream)["v"] for stream in ("t0", "t1"))
    assert "format" not in days
    assert "format" not in moments
    outcome = sync(tmp_path)
    sent = {kind: [row["v"] for row in outcome.records(f"t{number}")] for number, kind in enumerate(stored)}
    assert sent.pop("BOOLEAN") == [False, True, 2, "true", ""]
    assert sent.pop("DECIMAL(38,2)") == [0.0, 1.5, "n/a", ""]
    assert sent["TEXT"].pop() == "AP8="
    assert sent == {kind: values for kind, values in stored.items() if kind in sent}
    assert "column 'v' holds bytes, which are sent in base64" in outcome.stderr


def test_texts_that_are_no_utf8_are_read_and_counted(tmp_path: Path) -> None:
    database(tmp_path, "CREATE TABLE t(a TEXT)", "INSERT INTO t VALUES (CAST(x'61ff62' AS TEXT))")
    outcome = sync(tmp_path)
    assert outcome.records() == [{"a": "a\ufffdb"}]
    assert "1 bytes of text are not valid UTF-8" in outcome.warnings


_STORED = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text(), st.binary())
_KINDS = ["integer", "number", "decimal", "boolean", "string", "blob", "date", "date-time", "any"]


@settings(deadline=None)
@given(st.sampled_from(_KINDS), st.lists(_STORED, min_size=1, max_size=5))
def test_any_stored_value_fits_the_widened_schema(kind: Any, column: list[Any]) -> None:
    import orjson

    converted = convert(kind, column)
    allowed = {*schema(kind, nullable=False)["type"], *converted.extra}
    for stored, value in zip(column, json.loads(orjson.dumps(list(converted.values))), strict=True):
        name = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}[type(value)]
        assert name in allowed or (name == "integer" and "number" in allowed)
        assert (value is None) == (stored is None)


# FULL_TABLE -----------------------------------------------------------------------------------------------------------


def test_full_table_sends_versions_and_activates_at_the_end(tmp_path: Path) -> None:
    database(tmp_path, "CREATE TABLE t(id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
    first = sync(tmp_path)
    assert first.kinds() == ["SCHEMA", "RECORD", "ACTIVATE_VERSION", "STATE"]
    versions = {line["version"] for line in first.lines if "version" in line}
    assert versions == {first.state["bookmarks"]["t"]["version"]}
    future = {"bookmarks": {"t": {"version": 99_999_999_999_999}, "gone": {"id": 1}}, "other": 1}
    second = sync(tmp_path, state=future)
    assert second.state == {"bookmarks": {"t": {"version": 100_000_000_000_000}, "gone": {"id": 1}}, "other": 1}


def test_selection_in_all_spellings(tmp_path: Path) -> None:
    database(tmp_path, "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)", "INSERT INTO t VALUES (1, 2, 3)")

    def keys(entry: JSONObject) -> list[str] | None:
        found = sync(tmp_path, {"streams": [entry]}).records()
        return list(found[0]) if found else None

    types = {"id": {"type": "integer"}, "a": {"type": "integer"}, "b": {"type": "integer"}}
    plain = {"tap_stream_id": "t", "stream": "t", "schema": {"properties": types}}
    root = {"breadcrumb": [], "metadata": {"table-key-properties": ["id"]}}

    def marked(**marks: Any) -> JSONObject:
        columns = [{"breadcrumb": ["properties", name], "metadata": found} for name, found in marks.items()]
        return {**plain, "metadata": [root, *columns]}

    assert keys(plain) == ["id", "a", "b"]
    assert keys(marked(a={"selected": False}, id={"selected": False})) == ["id", "b"]
    assert keys(marked(a={"selected-by-default": False})) == ["id", "b"]
    assert keys(marked(a={"inclusion": "unsupported", "selected": True})) == ["id", "b"]
    assert keys(marked(a={"inclusion": "automatic", "selected": False})) == ["id", "a", "b"]
    assert keys({**plain, "metadata": [{"breadcrumb": [], "metadata": {"selected": False}}]}) is None
    assert keys({**plain, "metadata": [{"breadcrumb": [], "metadata": {"selected-by-default": False}}]}) is None
    assert keys({**plain, "schema": {"properties": types, "selected": False}}) is None
    assert keys({**plain, "schema": {"properties": {**types, "a": {"type": "integer", "selected": False}}}}) == [
        "id",
        "b",
    ]


def test_legacy_properties_option(tmp_path: Path) -> None:
    database(tmp_path, "CREATE TABLE t(id INT)", "INSERT INTO t VALUES (1)")
    path = written(tmp_path, "properties.json", choose(discover(tmp_path), t=None))
    assert run("tap-sqlite", tmp_path, {"path": "shop.db"}, "--properties", path).records() == [{"id": 1}]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"replication_method": "LOG_BASED"}, "replication method LOG_BASED"),
        ({"replication_method": "INCREMENTAL", "replication_key": "no"}, "has no column 'no'"),
        ({"replication_method": "INCREMENTAL"}, "has no replication key"),
        ({"tap_stream_id": "gone"}, "no table or view 'gone'"),
    ],
)
def test_what_a_catalog_cannot_ask(tmp_path: Path, entry: JSONObject, message: str) -> None:
    database(tmp_path, "CREATE TABLE t(id INT)")
    schema = {"properties": {"id": {"type": "integer"}}}
    catalog = {"streams": [{"tap_stream_id": "t", "stream": "t", "schema": schema, **entry}]}
    outcome = run("tap-sqlite", tmp_path, {"path": "shop.db"}, "--catalog", written(tmp_path, "c.json", catalog))
    assert outcome.code in (1, 2)
    assert len(outcome.errors) == 1
    assert message in outcome.errors[0]


def test_no_file_no_database(tmp_path: Path) -> None:
    outcome = run("tap-sqlite", tmp_path, {"path": "nothing.db"}, "--discover")
    assert (outcome.code, len(outcome.errors)) == (2, 1)
    assert f"database file {tmp_path / 'nothing.db'} not found" in outcome.stderr
    (tmp_path / "text.db").write_text("no database at all, but long enough to be taken for one" * 20)
    outcome = run("tap-sqlite", tmp_path, {"path": "text.db"}, "--discover")
    assert outcome.code == 1
    assert "file is not a database" in outcome.stderr


def test_a_database_in_wal_mode_is_read_while_it_is_written(tmp_path: Path) -> None:
    path = database(tmp_path, "PRAGMA journal_mode=WAL", "CREATE TABLE t(id INT)", "INSERT INTO t VALUES (1)")
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO t VALUES (2)")
        assert sync(tmp_path).records() == [{"id": 1}]
        writer.commit()
        assert sync(tmp_path).records() == [{"id": 1}, {"id": 2}]


def test_a_broken_view_fails_alone_unless_it_is_deselected(tmp_path: Path) -> None:
    database(tmp_path, "CREATE TABLE t(id INT)", "INSERT INTO t VALUES (1)", "CREATE VIEW broken AS SELECT * FROM x")
    catalog = discover(tmp_path)
    assert "no such table: main.x" in catalog["streams"][0]["metadata"][0]["metadata"]["discovery-error"]
    path = written(tmp_path, "c.json", catalog)
    outcome = run("tap-sqlite", tmp_path, {"path": "shop.db"}, "--catalog", path)
    assert (outcome.code, outcome.records()) == (1, [{"id": 1}])
    assert "stream 'broken': no such table" in outcome.errors[0]
    assert sync(tmp_path, choose(catalog, t=None)).records() == [{"id": 1}]


# INCREMENTAL ----------------------------------------------------------------------------------------------------------


def test_ties_and_nulls_nothing_lost_and_nothing_twice(tmp_path: Path) -> None:
    rows = ", ".join(f"({n}, 'row {n}', {'NULL' if n % 5 == 0 else repr(f'2026-01-0{1 + n // 7}')})" for n in range(25))
    path = database(
        tmp_path, "CREATE TABLE t(id INTEGER PRIMARY KEY, note TEXT, at DATE)", f"INSERT INTO t VALUES {rows}"
    )
    catalog = choose(discover(tmp_path), t=["at"])
    first = sync(tmp_path, catalog)
    assert sorted(row["id"] for row in first.records()) == list(range(25))
    assert first.warnings == ""

    second = sync(tmp_path, catalog, first.state)
    assert second.records() == []
    assert "5 rows have NULL in at; only a full sync reads them" in second.warnings

    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO t VALUES (25, 'late', '2026-01-04'), (26, 'without', NULL)")
        connection.commit()
    third = sync(tmp_path, catalog, second.state)
    assert third.records() == [{"id": 25, "note": "late", "at": "2026-01-04"}]
    assert "6 rows have NULL in at" in third.warnings

    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE t SET note = 'changed' WHERE id = 24")
        connection.commit()
    fourth = sync(tmp_path, catalog, third.state)
    assert fourth.records() == [{"id": 24, "note": "changed", "at": "2026-01-04"}]
    assert sync(tmp_path, catalog, fourth.state).records() == []


def test_several_bookmark_columns(tmp_path: Path) -> None:
    path = database(
        tmp_path, "CREATE TABLE t(day TEXT, n INT, x TEXT)", "INSERT INTO t VALUES ('a', 1, 'p'), ('a', 2, 'q')"
    )
    catalog = choose(discover(tmp_path), t=["day", "n"])
    first = sync(tmp_path, catalog)
    assert first.state["bookmarks"]["t"].items() >= {"day": "a", "n": 2}.items()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO t VALUES ('a', 1, 'before'), ('a', 3, 'r'), ('b', 0, 's'), ('b', NULL, 'null')")
        connection.commit()
    second = sync(tmp_path, catalog, first.state)
    assert [row["x"] for row in second.records()] == ["r", "s"]
    assert re.search("1 rows .* day, n", second.warnings)


def test_equal_rows_are_counted(tmp_path: Path) -> None:
    """Two rows that are the same in all columns are two rows; a third one is new."""
    path = database(tmp_path, "CREATE TABLE t(at INT)", "INSERT INTO t VALUES (1), (1)")
    catalog = choose(discover(tmp_path), t=["at"])
    first = sync(tmp_path, catalog)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO t VALUES (1)")
        connection.commit()
    assert sync(tmp_path, catalog, first.state).records() == [{"at": 1}]


def test_resuming_from_any_state_loses_nothing(tmp_path: Path) -> None:
    rows = ", ".join(f"({n}, {n // 7 if n % 11 else 'NULL'})" for n in range(200))
    database(tmp_path, "CREATE TABLE t(id INTEGER PRIMARY KEY, at INT)", f"INSERT INTO t VALUES {rows}")
    catalog = choose(discover(tmp_path), t=["at"])
    whole = sync(tmp_path, catalog, state_interval=9)
    before: list[int] = []
    resumed = 0
    for line in whole.lines:
        if line["type"] == "RECORD":
            before.append(line["record"]["id"])
        elif line["type"] == "STATE":
            after = [row["id"] for row in sync(tmp_path, catalog, line["value"]).records()]
            assert sorted(before + after) == list(range(200))
            resumed += 1
    assert resumed > 20


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=12), st.data())
def test_bookmarks_taken_anywhere_split_the_rows_in_two(rows: list[tuple[int, int]], data: st.DataObject) -> None:
    """The rules of the tracker alone: what was sent before a bookmark, and what is new after it, is everything."""
    rows.sort()
    cut = data.draw(st.integers(0, len(rows)))
    tracker = Tracker(Bookmark(["at"], {}))
    for row in rows[:cut]:
        tracker.at((row[0],), [repr(row).encode()])
    second = Tracker(Bookmark(["at"], tracker.bookmark() or {}))
    arrived = [*rows, *data.draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=3))]
    start = second.start
    sent = [
        row
        for row in arrived
        if not start or row[0] > start[0] or (row[0] == start[0] and second.is_new(repr(row).encode()))
    ]
    expected = arrived.copy()
    for row in rows[:cut]:
        expected.remove(row)
    assert sorted(sent) == sorted(row for row in expected if not start or row[0] >= start[0])


@pytest.mark.parametrize(
    "bookmark",
    [
        {"at": "2026-01-02T12:00:00Z"},
        {"at": "2026-01-02T14:00:00+02:00"},
        {"at": "2026-01-02 12:00"},
        {"replication_key": "at", "replication_key_value": "2026-01-02T12:00:00+00:00"},
    ],
)
def test_a_bookmark_set_by_hand_may_be_written_as_people_write_moments(tmp_path: Path, bookmark: JSONObject) -> None:
    database(
        tmp_path,
        "CREATE TABLE t(id INT, at DATETIME)",
        "INSERT INTO t VALUES (1, '2026-01-02 11:59:59'), (2, '2026-01-02 12:00:00'), (3, '2026-01-02 23:00:00.5')",
    )
    catalog = choose(discover(tmp_path), t=["at"])
    assert [row["id"] for row in sync(tmp_path, catalog, {"bookmarks": {"t": bookmark}}).records()] == [2, 3]


def test_a_bookmark_of_which_one_column_was_changed_reads_from_that_column_on(tmp_path: Path) -> None:
    database(tmp_path, "CREATE TABLE t(day TEXT, n INT)", "INSERT INTO t VALUES ('a', 1), ('b', 2), ('c', 9)")
    catalog = choose(discover(tmp_path), t=["day", "n"])
    state = sync(tmp_path, catalog).state
    state["bookmarks"]["t"]["day"] = "b"
    assert sync(tmp_path, catalog, state).records() == [{"day": "b", "n": 2}, {"day": "c", "n": 9}]


def test_rows_that_were_deleted_at_the_highest_value_change_nothing(tmp_path: Path) -> None:
    path = database(
        tmp_path, "CREATE TABLE t(id INT, at DATETIME)", "INSERT INTO t VALUES (1, '2026-01-02T12:00:00.5Z')"
    )
    catalog = choose(discover(tmp_path), t=["at"])
    first = sync(tmp_path, catalog)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE t SET at = '2026-01-02T12:00:00.4Z'")
        connection.commit()
    second = sync(tmp_path, catalog, first.state)
    assert second.records() == []
    assert sync(tmp_path, catalog, second.state).records() == []


def test_bookmarks_follow_bytes_not_collations(tmp_path: Path) -> None:
    database(tmp_path, "CREATE TABLE t(k TEXT COLLATE NOCASE)", "INSERT INTO t VALUES ('b'), ('A'), ('a'), ('B')")
    catalog = choose(discover(tmp_path), t=["k"])
    first = sync(tmp_path, catalog)
    assert [row["k"] for row in first.records()] == ["A", "B", "a", "b"]
    assert sync(tmp_path, catalog, first.state).records() == []


def test_one_stream_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    path = database(tmp_path, "CREATE TABLE a(id INTEGER)", "CREATE TABLE b(id INTEGER)", "INSERT INTO b VALUES (1)")
    catalog = discover(tmp_path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE a")
    outcome = run("tap-sqlite", tmp_path, {"path": "shop.db"}, "--catalog", written(tmp_path, "c.json", catalog))
    assert outcome.code == 1
    assert outcome.records() == [{"id": 1}]
    assert "'a'" in outcome.errors[0]


@pytest.mark.parametrize(
    ("declared", "first", "later"),
    [
        ("DATETIME", ["2026-01-02 08:00:00", "2026-01-02T09:00:00"], "2026-01-02 11:00:00"),
        ("DATETIME", ["2026-01-02T09:00:00", "2026-01-02T09:00:00Z"], "2026-01-02T10:30:00+01:00"),
        ("DATETIME", ["2026-01-02T09:00:00Z"], "2026-01-02T09:00:00.5Z"),
        ("INTEGER", [1, 2, "text"], 3),
        ("TEXT", [b"a", b"b\xe9"], b"b\xea"),
    ],
)
def test_a_later_value_of_another_spelling_is_read(tmp_path: Path, declared: str, first: list[Any], later: Any) -> None:
    def add(number: int, value: Any) -> None:
        value = value.decode("latin-1") if isinstance(value, bytes) else value
        with closing(sqlite3.connect(path)) as connection:
            text = "CAST(CAST(? AS BLOB) AS TEXT)" if declared == "TEXT" else "?"
            given = value.encode("latin-1") if declared == "TEXT" else value
            connection.execute(f"INSERT INTO t VALUES (?, {text})", (number, given))
            connection.commit()

    path = database(tmp_path, f"CREATE TABLE t(id INTEGER, at {declared})")
    for number, value in enumerate(first):
        add(number, value)
    catalog = choose(discover(tmp_path), t=["at"])
    outcome = sync(tmp_path, catalog)
    assert sorted(row["id"] for row in outcome.records()) == list(range(len(first)))
    add(9, later)
    again = sync(tmp_path, catalog, outcome.state)
    assert 9 in [row["id"] for row in again.records()]
    assert 0 not in [row["id"] for row in again.records()]
    last = sync(tmp_path, catalog, again.state)
    if declared == "DATETIME":
        assert last.records() == []
