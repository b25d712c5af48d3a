"""Pools of workers for tests, with the tasks that they get and the lines that they give."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import Any

from streamline.processes.orphans import processes_of
from streamline.processes.task import Failure, Task, TaskResult
from streamline.processes.worker_pool import WorkerPool

_numbers = count(1)


class Bench:
    """A project folder and a pool whose tasks run its files.

    Attributes:
        said: what was heard, in order: ("line", task id, block, text), ("log", task id, block, text, level),
            ("secret", text).
    """

    def __init__(self, root: Path, size: int = 1, **more: Any) -> None:
        self.root = root
        self.run_id = f"pool-{token_hex(6)}"
        self.said: list[tuple[Any, ...]] = []
        arguments: dict[str, Any] = {
            "run_id": self.run_id,
            "on_line": lambda task, block, line: self.said.append(("line", task, block, line.decode())),
            "on_log": lambda task, block, line, level: self.said.append(("log", task, block, line, level)),
            "learned": lambda secret: self.said.append(("secret", secret)),
            "perform": "tests.processes.performers:perform",
        }
        self.pool = WorkerPool(size, **{**arguments, **more})

    def task(self, code: str, block: str = "block", **more: Any) -> Task:
        """A task whose block is the file `{block}.py` with this code."""
        (self.root / f"{block}.py").write_text(textwrap.dedent(code).lstrip("\n"))
        return self.again(block, **more)

    def again(self, block: str = "block", **more: Any) -> Task:
        """Another task for a block whose file is there."""
        arguments: dict[str, Any] = {
            "id": f"task{next(_numbers)}",
            "kind": "run",
            "project": str(self.root),
            "pipeline": "p",
            "block": block,
            "run_id": self.run_id,
            "run_dir": str(self.root),
            "execution_date": datetime.now(UTC),
        }
        return Task(**{**arguments, **more})

    def result(self, task: Task) -> TaskResult:
        """What comes of a task."""
        return self.pool.submit(task).result(60)

    def run(self, code: str, **more: Any) -> Any:
        """What `run` in this code returns; it must not fail."""
        result = self.result(self.task(code, **more))
        assert result.failure is None, result.failure
        return result.results[0]

    def fail(self, code: str, **more: Any) -> Failure:
        """How this code fails."""
        result = self.result(self.task(code, **more))
        assert result.failure is not None, result
        return result.failure

    def place(self, line: int, block: str = "block") -> str:
        """How messages name a line of a block's file."""
        return f"{self.root / block}.py:{line}"

    def lines(self) -> list[str]:
        """All lines so far."""
        return [one[3] for one in self.said if one[0] == "line"]

    def processes(self) -> list[int]:
        """Every process of this pool that is not yet reaped."""
        return processes_of([self.run_id])


def alive(pid: int) -> bool:
    """Whether a process lives. One that has ended and is not yet reaped by whoever is its parent now does not."""
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
