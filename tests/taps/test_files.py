"""tap-files, run as a user runs it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import re
import zipfile
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taps.common.moments import date_time
from taps.files.kinds import join, kinds_of, misfits, schema
from tests.support.connectors import JSONObject, Outcome, choose, run, written

TIME = "_file_modified_at"


def write(folder: Path, name: str, text: str | bytes, modified: int | None = None) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    if modified is not None:
        os.utime(path, (modified, modified))
    return path


def discover(folder: Path, **settings: Any) -> JSONObject:
    outcome = run("tap-files", folder, {"path": "in", **settings}, "--discover")
    assert outcome.code == 0, outcome.stderr
    found: JSONObject = json.loads(outcome.stdout)
    return found


def sync(folder: Path, catalog: JSONObject | None = None, state: Any = None, **settings: Any) -> Outcome:
    outcome = attempt(folder, catalog, state, **settings)
    assert outcome.code == 0, outcome.stderr
    return outcome


def attempt(folder: Path, catalog: JSONObject | None = None, state: Any = None, **settings: Any) -> Outcome:
    arguments: list[object] = []
    if catalog is not None:
        arguments += ["--catalog", written(folder, "catalog.json", catalog)]
    if state is not None:
        arguments += ["--state", written(folder, "state.json", state)]
    return run("tap-files", folder, {"path": "in", **settings}, *arguments)


def types(catalog: JSONObject, stream: str) -> JSONObject:
    (entry,) = (entry for entry in catalog["streams"] if entry["stream"] == stream)
    properties = {name: property_ for name, property_ in entry["schema"]["properties"].items() if name != TIME}
    return {
        name: property_.get("format") or "|".join(kind for kind in property_["type"] if kind != "null")
        for name, property_ in properties.items()
    }


# Streams and types ----------------------------------------------------------------------------------------------------


def test_streams_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path, "in/people.csv", "id\n1\n")
    write(tmp_path, "in/people.tsv", "id\n2\n")
    write(tmp_path, "in/events/2026/01.jsonl", '{"id": 3}\n')
    write(tmp_path, "in/events/02.jsonl.gz", gzip.compress(b'{"id": 4}\n'))
    write(tmp_path, "in/.hidden.csv", "id\n5\n")
    write(tmp_path, "in/_SUCCESS", "")
    write(tmp_path, "in/readme.md", "no data")
    outcome = sync(tmp_path)
    assert sorted(row["id"] for row in outcome.records("people")) == [1, 2]
    assert sorted(row["id"] for row in outcome.records("events")) == [3, 4]


def test_a_glob_is_one_stream_if_it_is_named(tmp_path: Path) -> None:
    write(tmp_path, "in/a-1.csv", "id\n1\n")
    write(tmp_path, "in/a-2.csv", "id\n2\n")
    assert sync(tmp_path, path="in/a-*.csv", stream="a").records("a") == [{"id": 1}, {"id": 2}]
    assert sync(tmp_path, path="in/a-*.csv").records("a-2") == [{"id": 2}]


def test_several_sources(tmp_path: Path) -> None:
    write(tmp_path, "in/a.txt", "1;x\n2;y\n")
    write(tmp_path, "in/b.jsonl", '{"k": 1}\n')
    streams = [
        {
            "path": "in/a.txt",
            "format": "csv",
            "header": False,
            "columns": ["n", "t"],
            "delimiter": ";",
            "stream": "left",
        },
        {"path": "in/b.jsonl", "key_properties": ["k"]},
    ]
    outcome = run("tap-files", tmp_path, {"streams": streams})
    assert outcome.records("left") == [{"n": 1, "t": "x"}, {"n": 2, "t": "y"}]
    keys = {line["stream"]: line["key_properties"] for line in outcome.lines if line["type"] == "SCHEMA"}
    assert keys == {"b": ["k"], "left": []}


def test_types_of_csv_are_inferred(tmp_path: Path) -> None:
    write(
        tmp_path,
        "in/t.csv",
        "i,n,b,d,m,s,zip,mixed,none\n"
        "1,1.12345678901234567891,true,2026-01-31,2026-01-31 10:00:00,x,01234,1,\n"
        "-2,2,FALSE,2026-02-01,2026-01-31,,04711,true,\n"
        '123456789012345678901234567890,-0.5,,,2026-01-31T10:00:00+0200,"a\nb",,,\n',
    )
    assert types(discover(tmp_path), "t") == {
        "i": "integer",
        "n": "number",
        "b": "boolean",
        "d": "date",
        "m": "date-time",
        "s": "string",
        "zip": "string",
        "mixed": "string",
        "none": "string",
    }
    outcome = sync(tmp_path)
    assert b'"i":123456789012345678901234567890,"n":-0.5' in outcome.stdout
    assert b'"n":1.12345678901234567891' in outcome.stdout
    assert outcome.records()[:2] == [
        {
            "i": 1,
            "n": 1.1234567890123457,
            "b": True,
            "d": "2026-01-31",
            "m": "2026-01-31T10:00:00Z",
            "s": "x",
            "zip": "01234",
            "mixed": "1",
            "none": None,
        },
        {
            "i": -2,
            "n": 2,
            "b": False,
            "d": "2026-02-01",
            "m": "2026-01-31T00:00:00Z",
            "s": None,
            "zip": "04711",
            "mixed": "true",
            "none": None,
        },
    ]


def test_a_later_value_of_another_type_widens_the_schema_first(tmp_path: Path) -> None:
    rows = "".join(f"{n},2026-01-01,{n}\n" for n in range(1500))
    write(tmp_path, "in/t.csv", f"a,d,f\n{rows}x,soon,1.5\n")
    outcome = sync(tmp_path, sample_rows=100)
    schemas = [line["schema"]["properties"] for line in outcome.lines if line["type"] == "SCHEMA"]
    assert schemas[0]["a"]["type"] == ["null", "integer"]
    assert schemas[0]["d"]["format"] == "date"
    assert schemas[-1] == {
        "a": {"type": ["null", "integer", "string"]},
        "d": {"type": ["null", "string"]},
        "f": {"type": ["null", "number"]},
    }
    assert outcome.records()[-1] == {"a": "x", "d": "soon", "f": 1.5}
    assert types(discover(tmp_path, sample_rows=0), "t") == {"a": "string", "d": "string", "f": "number"}


def test_jsonl_keeps_its_bytes(tmp_path: Path) -> None:
    text = (
        '{"big": 123456789012345678901234567890, "exact": 0.10000000000000000000000001, "nested": {"b": 1.10, "a": []}}'
    )
    write(tmp_path, "in/t.jsonl", "\ufeff" + text + "\n\n")
    outcome = sync(tmp_path)
    assert b'"exact":0.10000000000000000000000001,"nested":{"b": 1.10, "a": []}' in outcome.stdout
    assert types(discover(tmp_path), "t") == {"big": "integer", "exact": "number", "nested": "object"}


def test_a_new_column_is_added_unless_columns_were_chosen(tmp_path: Path) -> None:
    write(tmp_path, "in/t/a.jsonl", '{"a": 1, "b": 2}\n')
    catalog = discover(tmp_path)
    write(tmp_path, "in/t/b.jsonl", '{"a": 3, "c": [4]}\n')
    outcome = sync(tmp_path, catalog)
    assert outcome.records() == [{"a": 1, "b": 2}, {"a": 3, "c": [4]}]
    assert "c" in [line for line in outcome.lines if line["type"] == "SCHEMA"][-1]["schema"]["properties"]
    (entry,) = catalog["streams"]
    for marks in entry["metadata"]:
        if marks["breadcrumb"] == ["properties", "b"]:
            marks["metadata"]["selected"] = False
    assert sync(tmp_path, catalog).records() == [{"a": 1}, {"a": 3}]


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "i": pa.array([1, None], pa.int32()),
            "f": [1.5, float("nan")],
            "d": [Decimal("1.10"), Decimal("123456789012345678901234567.89")],
            "day": [date(2026, 1, 31), None],
            "at": pa.array([datetime(2026, 1, 31, 10), None], pa.timestamp("ns")),
            "raw": [b"\x00\xff", None],
            "nested": [{"a": [1]}, None],
            "word": pa.array(["x", "y"]).dictionary_encode(),
        }
    )
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in" / "t.parquet")
    assert types(discover(tmp_path), "t") == {
        "i": "integer",
        "f": "number",
        "d": "number",
        "day": "date",
        "at": "date-time",
        "raw": "string",
        "nested": "object",
        "word": "string",
    }
    outcome = sync(tmp_path)
    assert b'"d":123456789012345678901234567.89' in outcome.stdout
    assert outcome.records()[0] == {
        "i": 1,
        "f": 1.5,
        "d": 1.1,
        "day": "2026-01-31",
        "at": "2026-01-31T10:00:00.000000Z",
        "raw": "AP8=",
        "nested": {"a": [1]},
        "word": "x",
    }
    assert outcome.records()[1]["f"] is None
    assert "1 values are NaN or infinite" in outcome.warnings


@settings(deadline=None)
@given(st.lists(st.sampled_from(["null", "integer", "number", "string", "date", "date-time", "boolean", "array"])))
def test_a_schema_takes_what_it_was_made_from(found: list[str]) -> None:
    assert misfits(set(found) | {"null"}, kinds_of(schema(found))) == set()
    assert join(join(found)) == join(found)


@settings(deadline=None)
@given(
    st.datetimes(min_value=datetime(1, 1, 1)),
    st.sampled_from(["", "Z", "+02:00", "-0330", "+05"]),
    st.sampled_from("T "),
)
def test_moments_survive(moment: datetime, zone: str, separator: str) -> None:
    found = date_time(moment.isoformat(separator) + zone)
    assert found is not None
    assert datetime.fromisoformat(found) == datetime.fromisoformat(moment.isoformat() + (zone or "Z"))


# Broken input ---------------------------------------------------------------------------------------------------------


def unsupported_zip() -> bytes:
    """A zip file with a compression method that the standard library does not have."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("t.csv", "a\n1\n")
    data = bytearray(file.getvalue())
    for header, method_at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = data.index(header) + method_at
        data[at : at + 2] = (97).to_bytes(2, "little")
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "a,b\n1,2\n3\n", "in/t.csv:3: 1 cells, where 2 columns are"),
        ("t.csv", 'a,b\n1,"2\n3,4\n', "in/t.csv:2: broken CSV: unexpected end of data"),
        ("t.csv", "a,a\n1,2\n", "in/t.csv:1: two columns are named 'a'"),
        ("t.csv", b"a\nx\n\xff\n", "in/t.csv:3: not in utf-8-sig"),
        ("t.jsonl", '{"a": 1}\n{"a": NaN}\n', "in/t.jsonl:2: "),
        ("t.jsonl", '{"a": 1}\n{"a": \n', "in/t.jsonl:2: "),
        ("t.json", "[1]\n", "in/t.json:1: an array, where an object is needed on each line"),
        ("t.parquet", "PAR1", "in/t.parquet: "),
        ("t.csv.gz", gzip.compress(b"a\n1\n" * 1000, mtime=0)[:-20], "in/t.csv.gz: corrupt compressed data"),
        ("t.csv.zip", unsupported_zip(), "in/t.csv.zip: cannot be unpacked: "),
    ],
)
def test_broken_files_are_named_with_the_line(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    write(tmp_path, f"in/{name}", text)
    outcome = attempt(tmp_path)
    assert outcome.code in (1, 2)
    assert len(outcome.errors) == 1
    assert message in outcome.errors[0]
    assert "Traceback" not in outcome.stderr


def test_broken_lines_can_be_skipped(tmp_path: Path) -> None:
    write(tmp_path, "in/t.csv", "a,b\n1,2\n3\n4,5\n")
    write(tmp_path, "in/u.jsonl", '{"a": 1}\nnonsense\n{"a": 2}\n')
    outcome = sync(tmp_path, on_bad_line="skip")
    assert outcome.records("t") == [{"a": 1, "b": 2}, {"a": 4, "b": 5}]
    assert outcome.records("u") == [{"a": 1}, {"a": 2}]
    assert "in/t.csv:3: 1 cells" in outcome.warnings
    assert "in/u.jsonl:2: " in outcome.warnings


def test_dialects_of_csv(tmp_path: Path) -> None:
    write(tmp_path, "in/t.csv", "made by hand\nname|wert\n'a|b'|ä\n-|-\n".encode("latin-1"))
    outcome = sync(tmp_path, delimiter="|", quote_char="'", encoding="latin-1", skip_rows=1, null_values=["-"])
    assert outcome.records() == [{"name": "a|b", "wert": "ä"}, {"name": None, "wert": None}]


def test_no_file_and_no_format(tmp_path: Path) -> None:
    assert len(attempt(tmp_path).errors) == 1
    write(tmp_path, "in/t.xyz", "")
    assert "no CSV, JSONL or Parquet files in in" in attempt(tmp_path).errors[0]
    assert "cannot tell the format from the file name" in attempt(tmp_path, path="in/t.xyz").errors[0]


# Replication ----------------------------------------------------------------------------------------------------------


def test_full_table_has_versions(tmp_path: Path) -> None:
    write(tmp_path, "in/t.csv", "a\n1\n")
    outcome = sync(tmp_path)
    assert outcome.kinds() == ["SCHEMA", "RECORD", "ACTIVATE_VERSION", "STATE"]


def test_by_modification_time(tmp_path: Path) -> None:
    write(tmp_path, "in/t/a.csv", "n\n1\n", 1_000)
    write(tmp_path, "in/t/b.csv", "n\n2\n", 2_000)
    catalog = choose(discover(tmp_path), t=[TIME])
    first = sync(tmp_path, catalog)
    assert first.records() == [
        {"n": 1, TIME: "1970-01-01T00:16:40.000000Z"},
        {"n": 2, TIME: "1970-01-01T00:33:20.000000Z"},
    ]
    assert sync(tmp_path, catalog, first.state).records() == []
    write(tmp_path, "in/t/c.csv", "n\n3\n", 2_000)  # as old as the newest
    write(tmp_path, "in/t/d.csv", "n\n4\n", 500)  # a copy that kept an old time
    write(tmp_path, "in/t/a.csv", "n\n5\n", 3_000)  # changed
    second = sync(tmp_path, catalog, first.state)
    assert sorted(row["n"] for row in second.records()) == [3, 4, 5]
    assert sync(tmp_path, catalog, second.state).records() == []


def test_by_modification_time_resumes_after_any_state(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path, f"in/t/{number}.csv", f"n\n{number}\n")
    catalog = choose(discover(tmp_path), t=[TIME])
    before: list[int] = []
    states = 0
    for line in sync(tmp_path, catalog, state_interval=1).lines:
        if line["type"] == "RECORD":
            before.append(line["record"]["n"])
        elif line["type"] == "STATE":
            after = [row["n"] for row in sync(tmp_path, catalog, line["value"]).records()]
            assert sorted(before + after) == list(range(5))
            states += 1
    assert states >= 5


def test_a_time_set_by_hand(tmp_path: Path) -> None:
    write(tmp_path, "in/t/a.csv", "n\n1\n", 1_000)
    write(tmp_path, "in/t/b.csv", "n\n2\n", 2_000)
    catalog = choose(discover(tmp_path), t=[TIME])
    state = sync(tmp_path, catalog).state
    state["bookmarks"]["t"][TIME] = "1970-01-01T00:20:00Z"
    assert [row["n"] for row in sync(tmp_path, catalog, state).records()] == [2]
    shape = {"replication_key": TIME, "replication_key_value": "1970-01-01T00:20:00Z"}
    assert [row["n"] for row in sync(tmp_path, catalog, {"bookmarks": {"t": shape}}).records()] == [2]


def test_by_columns_in_any_order(tmp_path: Path) -> None:
    write(tmp_path, "in/t/a.csv", "id,at\n1,2026-01-03 10:00\n2,\n3,2026-01-01\n")
    write(tmp_path, "in/t/b.csv", "id,at\n4,2026-01-02\n5,2026-01-03T10:00:00Z\n")
    catalog = choose(discover(tmp_path), t=["at"])
    first = sync(tmp_path, catalog)
    assert sorted(row["id"] for row in first.records()) == [1, 2, 3, 4, 5]
    second = sync(tmp_path, catalog, first.state)
    assert second.records() == []
    assert re.search("1 rows .* at", second.warnings)
    write(tmp_path, "in/t/c.csv", "id,at\n6,2026-01-03 12:00+02:00\n7,2026-01-02 23:00\n8,2026-02-01\n9,\n")
    third = sync(tmp_path, catalog, second.state)
    assert [row["id"] for row in third.records()] == [6, 8]
    assert sync(tmp_path, catalog, third.state).records() == []


def test_by_several_columns_with_exact_numbers(tmp_path: Path) -> None:
    write(tmp_path, "in/t.jsonl", '{"a": 1, "b": 0.10000000000000000000001}\n{"a": 1, "b": 0.1}\n{"a": 0, "b": 9}\n')
    catalog = choose(discover(tmp_path), t=["a", "b"])
    first = sync(tmp_path, catalog)
    assert len(first.records()) == 3
    write(tmp_path, "in/t.jsonl", '{"a": 1, "b": 0.10000000000000000000002}\n{"a": 1, "b": 0.1}\n')
    assert len(sync(tmp_path, catalog, first.state).records()) == 1


def test_a_bookmark_that_cannot_be_ordered_is_named_with_its_line(tmp_path: Path) -> None:
    write(tmp_path, "in/t.csv", "id,at\n1,2026-01-03\n2,soon\n")
    catalog = choose(discover(tmp_path, sample_rows=0), t=["at"])
    catalog["streams"][0]["schema"]["properties"]["at"]["format"] = "date"
    outcome = attempt(tmp_path, catalog)
    assert outcome.code == 1
    assert "in/t.csv:3: bookmark column 'at' contains 'soon'" in outcome.errors[0]


def test_an_open_quote_costs_its_own_line_only(tmp_path: Path) -> None:
    rows = [f'{n},"x{n}"' if n != 3 else '3,"open' for n in range(1, 6)]
    write(tmp_path, "in/a.csv", "id,t\n" + "\n".join(rows) + "\n")
    write(tmp_path, "in/b.csv", 'id,t\n1,"open\n2,x\n3,y\n')
    outcome = sync(tmp_path, on_bad_line="skip")
    assert [row["id"] for row in outcome.records("a")] == [1, 2, 4, 5]
    assert [row["id"] for row in outcome.records("b")] == [2, 3]
    assert "a.csv:4: " in outcome.warnings
    assert "b.csv:2: " in outcome.warnings


def test_a_broken_cell_of_several_lines_is_one_broken_row(tmp_path: Path) -> None:
    write(tmp_path, "in/a.csv", 'id,t\n1,"two\nlines"x,5\n2,y\n3,"a\nb"\n4,"never\nclosed\n')
    write(tmp_path, "in/b.csv", 'id,t\n1,"open\n2,x\nx\n3,"y"\n')
    outcome = sync(tmp_path, on_bad_line="skip")
    assert outcome.records("a") == [{"id": 2, "t": "y"}, {"id": 3, "t": "a\nb"}]
    assert outcome.records("b") == [{"id": 2, "t": "x"}, {"id": 3, "t": "y"}]
    assert sorted({line.split(":")[1] for line in outcome.warnings.splitlines() if "a.csv:" in line}) == ["2", "7"]


def test_an_empty_or_broken_file_sets_its_own_stream_aside(tmp_path: Path) -> None:
    write(tmp_path, "in/good.csv", "id\n1\n")
    write(tmp_path, "in/empty.csv", "")
    write(tmp_path, "in/broken.parquet", "PAR1")
    catalog = discover(tmp_path)
    broken, empty, _ = ({"stream": entry["stream"], **entry["metadata"][0]["metadata"]} for entry in catalog["streams"])
    assert (broken["stream"], broken["inclusion"]) == ("broken", "unsupported")
    assert "broken.parquet" in broken["discovery-error"]
    assert "its files are empty" in empty["discovery-error"]
    for outcome in (attempt(tmp_path), attempt(tmp_path, catalog)):
        assert (outcome.code, outcome.records()) == (1, [{"id": 1}])
        assert "broken.parquet" in outcome.errors[0]
        assert "stream 'empty'" in outcome.errors[0]
    assert sync(tmp_path, choose(catalog, good=None)).records() == [{"id": 1}]


def test_a_path_without_files_sets_its_own_stream_aside(tmp_path: Path) -> None:
    write(tmp_path, "in/good.csv", "id\n1\n")
    write(tmp_path, "in/mixed.csv", "id\n1\n")
    write(tmp_path, "in/mixed.jsonl", '{"id": 1}\n')
    paths = [{"path": "in"}, {"path": "today/*.csv", "stream": "today"}, {"path": "later/orders.csv"}]
    catalog = discover(tmp_path, streams=paths)
    assert [entry["stream"] for entry in catalog["streams"]] == ["good", "mixed", "orders", "today"]
    outcome = attempt(tmp_path, catalog, streams=paths)
    assert (outcome.code, outcome.records()) == (1, [{"id": 1}])
    for message in ("no file matches today/*.csv", "no file matches later/orders.csv", "differ in format"):
        assert message in outcome.errors[0]
    # Those that discovery still found.
    write(tmp_path, "today/a.csv", "id\n2\n")
    write(tmp_path, "later/orders.csv", "id\n3\n")
    catalog = choose(discover(tmp_path, streams=paths), good=None, orders=None, today=None)
    (tmp_path / "later/orders.csv").unlink()
    outcome = attempt(tmp_path, catalog, streams=paths)
    assert (outcome.code, outcome.records()) == (1, [{"id": 1}, {"id": 2}])
    assert "later/orders.csv" in outcome.errors[0]


def test_compressed_files_are_read_and_the_rest_is_named(tmp_path: Path) -> None:
    inside = io.BytesIO()
    with zipfile.ZipFile(inside, "w") as archive:
        archive.writestr("d/whatever.csv", "id\n3\n")
    two = io.BytesIO()
    with zipfile.ZipFile(two, "w") as archive:
        archive.writestr("1.csv", "")
        archive.writestr("2.csv", "")
    write(tmp_path, "in/a.csv.bz2", bz2.compress(b"id\n1\n"))
    write(tmp_path, "in/b.jsonl.xz", lzma.compress(b'{"id": 2}\n'))
    write(tmp_path, "in/c.zip", inside.getvalue())
    write(tmp_path, "in/d.csv.zip", inside.getvalue())
    write(tmp_path, "in/two.zip", two.getvalue())
    write(tmp_path, "in/book.xlsx", "x")
    outcome = sync(tmp_path)
    assert {name: outcome.records(name) for name in "abcd"} == {
        "a": [{"id": 1}], "b": [{"id": 2}], "c": [{"id": 3}], "d": [{"id": 3}]
    }  # fmt: skip
    assert "2 files skipped" in outcome.warnings
    assert "book.xlsx" in outcome.warnings


def test_jsonl_in_another_encoding(tmp_path: Path) -> None:
    write(tmp_path, "in/a.jsonl", '{"t": "ä"}\n{"t": "ċ"}\n'.encode("utf-16"))
    assert sync(tmp_path, encoding="utf-16").records() == [{"t": "ä"}, {"t": "ċ"}]
    write(tmp_path, "in/a.jsonl", b'{"t": "x"}\n{"t": "\x81"}\n')
    assert "a.jsonl:2: not valid cp1252" in attempt(tmp_path, encoding="cp1252").errors[0]


@pytest.mark.parametrize(
    "wrong",
    [{"encoding": "nope"}, {"delimiter": "ab"}, {"null_values": [[]]}, {"columns": [1]}, {"streams": ["x"]}],
    ids=str,
)
def test_settings_of_the_wrong_type_are_wrong_use(tmp_path: Path, wrong: JSONObject) -> None:
    write(tmp_path, "in/a.csv", "id\n1\n")
    outcome = attempt(tmp_path, **wrong)
    assert (outcome.code, len(outcome.errors)) == (2, 1)
    assert next(iter(wrong)) in outcome.errors[0]


def test_an_empty_text_is_quoted_and_a_null_is_not(tmp_path: Path) -> None:
    write(tmp_path, "in/a.csv", 'id,t,n,u\n1,"",1,"a,"""",b"\n2,,"",x\n"",y,,\n')
    write(tmp_path, "in/b.csv", 't\nx\n\n""\n')
    outcome = sync(tmp_path)
    assert outcome.records("a") == [
        {"id": 1, "t": "", "n": 1, "u": 'a,"",b'},
        {"id": 2, "t": None, "n": None, "u": "x"},
        {"id": None, "t": "y", "n": None, "u": None},
    ]
    assert outcome.records("b") == [{"t": "x"}, {"t": None}, {"t": ""}]


def test_a_day_that_the_calendar_does_not_have_is_text(tmp_path: Path) -> None:
    write(tmp_path, "in/c.csv", "day,at,year\n2026-02-30,2026-02-30 10:00:00,0000-01-01\n")
    write(tmp_path, "in/j.jsonl", '{"day":"2026-02-30","at":"2026-02-30T10:00:00Z","leap":"2024-02-29"}\n')
    catalog = discover(tmp_path, path="in")
    assert types(catalog, "c") == {"day": "string", "at": "string", "year": "string"}
    assert types(catalog, "j") == {"day": "string", "at": "string", "leap": "date"}


def test_codes_that_look_like_numbers_are_texts(tmp_path: Path) -> None:
    write(tmp_path, "in/a.csv", "code,version,price,zero,n\n1E5,1.9,9.90,-0,1.5\n2E5,1.10,12.00,1,2\n")
    catalog = discover(tmp_path)
    assert types(catalog, "a") == {
        "code": "string", "version": "string", "price": "number", "zero": "string", "n": "number"
    }  # fmt: skip


def test_one_stream_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path, f"in/{name}.csv", "id\n1\n")
    catalog = discover(tmp_path)
    (tmp_path / "in" / "a.csv").unlink()
    write(tmp_path, "in/b.csv", "other\n1\n")
    outcome = attempt(tmp_path, catalog)
    assert outcome.code == 1
    assert outcome.records() == [{"id": 1}]
    assert "stream 'a'" in outcome.errors[0]
    assert "b.csv" in outcome.errors[0]


def test_nested_times_and_durations_of_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    moment = pa.struct([("at", pa.timestamp("ns")), ("n", pa.int64())])
    table = pa.table(
        {
            "s": pa.array([{"at": 1, "n": 1}, None], moment),
            "l": pa.array([[{"at": 1500, "n": 2}], None], pa.list_(moment)),
            "d": pa.array([5, None], pa.duration("us")),
            "t": pa.array([1, None], pa.time64("ns")),
            "m": pa.array([[("x", 1000)], None], pa.map_(pa.string(), pa.timestamp("us"))),
            "f": pa.array([[1, 2], None], pa.list_(pa.timestamp("s"), 2)),
        }
    )
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in" / "a.parquet")
    assert sync(tmp_path).records("a") == [
        {
            "s": {"at": "1970-01-01T00:00:00.000000001Z", "n": 1},
            "l": [{"at": "1970-01-01T00:00:00.000001500Z", "n": 2}],
            "d": 5,
            "t": "00:00:00.000000001",
            "m": [["x", "1970-01-01T00:00:00.001000Z"]],
            "f": ["1970-01-01T00:00:01.000Z", "1970-01-01T00:00:02.000Z"],
        },
        {"s": None, "l": None, "d": None, "t": None, "m": None, "f": None},
    ]
    assert types(discover(tmp_path), "a")["d"] == "integer"
