"""A running tap: a source whose items are what the process prints."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import msgspec

from streamline.connectors.singer.parser import MAX_RECORD_BYTES, TapOutputError, TapParser
from streamline.connectors.singer.state import join_state, split_state, state_of
from streamline.errors import StreamlineError
from streamline.flow.items import Item, Position
from streamline.flow.protocols import Emit
from streamline.flow.tasks import task_group
from streamline.processes.child import (
    TERM_SECONDS,
    Child,
    Tail,
    TextMasker,
    keep_freed_memory,
    log_lines,
    log_text,
    private_file,
)

SMALL_READ = 128 << 10
"""A read shorter than this waits a moment for more: taps flush after every message."""

MUCH = 8 << 20
"""Bytes after which a tap is known to bring much."""

GATHER_SECONDS = 0.002
EXIT_SECONDS = 10.0
"""How long a tap may live on after it closed its output."""

LINGER_SECONDS = 2.0
"""How long its output may stay silent once the tap itself is gone (children that it forked may hold it open)."""

_EMPTY = (b"{}", b"null")


class TapFailed(StreamlineError):
    """A tap failed; what it gave before is valid."""

    code = "tap.failed"


class TapCommand(msgspec.Struct, kw_only=True):
    """How a tap process is started.

    Args:
        id: names this process in positions, logs and private files.
        name: the plugin's name, for errors.
        argv: the program, without the arguments that are added here.
        env: its complete environment.
        cwd: where it runs.
        config: its settings.
        takes_config: False for a program that refuses the protocol's options, as `cat FILE` does.
        catalog: what it is to sync, in every spelling; None: it takes no catalog.
        catalog_flags: `--catalog`, `--properties` or both.
        state: the state that it starts from; None: it takes none.
        max_duration: seconds after which it is asked to end.
        idle_timeout: seconds of silence after which it is asked to end.
        timeout: seconds after which it is ended and has failed.
        max_record_bytes: longest line.
    """

    id: str
    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    config: Mapping[str, Any]
    takes_config: bool = True
    catalog: Mapping[str, Any] | None = None
    catalog_flags: Sequence[str] = ("--catalog",)
    state: bytes | None = None
    max_duration: float | None = None
    idle_timeout: float | None = None
    timeout: float | None = None
    max_record_bytes: int = MAX_RECORD_BYTES


class TapProcess:
    """A tap that runs once. It is a `flow.protocols.Source`."""

    def __init__(
        self,
        command: TapCommand,
        *,
        run_dir: Path,
        masker: TextMasker,
        log: Callable[[str], None],
        on_config_change: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.id = command.id
        self._command = command
        self._run_dir = run_dir
        self._masker = masker
        self._log = log
        self._spoke = False
        self._noise = False
        self._on_config_change = on_config_change
        self._tail = Tail()
        self._stopping: str | None = None
        self._stop = anyio.Event()
        self._given_up: str | None = None
        self._waiting_since: float | None = None
        """Since when we wait for its output; None while what it printed is being taken."""
        self._state_path: Path | None = None
        self._saved = split_state(command.state) if command.state is not None else {}

    def stop(self, reason: str) -> None:
        """Ask the tap to end: TERM, and KILL if that does not help. What it has printed is still given."""
        if self._stopping is None:
            self._stopping = reason
            self._stop.set()

    def _give_up(self, reason: str) -> None:
        """End this process, as `stop` does, and let that be a failure."""
        self._given_up = reason
        TapProcess.stop(self, reason)

    @property
    def stopped(self) -> str | None:
        """Why it was asked to end, if it was."""
        return self._stopping

    async def run(self, emit: Emit) -> None:
        """Start the tap and give `emit` its items until it ends.

        Raises:
            TapFailed: it could not be started, or ended with another exit code than 0.
            TapOutputError: it printed what is no message. Items before that were given.
        """
        argv, private = self._prepare()
        try:
            child = self._start(argv)
            try:
                await self._follow(child, emit)
            finally:
                child.dispose()
                self._read_back(private[0])
        finally:
            self._state_path = None
            for path in private:
                path.unlink(missing_ok=True)

    async def confirm(self, parts: Mapping[str, bytes]) -> None:
        """See `Source.confirm`. A tap may read its state file again to release its source's log."""
        self._saved.update(parts)
        if self._state_path is not None:
            private_file(self._run_dir, self._state_path.name, join_state(self._saved))

    async def release(self, keys: Collection[str]) -> None:
        """See `Source.release`. A tap can't leave out streams while it runs."""

    def _prepare(self) -> tuple[list[str], list[Path]]:
        command = self._command
        config = private_file(self._run_dir, f"{command.id}.config.json", json.dumps(command.config).encode())
        argv = [*command.argv, *(("--config", str(config)) if command.takes_config else ())]
        private = [config]
        if command.catalog is not None and command.catalog_flags:
            catalog = private_file(self._run_dir, f"{command.id}.catalog.json", json.dumps(command.catalog).encode())
            argv += [word for flag in command.catalog_flags for word in (flag, str(catalog))]
            private.append(catalog)
        if command.state is not None:
            self._state_path = private_file(self._run_dir, f"{command.id}.state.json", command.state)
            argv += ["--state", str(self._state_path)]
            private.append(self._state_path)
        return argv, private

    def _start(self, argv: list[str]) -> Child:
        command = self._command
        try:
            return self._start_child(argv)
        except OSError as error:
            raise TapFailed(
                f"it can't be started: {error.strerror or error} ({argv[0]})",
                where=command.name,
                hint="see its entry in streamline.yaml, or run `streamline plugin install`",
            ) from None

    def _start_child(self, argv: list[str]) -> Child:
        command = self._command
        return Child.start(command.name, argv, env=command.env, cwd=command.cwd)

    async def _follow(self, child: Child, emit: Emit) -> None:
        parser = TapParser(
            self.id,
            tap=self._command.name,
            mask=self._masker.mask,
            log=self._note_noise,
            max_record_bytes=self._command.max_record_bytes,
        )
        async with task_group() as tasks:
            tasks.start_soon(log_lines, child.stderr, self._note, self._masker)
            tasks.start_soon(self._end_when_asked, child)
            tasks.start_soon(self._watch, child)
            try:
                await self._read(child, parser, emit)
                code = await child.end(term_after=EXIT_SECONDS, kill_after=TERM_SECONDS)
                # Its last words are worth a moment, but a child of its own may hold stderr open for ever.
                with anyio.move_on_after(0.2):
                    while child.stderr.open:
                        await anyio.sleep(0.005)
            except TapOutputError as error:
                await emit(_useful(error.items))
                if not child.stdout.open:
                    code = await child.end(term_after=EXIT_SECONDS, kill_after=TERM_SECONDS)
                    said = (error.hint or "").rstrip(".")
                    error.hint = f"{said}. {_exit_words(code).capitalize()}. {_tail_hint(self._tail.lines)}"
                raise
            finally:
                tasks.cancel_scope.cancel()
        if self._given_up is not None:
            raise TapFailed(self._given_up, where=self._command.name, hint=_tail_hint(self._tail.lines))
        if code != 0 and self._stopping is None:
            raise TapFailed(
                _exit_words(code),
                where=self._command.name,
                hint=_tail_hint(self._tail.lines),
            )

    async def _read(self, child: Child, parser: TapParser, emit: Emit) -> None:
        moved, tuned = 0, False
        while True:
            self._waiting_since = anyio.current_time()
            chunk = await child.stdout.receive()
            self._waiting_since = None
            if not chunk:
                break
            moved += len(chunk)
            if moved > MUCH and not tuned:
                tuned = True
                keep_freed_memory()
            if len(chunk) < SMALL_READ:
                await anyio.sleep(GATHER_SECONDS)
                chunk += child.stdout.receive_nowait()
            if items := _useful(parser.feed(chunk)):
                self._spoke = True
                await emit(items)
        if not self._spoke and self._noise:
            self._note("WARNING it printed lines, but no Singer message; is it a tap?")
        if self._stopping is None or child.signalled is None:
            items = parser.finish()
        else:
            # Ended by us in the middle of a line: the line is not lost, its position was not saved.
            with contextlib.suppress(TapOutputError):
                items = parser.finish()
                if items := _useful(items):
                    await emit(items)
            return
        if items := _useful(items):
            await emit(items)

    async def _end_when_asked(self, child: Child) -> None:
        await self._stop.wait()
        child.send_signal(signal.SIGTERM)
        await anyio.sleep(TERM_SECONDS)
        child.send_signal(signal.SIGKILL)
        # What it forked into sessions of their own may hold the pipe open: stop listening.
        await anyio.sleep(LINGER_SECONDS)
        while self._waiting_since is None:
            await anyio.sleep(0.02)
        child.stdout.close()

    async def _watch(self, child: Child) -> None:
        """Bounds in time; and the end of the output of a tap whose forked children hold the pipe open."""
        command = self._command
        started = anyio.current_time()
        gone: float | None = None
        while True:
            now = anyio.current_time()
            # Output that waits in the pipe because its taker is slow is no silence.
            waiting = self._waiting_since
            if command.timeout is not None and now - started >= command.timeout and self._stopping is None:
                self._give_up(f"it did not end within {command.timeout:g} s (timeout)")
            if command.max_duration is not None and now - started >= command.max_duration:
                self.stop(f"it ran for max_duration ({command.max_duration:g} s)")
            if command.idle_timeout is not None and waiting is not None and now - waiting >= command.idle_timeout:
                self.stop(f"it was silent for idle_timeout ({command.idle_timeout:g} s)")
            if child.returncode is not None:
                gone = gone or now
                if waiting is not None and now - max(gone, waiting) >= LINGER_SECONDS:
                    child.send_signal_to_rest()
                    child.stdout.close()
            await anyio.sleep(0.1)

    def _note_noise(self, line: str) -> None:
        self._noise = True
        self._note(log_text(line, self._masker))

    def _note(self, line: str) -> None:
        self._tail.add(line)
        self._log(line)

    def _read_back(self, path: Path) -> None:
        """Some taps rotate tokens and write the new ones into their config file."""
        if self._on_config_change is None:
            return
        try:
            config = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return
        if isinstance(config, dict) and config != json.loads(json.dumps(self._command.config)):
            self._on_config_change(config)


def _useful(items: Sequence[Item]) -> Sequence[Item]:
    """Without empty states: taps that know nothing yet print `{}`, which must not count as a position."""
    if any(isinstance(item, Position) and state_of(item.parts) in _EMPTY for item in items):
        return [item for item in items if not (isinstance(item, Position) and state_of(item.parts) in _EMPTY)]
    return items


def _exit_words(code: int) -> str:
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = str(-code)
        return f"it was ended by signal {name}"
    return f"it ended with exit code {code}"


def _tail_hint(lines: Sequence[str]) -> str:
    if not lines:
        return "It logged nothing."
    return "The last that it logged:\n    " + "\n    ".join(lines)
