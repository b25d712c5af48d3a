"""One fault: a run of many records into a key-upserting target, a SIGKILL in the middle, a rerun, a comparison.

After the kill, before the rerun: no saved position has a row before it that the target does not hold. After the rerun:
exit code 0 (so no lease is stuck), every row there and right, no process left over.

Every second kill of a target meets a destination with `on_bad_record: fail`, in which a failed target is not tried
again within the run; the others do it all within the one run.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.processes import wait_until
from tests.support.project import Block, Project, Running, tap, target, transformer

VICTIMS = ("streamline", "tap", "target")
NAMES = ("kill-streamline", "kill-tap", "kill-target", "kill-any")
ROWS = 50_000
PAYLOAD = 60


SHAPES = {
    "plain": ["numbers"],
    "parallel": ["a", "b", "c"],
    "transformed": ["numbers"],
    "batch": ["numbers"],
    "batch-pipe": ["numbers"],
}
"""Streams of a pipeline. In `parallel` each has a tap process of its own; in `transformed` a Python block sees them.
The `batch` shapes are batch pipelines: with a transformer between source and destination, and without. Every second run
after a kill of theirs resumes the killed one.
"""

UNCHANGED = """
from streamline.decorators import transformer


@transformer
def change(messages: list[dict], *args, **kwargs):
    return [dict(message) for message in messages]
"""


UNCHANGED_OUTPUT = """
@transformer
def change(data, *args, **kwargs):
    return {**data, "rows": list(data["rows"])}
"""


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


def make(root: Path, rows: int, shape: str = "plain", *, retried: bool = True) -> Project:
    """A project with one pipeline that takes about a second to run; `rows` in all."""
    project = Project(root)
    names = SHAPES[shape]
    pace = {"state_every": 250, "pause": 0.004, "pause_every": 250, "payload": PAYLOAD}
    setting: dict[str, Any] = {
        "replication_method": "INCREMENTAL",
        "bookmark_properties": ["id"],
        **({"run_in_parallel": True} if len(names) > 1 else {}),
    }
    project.pipeline(
        "p",
        tap(
            "counts",
            {"rows": rows // len(names), "streams": names, "spy": "spy", **pace},
            streams=dict.fromkeys(names, setting),
            max_parallel=len(names),
        ),
        *_between(shape),
        target("keyed", {"flush": 1000, "spy": "spy"}, on_bad_record="pass" if retried else "fail"),
        type="python" if shape.startswith("batch") else "integration",
    )
    return project


def _between(shape: str) -> list[Block]:
    code = {"transformed": UNCHANGED, "batch": UNCHANGED_OUTPUT}.get(shape)
    return [transformer(code)] if code is not None else []


def lives(root: Path, rows: int, shape: str = "plain") -> dict[str, float]:
    """Return how long each victim runs without a fault, in seconds."""
    project = make(root, rows, shape)
    started = time.time()
    running = project.start("run", "p")
    ended: dict[str, float] = {}
    starts = {"streamline": started}
    while running.process.poll() is None:
        for role in ("tap", "target"):
            if role not in starts and (found := project.spied(role)):
                starts[role] = found[0]["at"] / 1e9
            if role in starts and _alive(project.spied(role)[0]["pid"]):
                ended[role] = time.time()
        time.sleep(0.005)
    ended["streamline"] = time.time()
    running.finish().expect(0)
    project.assert_nothing_left()
    check_rows(project, rows, shape)
    return {victim: ended[victim] - start for victim, start in starts.items()}


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def suffer(root: Path, fault: Fault, life: float, rows: int, shape: str = "plain") -> Outcome:
    """Make a project at `root`, run it, kill the victim in the middle, check, rerun, check.

    Raises:
        FaultError: something was wrong; the message says what.
    """
    retried = fault.victim != "target" or fault.number % 2 == 1
    project = make(root, rows, shape, retried=retried)
    with judged(project, f"{fault}, life {life:.3f} s, in {root}: "):
        moment = fault.fraction * life
        running = project.start("run", "p")
        late = not _kill(project, running, fault.victim, moment)
        completed = running.finish()
        if fault.victim == "tap" and completed.code == 0 and sum(_positions(project, shape).values()) == rows:
            late = True  # the signal met a process that had said all it had to say and was exiting with 0
        if fault.victim != "streamline":
            project.assert_nothing_left(completed)
        saved, written = _check_saved(project, shape)
        every = rows // len(SHAPES[shape]) * len(SHAPES[shape])
        if fault.victim == "tap" and not late and completed.code == 0 and saved == written == every:
            # A signal to a process that is in its last exit(), or a zombie, is sent without an error and changes
            # nothing: the tap ended by itself. Only where all is there and saved; test_hostile_taps.py has a tap that
            # was certainly killed after its last row.
            late = True
        if fault.victim != "streamline":
            allowed = (0, 1) if late or (fault.victim == "target" and retried) else (1,)
            if completed.code not in allowed:
                raise FaultError(f"exit code {completed.code} after a killed {fault.victim}\n{completed}")
        project.run(*(["--resume"] if shape.startswith("batch") and fault.number % 2 else [])).expect(0)
        check_rows(project, rows, shape)
        if sum(_positions(project, shape).values()) != every:
            raise FaultError(f"at the end {project.state()} is saved")
        return Outcome(fault, moment, late, completed.code, saved, written)


@contextlib.contextmanager
def judged(project: Project, what: str = "") -> Iterator[None]:
    """Close the project at the end; a failed assertion is raised as a fault of `what`."""
    try:
        yield
    except AssertionError as error:
        raise FaultError(f"{what}{error}") from error
    finally:
        project.close()


def kill_after(running: Running, number: int, seconds: float) -> bool:
    """Send a command a signal after some seconds; return False where it has ended before."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        running.process.wait(seconds)
    if running.process.poll() is not None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(running.process.pid, number)
    return True


def _kill(project: Project, running: Running, victim: str, moment: float) -> bool:
    """Wait for the moment, then kill; False if the victim was gone."""
    if victim == "streamline":
        return kill_after(running, signal.SIGKILL, moment)
    wait_until(lambda: project.spied(victim) or running.process.poll() is not None, f"the {victim} starts")
    if not project.spied(victim):
        return False
    report = project.spied(victim)[0]
    time.sleep(max(0.0, report["at"] / 1e9 + moment - time.time()))
    if running.process.poll() is not None or not _alive(report["pid"]):
        return False
    try:
        # Its own pid, not its group: what it forked is Streamline's to find.
        os.kill(report["pid"], signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _positions(project: Project, shape: str) -> dict[str, int]:
    state = project.state()
    return {name: state[name]["replication_key_value"] if name in state else 0 for name in SHAPES[shape]}


def _check_saved(project: Project, shape: str) -> tuple[int, int]:
    """Everything up to the saved positions is in the target; gives how many rows are saved, and how many it holds."""
    saved = _positions(project, shape)
    held = 0
    for name, position in saved.items():
        ids = set(project.ids(name))
        held += len(ids)
        missing = position - len(ids & set(range(1, position + 1)))
        if missing:
            raise FaultError(f"{name} is saved at {position:,}, but {missing:,} rows up to it are not in the target")
    return sum(saved.values()), held


def check_rows(project: Project, rows: int, shape: str = "plain") -> None:
    """Every row is there, once, and as the tap sent it."""
    text = "x" * PAYLOAD
    for name in SHAPES[shape]:
        found = project.rows(name)
        expected = rows // len(SHAPES[shape])
        missing = set(range(1, expected + 1)) - {row["id"] for row in found}
        if missing or len(found) != expected:
            first = min(missing, default=0)
            raise FaultError(f"{name}: {len(missing):,} rows are missing, from {first} on; {len(found):,} are there")
        for row in found:
            if row != {"id": row["id"], "square": row["id"] ** 2, "text": text}:
                raise FaultError(f"{name}: a row is wrong: {row}")


def attempt(
    case: Callable[[int, int], Any], run: Callable[[Path, Any], str], base: Path, seed: int, number: int
) -> tuple[str, str | None]:
    """Return the outcome of a random case, and what was wrong with it; its folder is kept then."""
    root = base / str(number)
    try:
        outcome = run(root, case(number, seed))
    except FaultError as error:
        return "WRONG", str(error)
    shutil.rmtree(root)
    return outcome, None
