"""Runs the random cases of `tables_cases.py` and compares the tables with the model in `tables_model.py`."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from tests.faults.matrix import FaultError
from tests.faults.tables_cases import NAME, Case, Run, Sent, case
from tests.faults.tables_model import Row, Table, compare
from tests.support import preloaded
from tests.support.connectors import clean_environment, command

__all__ = ["NAME", "case", "suffer"]

_encode = msgspec.json.Encoder(decimal_format="number").encode


def suffer(root: Path, made: Case) -> str:
    """Run the case, compare after each attempt; return what became of it.

    Raises:
        FaultError: something was wrong; the message says what.
    """
    root.mkdir(parents=True)
    tables: dict[str, Table] = {}
    names = sorted({run.settings[name].get("destination_table", name) for run in made.runs for name in run.settings})
    foreign = _Foreign(root, made, names)
    died = 0
    for number, run in enumerate(made.runs, 1):
        place = f"run {number}"
        try:
            outcome, deaths = _run(root, made, run, tables)
        except FaultError as error:
            raise FaultError(f"{made}: {place}: {error}") from error
        if outcome == "refused":
            foreign.check()
            return "refused"
        died += deaths
    foreign.check()
    return f"all right, {'with' if died else 'without'} deaths, {made.target}"


def _run(root: Path, made: Case, run: Run, tables: dict[str, Table]) -> tuple[str, int]:
    """Run the target until it has ended by itself."""
    position = attempts = deaths = 0
    sent_before = 0
    while True:
        death = run.deaths[attempts] if attempts < len(run.deaths) else None
        fresh = run.fresh and attempts > 0
        start = 0 if fresh else position
        lines = [
            _line(message, index + 1, attempts * run.step if run.fresh else 0)
            for index, message in enumerate(run.messages)
        ]
        schemas = {m.stream: lines[i] for i, m in enumerate(run.messages[:start]) if m.type == "SCHEMA"}
        data = [*schemas.values(), *lines[start:]]
        code, echoed, err = _feed(root, made, run, data, death)
        attempts += 1
        if echoed is not None:
            position = max(position, echoed)
        if code == 0 and not (death and death[0] == 0):
            break
        if made.refusable and "have one table" in err:
            return "refused", deaths
        if death is None:
            raise FaultError(f"exit code {code}\n{err}")
        deaths += 1
        sent_before = len(run.messages)
        _check_between(root, made, run, tables, position)
    applied = [_with_version(message, (attempts - 1) * run.step if run.fresh else 0) for message in run.messages]
    _apply(made, run, applied, tables, again=sent_before > 0)
    for stream, setting in run.settings.items():
        table = setting.get("destination_table", stream)
        compare(f"table {table!r}", tables.setdefault(table, Table()), _held(root, made, table))
    return "done", deaths


def _with_version(message: Sent, more: int) -> Sent:
    if "version" not in message.body:
        return message
    return message._replace(body={**message.body, "version": message.body["version"] + more})


def _line(message: Sent, number: int, more: int) -> bytes:
    message = _with_version(message, more)
    body: dict[str, Any] = {"type": message.type}
    if message.type == "STATE":
        return _encode({**body, "value": {"n": number}}) + b"\n"
    return _encode({**body, "stream": message.stream, **message.body}) + b"\n"


def _feed(
    root: Path, made: Case, run: Run, data: list[bytes], death: tuple[int, float, float] | None
) -> tuple[int, int | None, str]:
    """Feed a target; return its exit code, the number of the last STATE that it has echoed, and its log."""
    config = {**made.config, "streams": run.settings}
    if made.target == "duckdb":
        config["path"] = "w.duckdb"
    else:
        config |= {"path": "out", "format": made.target}
        config["flush_seconds"] = 0.01
    (root / "config.json").write_text(json.dumps(config))
    connector = "target-duckdb" if made.target == "duckdb" else "target-files"
    text = b"".join(data)
    if death:
        cut = int(len(text) * death[1])
        while cut and (text[cut - 1 : cut] == b"\n" or text[cut : cut + 1] == b"\n"):
            cut -= 1
        text = text[:cut]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        reading, writing = os.pipe()
        argv = command(connector, "--config", "config.json")
        process = preloaded.start(argv, cwd=root, env=_environment(), stdin=reading, stdout=out, stderr=err)
        os.close(reading)
        pieces = [text[place : place + 2000] for place in range(0, len(text), 2000)]
        with contextlib.suppress(BrokenPipeError), open(writing, "wb", buffering=0) as file:
            for piece in pieces:
                file.write(piece)
                time.sleep(0.001)
            if death and death[0]:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(death[2] + 0.02)
                process.send_signal(death[0])
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise FaultError("the target does not end") from None
        out.seek(0)
        echoes = out.read().splitlines(keepends=True)
        err.seek(0)
        log = err.read().decode()
    whole = [json.loads(line)["n"] for line in echoes if line.endswith(b"\n")]
    return code, whole[-1] if whole else None, log


def _environment() -> dict[str, str]:
    env = {name: value for name, value in clean_environment().items() if not name.startswith("LC_")}
    return env | {"LANG": "C.UTF-8"}


def _apply(made: Case, run: Run, messages: list[Sent], tables: dict[str, Table], *, again: bool) -> None:
    """Let the model load a run."""
    keys: dict[str, list[str]] = {}
    for stream in run.settings:
        tables.setdefault(_table(run, stream), Table()).waiting = []
    for message in messages:
        table = tables[_table(run, message.stream)] if message.stream else Table()
        if message.type == "SCHEMA":
            keys[message.stream] = message.body["key_properties"] if message.stream in run.upserts else []
        elif message.type == "RECORD":
            waits = message.stream in run.replaces or "version" in message.body
            ignore = "unique_conflict_method" in run.settings[message.stream]
            table.take(message, keys[message.stream], waits=waits, ignore=ignore, again=again)
        elif message.type == "ACTIVATE_VERSION":
            table.put_in_place()
    for stream in run.replaces:
        tables[_table(run, stream)].put_in_place()


def _table(run: Run, stream: str) -> str:
    name: str = run.settings[stream].get("destination_table", stream)
    return name


def _check_between(root: Path, made: Case, run: Run, tables: dict[str, Table], position: int) -> None:
    """Check what a death has left, as far as it is certain."""
    for stream in run.settings:
        name = _table(run, stream)
        old = tables.get(name, Table()).rows
        held = [int(record["n"]) for record in _held(root, made, name)]
        records = [(i, m) for i, m in enumerate(run.messages) if m.type == "RECORD" and m.stream == stream]
        sent = [message.body["record"]["n"] for _, message in records]
        earlier = [row.number for row in old]
        if foreign := set(held) - set(sent) - set(earlier):
            raise FaultError(f"after a death table {name!r} holds rows that nobody sent: {foreign}")
        waits = stream in run.replaces or any(m.stream == stream and "version" in m.body for m in run.messages)
        if waits and old and set(held) & set(sent) and set(held) & set(earlier):
            raise FaultError(f"after a death table {name!r} mixes old and new rows: {held}")
        if waits and old and not set(held) & set(sent) and set(held) != set(earlier) and (held or sent):
            raise FaultError(f"after a death table {name!r} lacks old rows: {held}, not {earlier}")
        if waits:
            continue
        if stream not in run.upserts:
            due = {*earlier, *(message.body["record"]["n"] for i, message in records if i < position)}
            if lacking := due - set(held):
                raise FaultError(f"after a death table {name!r} lacks {lacking}, though STATE {position} was echoed")
        else:
            _check_keys(name, run, stream, old, held, position)


def _check_keys(name: str, run: Run, stream: str, old: list[Row], held: list[int], position: int) -> None:
    if len(set(held)) < len(held):
        raise FaultError(f"after a death table {name!r} has rows twice: {held}")
    proven = Table([Row(dict(row.cells)) for row in old])
    keys: list[str] = []
    later = []
    for index, message in enumerate(run.messages):
        if message.stream != stream:
            continue
        if message.type == "SCHEMA":
            keys = message.body["key_properties"]
        elif message.type == "RECORD" and index < position:
            proven.take(message, keys, waits=False, ignore=False, again=False)
        elif message.type == "RECORD":
            later.append(message)
    if "unique_conflict_method" in run.settings[stream]:
        return
    for row in proven.rows:
        # It is there, unless a later record has its key.
        newer = Table([Row(dict(row.cells))])
        for message in later:
            newer.take(message, keys, waits=False, ignore=False, again=False)
        replaced = all(each.number != row.number for each in newer.rows)
        if row.number not in held and not replaced:
            raise FaultError(f"after a death table {name!r} lacks {row.number}, though STATE {position} was echoed")


def _held(root: Path, made: Case, table: str) -> list[dict[str, Any]]:
    """Return the rows of a table that a reader sees."""
    if made.target == "duckdb":
        return _duckdb_rows(root, table)
    return [record for path in _files(root, table) for record in _file_rows(path, made.target)]


def _duckdb_rows(root: Path, table: str) -> list[dict[str, Any]]:
    import duckdb

    if not (root / "w.duckdb").exists():
        return []
    with duckdb.connect(str(root / "w.duckdb")) as db:
        quoted = table.replace('"', '""')
        if not db.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [table]).fetchone():
            return []
        cursor = db.execute(f'SELECT * FROM "{quoted}"')
        names = [column[0] for column in cursor.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return [{name: value for name, value in row.items() if name != "_sdc_table_version"} for row in rows]


def _files(root: Path, table: str) -> Iterator[Path]:
    name = f"%{ord(table[0]):02X}{table[1:]}" if table[0] in "._" else table
    folder = root / "out" / name
    for path in sorted(folder.iterdir()) if folder.exists() else ():
        if path.name[0] != "." and not path.name.startswith("mine"):
            yield path


def _file_rows(path: Path, format: str) -> list[dict[str, Any]]:
    if format == "parquet":
        import pyarrow.parquet as pq

        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if format == "jsonl":
        return [json.loads(line, parse_float=Decimal) for line in data.split(b"\n")[:-1]]
    # An empty text is quoted, a null is not: a mark keeps them apart.
    text = data.decode()
    lines = list(csv.reader(io.StringIO(_marked(text), newline="")))
    names = [name.removeprefix("\0") for name in lines[0]]
    return [
        {name: None if cell == "" else cell.removeprefix("\0") for name, cell in zip(names, line, strict=True)}
        for line in lines[1:]
    ]


def _marked(text: str) -> str:
    """Put a mark into every quoted cell."""
    marked: list[str] = []
    inside = False
    for index, letter in enumerate(text):
        marked.append(letter)
        if letter == '"':
            if not inside and text[index - 1 : index] in ("", ",", "\n"):
                marked.append("\0")
                inside = True
            else:
                inside = not inside
    return "".join(marked)


class _Foreign:
    """What stands beside the target's tables, and must stay."""

    def __init__(self, root: Path, made: Case, tables: list[str]) -> None:
        self._root = root
        self._duckdb = made.target == "duckdb"
        self._paths: list[Path] = []
        self._tables: list[str] = []
        if not self._duckdb:
            for table in tables:
                name = f"%{ord(table[0]):02X}{table[1:]}" if table[0] in "._" else table
                folder = root / "out" / name
                folder.mkdir(parents=True)
                self._paths += [folder / "mine.parquet", folder / "mine-v1-7.jsonl", folder / ".mine"]
                other = root / "out" / f".{name}.version-x"
                other.mkdir()
                self._paths.append(other / "mine")
            for path in self._paths:
                path.write_text("mine")
            return
        import duckdb

        self._tables = [f"{table}__{end}" for table in tables for end in ("version_10", "version_20", "replacing")]
        self._tables = [name for name in self._tables if name not in tables]
        with duckdb.connect(str(root / "w.duckdb")) as db:
            for name in self._tables:
                db.execute(f'CREATE TABLE IF NOT EXISTS "{name}" AS SELECT 1 AS mine')
            db.execute("CREATE VIEW mine AS SELECT 1 AS mine")

    def check(self) -> None:
        """Compare.

        Raises:
            FaultError: something is gone or changed.
        """
        for path in self._paths:
            if not path.exists() or path.read_text() != "mine":
                raise FaultError(f"{path} was somebody else's, and is gone")
        if not self._duckdb:
            return
        import duckdb

        with duckdb.connect(str(self._root / "w.duckdb")) as db:
            for name in (*self._tables, "mine"):
                if db.execute(f'SELECT * FROM "{name}"').fetchall() != [(1,)]:
                    raise FaultError(f"table {name!r} was somebody else's, and has changed")
