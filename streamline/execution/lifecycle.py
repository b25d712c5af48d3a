"""A run's life, whatever kind of pipeline it runs: its id, what killed runs left, signals, and tidying up."""

from __future__ import annotations

import secrets
import signal
import time
from pathlib import Path

from streamline.errors import StreamlineError
from streamline.processes.orphans import end_processes, remove_private_files
from streamline.state.store import Store


class Interrupted(StreamlineError):
    """A second signal: the run was given up where it stood."""

    code = "run.interrupted"

    def __init__(
        self, number: int, message: str = "interrupted; what was not proven will be read again by the next run"
    ) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


def new_run_id() -> str:
    """Sorts by time; never used twice."""
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + "-" + secrets.token_hex(3)


def clear_leftovers(store: Store, pipeline: str, run_id: str, work_dir: Path) -> None:
    """End what killed runs of the pipeline left. Whoever calls holds the pipeline's lease.

    Args:
        run_id: the run that begins, which is left alone.
        work_dir: the project's `.streamline`.
    """
    killed = [run for run in store.unfinished_runs(pipeline) if run.run_id != run_id]
    if not killed:
        return
    end_processes([run.run_id for run in killed])
    for run in killed:
        remove_private_files(work_dir / "runs", run.run_id)
        store.finish_run(run.run_id, "killed", run.summary, "it was killed; the next run ended what it left")


def tidy(run_id: str, runs_dir: Path) -> None:
    """End what escaped from its process group (a daemon in a session of its own): it still bears the run's id."""
    end_processes([run_id])
    remove_private_files(runs_dir, run_id)


def wanted_signals() -> list[signal.Signals]:
    """The signals that ask a run to end."""
    wanted = [signal.SIGINT, signal.SIGTERM]
    # A terminal that is closed must leave no child behind; under nohup it means nothing.
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        wanted.append(signal.SIGHUP)
    return wanted
