"""Runs the random cases of `streams_cases.py` and compares what they leave with the model in `streams_model.py`."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from tests.faults.matrix import FaultError, judged, kill_after
from tests.faults.streams_cases import CHANGES, LANES, NAME, Case, Destination, Stream, case
from tests.faults.streams_model import Found, check, raises, text_of
from tests.support.project import Block, Completed, Project, tap, target, transformer

__all__ = ["NAME", "case", "suffer"]

STOPS = {"record.invalid", "stream.schema_paused", "stream.several_stopped", "transformer.failed"}
"""Codes of runs that end with 1 because streams were stopped."""


def make(root: Path, made: Case) -> Project:
    """Write the case's project."""
    project = Project(root)
    write(project, made)
    return project


def write(project: Project, made: Case, *, without: tuple[str, str] | None = None) -> None:
    """Write, or rewrite, the case's pipeline; `without` is a stream that its source leaves out."""
    blocks: list[Block] = []
    for source in made.sources:
        listed = [each for each in source.streams if each.selected and (source.uuid, each.id) != without]
        streams = {stream.id: _settings(stream) for stream in listed}
        blocks.append(tap("plays", source.config, uuid=source.uuid, streams=streams, max_parallel=3))
    sources = [source.uuid for source in made.sources]
    if annotation := LANES[made.lane]:
        body = CHANGES[made.change][made.lane == "frame"]
        head = "import pandas as pd\nfrom streamline.decorators import transformer\n\n\n@transformer\n"
        code = f"{head}def change(rows: {annotation}, *args, **kwargs):\n{body}\n"
        behind = [to for to in made.destinations if not to.direct]
        fed = [uuid for uuid in sources if any(uuid in to.sources for to in behind)]
        # One for each set of sources, so that no record reaches a destination that its source does not feed.
        for uuid, group in {to.transformer: to.sources for to in behind}.items():
            upstream = {"upstream_blocks": [each for each in fed if each in group]}
            blocks.append(transformer(code, uuid=uuid, entry=upstream))
    for to in made.destinations:
        upstream = {"upstream_blocks": to.sources}
        if made.lane != "none" and not to.direct:
            upstream = {"upstream_blocks": [to.transformer]}
        blocks.append(_target(to, upstream))
    project.pipeline("p", *blocks)


def _settings(stream: Stream) -> dict[str, Any]:
    settings: dict[str, Any] = {"run_in_parallel": True} if stream.parallel else {}
    if stream.mark or stream.table:
        settings["replication_method"] = "INCREMENTAL" if stream.mark else "FULL_TABLE"
    return settings


def _target(to: Destination, entry: dict[str, Any]) -> Block:
    able = ["activate-version"] if to.replaces else []
    streams: dict[str, Any] = {name: {"destination_table": table} for name, table in to.tables.items()}
    if to.exports is not None:
        streams = {name: streams.get(name, {}) for name in to.exports}
    elif streams:
        streams["*"] = {}
    if to.processes > 1:
        streams = {name: {**settings, "run_in_parallel": True} for name, settings in (streams or {"*": {}}).items()}
    keys: dict[str, Any] = {"on_bad_record": to.policy, "schema_change": to.schema_change}
    plugin = {"args": [f"--able={','.join(able)}"], "max_processes": to.processes}
    if streams:
        keys["streams"] = streams
    return target(to.kind, to.config, uuid=to.uuid, plugin=plugin, entry=entry, **keys)


def suffer(root: Path, made: Case) -> str:
    """Run the case until nothing dies any more, compare after each run; return what became of it.

    Raises:
        FaultError: something was wrong; the message says what.
    """
    project = make(root, made)
    earlier: dict[tuple[str, str], int] = {}
    every = {(source.uuid, stream.id) for source, stream in made.pairs()}
    stopped = _stopped(made)
    tries = made.deaths + 2
    if any(stream.table and (source.uuid, stream.id) in stopped for source, stream in made.pairs()):
        # What dies does so once rows that stop the stream have left its table.
        tries += made.deaths
    with judged(project):
        for number in range(tries):
            kill = made.kills[number] if number < len(made.kills) else None
            completed = _killed(project, *kill) if kill else project.run()
            if completed.code == 2 and _refusable(made):
                return f"refused: {_code(project)}"
            if not kill and completed.code not in (0, 1):
                raise FaultError(f"exit code {completed.code}\n{completed}")
            ended = completed.code == 0
            last = number == tries - 1
            whole = every if ended else every - stopped if last else set()
            exact = ended and not number and not any(sent.broken for _, s in made.pairs() for sent in s.records)
            found = _found(project, made)
            try:
                check(made, found, whole=whole, exact=exact and not made.deaths)
            except FaultError as error:
                raise FaultError(f"after run {number + 1} (exit {completed.code}): {error}\n{completed}") from None
            back = {key: value for key, value in earlier.items() if found.saved.get(key, 0) < value}
            if back:
                raise FaultError(f"positions went back: {back} → {dict(found.saved)}\n{completed}")
            earlier = dict(found.saved)
            if ended:
                went_on = _go_on(project, made, every) if made.after else ""
                return f"all right{', though a stream could have been stopped' * bool(stopped)}{went_on}"
        if not stopped or _code(project) not in STOPS:
            raise FaultError(f"the last run ends with {completed.code}, {_code(project)}\n{completed}")
        return f"streams stopped: {_code(project)}"


def _go_on(project: Project, made: Case, every: set[tuple[str, str]]) -> str:
    """Do what a user does once all is well, and compare again."""
    words: tuple[str, ...] = ()
    if made.after == "full refresh":
        words = ("--full-refresh",)
    elif made.after == "moved destination":
        made.destinations[0].config["path"] = "moved.db"
        write(project, made)
        if project.run().code == 2:
            # Refused: the new place would lack what lies before the saved positions.
            words = ("--full-refresh",)
    elif made.after == "stream left out":
        parents = {stream.parent for _, stream in made.pairs()}
        free = [(source, each) for source, each in made.pairs() if each.selected and each.id not in parents]
        source, stream = free[made.number % len(free)]
        if sum(each.selected for each in source.streams) > 1:
            write(project, made, without=(source.uuid, stream.id))
            completed = project.run()
            if completed.code == 0:
                # A tap may go on reading a table that is not selected.
                _compare(project, made, every - {(source.uuid, stream.id)}, completed)
            elif completed.code != 2:
                raise FaultError(f"without {source.uuid} {stream.id}: exit code {completed.code}\n{completed}")
            write(project, made)
    elif made.after == "retry of letters":
        retried = project.command("dead-letters", "retry", "p")
        if retried.code not in (0, 1):
            raise FaultError(f"retry of letters: exit code {retried.code}\n{retried}")
        _compare(project, made, every, retried)
    alive = _alive(project, made)
    completed = project.run(*words)
    if completed.code == 1 and _alive(project, made) < alive:
        completed = project.run(*words)  # a target got enough records at once to die only now
    if completed.code:
        raise FaultError(f"then {made.after}: exit code {completed.code}\n{completed}")
    _compare(project, made, every, completed)
    return f", then {made.after}"


def _alive(project: Project, made: Case) -> int:
    """Return how many targets have their death before them."""
    marks = [str(to.config["die_once"]) for to in made.destinations if "die_once" in to.config]
    return sum(not (project.root / mark).exists() for mark in marks)


def _compare(project: Project, made: Case, every: set[tuple[str, str]], context: object) -> None:
    try:
        check(made, _found(project, made), whole=every, exact=False)
    except FaultError as error:
        raise FaultError(f"then {made.after}: {error}\n{context}") from None


def _killed(project: Project, signal: int, delay: float) -> Completed:
    running = project.start("run", "p")
    kill_after(running, signal, delay)
    return running.finish()


def _stopped(made: Case) -> set[tuple[str, str]]:
    """Return the streams that a policy stops, or that may lack records because another one was stopped."""
    stopped = set()
    for source in made.sources:
        names = set()
        for to in made.destinations:
            quarantines = all(each.policy == "quarantine" for each in made.destinations)
            for stream in source.streams if source.uuid in to.sources else ():
                bad = to.policy == "fail" and any(sent.broken for sent in stream.records)
                raising = not to.direct and not quarantines and any(raises(made, sent) for sent in stream.records)
                if stream.selected and (bad or raising or (to.schema_change == "pause" and stream.changes)):
                    names.add(stream.sends)
        for stream in source.streams:
            if stream.sends in names or (names and source.shape == "flat"):
                stopped.add((source.uuid, stream.id))
    return stopped


def _refusable(made: Case) -> bool:
    """Whether streams meet in one table, or may by their names, which may be refused before anything is read."""
    for to in made.destinations:
        # That a tap sends a stream under another name is not known before it is read.
        exported = [
            stream
            for source, stream in made.pairs()
            if source.uuid in to.sources and stream.selected and (to.exports is None or stream.name in to.exports)
        ]
        names = [name for stream in exported for name in {to.table(stream), to.tables.get(stream.name, stream.name)}]
        if len(set(names)) < len(names):
            return True
    return False


def _stored(project: Project, query: str) -> list[tuple[Any, ...]]:
    """Ask the project's state database, which a run that was killed early has not made."""
    for file in (project.root / ".streamline").glob("*.db"):
        with contextlib.closing(sqlite3.connect(file, timeout=30)) as db:
            if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'dead_letters'").fetchone():
                return db.execute(query).fetchall()
    return []


def _code(project: Project) -> str:
    rows = _stored(project, "SELECT code FROM runs ORDER BY started DESC, run_id DESC LIMIT 1")
    return str(rows[0][0]) if rows else "before the run"


def _found(project: Project, made: Case) -> Found:
    """Return what there is: the positions first, for what a killed run left may still write rows."""
    saved: dict[tuple[str, str], int] = {}
    letters: dict[tuple[str, str], list[str]] = defaultdict(list)
    for block, stream, value in _stored(project, "SELECT block, stream, value FROM bookmarks WHERE value IS NOT NULL"):
        mark = json.loads(value)
        for key, each in mark.items() if stream == "*" else [(stream, mark)]:
            if key != "currently_syncing":
                saved[block, key] = each if isinstance(each, int) else each.get("n", 0)
    for block, stage, text in _stored(project, "SELECT block, stage, record FROM dead_letters"):
        at, _, to = stage.rstrip(">").partition("@")
        letters[block, to or at].append(text_of(json.loads(text)))
    held = {to.uuid: _held(project.root / to.config["path"]) for to in made.destinations}
    reads = {
        (source.uuid, stream.id): len(list(project.root.glob(f"read_{source.uuid}_{stream.id}.*")))
        for source, stream in made.pairs()
        if stream.table
    }
    return Found(saved, letters, held, reads)


def _held(path: Path) -> Counter[tuple[str, str]]:
    if not path.exists():
        return Counter()
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'rows'").fetchone():
            return Counter()
        messages = [json.loads(line) for (line,) in db.execute("SELECT line FROM rows")]
    return Counter((message["stream"], text_of(message["record"])) for message in messages)
