"""Random taps, pipelines and deaths, compared with a model that knows nothing of the engine.

What lies before a saved position is in every destination or in the dead letters, as it was sent, and nothing else is.
After the rerun, everything is. A pipeline that is refused before anything was sent counts as right.
"""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.matrix import FaultError
from tests.support.project import Block, Project, tap, target, transformer

NAME = "streams"
NAMES = ("orders", "Orders", "orders_1", "public-orders", "id", "orders_clean")
TARGETS = ("keyed", "silent_until_end", "says_nothing", "echoes_composites", "echoes_older_state")
ANNOTATIONS = {"none": None, "rows": "list[dict]", "frame": "pd.DataFrame"}
Record = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """A source block: what its tap sends, all of it, by the stream's id: (number, record, broken)."""

    uuid: str
    config: dict[str, Any]
    sent: dict[str, list[tuple[int, Record, bool]]]
    parallel: bool


@dataclass(frozen=True)
class Case:
    """One pipeline with its deaths."""

    number: int
    sources: list[Source]
    destinations: list[tuple[str, str, dict[str, Any]]]
    lane: str
    policy: str

    def __str__(self) -> str:
        shapes = ", ".join(f"{len(source.sent)} {source.config['shape']}" for source in self.sources)
        kinds = ", ".join(kind for _, kind, _ in self.destinations)
        return f"#{self.number} [{shapes}] -> {self.lane} -> [{kinds}], {self.policy}"


def case(number: int, seed: int) -> Case:
    """Return the case of this number: the same for the same seed."""
    dice = random.Random(f"{NAME} {seed} {number}")
    policy = dice.choice(("pass", "quarantine", "fail"))
    names = dice.sample(NAMES, len(NAMES))
    sources = []
    for index in range(dice.choice((1, 1, 2))):
        mine = [names.pop() for _ in range(dice.randint(1, 3))]
        sources.append(_source(dice, f"load_{index}", mine))
    destinations = []
    for index in range(dice.choice((1, 1, 2))):
        config: dict[str, Any] = {"path": f"out_{index}.db", "flush": dice.choice((1, 3, 100))}
        if dice.random() < 0.5:
            config |= {"die_after": dice.randint(0, 20), "die_once": f"died_{index}"}
        destinations.append((f"export_{index}", dice.choice(TARGETS), config))
    return Case(number, sources, destinations, dice.choice(list(ANNOTATIONS)), policy)


def _source(dice: random.Random, uuid: str, names: list[str]) -> Source:
    properties: dict[str, Any] = {
        "id": {"type": "integer"},
        "n": {"type": "integer"},
        "who": {"type": "string"},
        "qty": {"type": ["null", "integer"]},
    }
    streams, script = [], []
    sent: dict[str, list[tuple[int, Record, bool]]] = {}
    for name in names:
        id = name if dice.random() < 0.6 else f"{uuid}-{name}"
        key = ["id"] if dice.random() < 0.8 else []
        streams.append({"id": id, "name": name, "key": key, "properties": properties})
        script.append(["schema", id, properties])
        sent[id] = []
    for _ in range(dice.randint(0, 30)):
        stream = dice.choice(streams)
        id = stream["id"]
        event = dice.random()
        if event < 0.25:
            script.append(["state"])
        elif event < 0.32:
            script.append(["schema", id, {**properties, "note": {"type": ["null", "string"]}}])
        else:
            number = len(sent[id]) + 1
            record: Record = {"id": number, "n": number, "who": f"{uuid}/{id}", "qty": dice.choice((number, None))}
            broken = dice.random() < 0.08
            if broken and stream["key"] and dice.random() < 0.3:
                del record["id"]
            elif broken:
                record["qty"] = "many"
            sent[id].append((number, record, broken))
            script.append(["record", id, number, record])
    script.append(["state"])
    shape = dice.choice(("bookmarks", "flat", "own"))
    config: dict[str, Any] = {"streams": streams, "script": script, "shape": shape}
    if dice.random() < 0.5:
        config["dies"] = {"after": dice.randrange(len(script)), "once": f"died_{uuid}"}
    return Source(uuid, config, sent, dice.random() < 0.3)


def make(root: Path, made: Case) -> Project:
    """Write the case's project."""
    project = Project(root)
    blocks: list[Block] = []
    for source in made.sources:
        setting = {"run_in_parallel": True} if source.parallel else {}
        streams = {id: {"replication_method": "INCREMENTAL", **setting} for id in source.sent}
        blocks.append(tap("plays", source.config, uuid=source.uuid, streams=streams, max_parallel=3))
    if annotation := ANNOTATIONS[made.lane]:
        code = "import pandas as pd\nfrom streamline.decorators import transformer\n\n\n@transformer\n"
        blocks.append(transformer(f"{code}def change(rows: {annotation}, *args, **kwargs):\n    return rows\n"))
    for uuid, kind, config in made.destinations:
        blocks.append(target(kind, config, uuid=uuid, on_bad_record=made.policy))
    project.pipeline("p", *blocks)
    return project


def suffer(root: Path, made: Case) -> str:
    """Run the case until nothing dies any more, compare after each run; return what became of it.

    Raises:
        FaultError: something was wrong; the message says what.
    """
    project = make(root, made)
    deaths = sum("dies" in s.config for s in made.sources) + sum("die_after" in c for _, _, c in made.destinations)
    broken = any(bad for source in made.sources for records in source.sent.values() for _, _, bad in records)
    try:
        for _ in range(deaths + 2):
            completed = project.run()
            if completed.code == 2:
                return f"refused: {completed.last_line[:100]}"
            compare(project, made, whole=completed.code == 0)
            if completed.code == 0:
                return "all right"
        if not broken or made.policy == "quarantine":
            raise FaultError(f"the last run ends with {completed.code}, though nothing dies any more\n{completed}")
        return f"stopped at a broken record ({made.policy})"
    except FaultError:
        raise
    except AssertionError as error:
        raise FaultError(str(error)) from error
    finally:
        project.close()


def compare(project: Project, made: Case, *, whole: bool) -> None:
    """The model."""
    saved, letters = _stored(project)
    every = {_text(record) for source in made.sources for records in source.sent.values() for _, record, _ in records}
    for uuid, _, config in made.destinations:
        held = _held(project.root / config["path"])
        if foreign := held - every:
            raise FaultError(f"{uuid} holds what no tap sent: {sorted(foreign)[:3]}")
        for source in made.sources:
            for id, records in source.sent.items():
                position = len(records) if whole else saved.get((source.uuid, id), 0)
                before = {_text(record) for number, record, _ in records if number <= position}
                if missing := before - held - letters:
                    what = "the run completed" if whole else f"{position} is saved"
                    raise FaultError(f"{source.uuid} {id}: {what}, {uuid} lacks {sorted(missing)[:3]}")
    sent = [item for source in made.sources for records in source.sent.values() for item in records]
    healthy = {_text(record) for _, record, bad in sent if not bad}
    if wrong := letters & healthy:
        raise FaultError(f"dead letters of good records: {sorted(wrong)[:3]}")


def _text(record: Record) -> str:
    return json.dumps(record, sort_keys=True)


def _held(path: Path) -> set[str]:
    if not path.exists():
        return set()
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as db:
        return {_text(json.loads(line)["record"]) for (line,) in db.execute("SELECT line FROM rows")}


def _stored(project: Project) -> tuple[dict[tuple[str, str], int], set[str]]:
    """Return the saved position of each block and stream, and the records in the dead letters."""
    saved: dict[tuple[str, str], int] = {}
    (file,) = (project.root / ".streamline").glob("*.db")
    with contextlib.closing(sqlite3.connect(file, timeout=30)) as db:
        for block, stream, value in db.execute("SELECT block, stream, value FROM bookmarks WHERE value IS NOT NULL"):
            found = json.loads(value)
            for id, mark in found.items() if stream == "*" else [(stream, found)]:
                saved[block, id] = mark if isinstance(mark, int) else mark.get("n", 0)
        letters = {_text(json.loads(text)) for (text,) in db.execute("SELECT record FROM dead_letters")}
    return saved, letters
