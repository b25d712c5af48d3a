"""Random Singer messages for the bundled targets, in several runs with deaths, for `tables.py`."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

NAME = "tables"
TARGETS = ("duckdb", "duckdb", "duckdb", "jsonl", "csv", "parquet")
NAMES = ("orders", "Orders", "order items", "_hidden", "orders__version_5", "select")
Record = dict[str, Any]


class Kind(NamedTuple):
    """A JSON type of a column: its schema, values that it allows, and what its texts mean."""

    schema: dict[str, Any]
    values: tuple[Any, ...]
    meaning: str = "plain"


def _texts(format: str | None, *values: str, meaning: str = "plain", **more: Any) -> Kind:
    schema = {"type": ["null", "string"], **({"format": format} if format else {}), **more}
    return Kind(schema, values, meaning)


INTEGER = Kind({"type": ["null", "integer"]}, (0, 1, -7, 5.0, 2**53 + 1, 2**63 - 1, 2**64, -(10**25)))
NUMBER = Kind({"type": ["null", "number"]}, (0, 1.5, 0.1, 7, 2**53 + 1, 1e300, Decimal("12345678901234567.25"), -0.0))
CENTS = Kind(
    {"type": ["null", "number"], "multipleOf": 0.01},
    (0.01, 7, Decimal("1.10"), 99999999.99, Decimal("123456789012.34")),
)
DECIMAL = _texts("singer.decimal", "1.10", "0", "-12345678901234567890.123456789", "7", meaning="decimal")
DATE = _texts("date", "2024-02-29", "1999-12-31", "0001-01-01", "9999-12-31", meaning="moment")
MOMENT = _texts(
    "date-time",
    *("2024-02-29T10:00:00Z", "2024-02-29 10:00:00", "2024-02-29T12:00:00.123456+02:00", "2024-02-29"),
    *("2024-02-29T10:00:00.1234567Z", "9999-12-31T23:59:59Z", "2024-02-31T00:00:00Z", "0000-00-00 00:00:00"),
    meaning="moment",
)
TIME = _texts("time", "10:00:00", "23:59:59.999999", "10:00:00.1234567", "24:00:00", "10:00", meaning="time")
BOOLEAN = Kind({"type": ["null", "boolean"]}, (True, False))
OBJECT = Kind({"type": ["null", "object", "array"]}, ({"k": 1}, [], {"a": [1.5, None, "ü"]}, [{"x": {}}], {"n": 2**64}))
TEXT = _texts(None, "", "plain", "1E5", "1.10", "null", 'quote "and", comma', "two\r\nlines", "007", "ü\u2028", " x ")
BINARY = _texts(None, "AAEC", "", meaning="binary", contentEncoding="base64")
MIXED = Kind({"type": ["null", "string", "integer", "boolean"]}, ("1", 1, True, "true", ""))

PATHS = (
    (INTEGER, NUMBER, CENTS, TEXT),
    (INTEGER, CENTS, NUMBER, MIXED),
    (NUMBER, INTEGER, OBJECT),
    (CENTS, DECIMAL, NUMBER, TEXT),
    (DATE, MOMENT, TEXT),
    (MOMENT, DATE, OBJECT),
    (BOOLEAN, INTEGER, TEXT),
    (BOOLEAN, MIXED, OBJECT),
    (OBJECT, TEXT),
    (TEXT, OBJECT, INTEGER),
    (TIME, TEXT),
    (BINARY, TEXT),
    (MIXED, INTEGER),
)
"""What a column is, and what it becomes when its SCHEMA changes."""

KEYS = {
    "integer": (1, 2, 3, 4, 2**53 + 1, 2**53 + 2, 5.0),
    "text": ("a", "A", "", "1", "01", "ü"),
    "moment": ("2024-02-29T10:00:00Z", "2024-02-29T10:00:01Z", "2024-02-29T10:00:00.5Z"),
    "number": (1, 1.5, 2, 2**53 + 1, 0.1),
}
KEY_SCHEMAS = {
    "integer": INTEGER.schema,
    "text": TEXT.schema,
    "moment": MOMENT.schema,
    "number": NUMBER.schema,
}


@dataclass
class Stream:
    """A stream as the newest SCHEMA has it.

    Args:
        method: load_method of the config; None where the target decides.
        versions: its RECORDs bear a version, and an ACTIVATE_VERSION ends them.
        columns: property → (path, place on the path).
    """

    name: str
    table: str
    method: str | None
    keys: list[str]
    key_kinds: dict[str, str]
    versions: bool
    ignore: bool
    columns: dict[str, tuple[tuple[Kind, ...], int]] = field(default_factory=dict)
    deletes: bool = False
    partial: bool = False
    is_loaded: bool = False
    """Its table has rows: those of a version that is not activated are not visible."""

    def kind(self, column: str) -> Kind:
        """Return the kind that a column has now."""
        path, place = self.columns[column]
        return path[place]

    def properties(self) -> dict[str, Any]:
        """Return the schemas of its properties."""
        found: dict[str, Any] = {"n": {"type": "integer"}}
        found |= {name: KEY_SCHEMAS[kind] for name, kind in self.key_kinds.items()}
        found |= {name: self.kind(name).schema for name in self.columns}
        if self.deletes:
            found["_sdc_deleted_at"] = MOMENT.schema
        return found


class Sent(NamedTuple):
    """A message; `meanings` tells how texts of a record are to be read."""

    type: str
    stream: str
    body: dict[str, Any]
    meanings: dict[str, str] = {}  # noqa: RUF012 (never changed)


@dataclass
class Run:
    """The messages of one run.

    Args:
        deaths: for each attempt that dies: the signal, the part of the bytes that it gets, seconds until it comes.
        fresh: attempts after the first one begin from the start with new versions.
        step: what a new version is higher by.
        settings: of streams, in the target's config.
    """

    messages: list[Sent]
    deaths: list[tuple[int, float, float]]
    fresh: bool
    settings: dict[str, dict[str, Any]]
    replaces: set[str]
    upserts: set[str]
    step: int


@dataclass
class Case:
    """Runs into one target."""

    number: int
    target: str
    config: dict[str, Any]
    runs: list[Run]
    refusable: bool

    def __str__(self) -> str:
        runs = ", ".join(f"{len(run.messages)} messages {len(run.deaths)} deaths" for run in self.runs)
        return f"#{self.number} {self.target} {self.config}: {runs}"


def case(number: int, seed: int) -> Case:
    """Return the case of this number: the same for the same seed."""
    dice = random.Random(f"{NAME} {seed} {number}")
    target = dice.choice(TARGETS)
    config: dict[str, Any] = {"batch_rows": dice.choice((1, 3, 10, 1000))}
    if target in ("jsonl", "csv"):
        config["compression"] = dice.choice(("none", "none", "gzip"))
    names = dice.sample(NAMES if dice.random() < 0.3 else NAMES[1:], dice.randint(1, 3))
    streams = [_stream(dice, name, target) for name in names]
    lower = [stream.table.lower() for stream in streams]
    refusable = target == "duckdb" and len(set(lower)) < len(lower)
    counter = [0]
    # Versions are made of the time of day, and a clock may be set back.
    versions = [dice.choice((10 * place, 100 - 10 * place)) for place in range(1, dice.randint(2, 5))]
    runs = [_run(dice, target, streams, version, counter, every=refusable) for version in versions]
    return Case(number, target, config, runs, refusable)


def _stream(dice: random.Random, name: str, target: str) -> Stream:
    kinds = {"id": dice.choice(list(KEYS))}
    if dice.random() < 0.3:
        kinds["region"] = dice.choice(list(KEYS))
    keys = dice.choice(([], list(kinds), list(kinds), ["id"]))
    method = dice.choice((None, None, None, "append", "replace", "upsert" if keys and target == "duckdb" else None))
    table = name if dice.random() < 0.8 else f"T {name}"
    stream = Stream(name, table, method, keys, kinds, method is None and dice.random() < 0.4, False)
    stream.ignore = bool(keys) and target == "duckdb" and method != "append" and dice.random() < 0.1
    stream.partial = dice.random() < 0.5
    stream.deletes = not stream.ignore and dice.random() < 0.3
    for column in dice.sample(("a", "b", "Name", "name", "NAME", "streamline_row", "d e", 'q"'), dice.randint(1, 4)):
        same = column.lower() == "name"
        stream.columns[column] = ((TEXT,), 0) if same else (dice.choice(PATHS), 0)
    return stream


def _change(dice: random.Random, stream: Stream) -> None:
    """Change the SCHEMA."""
    for column, (path, place) in list(stream.columns.items()):
        if place + 1 < len(path) and dice.random() < 0.4:
            stream.columns[column] = (path, place + 1)
        elif dice.random() < 0.1 and len(stream.columns) > 1:
            del stream.columns[column]
    if dice.random() < 0.4:
        # One of the two: a column that is there takes the values of a property whose name differs by case only.
        name = dice.choice(("new" if stream.deletes else "New", "e"))
        stream.columns.setdefault(name, ((TEXT,), 0) if name.lower() == "new" else (dice.choice(PATHS), 0))
    if dice.random() < 0.1:
        stream.deletes = stream.deletes or not stream.ignore


def _run(
    dice: random.Random, target: str, streams: list[Stream], version: int, counter: list[int], *, every: bool
) -> Run:
    messages: list[Sent] = []
    chosen = [stream for stream in streams if every or dice.random() < 0.85] or streams[:1]
    settings: dict[str, dict[str, Any]] = {}
    for stream in chosen:
        if counter[0]:
            _change(dice, stream)
            if dice.random() < 0.1 and target == "duckdb" and stream.method not in ("upsert",) and stream.keys:
                stream.keys = dice.choice((list(stream.key_kinds), ["id"]))
            if dice.random() < 0.15 and stream.method is None:
                stream.versions = not stream.versions
        setting: dict[str, Any] = {"destination_table": stream.table} if stream.table != stream.name else {}
        if stream.method:
            setting["load_method"] = stream.method
        if stream.ignore:
            setting["unique_conflict_method"] = "IGNORE"
        settings[stream.name] = setting
        messages.append(_schema(stream))
    for _ in range(dice.randint(0, 25)):
        stream = dice.choice(chosen)
        event = dice.random()
        if event < 0.15:
            messages.append(Sent("STATE", "", {}))
        elif event < 0.2:
            _change(dice, stream)
            messages.append(_schema(stream))
        else:
            messages.append(_record(dice, stream, version, counter))
    for stream in chosen:
        sent = any(each.type == "RECORD" and each.stream == stream.name for each in messages)
        if stream.versions and (not stream.is_loaded or dice.random() < 0.9):
            messages.append(Sent("ACTIVATE_VERSION", stream.name, {"version": version}))
            stream.is_loaded = sent
        elif not stream.versions:
            stream.is_loaded = sent or (stream.is_loaded and stream.method != "replace")
    if dice.random() < 0.8:
        messages.append(Sent("STATE", "", {}))
    deaths = [
        (dice.choice((9, 9, 15, 0)), dice.random(), dice.choice((0.0, 0.01, 0.05)))
        for _ in range(dice.choice((0, 0, 1, 2)))
    ]
    replaces = {stream.name for stream in chosen if stream.method == "replace"}
    upserts = {stream.name for stream in chosen if target == "duckdb" and stream.keys and stream.method != "append"}
    return Run(messages, deaths, dice.random() < 0.5, settings, replaces, upserts, dice.choice((1, -1)))


def _schema(stream: Stream) -> Sent:
    body = {"schema": {"type": "object", "properties": stream.properties()}, "key_properties": list(stream.keys)}
    return Sent("SCHEMA", stream.name, body)


def _record(dice: random.Random, stream: Stream, version: int, counter: list[int]) -> Sent:
    counter[0] += 1
    record: Record = {"n": counter[0]}
    meanings: dict[str, str] = {}
    for name, kind in stream.key_kinds.items():
        record[name] = dice.choice(KEYS[kind]) if dice.random() < 0.97 else None
        meanings[name] = "moment" if kind == "moment" else "plain"
    for name in stream.columns:
        kind = stream.kind(name)
        meanings[name] = kind.meaning
        if stream.partial and dice.random() < 0.2:
            continue
        value = None if dice.random() < 0.15 else dice.choice(kind.values)
        if value is not None and name.lower() in ("name", "new"):
            value = f"{name}:{counter[0]}"
        record[name] = value
    if stream.deletes and dice.random() < 0.3:
        record["_sdc_deleted_at"] = "2024-02-29T10:00:00Z"
        meanings["_sdc_deleted_at"] = "moment"
    body: dict[str, Any] = {"record": record}
    if stream.versions:
        body["version"] = version
    return Sent("RECORD", stream.name, body, meanings)
