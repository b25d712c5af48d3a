"""Small processes written on the spot, and what is needed to run them as taps, mappers and targets."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import msgspec

from streamline.connectors.singer.state import StateParts, state_of
from streamline.connectors.singer.tap import TapCommand, TapProcess
from streamline.connectors.singer.target import TargetCommand, TargetProcess
from streamline.connectors.singer.target_input import Feed, SentCounts
from streamline.flow.items import Item, Position, RawBatch, Schema
from streamline.flow.protocols import Sink

PATIENCE = 20.0
"""Seconds after which a test is taken for hung. Nothing is asserted about how long anything takes."""

ENV = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"}


class Plain:
    """A masker that knows one secret."""

    def mask(self, text: str) -> str:
        """`text` without it."""
        return text.replace("hunter2hunter2", "***")


def python(code: str) -> list[str]:
    """The command of a process that runs `code`, up in milliseconds."""
    return [sys.executable, "-I", "-S", "-c", textwrap.dedent(code)]


async def until(ready: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    while not ready():
        await anyio.sleep(0.005)


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def left(folder: Path) -> list[str]:
    """Names of the files in a folder."""
    return sorted(path.name for path in folder.iterdir())


def kill(pid: int) -> None:
    """End a process, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


# -- items


def record(number: int = 0, *, stream: str = "users", do: str = "", pad: int = 0) -> bytes:
    """A RECORD line. `do` is Python that the target below runs when it reads it: crash points are data."""
    row = {"id": number, **({"do": do} if do else {}), **({"pad": "x" * pad} if pad else {})}
    return msgspec.json.encode({"type": "RECORD", "stream": stream, "record": row}) + b"\n"


def batch(*lines: bytes, stream: str = "users") -> RawBatch:
    """Lines as a batch."""
    return RawBatch(stream, list(lines), len(lines), sum(map(len, lines)))


def bookmark(number: int, *, stream: str = "users") -> bytes:
    """A state in which `stream` stands at `number`."""
    return msgspec.json.encode({"bookmarks": {stream: {"id": number}}})


def position(number: int, *, source: str = "load", stream: str = "users") -> Position:
    """A position at `bookmark(number)`."""
    return Position(source, number, StateParts(bookmark(number, stream=stream)))


def schema(stream: str = "users") -> Schema:
    """A SCHEMA."""
    return Schema(stream, {"type": "object", "properties": {"id": {"type": "integer"}}}, ["id"])


# -- taps

TAP = """
import json, os, signal, sys, time

def say(text, end="\\n"):
    sys.stdout.write(text + end)
    sys.stdout.flush()

def schema(stream="users"):
    say(json.dumps({"type": "SCHEMA", "stream": stream, "schema": {}, "key_properties": []}))

def record(number, stream="users", **more):
    say(json.dumps({"type": "RECORD", "stream": stream, "record": {"id": number, **more}}))

def state(number, stream="users"):
    say(json.dumps({"type": "STATE", "value": {"bookmarks": {stream: {"id": number}}}}))

"""


def tap(folder: Path, code: str, *, log: Callable[[str], None] = lambda line: None, **more: Any) -> TapProcess:
    """A tap that runs `code` after the helpers of `TAP`."""
    return TapProcess(tap_command(folder, code, **more), run_dir=folder, masker=Plain(), log=log)


def tap_command(folder: Path, code: str, **more: Any) -> TapCommand:
    """The command of such a tap."""
    values = {"id": "load", "name": "tap-x", "env": ENV, "cwd": folder, "config": {}, "state": b"{}", **more}
    return TapCommand(argv=python(TAP + textwrap.dedent(code)), **values)


class Taken:
    """What a source gave."""

    def __init__(self) -> None:
        self.items: list[Item] = []

    async def emit(self, items: Sequence[Item]) -> None:
        """Take it."""
        self.items += items

    @property
    def ids(self) -> list[int]:
        """`id`s of the records, in their order."""
        lines = [
            line
            for item in self.items
            if isinstance(item, RawBatch)
            for part in item.slices
            for line in bytes(part).splitlines()
        ]
        return [msgspec.json.decode(line)["record"]["id"] for line in lines]

    @property
    def count(self) -> int:
        """Number of records, as the batches say."""
        return sum(item.count for item in self.items if isinstance(item, RawBatch))

    @property
    def positions(self) -> list[bytes]:
        """Values of the positions, compact."""
        return [compact(state_of(item.parts)) for item in self.items if isinstance(item, Position)]


def compact(text: bytes) -> bytes:
    """JSON without white space."""
    return msgspec.json.format(text, indent=-1)


# -- targets

TARGET = """
import json, os, signal, subprocess, sys, time
got = open("got.jsonl", "ab", 0)

def say(text, end="\\n"):
    sys.stdout.write(text + end)
    sys.stdout.flush()

def echo(message):
    say(json.dumps(message["value"]))

for line in sys.stdin.buffer:
    got.write(line)
    message = json.loads(line)
    if message["type"] == "STATE" and ECHO:
        echo(message)
    if message["type"] == "RECORD":
        exec(message["record"].get("do", ""))
"""


ABORT = "os._exit(0)"
DIE = "os._exit(7)"
DEAF = "os.close(0); time.sleep(60)"
STUCK = "time.sleep(60)"
HANG = "signal.signal(15, signal.SIG_IGN); time.sleep(60)"
"""Crash points, for `record(do=…)`."""


class Account:
    """What a target said to the engine."""

    def __init__(self) -> None:
        self.proven: list[tuple[str, int]] = []
        self.failures: list[Exception] = []
        self.log: list[str] = []
        self.sent: dict[str, int] = {}
        self.confirmed: dict[str, int] = {}

    def runs(self, sink: Sink) -> Callable[[], Awaitable[None]]:
        """A task that runs a sink, and keeps what it proves as (source, number)."""
        return lambda: sink.run(lambda *proof: self.proven.append(proof), self.failures.append)

    def counts(self) -> SentCounts:
        """Counts what is sent and confirmed by stream."""
        account = self

        class Counts(SentCounts):
            def sent(self, source: str, stream: str, records: int) -> None:
                account.sent[stream] = account.sent.get(stream, 0) + records

            def confirmed(self, source: str, stream: str, records: int) -> None:
                account.confirmed[stream] = account.confirmed.get(stream, 0) + records

        return Counts()

    def newest(self, source: str = "load") -> int:
        """Number of the newest proven position of a source; 0 for none."""
        return max((number for name, number in self.proven if name == source), default=0)


def _feed(source: str, *, several: bool) -> Feed:
    """As the engine names them: bookmarks of two blocks do not meet in the merged state."""
    name_of: Callable[[str], str] = (lambda key: f"{source}:{key}") if several else str
    return Feed(source=source, keys_of=lambda stream: [stream], owns=lambda key: True, name_of=name_of)


def target(
    folder: Path,
    account: Account,
    code: str | None = None,
    *,
    echo: bool = True,
    feeds: Sequence[str | Feed] = ("load",),
    state: Mapping[str, bytes] | None = None,
    **more: Any,
) -> TargetProcess:
    """The target above, or one that runs `code`."""
    values = {"id": "export", "name": "target-x", "env": ENV, "cwd": folder, "config": {}, **more}
    command = TargetCommand(argv=python(code or f"ECHO = {echo}\n{TARGET}"), **values)
    return TargetProcess(
        command,
        feeds=[feed if isinstance(feed, Feed) else _feed(feed, several=len(feeds) > 1) for feed in feeds],
        state=state or {},
        run_dir=folder,
        masker=Plain(),
        log=account.log.append,
        counts=account.counts(),
    )


def got(folder: Path) -> list[dict[str, Any]]:
    """The messages that the target read; each whole, or this fails."""
    file = folder / "got.jsonl"
    return [msgspec.json.decode(line) for line in file.read_bytes().splitlines()] if file.exists() else []


def got_ids(folder: Path, stream: str = "users") -> list[int]:
    """`id`s of the records that it read."""
    return [m["record"]["id"] for m in got(folder) if m["type"] == "RECORD" and m["stream"] == stream]


def rows(first: int, last: int, **more: int) -> list[Item]:
    """A batch of records and the position after them."""
    return [batch(*(record(n, pad=more.get("pad", 0)) for n in range(first, last + 1))), position(last)]


async def send_all(process: TargetProcess, *parts: list[Item], source: str = "load") -> None:
    """Send, end the source, close."""
    for items in parts:
        await process.send(source, items)
    await process.source_ended(source)
    await process.close()


@contextlib.asynccontextmanager
async def running(*runs: Callable[[], Awaitable[object]]) -> AsyncIterator[anyio.abc.TaskGroup]:
    """Run processes beside the body; they are cancelled when it ends."""
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            for run in runs:
                tasks.start_soon(run)
            yield tasks
            tasks.cancel_scope.cancel()
