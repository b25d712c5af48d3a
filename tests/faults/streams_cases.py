"""Random taps, pipelines and deaths for `streams.py`."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

NAME = "streams"
NAMES = ("orders", "Orders", "orders_1", "public-orders", "id", "orders_clean")
TARGETS = ("keyed", "silent_until_end", "says_nothing", "echoes_composites", "echoes_older_state")
LANES = {"none": None, "rows": "list[dict]", "frame": "pd.DataFrame"}
AFTER = ("full refresh", "moved destination", "stream left out", "retry of letters")
RAISES_ON = 4
"""The number of the record on which the transformer `raises` raises."""

Record = dict[str, Any]

# What a transformer does: its code in each lane, and (in `streams_model.py`) what becomes of one record.
CHANGES = {
    "same": ("    return rows", "    return rows"),
    "adds": (
        "    return [{**row, 'twice': row['n'] * 2} for row in rows]",
        "    return rows.assign(twice=rows['n'] * 2)",
    ),
    "drops": (
        "    return [{name: row[name] for name in row if name != 'extra'} for row in rows]",
        "    return rows.drop(columns='extra')",
    ),
    "changes": (
        "    return [{**row, 'extra': row['extra'].upper()} for row in rows]",
        "    return rows.assign(extra=rows['extra'].str.upper())",
    ),
    "filters": ("    return [row for row in rows if row['n'] % 3]", "    return rows[rows['n'] != rows['n'] // 3 * 3]"),
    "raises": (
        f"    if any(row['n'] == {RAISES_ON} for row in rows):\n        raise ValueError('no')\n    return rows",
        f"    if (rows['n'] == {RAISES_ON}).any():\n        raise ValueError('no')\n    return rows",
    ),
}


@dataclass(frozen=True)
class Sent:
    """A record that a tap sends: `number` is its place in its stream, or that of its parent's record."""

    number: int
    record: Record
    broken: bool = False
    noted: bool = False
    """It has a column that its stream's first SCHEMA had not."""
    reads: int = 1 << 30
    """Of a table: how many reads of the table find it."""


@dataclass
class Stream:
    """A stream of a source's catalog.

    Args:
        sends: its name in messages.
        mark: the key of its bookmark; None for a table that is read whole, and for a child.
        parent: id of the stream that drives it.
        versions: whether and when the tap sends an ACTIVATE_VERSION.
    """

    id: str
    name: str
    sends: str
    key: list[str]
    mark: str | None
    parent: str | None = None
    table: bool = False
    versions: str | None = None
    parallel: bool = False
    selected: bool = True
    records: list[Sent] = field(default_factory=list)
    changes: bool = False
    """Its SCHEMA changes on the way."""
    shown: int = 0
    """Its bookmark in the newest STATE that has one."""


@dataclass
class Source:
    """A source block and its tap."""

    uuid: str
    shape: str
    streams: list[Stream]
    config: dict[str, Any]


@dataclass
class Destination:
    """A destination block and its target.

    Args:
        tables: a stream's name in the catalog → the table that the block gives it.
        exports: the names that the block lists, where it lists any.
        direct: it stands beside the transformer, not behind it.
    """

    uuid: str
    kind: str
    config: dict[str, Any]
    replaces: bool
    policy: str
    schema_change: str
    tables: dict[str, str]
    exports: list[str] | None
    sources: list[str]
    direct: bool
    processes: int

    def table(self, stream: Stream) -> str:
        """Return the table of a stream."""
        return self.tables.get(stream.name, stream.sends) if stream.sends in (stream.name, stream.id) else stream.sends

    @property
    def transformer(self) -> str:
        """The uuid of the transformer before it, if it is not direct."""
        return f"change_{'_'.join(uuid[-1] for uuid in self.sources)}"

    def exported(self, source: Source, stream: Stream) -> bool:
        """Whether a stream reaches it."""
        known = stream.sends in (stream.name, stream.id)
        listed = self.exports is None or (known and stream.name in self.exports)
        return source.uuid in self.sources and stream.selected and listed


@dataclass
class Case:
    """One pipeline with its deaths.

    Args:
        kills: signals to the runner, and after how many seconds of the run.
    """

    number: int
    sources: list[Source]
    destinations: list[Destination]
    lane: str
    change: str
    kills: list[tuple[int, float]]
    after: str | None = None
    """What a user does once all is well; see `AFTER`."""

    def __str__(self) -> str:
        shapes = ", ".join(f"{len(source.streams)} {source.shape}" for source in self.sources)
        kinds = ", ".join(f"{to.kind} {to.policy} {to.schema_change}" for to in self.destinations)
        kills = f", kills {self.kills}" if self.kills else ""
        after = f", then {self.after}" if self.after else ""
        return f"#{self.number} [{shapes}] -> {self.lane} {self.change} -> [{kinds}]{kills}{after}"

    @property
    def deaths(self) -> int:
        """How many runs may fail before all is well."""
        dying = [source for source in self.sources if "dies" in source.config]
        return len(dying) + sum("die_after" in to.config for to in self.destinations) + len(self.kills)

    def pairs(self) -> list[tuple[Source, Stream]]:
        """Return all streams with their sources."""
        return [(source, stream) for source in self.sources for stream in source.streams]


def case(number: int, seed: int) -> Case:
    """Return the case of this number: the same for the same seed."""
    dice = random.Random(f"{NAME} {seed} {number}")
    names = dice.sample(NAMES, len(NAMES))
    sources = []
    for index in range(dice.choice((1, 1, 1, 2))):
        mine = dice.sample(NAMES, 3) if dice.random() < 0.1 else [names.pop() for _ in range(3)]
        sources.append(_source(dice, f"load_{index}", mine[: dice.randint(1, 3)]))
    lane = dice.choice(list(LANES))
    plugin = {"replaces": dice.random() < 0.5, "processes": dice.choice((1, 1, 1, 2))}
    destinations = [_destination(dice, index, sources, lane, plugin) for index in range(dice.choice((1, 1, 2)))]
    fed = {uuid for to in destinations for uuid in to.sources}
    destinations[0].sources = sorted({*destinations[0].sources, *(s.uuid for s in sources if s.uuid not in fed)})
    if lane != "none" and all(to.direct for to in destinations):
        destinations[0].direct = False
    kills = [(dice.choice((9, 9, 15)), dice.uniform(0.03, 0.5)) for _ in range(dice.choice((0, 0, 0, 1, 2)))]
    change = dice.choice(list(CHANGES))
    return Case(number, sources, destinations, lane, change, kills, dice.choice((None, None, None, None, *AFTER)))


def _destination(
    dice: random.Random, index: int, sources: list[Source], lane: str, plugin: dict[str, Any]
) -> Destination:
    config: dict[str, Any] = {"path": f"out_{index}.db", "flush": dice.choice((1, 3, 100))}
    if dice.random() < 0.4:
        config |= {"die_after": dice.randint(0, 20), "die_once": f"died_{index}", "die_code": dice.choice((1, 1, -9))}
    fed = dice.sample(sources, dice.randint(1, len(sources)))
    streams = [stream for source in fed for stream in source.streams if stream.selected]
    named = [stream.name for stream in streams if stream.sends in (stream.name, stream.id)]
    once = [name for name in named if named.count(name) == 1]
    tables = {name: f"t_{name}" for name in once if dice.random() < 0.1}
    if len(once) > 1 and dice.random() < 0.05:
        tables = dict.fromkeys(once[:2], "shared")
    exports = None
    if once and dice.random() < 0.15:
        exports = dice.sample(once, dice.randint(1, len(once)))
    return Destination(
        uuid=f"export_{index}",
        kind=dice.choice(TARGETS),
        config=config,
        policy=dice.choice(("pass", "quarantine", "quarantine", "fail")),
        schema_change=dice.choice(("evolve", "evolve", "evolve", "freeze", "pause")),
        tables=tables,
        exports=exports,
        sources=sorted(source.uuid for source in fed),
        direct=lane != "none" and dice.random() < 0.25,
        **plugin,
    )


def _source(dice: random.Random, uuid: str, names: list[str]) -> Source:
    streams = _streams(dice, uuid, names)
    shape = dice.choice(("bookmarks", "bookmarks", "flat", "own"))
    names_parents = dice.random() < 0.5
    driven = any(stream.parent for stream in streams)
    if shape != "flat" and dice.random() < 0.3 and (names_parents or not driven):
        for stream in streams:
            stream.parallel = dice.random() < 0.7
    script = [["schema", stream.id, _properties(stream)] for stream in streams if not stream.table]
    for _ in range(dice.randint(0, 30)):
        _event(dice, uuid, streams, script)
    for stream in streams:
        if stream.table:
            _table(dice, uuid, stream)
            rows = [[sent.record, sent.reads] for sent in stream.records]
            at = dice.randint(0, len(script))
            script[at:at] = [["schema", stream.id, _properties(stream)], ["table", stream.id, rows]]
    script.append(["state", "plain"])
    # What every process sends under a name that its catalog does not know cannot be told apart.
    sends_all = shape != "flat" and not any(stream.parallel for stream in streams) and dice.random() < 0.5
    _show(streams, script, shape, sends_all=sends_all)
    config: dict[str, Any] = {
        "streams": [
            {
                **{
                    name: getattr(stream, name) for name in ("id", "name", "sends", "key", "mark", "parent", "versions")
                },
                "properties": _properties(stream),
            }
            for stream in streams
        ],
        "script": script,
        "shape": shape,
        "sends_all": sends_all,
        "names_parents": names_parents,
        "reads": f"read_{uuid}_",
    }
    if dice.random() < 0.5:
        config["dies"] = {"after": dice.randrange(len(script)), "once": f"died_{uuid}"}
    return Source(uuid, shape, streams, config)


def _streams(dice: random.Random, uuid: str, names: list[str]) -> list[Stream]:
    streams: list[Stream] = []
    by_name = dice.random() < 0.3
    for name in names:
        id = name if dice.random() < 0.6 else f"{uuid}-{name}"
        sends = dice.choices((name, id, f"{name}_alias"), (8, 2, 1))[0]
        key = ["id"] if dice.random() < 0.8 else []
        stream = Stream(id, name, sends, key, name if by_name else id)
        kind = dice.random()
        driving = [each.id for each in streams if each.mark]
        if kind < 0.12 and driving:
            stream.mark, stream.parent = None, dice.choice(driving)
        elif kind < 0.25:
            stream.mark, stream.table, stream.versions = None, True, dice.choice((None, None, "early", "late"))
        elif kind < 0.32 and not by_name:
            streams.append(Stream(f"{id}-twin", name, name, key, f"{id}-twin"))
            stream.sends = name
        streams.append(stream)
    alone = [
        stream for stream in streams if not stream.parent and [each.name for each in streams].count(stream.name) < 2
    ]
    if len(streams) > 1 and alone and dice.random() < 0.2:
        left_out = dice.choice(alone)
        if left_out.sends in (left_out.name, left_out.id) and not any(each.parent == left_out.id for each in streams):
            left_out.selected = False
    return streams


def _properties(stream: Stream) -> dict[str, Any]:
    return {
        "id": {"type": "integer"},
        "n": {"type": "integer"},
        "who": {"type": "string"},
        "extra": {"type": "string"},
        "qty": {"type": ["null", "integer"]},
    }


def _event(dice: random.Random, uuid: str, streams: list[Stream], script: list[Any]) -> None:
    """Append an event to the script."""
    moving = [stream for stream in streams if not stream.table]
    event = dice.random()
    if event < 0.25 or not moving:
        script.append(["state", dice.choices(("plain", "syncing", "null", "empty"), (6, 3, 1, 1))[0]])
        return
    stream = dice.choice(moving)
    noted = [line for line in script if line[0] == "schema" and line[1] == stream.id][-1][2].keys() > _properties(
        stream
    ).keys()
    if event < 0.29 and stream.records:
        stream.changes = True
        more = {} if noted and dice.random() < 0.5 else {"note": {"type": ["null", "string"]}}
        script.append(["schema", stream.id, {**_properties(stream), **more}])
        return
    own = len(stream.records) + 1
    number = own
    if stream.parent:
        # Its parent's next record is sent after it.
        number = 1 + next(len(each.records) for each in streams if each.id == stream.parent)
    sent = _sent(dice, uuid, streams.index(stream), stream, number, own, noted=noted)
    stream.records.append(sent)
    script.append(["record", stream.id, number, sent.record])


def _table(dice: random.Random, uuid: str, stream: Stream) -> None:
    """Fill a table: each key once, since a table has no history."""
    for own in range(1, dice.randint(0, 8) + 1):
        sent = _sent(dice, uuid, 9, stream, own, own, noted=False)
        record = {**sent.record, **({"id": sent.record["id"] // 10 * 10 + own} if "id" in sent.record else {})}
        stream.records.append(Sent(own, record, sent.broken, reads=dice.choice((1, 2, 1 << 30, 1 << 30))))


def _sent(dice: random.Random, uuid: str, index: int, stream: Stream, number: int, own: int, *, noted: bool) -> Sent:
    record: Record = {
        "id": 10_000 * int(uuid[-1]) + 1_000 * index + dice.randint(1, 6),
        "n": own,
        "who": f"{uuid}/{stream.id}",
        "extra": f"e{own}",
        "qty": dice.choice((own, None)),
    }
    if noted:
        record["note"] = dice.choice((f"note {own}", None))
    broken = dice.random() < 0.05
    if broken and stream.key and dice.random() < 0.3:
        del record["id"]
    elif broken:
        record["qty"] = "many"
    return Sent(number, record, broken, noted)


def _show(streams: list[Stream], script: list[Any], shape: str, *, sends_all: bool) -> None:
    """Note each stream's bookmark in the newest STATE that has one."""
    marks: dict[str, int] = {}
    last = None
    for kind, *rest in script:
        if kind == "record":
            stream = next(each for each in streams if each.id == rest[0])
            if stream.mark and (stream.selected or sends_all):
                marks[stream.id], last = rest[1], stream.id
        elif kind == "state" and rest[0] in ("plain", "syncing"):
            for each in streams:
                if each.id in marks and (shape != "own" or each.id == last):
                    each.shown = marks[each.id]
