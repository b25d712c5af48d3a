"""One fault: a run of many records into a key-upserting target, a SIGKILL in the middle, a rerun, a comparison.

After the kill, before the rerun: no saved position has a row before it that the target does not hold. After the rerun:
exit code 0 (so no lease is stuck), every row there and right, no process left over.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import wait_until
from tests.support.project import Project, Running, tap, target

VICTIMS = ("streamline", "tap", "target")
NAMES = ("kill-streamline", "kill-tap", "kill-target", "kill-any")
ROWS = 50_000
PAYLOAD = 60


class FaultError(AssertionError):
    """Something was wrong after a fault."""


@dataclass(frozen=True)
class Fault:
    """Which process is killed, and when: a fraction of the time from its start to the end of an undisturbed run."""

    number: int
    victim: str
    fraction: float


@dataclass(frozen=True)
class Outcome:
    """What became of it. `late`: the victim had ended by itself; `saved`: the position right after the fault."""

    fault: Fault
    moment: float
    late: bool
    code: int
    saved: int
    rows: int

    def __str__(self) -> str:
        how = "too late, it had ended" if self.late else f"exit {self.code}"
        return (
            f"#{self.fault.number} kill {self.fault.victim} after {self.moment:.3f} s "
            f"({self.fault.fraction:.3f} of its life): {how}, {self.saved:,} saved of {self.rows:,} written; "
            "after the rerun all right"
        )


def faults(name: str, count: int, seed: int) -> Iterator[Fault]:
    """The faults of a matrix: the same for the same name and seed, however many are taken."""
    dice = random.Random(f"{name} {seed}")
    for number in range(1, count + 1):
        victim = name.removeprefix("kill-")
        if victim == "any":
            victim = dice.choice(VICTIMS)
        yield Fault(number, victim, dice.random())


def make(root: Path, rows: int) -> Project:
    """A project with one pipeline that takes most of a second to run."""
    project = Project(root)
    project.pipeline(
        "p",
        tap(
            "counts",
            {"rows": rows, "state_every": 250, "payload": PAYLOAD, "pause": 0.004, "spy": "spy"},
            streams={"numbers": {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}},
        ),
        target("keyed", {"flush": 1000, "spy": "spy"}),
    )
    return project


def lives(root: Path, rows: int) -> dict[str, float]:
    """How long each victim lives in an undisturbed run, in seconds, up to the end of the run."""
    project = make(root, rows)
    started = time.time()
    project.run().expect(0)
    ended = time.time()
    check_rows(project, rows)
    starts = {"streamline": started}
    for role in ("tap", "target"):
        starts[role] = project.spied(role)[0]["at"] / 1e9
    return {victim: ended - start for victim, start in starts.items()}


def suffer(root: Path, fault: Fault, life: float, rows: int) -> Outcome:
    """Make a project at `root`, run it, kill the victim in the middle, check, rerun, check.

    Raises:
        FaultError: something was wrong; the message says what.
    """
    project = make(root, rows)
    try:
        moment = fault.fraction * life
        running = project.start("run", "p")
        late = not _kill(project, running, fault.victim, moment)
        completed = running.finish()
        if fault.victim != "streamline":
            project.assert_nothing_left(completed)
            # A killed target is started again once, within the run.
            if completed.code not in ((0, 1) if late or fault.victim == "target" else (1,)):
                raise FaultError(f"exit code {completed.code} after a killed {fault.victim}\n{completed}")
        saved = project.position() or 0
        written = _check_saved(project, saved)
        project.run().expect(0)
        check_rows(project, rows)
        if project.position() != rows:
            raise FaultError(f"{project.position()} is saved at the end, not {rows}")
        return Outcome(fault, moment, late, completed.code, saved, written)
    except AssertionError as error:
        raise FaultError(f"{fault}, life {life:.3f} s, in {root}: {error}") from error
    finally:
        project.close()


def _kill(project: Project, running: Running, victim: str, moment: float) -> bool:
    """Wait for the moment, then kill; False if the victim was gone."""
    if victim == "streamline":
        with contextlib.suppress(AssertionError):
            wait_until(lambda: running.process.poll() is not None, "", moment)
        if running.process.poll() is not None:
            return False
        os.kill(running.process.pid, signal.SIGKILL)
        return True
    wait_until(lambda: project.spied(victim) or running.process.poll() is not None, f"the {victim} starts")
    if not project.spied(victim):
        return False
    report = project.spied(victim)[0]
    time.sleep(max(0.0, report["at"] / 1e9 + moment - time.time()))
    if running.process.poll() is not None:
        return False
    try:
        # Its own pid, not its group: what it forked is Streamline's to find.
        os.kill(report["pid"], signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _check_saved(project: Project, saved: int) -> int:
    """Everything up to the saved position is in the target; gives how many rows it holds."""
    if not (project.root / "out.db").exists():
        held = upto = 0
    else:
        with contextlib.closing(sqlite3.connect(project.root / "out.db", timeout=30)) as db:
            with contextlib.suppress(sqlite3.OperationalError):  # killed before it had made its table
                db.execute("SELECT 1 FROM rows")
            known = db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'rows'").fetchone()[0]
            sql = "SELECT count(*), count(*) FILTER (WHERE CAST(json_extract(key, '$[0]') AS INT) <= ?) FROM rows"
            held, upto = db.execute(sql, (saved,)).fetchone() if known else (0, 0)
    if upto != saved:
        raise FaultError(f"{saved:,} is saved, but of the rows up to it only {upto:,} are in the target")
    return int(held)


def check_rows(project: Project, rows: int) -> None:
    """Every row is there, once, and as the tap sent it."""
    text = "x" * PAYLOAD
    with contextlib.closing(sqlite3.connect(project.root / "out.db", timeout=30)) as db:
        found = {json.loads(line)["record"]["id"]: line for (line,) in db.execute("SELECT line FROM rows")}
    missing = set(range(1, rows + 1)) - set(found)
    if missing or len(found) != rows:
        raise FaultError(
            f"{len(missing):,} rows are missing, from {min(missing, default=0)} on; {len(found):,} are there"
        )
    for n, line in found.items():
        if json.loads(line)["record"] != {"id": n, "square": n * n, "text": text}:
            raise FaultError(f"row {n} is wrong: {line}")
