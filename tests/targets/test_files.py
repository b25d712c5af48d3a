"""target-files, run as a user runs it, and its files read back."""

from __future__ import annotations

import csv
import gzip
import json
import signal
import subprocess
from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from tests.support import connectors
from tests.support.connectors import (
    JSONObject,
    activate,
    clean_environment,
    command,
    lines,
    record,
    run,
    schema,
    state,
    written,
)
from tests.support.preloaded import Piped

ONE: JSONObject = {"id": "integer", "name": "string"}

attempt = partial(connectors.attempt, "target-files", path="out")
load = partial(connectors.load, "target-files", path="out")


def names(folder: Path) -> list[str]:
    """All files and folders under the target's, hidden ones included."""
    return sorted(str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*"))


def rows(folder: Path, stream: str = "t") -> list[JSONObject]:
    """What a reader of the stream's JSONL files sees, in the order of their names."""
    paths = sorted((folder / "out" / stream).glob("[!._]*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def ids(folder: Path, stream: str = "t") -> list[int]:
    return sorted(row["id"] for row in rows(folder, stream))


def test_jsonl_holds_the_records_bytes(tmp_path: Path) -> None:
    odd = b'{"id" : 12345678901234567890123, "exact":1.10, "s":"\\u00e4", "more": {"x": []}}'
    given = lines([schema("t", ONE, ["id"])]) + b'{"type":"RECORD","stream":"t","record":' + odd + b"}\n"
    outcome = load(tmp_path, given + lines([state({"a": 1})]))
    assert outcome.stdout == b'{"a": 1}\n'
    (path,) = (tmp_path / "out" / "t").iterdir()
    assert path.read_bytes() == odd + b"\n"


def test_a_rerun_adds_files(tmp_path: Path) -> None:
    for number in range(3):
        load(tmp_path, [schema("t", ONE, ["id"]), record("t", {"id": number})])
    assert ids(tmp_path) == [0, 1, 2]
    assert len(list((tmp_path / "out" / "t").iterdir())) == 3


def test_csv_and_its_header(tmp_path: Path) -> None:
    properties = {**ONE, "n": "number", "flag": "boolean", "o": "object"}
    load(
        tmp_path,
        [
            schema("t", properties),
            record("t", {"id": 1, "name": 'a "b", c\nd', "n": 1.5, "flag": True, "o": {"k": [1, "x"]}}),
            record("t", {"id": 2, "name": "", "n": None}),
            schema("t", {**properties, "new,column": "string"}),
            record("t", {"id": 3, "name": "ä", "new,column": "x"}),
        ],
        format="csv",
    )
    first, second = sorted((tmp_path / "out" / "t").iterdir())
    assert first.read_bytes().splitlines()[-1] == b'2,"",,,'
    with first.open(newline="") as file:
        assert list(csv.reader(file))[:2] == [
            ["id", "name", "n", "flag", "o"],
            ["1", 'a "b", c\nd', "1.5", "true", '{"k":[1,"x"]}'],
        ]
    assert second.read_text() == 'id,name,n,flag,o,"new,column"\n3,ä,,,,x\n'


def test_gzip(tmp_path: Path) -> None:
    for format_ in ("jsonl", "csv"):
        load(
            tmp_path,
            [schema(format_, {"id": "integer"}), record(format_, {"id": 1})],
            format=format_,
            compression="gzip",
        )
        (path,) = (tmp_path / "out" / format_).iterdir()
        assert path.name.endswith(f".{format_}.gz")
        assert gzip.decompress(path.read_bytes()).split()[-1] in (b'{"id":1}', b"1", b"1}")
    outcome = attempt(tmp_path, [], compression="zstd")
    assert outcome.code == 2
    assert "compression zstd works with parquet only" in outcome.errors[0]


def test_parquet_types_and_their_widening(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    properties = {
        "id": "integer",
        "n": "number",
        "o": "object",
        "price": {"type": "number", "multipleOf": 0.01},
        "at": {"type": "string", "format": "date-time"},
    }
    values = {"n": 1.5, "o": {"k": 1}, "price": 9.99, "at": "2026-01-31T10:00:00+02:00"}
    messages = [schema("t", properties), record("t", {"id": 1, **values})]
    load(tmp_path, [*messages, record("t", {"id": 2**70, **values})], format="parquet")
    load(tmp_path, [*messages, state(1), record("t", {"id": 2**80})], format="parquet", batch_rows=1, flush_seconds=0)
    tables = [pq.read_table(path) for path in sorted((tmp_path / "out" / "t").iterdir())]
    assert sorted(int(number) for table in tables for number in table["id"].to_pylist()) == [1, 1, 2**70, 2**80]
    table = tables[0]
    assert str(table.schema.field("at").type) == "timestamp[us, tz=UTC]"
    assert table["at"].to_pylist()[0].hour == 8
    assert table["price"].to_pylist()[0] == Decimal("9.99")
    assert table["o"].to_pylist()[0] == '{"k":1}'


def test_odd_stream_names(tmp_path: Path) -> None:
    streams = ["public/orders", "../up", ".hidden", "_under", "100%", 'q"😀']
    load(tmp_path, [message for name in streams for message in (schema(name, ONE), record(name, {"id": 1}))])
    folders = [path.name for path in (tmp_path / "out").iterdir()]
    assert sorted(folders) == sorted(["public%2Forders", "%2E.%2Fup", "%2Ehidden", "%5Funder", "100%25", 'q"😀'])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "out"]


@pytest.mark.parametrize(
    ("format_", "text", "message"),
    [
        ("jsonl", '{"id": NaN}', "stream 't', record 2: it contains NaN"),
        ("jsonl", "[1]", "stream 't', record 2: "),
        ("csv", '{"name": "\\ud800"}', "stream 't', record 2: a text of it has a lone surrogate"),
        ("parquet", '{"id": "x"}', "stream 't', record 2: column 'id': 'x' "),
    ],
)
def test_bad_records_are_named_and_leave_no_file(tmp_path: Path, format_: str, text: str, message: str) -> None:
    head = lines([schema("t", ONE), record("t", {"id": 1}), state(1)])
    outcome = attempt(tmp_path, head + f'{{"type":"RECORD","stream":"t","record":{text}}}\n'.encode(), format=format_)
    assert outcome.code == 1
    assert len(outcome.errors) == 1
    assert message in outcome.errors[0]
    assert outcome.stdout == b""
    assert names(tmp_path) == ["t"]


@pytest.mark.parametrize("key", ["id", 'i"d'])
@pytest.mark.parametrize("format_", ["jsonl", "csv"])
def test_a_record_without_its_key_is_refused(tmp_path: Path, format_: str, key: str) -> None:
    messages = [schema("t", {key: "integer", "name": "string"}, [key]), record("t", {key: 1}), state(1)]
    load(tmp_path, messages, format=format_)
    outcome = attempt(tmp_path, [*messages[:2], record("t", {"name": "x"})], format=format_)
    assert outcome.code == 1
    assert f"stream 't', record 2: the key {key!r} is missing" in outcome.errors[0]
    assert len(names(tmp_path)) == 2


def test_a_key_cannot_be_upserted(tmp_path: Path) -> None:
    about = json.loads(run("target-files", tmp_path, None, "--about", "--format=json").stdout)
    assert about["load_methods"] == ["append", "replace"]
    outcome = attempt(tmp_path, [], load_method="upsert")
    assert outcome.code == 2
    assert "one of append, replace" in outcome.errors[0]
    outcome = attempt(tmp_path, [], streams={"t": {"unique_constraints": ["id"]}})
    assert "'unique_constraints'" in outcome.errors[0]


def test_more_streams_than_open_files(tmp_path: Path) -> None:
    config = written(tmp_path, "many.json", {"path": "out"})
    messages = [schema(f"s{n}", ONE) for n in range(80)]
    messages += [record(f"s{n}", {"id": n}) for n in range(80)]
    limited = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *command("target-files", "--config", config)]
    done = subprocess.run(
        limited,
        input=lines([*messages, state(1)]),
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"1\n"), done.stderr
    assert [ids(tmp_path, f"s{n}") for n in range(80)] == [[n] for n in range(80)]


def test_streams_cannot_share_a_folder(tmp_path: Path) -> None:
    outcome = attempt(tmp_path, [schema("a", ONE), schema("b", ONE)], streams={"a": {"destination_table": "b"}})
    assert outcome.code == 1
    assert "streams 'a' and 'b' have one folder" in outcome.errors[0]


def test_a_path_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    outcome = attempt(tmp_path, [schema("t", ONE), record("t", {"id": 1})])
    assert outcome.code == 2
    assert "setting 'path'" in outcome.errors[0]


# Versions and replacing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "compression"), [("jsonl", "gzip"), ("csv", None), ("parquet", None)])
def test_a_full_disk_is_told_in_one_line_and_nothing_is_left(
    tmp_path: Path, form: str, compression: str | None
) -> None:
    # A limit of the size of a file fails as a full disk does, with another text.
    config = written(tmp_path, "config.json", {"path": "out", "format": form, "compression": compression})
    argv = ["sh", "-c", 'ulimit -f 64; exec "$@"', "sh", *command("target-files", "--config", config)]
    given = lines([schema("t", ONE), *(record("t", {"id": n, "name": token_hex(600)}) for n in range(100))])

    done = subprocess.run(argv, input=given, capture_output=True, cwd=tmp_path, env=clean_environment(), check=False)

    (line,) = done.stderr.decode().splitlines()
    assert done.returncode == 1
    assert line.startswith("ERROR target-files: out")
    assert line.endswith(": File too large")
    assert [name for name in names(tmp_path) if "tmp" in name] == []


def full(version: int, numbers: Sequence[int], *, active: bool = True) -> list[JSONObject]:
    messages = [schema("t", ONE), *(record("t", {"id": n}, version) for n in numbers)]
    return messages + ([activate("t", version)] if active else []) + [state(version)]


def test_activating_a_version_replaces_the_folder(tmp_path: Path) -> None:
    load(tmp_path, full(1, [1, 2]))
    load(tmp_path, full(2, [3]))
    assert ids(tmp_path) == [3]
    load(tmp_path, full(3, []))
    assert ids(tmp_path) == []
    load(tmp_path, full(3, [4], active=False))
    assert ids(tmp_path) == [4], "a version that was activated goes on, with or without rows before"


def test_a_lower_version_replaces_the_folder(tmp_path: Path) -> None:
    """A tap makes its versions of the time of day, and a machine's clock may be set back."""
    load(tmp_path, full(9, [1, 2]))
    load(tmp_path, full(5, [3]))
    assert ids(tmp_path) == [3]
    load(tmp_path, full(4, []))
    assert ids(tmp_path) == []
    load(tmp_path, full(4, [4]))
    load(tmp_path, [*full(6, [6], active=False), activate("t", 5)])
    assert ids(tmp_path) == []
    load(tmp_path, [schema("t", ONE), activate("t", 6)])
    assert ids(tmp_path) == [6], "rows that wait for a newer version stay"


def test_files_without_versions_give_way_to_versions(tmp_path: Path) -> None:
    load(tmp_path, [schema("t", ONE), record("t", {"id": 1})])
    load(tmp_path, full(2, [3]))
    assert ids(tmp_path) == [3]
    load(tmp_path, [schema("t", ONE), record("t", {"id": 4}), activate("t", 9)])
    assert ids(tmp_path) == [4]


def test_files_of_a_version_wait_until_it_is_activated(tmp_path: Path) -> None:
    """A tap that failed looks like one that has ended: at the end of the input nothing becomes visible."""
    load(tmp_path, full(1, [1], active=False))
    assert ids(tmp_path) == []
    load(tmp_path, full(2, [2]))
    outcome = load(tmp_path, full(3, [3], active=False))
    assert outcome.lines == [3], "they are durable"
    assert "files of version 3 wait in .t.version-3" in outcome.warnings
    assert ids(tmp_path) == [2]
    load(tmp_path, [schema("t", ONE), activate("t", 3)])
    assert ids(tmp_path) == [3]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["t"]


def test_a_version_can_be_shown_beside_the_old_one(tmp_path: Path) -> None:
    load(tmp_path, full(1, [1]))
    load(tmp_path, [*full(2, [2], active=False), {**activate("t", 2), "keep_old": True}])
    assert ids(tmp_path) == [1, 2]


def test_a_merge_cut_short_is_taken_up_again(tmp_path: Path) -> None:
    load(tmp_path, full(2, [1, 2], active=False))
    (tmp_path / "out" / "t" / ".version-2").touch()
    load(tmp_path, [schema("t", ONE)])
    assert ids(tmp_path) == [1, 2]


def test_replace_of_a_stream_with_versions(tmp_path: Path) -> None:
    for version, numbers in enumerate(([1, 2], [2, 3], []), 1):
        load(tmp_path, full(version, numbers), load_method="replace")
        assert ids(tmp_path) == numbers
    load(tmp_path, full(4, [1]))
    load(tmp_path, full(5, [2], active=False), load_method="replace")
    assert ids(tmp_path) == [1]


def test_replace(tmp_path: Path) -> None:
    messages = [state(0), schema("t", ONE), record("t", {"id": 1}), state(1), record("t", {"id": 2}), state(2)]
    settings: JSONObject = {"load_method": "replace", "batch_rows": 1, "flush_seconds": 0}
    load(tmp_path, messages, **settings)
    assert load(tmp_path, messages, **settings).lines == [0, 2]
    assert ids(tmp_path) == [1, 2]
    before = names(tmp_path)
    assert attempt(tmp_path, [*messages, record("u", {})], **settings).code == 1
    assert names(tmp_path) == before


@pytest.mark.parametrize("again", [full(2, [2]), full(2, []), [schema("t", ONE), record("t", {"id": 2})]])
def test_files_that_somebody_else_made_stay(tmp_path: Path, again: list[JSONObject]) -> None:
    load(tmp_path, full(1, [1]))
    others = ("notes.txt", "more/notes.txt", "v0-mine.jsonl", ".hidden")
    for name in others:
        path = tmp_path / "out" / "t" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    load(tmp_path, again, load_method="append" if "version" in str(again) else "replace")
    assert ids(tmp_path) == [row["record"]["id"] for row in again if row["type"] == "RECORD"]
    assert set(names(tmp_path)) >= {f"t/{name}" for name in others}


# Proof ----------------------------------------------------------------------------------------------------------------


def start(folder: Path, **settings: Any) -> Piped:
    config = written(folder, "start.json", {"path": "out", **settings})
    return Piped(command("target-files", "--config", config), cwd=folder, env=clean_environment())


@pytest.mark.parametrize("format_", ["jsonl", "csv", "parquet"])
def test_nothing_is_visible_before_it_is_whole(tmp_path: Path, format_: str) -> None:
    process = start(tmp_path, format=format_, flush_seconds=0.3)
    process.write(lines([schema("t", ONE), record("t", {"id": 1}), state(1)]))
    process.stdout.readline()
    (path,) = (path for path in (tmp_path / "out" / "t").iterdir() if not path.name.startswith("."))
    size = path.stat().st_size
    process.write(lines([record("t", {"id": 2}), state(2)]))
    process.stdout.readline()
    assert path.stat().st_size == size
    process.finish()
    assert len(names(tmp_path)) == 3


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_what_was_echoed_survives_a_kill(tmp_path: Path, kill: signal.Signals) -> None:
    total = 60
    proven = 0
    kills = 0
    while proven < total:
        process = start(tmp_path, batch_rows=7, flush_seconds=0)
        messages = [schema("t", ONE)]
        for number in range(proven, total):
            messages += [record("t", {"id": number}), state(number + 1)]
        process.write(lines(messages[:30]))
        proven = int(process.stdout.readline())
        process.process.send_signal(kill)
        code, echoed = process.finish()
        assert code == -kill
        proven = max([proven, *map(int, echoed.split())])
        assert set(range(proven)) <= set(ids(tmp_path))
        kills += 1
    assert kills > 2
    load(tmp_path, [schema("t", ONE)])
    assert [name for name in names(tmp_path) if name.endswith(".tmp")] == []
    assert set(ids(tmp_path)) == set(range(total))


def test_a_replacement_cut_short_is_taken_up_again(tmp_path: Path) -> None:
    """Between its two renames a replacement leaves no visible folder; whoever comes next puts the old one back."""
    load(tmp_path, full(1, [1]))
    (tmp_path / "out" / "t").rename(tmp_path / "out" / ".t.old")
    load(tmp_path, [schema("t", ONE)])
    assert ids(tmp_path) == [1]
    assert [name for name in names(tmp_path) if ".old" in name] == []


def test_the_files_are_read_by_the_tap(tmp_path: Path) -> None:
    for format_ in ("jsonl", "csv", "parquet"):
        load(tmp_path, [schema("t", ONE), record("t", {"id": 1, "name": "x"})], format=format_, path=f"out/{format_}")
        outcome = run("tap-files", tmp_path, {"path": f"out/{format_}"})
        assert outcome.records("t") == [{"id": 1, "name": "x"}]
