"""What workers call in tests: the function `run(port)` of the file `block.py` in the task's project."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from streamline.processes.task import Task, TaskResult
from streamline.processes.worker import Port


def perform(task: Task, port: Port) -> TaskResult:
    """Run the file, whatever it does; what `run` returns is in `results`. The file has a function `meet(count)`."""
    path = Path(task.project, f"{task.block}.py")

    def meet(count: int) -> None:
        """Wait until so many processes are here."""
        Path(task.project, f"here-{os.getpid()}").touch()
        while len(list(Path(task.project).glob("here-*"))) < count:
            time.sleep(0.002)

    names: dict[str, Any] = {"__file__": str(path), "meet": meet}
    exec(compile(path.read_text(), str(path), "exec"), names)
    return TaskResult(results=[names["run"](port)])


def nothing(task: Task, port: Port) -> TaskResult:
    """Do nothing."""
    return TaskResult()


def wrong(task: Task, port: Port) -> str:
    """Return what no perform may return."""
    return "done"
