"""A tap process as a source: its items are the Singer messages that it prints."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import msgspec

from streamline.connectors.singer.log_tail import LogTail, hint_of, refuses_config
from streamline.connectors.singer.message_reader import TapOutputError
from streamline.connectors.singer.parser import MAX_RECORD_BYTES, TapParser
from streamline.connectors.singer.state import join_state, split_state
from streamline.errors import ConfigError, StreamlineError
from streamline.flow.protocols import Emit
from streamline.flow.tasks import task_group
from streamline.processes.child import (
    TERM_SECONDS,
    Child,
    TextMasker,
    keep_freed_memory,
    log_lines,
    log_text,
    private_file,
)
from streamline.processes.regular_file import read_regular

SMALL_READ = 128 << 10
"""After a shorter read, wait a moment for more: taps flush after every message."""

MUCH = 8 << 20
"""Bytes after which memory is tuned for a tap that brings much."""

GATHER_SECONDS = 0.002
MAX_CONFIG_BYTES = 16 << 20
"""A longer config is not taken from a tap that wrote into its config file."""

EXIT_SECONDS = 10.0
"""Seconds until a tap that closed its output, and lives on, is terminated."""

LINGER_SECONDS = 2.0
"""Seconds without output after the tap's exit until the pipe is closed (children that it forked may hold it open)."""


class TapFailed(StreamlineError):
    """A tap or a mapper failed. What it gave before is valid."""

    code = "tap.failed"


class TapRefused(TapFailed, ConfigError):
    """A tap or a mapper does not accept its config: another attempt would not help."""

    code = "tap.config_refused"


class TapCommand(msgspec.Struct, kw_only=True):
    """How a tap process is started.

    Args:
        id: names the process in positions, logs and private files.
        name: name of the plugin, for errors.
        argv: the program, without the arguments that are added here.
        env: the complete environment.
        cwd: the working directory.
        config: content of the config file.
        takes_config: False for a program that refuses the protocol's options, as `cat FILE` does.
        catalog: content of the catalog file; None if it takes no catalog.
        catalog_flags: `--catalog`, `--properties` or both.
        state: content of the state file; None if it takes no state.
        max_duration: seconds after which it is stopped, which is no failure.
        idle_timeout: seconds without output after which it is stopped, which is no failure.
        timeout: seconds after which it is ended and has failed.
        max_record_bytes: size of the longest line that is read.
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
    """A tap that is run once. It implements `flow.protocols.Source`."""

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
        self._tail = LogTail()
        self._stopping: str | None = None
        self._stop = anyio.Event()
        self._given_up: TapFailed | None = None
        self._waiting_since: float | None = None
        """Time since which we wait for output; None while output is being processed."""
        self._state_path: Path | None = None
        self._saved = split_state(command.state) if command.state is not None else {}

    def stop(self, reason: str) -> None:
        """Terminate the tap: TERM, and KILL if it does not exit. What it has printed is still given."""
        if self._stopping is None:
            self._stopping = reason
            self._stop.set()

    def _give_up(self, failure: TapFailed) -> None:
        """End this process as `stop` does, and fail."""
        self._given_up = failure
        TapProcess.stop(self, failure.message)

    @property
    def stopped(self) -> str | None:
        """See `Source.stopped`."""
        return self._stopping

    async def run(self, emit: Emit) -> None:
        """Start the tap and give `emit` its items until it exits.

        Raises:
            TapFailed: it could not be started, timed out, or exited with another code than 0.
            TapOutputError: it printed a line that is no Singer message. Items before it were given.
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
                with contextlib.suppress(OSError):  # the tap may have made a folder of it
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
                f"cannot be started: {error.strerror or error} ({argv[0]})",
                where=command.name,
                hint="correct its entry in streamline.yaml, or run `streamline plugin install`",
                code="tap.not_started",
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
                # Wait a moment for the end of its log; a child that it forked may hold stderr open for ever.
                with anyio.move_on_after(0.2):
                    while child.stderr.open:
                        await anyio.sleep(0.005)
            except TapOutputError as error:
                await emit(error.items)
                if not child.stdout.open:
                    code = await child.end(term_after=EXIT_SECONDS, kill_after=TERM_SECONDS)
                    hint = (error.hint or "").rstrip(".")
                    error.hint = f"{hint}. The tap {_exit_words(code)}. {hint_of(self._tail.lines)}"
                raise
            finally:
                tasks.cancel_scope.cancel()
        if self._given_up is not None:
            self._given_up.hint = hint_of(self._tail.lines)
            raise self._given_up
        if code == 0 or self._stopping is not None:
            return
        hint = hint_of(self._tail.lines)
        if not self._spoke and refuses_config(code, self._tail.lines):
            raise TapRefused(f"does not accept its config (exit code {code})", where=self._command.name, hint=hint)
        raise TapFailed(
            _exit_words(code),
            where=self._command.name,
            hint=hint,
            code="tap.killed" if code < 0 else "tap.exited",
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
            if items := parser.feed(chunk):
                self._spoke = True
                await emit(items)
        if not self._spoke and self._noise:
            self._note("WARNING it printed no Singer message, only other lines; is it a tap?")
        try:
            items = parser.finish()
        except TapOutputError:
            if self._stopping is None:
                raise
            # We ended it in the middle of a line. The record is read again: its position was not saved.
            return
        if items:
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
        """Enforce timeouts, and close the output of a tap that has exited while its children hold the pipe open."""
        command = self._command
        started = anyio.current_time()
        gone: float | None = None
        while True:
            now = anyio.current_time()
            # Output that waits in the pipe, because its consumer is slow, does not count as silence.
            waiting = self._waiting_since
            if command.timeout is not None and now - started >= command.timeout and self._stopping is None:
                self._give_up(
                    TapFailed(f"timed out after {command.timeout:g} s", where=command.name, code="tap.timed_out")
                )
            if command.max_duration is not None and now - started >= command.max_duration:
                self.stop(f"max_duration ({command.max_duration:g} s) has elapsed")
            if command.idle_timeout is not None and waiting is not None and now - waiting >= command.idle_timeout:
                self.stop(f"no output for idle_timeout ({command.idle_timeout:g} s)")
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
        """Report what the tap wrote into its config file: some taps rotate tokens that way."""
        if self._on_config_change is None:
            return
        try:
            config = json.loads(read_regular(path, MAX_CONFIG_BYTES))
        except FileNotFoundError:
            return
        except (OSError, ValueError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or error
            self._log(f"WARNING its config file cannot be read again ({reason}): a new token in it is lost")
            return
        if isinstance(config, dict) and config != json.loads(json.dumps(self._command.config)):
            self._on_config_change(config)


def _exit_words(code: int) -> str:
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = str(-code)
        return f"was killed by {name}"
    return f"exited with code {code}"
