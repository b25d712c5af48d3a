"""One fault: SIGKILL to the runner of a batch pipeline of 20 blocks, then `streamline run --resume`, and a comparison.

After the kill: every output is whole and one that its block could have returned, or is not there. After the
resumption: exit code 0, every block's output is as in an undisturbed run, no block ran again that had completed, and no
half-written file or process is left.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.matrix import FaultError, judged, kill_after
from tests.support.batch import BatchProject

NAME = "kill-resume"
BLOCKS = 20

_HEAD = """
import time

import numpy as np
import pandas as pd

from streamline.decorators import data_loader, transformer


def begin(name):
    with open('begun.txt', 'a') as file:
        file.write(name + '\\n')
    time.sleep(0.1)

"""

# What each block does with what is before it: the kinds of outputs that there are, each in several files or one.
_KINDS = {
    "frame": "    return frame_of(before).assign(last=np.arange(20_000) * 2)\n",
    "pair": "    frame = frame_of(before)\n    return frame, frame.head(7)\n",
    "values": "    return {'rows': len(frame_of(before)), 'names': ['a', 'ü', None], 'big': 2**70}\n",
    "chunks": "    frame = frame_of(before)\n    for part in range(4):\n        time.sleep(0.005)\n"
    "        yield frame[part::4]\n",
}

_FRAME_OF = """
def frame_of(before):
    for one in before:
        if isinstance(one, list):
            one = one[0] if one and isinstance(one[0], pd.DataFrame) else one
        if isinstance(one, pd.DataFrame):
            return one
    return pd.DataFrame({'id': np.arange(20_000), 'text': 'x', 'price': np.arange(20_000) / 3})

"""


@dataclass(frozen=True)
class Moment:
    """When the runner is killed: a fraction of the length of an undisturbed run."""

    number: int
    fraction: float


def moments(count: int, seed: int) -> Iterator[Moment]:
    """The same for the same seed, however many are taken."""
    dice = random.Random(f"{NAME} {seed}")
    for number in range(1, count + 1):
        yield Moment(number, dice.random())


def make(root: Path) -> BatchProject:
    """A pipeline of 20 blocks: three loaders, branches that meet, a fan-out that is gathered, outputs of all kinds."""
    project = BatchProject(root)
    project.keys["concurrency_config"] = {"block_run_limit": 3}
    kinds = list(_KINDS)
    names: list[str] = []
    for number in range(BLOCKS):
        name = f"b{number:02}"
        configuration: dict[str, Any] = {}
        upstream = [] if number < 3 else [f"b{number - 3:02}", *([f"b{number - 1:02}"] if number % 4 == 0 else [])]
        body = _KINDS[kinds[number % len(kinds)]]
        if number == 6:
            body, configuration = "    return [{'n': n} for n in range(30)]\n", {"dynamic": True}
        elif number == 9:
            body, configuration = "    return before[0]['n'] ** 2\n", {"reduce_output": True}
            upstream = ["b06"]
        elif number == 12:
            body, upstream = "    return sum(before[0])\n", ["b09"]
        kind = "data_loader" if number < 3 else "transformer"
        code = f"{_HEAD}{_FRAME_OF}@{kind}\ndef block(*before, **kwargs):\n    begin('{name}')\n{body}"
        project.block(name, code, type=kind, upstream=upstream, configuration=configuration)
        names.append(name)
    return project


def outputs(project: BatchProject) -> dict[str, str]:
    """Return a text for each block's output, equal for equal outputs; blocks without output are omitted.

    Raises:
        FaultError: one of them is there and cannot be read.
    """
    import pandas as pd

    def words(value: Any) -> str:
        if isinstance(value, pd.DataFrame):
            return f"{value.dtypes.to_dict()} {pd.util.hash_pandas_object(value).sum()} {len(value)}"
        if isinstance(value, list):
            return f"[{', '.join(map(words, value))}]"
        return repr(value)

    found = {}
    data = project.root / ".streamline" / "data" / "p"
    for number in range(BLOCKS):
        name = f"b{number:02}"
        if not (data / name).exists():
            continue
        try:
            found[name] = words(project.children(name) if name == "b09" else project.output(name))
        except Exception as error:
            raise FaultError(f"{name} is there and cannot be read: {error!r}") from error
    return found


def length(root: Path) -> tuple[float, dict[str, str]]:
    """Return the duration of a run without faults, in seconds, and its outputs."""
    project = make(root)
    began = time.monotonic()
    project.run().expect(0)
    return time.monotonic() - began, outputs(project)


def suffer(root: Path, moment: Moment, whole: float, expected: dict[str, str]) -> str:
    """Kill the runner, look, resume, compare; what happened, in a line.

    Raises:
        FaultError: something was wrong; the message says what.
    """
    project = make(root)
    with judged(project, f"{moment}, {whole:.3f} s, in {root}: "):
        running = project.start("run", "p")
        late = not kill_after(running, signal.SIGKILL, moment.fraction * whole)
        running.finish()
        project.assert_nothing_left("after the kill")
        between = outputs(project)
        wrong = [name for name, text in between.items() if text != expected[name]]
        if wrong:
            raise FaultError(f"after the kill {wrong} hold values that their blocks did not return")
        completed = _completed(project)
        begun = project.lines("begun.txt")
        project.run("--resume").expect(0)
        after = outputs(project)
        if after != expected:
            wrong = [name for name in expected if after.get(name) != expected[name]]
            raise FaultError(f"after --resume the outputs of {wrong} differ from an undisturbed run")
        again = [name for name in completed if project.lines("begun.txt")[len(begun) :].count(name)]
        if again:
            raise FaultError(f"{again} had completed and ran again")
        left = [one for one in (project.root / ".streamline" / "data").rglob(".*-*") if one.is_dir()]
        if left:
            raise FaultError(f"temporary folders were not deleted: {left}")
        how = "too late, the run had ended" if late else f"{len(completed)} blocks had completed"
        return f"#{moment.number} kill after {moment.fraction * whole:.3f} s: {how}; after --resume all right"


def _completed(project: BatchProject) -> list[str]:
    if not project.runs():
        return []
    return [uuid for uuid, status in project.statuses().items() if status == "completed"]
