"""A target process as a sink: writes messages to it, and reads proof from the STATEs that it prints.

A target process lives for one *session*. Its first message is a STATE with the proven state that it starts from; exit
code 0 after the end of its input proves everything. A target that proves nothing before its exit can be given several
sessions in one run: the process is closed, its exit awaited, and the next one starts from what is proven, with the
SCHEMAs sent again.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec

from streamline.connectors.singer.bookmark_hashes import marks_of
from streamline.connectors.singer.log_tail import LogTail, hint_of, refuses_config
from streamline.connectors.singer.target_input import Feed, SentCounts, TargetInput
from streamline.errors import ConfigError, StreamlineError
from streamline.flow.codecs import jsontext
from streamline.flow.items import (
    ArrowBatch,
    BadRecord,
    Buffer,
    Item,
    Position,
    RowBatch,
)
from streamline.flow.protocols import Failed, Proven
from streamline.flow.tasks import task_group
from streamline.processes.child import TERM_SECONDS, Child, TextMasker, log_lines, log_text, private_file

LINGER_SECONDS = 2.0
"""Seconds for which its output is read after its exit."""

DRAIN_SECONDS = 3600.0
"""Seconds that a target may take to exit after the end of its input."""

HURRY_SECONDS = 0.5
"""Seconds that a target may take to prove what somebody waits for, before its session is closed."""

LONGEST_ECHO = 64 << 20
"""Bytes; a longer line of a target's output is no STATE."""


class TargetFailed(StreamlineError):
    """A target failed. What it proved before stays proven."""

    code = "target.failed"


class TargetRefused(TargetFailed, ConfigError):
    """A target does not accept its config: another attempt would not help."""

    code = "target.config_refused"


class TargetCommand(msgspec.Struct, kw_only=True):
    """How a target process is started.

    Args:
        id: names the process in logs and private files.
        name: name of the plugin, for errors.
        argv: the program, without `--config`.
        env: the complete environment.
        cwd: the working directory.
        config: content of the config file.
        echoes: whether the STATEs that it prints are proof; otherwise only its exit is.
        session_interval: seconds without proof after which a session with unproven records is closed; None for one
            session.
        drain_seconds: seconds that it may take to exit after the end of its input.
        timeout: seconds that a process may take from its start to its exit.
        prestart: start the process of the next session while the one before still exits.
    """

    id: str
    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    config: Mapping[str, Any]
    echoes: bool = True
    session_interval: float | None = None
    drain_seconds: float = DRAIN_SECONDS
    timeout: float | None = None
    prestart: bool = False


class TargetProcess:
    """A target and its sessions. It implements `flow.protocols.Sink`.

    Args:
        feeds: the sources that feed it.
        state: the proven state, by source, that it starts from.
        counts: counts what it is sent and confirms.
    """

    def __init__(
        self,
        command: TargetCommand,
        *,
        feeds: Sequence[Feed],
        state: Mapping[str, bytes],
        run_dir: Path,
        masker: TextMasker,
        log: Callable[[str], None],
        counts: SentCounts | None = None,
    ) -> None:
        self.id = command.id
        self.failure: StreamlineError | None = None
        self._command = command
        self._input = TargetInput(feeds, state, counts or SentCounts())
        self._run_dir = run_dir
        self._masker = masker
        self._log = log
        self._on_failure: Failed = lambda error: None
        self._lock = anyio.Lock()
        self._tail = LogTail()
        self._child: Child | None = None
        self._closing = False
        self._closed = anyio.Event()
        self._exited = anyio.Event()
        self._ready = anyio.Event()
        self._limit: float | None = None
        self._sent: dict[str, int] = {}
        self._proven: dict[str, int] = {}
        self._hurried: dict[str, tuple[int, float]] = {}
        """By source: the number of the position that is waited for, and since when."""
        self._wake = anyio.Event()
        self._too_long = False
        self._next: Child | None = None
        self._input_ended_at = 0.0
        self._closing_seconds: float | None = None
        """From the end of a session's input to its proof, the last time."""

    # -- sessions

    async def run(self, proven: Proven, failed: Failed) -> None:
        """Run sessions until `close` was called and the last process has ended; see `Sink.run`."""

        def prove(source: str, number: int) -> None:
            if source in self._hurried and self._hurried[source][0] <= number:
                del self._hurried[source]
            self._proven[source] = number
            proven(source, number)

        self._input.on_proof, self._on_failure = prove, failed
        config = private_file(
            self._run_dir, f"{self._command.id}.config.json", json.dumps(self._command.config).encode()
        )
        try:
            while not self._closed.is_set() and self.failure is None:
                await self._session(config)
        except anyio.get_cancelled_exc_class():
            if self.failure is None:
                self.failure = TargetFailed("cancelled", where=self._command.name, code="target.cancelled")
            raise
        finally:
            if self._next is not None:
                self._next.dispose()
                self._next = None
            config.unlink(missing_ok=True)
            self._exited.set()
            self._ready.set()

    def limit(self, seconds: float) -> None:
        """See `Sink.limit`: TERM after `seconds`, KILL after that."""
        self._limit = anyio.current_time() + seconds

    async def close(self) -> None:
        """See `Sink.close`: end its input, and wait until it has exited or failed."""
        await self._ready.wait()
        async with self._lock:
            self._closed.set()
            self._end_input()
        await self._exited.wait()

    def hurry(self, source: str, number: int) -> None:
        """See `HandingOverSink.hurry`: a session that does not prove it soon is closed."""
        if number > self._proven.get(source, 0):
            self._hurried[source] = (number, anyio.current_time())
            self._wake.set()

    @property
    def unproven(self) -> bool:
        """Whether it was sent records that it has not proven."""
        return self._input.unproven

    async def _session(self, config: Path) -> None:
        command = self._command
        try:
            child = self._take_next() or self._start(config)
        except OSError as error:
            self._fail(
                f"cannot be started: {error.strerror or error} ({command.argv[0]})",
                hint="correct its entry in streamline.yaml, or run `streamline plugin install`",
                code="target.not_started",
            )
            return
        self._closing = False
        self._child = child
        self._input.new_session()
        try:
            async with task_group() as tasks:
                tasks.start_soon(log_lines, child.stderr, self._note, self._masker)
                if command.session_interval is not None:
                    tasks.start_soon(self._close_sessions, command.session_interval, config)
                tasks.start_soon(self._open)
                tasks.start_soon(self._read_echoes, child)
                code = await self._await_exit(child)
                # Its last output is still in the pipe, which a child that it forked may hold open for ever.
                with anyio.move_on_after(LINGER_SECONDS):
                    while child.stdout.open:
                        await anyio.sleep(0.002)
                with anyio.move_on_after(0.2):
                    while child.stderr.open:
                        await anyio.sleep(0.005)
                tasks.cancel_scope.cancel()
            self._judge(child, code)
        finally:
            child.dispose()
            self._child = None

    def _start(self, config: Path) -> Child:
        command = self._command
        return Child.start(
            command.name, [*command.argv, "--config", str(config)], env=command.env, cwd=command.cwd, stdin=True
        )

    def _take_next(self) -> Child | None:
        """Return the process that was started ahead, if there is one and it still lives."""
        child, self._next = self._next, None
        if child is not None and child.returncode is not None:
            self._log("the process that was started ahead has exited; starting another")
            child.dispose()
            return None
        return child

    async def _open(self) -> None:
        """Send the state that it starts from and, in later sessions, the SCHEMAs."""
        try:
            await self._write(self._input.opening())
        except TargetFailed:
            return
        self._ready.set()

    async def _await_exit(self, child: Child) -> int:
        """Wait for its exit; after the end of its input no longer than `drain_seconds`."""
        async with task_group() as tasks:
            tasks.start_soon(self._enforce_end, child)
            code = await child.wait()
            tasks.cancel_scope.cancel()
        return code

    async def _enforce_end(self, child: Child) -> None:
        deadline: float | None = None
        timeout = self._command.timeout
        latest = anyio.current_time() + timeout if timeout is not None else None
        while True:
            await anyio.sleep(0.1)
            now = anyio.current_time()
            if self._closing and deadline is None:
                deadline = now + self._command.drain_seconds
            limits = [limit for limit in (deadline, self._limit, latest) if limit is not None]
            if limits and now >= min(limits):
                self._too_long = latest is not None and now >= latest
                break
        child.send_signal(signal.SIGTERM)
        await anyio.sleep(TERM_SECONDS)
        child.send_signal(signal.SIGKILL)

    def _judge(self, child: Child, code: int) -> None:
        if self.failure is not None:
            return  # not all of its input was written: no exit code can prove that
        if self._too_long:
            self._fail(f"timed out after {self._command.timeout:g} s", code="target.timed_out")
        elif child.signalled is not None:
            self._fail(
                "did not exit in time after the end of its input"
                if self._closing
                else "did not read its input in time",
                code="target.timed_out",
            )
        elif code < 0:
            self._fail(f"was killed by signal {-code}", code="target.killed")
        elif refuses_config(code, self._tail.lines):
            self._end(
                TargetRefused(
                    f"does not accept its config (exit code {code})",
                    where=self._command.name,
                    hint=hint_of(self._tail.lines),
                )
            )
        elif not self._closing:
            self._fail(f"exited with code {code} before the end of its input", code="target.exited_early")
        elif code != 0:
            self._fail(f"exited with code {code}", code="target.exited")
        elif unread := child.stdin.unread() if child.stdin is not None else 0:
            self._fail(f"exited with code 0 and left {unread:,} bytes of its input unread", code="target.exited_early")
        else:
            self._closing_seconds = time.monotonic() - self._input_ended_at
            self._input.ended()

    async def _close_sessions(self, interval: float, config: Path) -> None:
        # The interval is from proof to proof. After the end of its input the target still writes, now and then for
        # longer than last time, and then a position is saved, and the next process starts.
        closing = interval / 10 if self._closing_seconds is None else self._closing_seconds
        due = 0.9 * interval - min(1.5 * closing, interval / 2)
        while True:
            left = due - self._input.seconds_without_proof
            waits = [min(1.0, max(left, due / 20))]
            waits += [since + HURRY_SECONDS - anyio.current_time() for _, since in self._waited_for()]
            with anyio.move_on_after(max(min(waits), 0.01)):
                await self._wake.wait()
                self._wake = anyio.Event()
            hurry = any(anyio.current_time() - since >= HURRY_SECONDS for _, since in self._waited_for())
            # One that proves as it goes is left alone.
            if (hurry or self._input.seconds_without_proof >= due) and self._input.unproven:
                async with self._lock:
                    self._ready = anyio.Event()
                    for source, _ in self._waited_for():
                        with contextlib.suppress(TargetFailed):
                            await self._write(self._input.source_ended(source))
                    if self._command.prestart:
                        # It gets its first byte in the next session, which begins once this one has ended well.
                        with contextlib.suppress(OSError):
                            self._next = self._start(config)
                    self._end_input()
                return

    def _waited_for(self) -> list[tuple[str, float]]:
        """Return the sources of which a position was sent and is waited for, and since when."""
        return [
            (source, since) for source, (number, since) in self._hurried.items() if self._sent.get(source, 0) >= number
        ]

    def _end_input(self) -> None:
        child = self._child
        if child is not None and child.returncode is not None:
            return  # it exited before the end of its input
        self._closing = True
        self._input_ended_at = time.monotonic()
        if child is not None and child.stdin is not None:
            child.stdin.close()

    def _note(self, line: str) -> None:
        self._tail.add(line)
        self._log(line)

    def _fail(self, message: str, *, code: str, hint: str | None = None) -> None:
        self._end(TargetFailed(message, where=self._command.name, hint=hint or hint_of(self._tail.lines), code=code))

    def _end(self, failure: TargetFailed) -> None:
        if self.failure is not None:
            return
        self.failure = failure
        self._exited.set()
        self._ready.set()
        self._on_failure(self.failure)

    # -- input

    async def send(self, source: str, items: Sequence[Item]) -> None:
        """See `Sink.send`.

        Raises:
            TargetFailed: it has failed, now or before.
        """
        ready = [await _as_raw(item) for item in items]
        async with self._turn():
            await self._write(self._input.lines(source, ready))
        for item in ready:
            if isinstance(item, Position):
                self._sent[source] = item.number
        if source in self._hurried:
            self._wake.set()

    async def source_ended(self, source: str) -> None:
        """See `Sink.source_ended`."""
        if not self._input.waits(source):
            return
        async with self._turn():
            await self._write(self._input.source_ended(source))

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Hold the right to write, while a session is open.

        A write is completed even if its sender is cancelled meanwhile: others send to this target too, and half a batch
        would break their lines and be proven with theirs. A target that reads nothing any more is ended by `limit`, or
        with the run.

        Raises:
            TargetFailed: it has failed before.
        """
        while True:
            await self._ready.wait()
            async with self._lock:
                if not self._ready.is_set():
                    continue  # the session was closed while we waited for our turn
                if self.failure is not None:
                    raise self.failure
                try:
                    with anyio.CancelScope(shield=True):
                        yield
                except TargetFailed:
                    # If the sender was cancelled, the run is ending, and that is why the target failed.
                    await anyio.lowlevel.checkpoint_if_cancelled()
                    raise
                return

    async def _write(self, buffers: Sequence[Buffer]) -> None:
        if not buffers:
            return
        child = self._child
        try:
            if child is None or child.stdin is None:
                raise BrokenPipeError
            await child.stdin.send(buffers)
        except (BrokenPipeError, OSError):
            # It closed its input or has exited; its exit code says more than the broken pipe.
            with anyio.move_on_after(TERM_SECONDS):
                await self._exited.wait()
            if self.failure is None:
                self._fail("closed its input before the end", code="target.exited_early")
            if child is not None:
                child.send_signal_to_rest()
            assert self.failure is not None
            raise self.failure from None

    # -- output

    async def _read_echoes(self, child: Child) -> None:
        parts: list[bytes] = []
        size = 0
        while chunk := await child.stdout.receive():
            cut = chunk.rfind(b"\n") + 1
            if cut and size <= LONGEST_ECHO:
                parts.append(chunk[:cut])
                for line in b"".join(parts).split(b"\n"):
                    if line.strip():
                        self._echo(line)
            if cut:
                parts, size = [], 0
            size += len(chunk) - cut
            if size <= LONGEST_ECHO:
                parts.append(chunk[cut:])
            else:
                parts = []
        last = b"".join(parts).strip()
        if last:
            # A whole state without its newline is one; half a line is none.
            self._echo(last)

    def _echo(self, line: bytes) -> None:
        text = line.strip()
        if text[:1] == b"{":
            try:
                value = _unwrapped(text)
                marks = marks_of(value)
            except jsontext.JSONTextError:
                pass
            else:
                if self._command.echoes:
                    if not self._input.recognises(marks):
                        self._log("[stdout] a state that it was not sent as it is: " + self._shown(text))
                    self._input.echoed(marks)
                return
        self._log("[stdout] " + self._shown(text))

    def _shown(self, text: bytes) -> str:
        return log_text(text[: 1 << 17].decode("utf-8", "replace"), self._masker, limit=2000)


def _unwrapped(text: bytes) -> bytes:
    """Return the state of an echoed line; some old targets print the whole message."""
    members = jsontext.members(text)
    if members.get("type") == b'"STATE"' and "value" in members:
        return members["value"]
    return text


async def _as_raw(item: Item) -> Item:
    if isinstance(item, RowBatch | ArrowBatch):
        from streamline.flow.codecs.lanes import to_raw

        return await anyio.to_thread.run_sync(to_raw, item)
    if isinstance(item, BadRecord):
        raise TypeError("bad records are taken out before a sink")
    return item
