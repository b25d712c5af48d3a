"""Pools of workers for tests, with their jobs and what they report."""

from __future__ import annotations

import textwrap
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import Any

from streamline.processes.job import Failure, Job, Outcome
from streamline.processes.orphans import processes_of
from streamline.processes.worker_pool import WorkerPool

_numbers = count(1)


class Bench:
    """A folder of files and a pool whose jobs run them.

    Attributes:
        said: what the pool reported, in order: ("line", job id, name, text), ("log", job id, name, text, level),
            ("secret", text).
    """

    def __init__(self, root: Path, size: int = 1, **more: Any) -> None:
        self.root = root
        self.run_id = f"pool-{token_hex(6)}"
        self.said: list[tuple[Any, ...]] = []
        arguments: dict[str, Any] = {
            "run_id": self.run_id,
            "preload": [],
            "on_line": lambda job, line: self.said.append(("line", job and job.id, job and job.name, line.decode())),
            "on_log": lambda job, line, level: self.said.append(("log", job and job.id, job and job.name, line, level)),
            "on_secret": lambda secret: self.said.append(("secret", secret)),
        }
        arguments |= more
        arguments["preload"] = ["tests.processes.performers", *arguments["preload"]]
        self.pool = WorkerPool(size, **arguments)

    def job(self, code: str, name: str = "block", **more: Any) -> Job:
        """A job that runs the file `{name}.py` with this code."""
        (self.root / f"{name}.py").write_text(textwrap.dedent(code).lstrip("\n"))
        return self.again(name, **more)

    def again(self, name: str = "block", *, arguments: Any = None, **more: Any) -> Job:
        """Another job that runs a file that is there."""
        settings: dict[str, Any] = {
            "id": f"job{next(_numbers)}",
            "function": "tests.processes.performers:perform",
            "payload": (str(self.root / f"{name}.py"), arguments),
            "source_root": str(self.root),
        }
        return Job(name=name, **{**settings, **more})

    def outcome(self, job: Job) -> Outcome:
        """The outcome of a job."""
        return self.pool.submit(job).result(60)

    def run(self, code: str, **more: Any) -> Any:
        """What `run` in this code returns; it must not fail."""
        outcome = self.outcome(self.job(code, **more))
        assert outcome.failure is None, outcome.failure
        return outcome.value

    def fail(self, code: str, **more: Any) -> Failure:
        """How this code fails."""
        outcome = self.outcome(self.job(code, **more))
        assert outcome.failure is not None, outcome
        return outcome.failure

    def place(self, line: int, name: str = "block") -> str:
        """How messages name a line of a file."""
        return f"{self.root / name}.py:{line}"

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
