"""Asks a plugin a question (`--help`, `--discover`) and stops one that answers by starting to work.

Taps made of a few lines often look at no argument at all: they would send all their records as the answer.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import msgspec

from streamline.connectors.singer.log_tail import LogTail
from streamline.errors import ConfigError, StreamlineError
from streamline.processes.child import Child, TextMasker, log_lines

if TYPE_CHECKING:
    from streamline.connectors.plugins import Plugin

MAX_ANSWER_BYTES = 256 << 20
"""No catalog is larger; what is, is no answer."""

_MESSAGES = {"SCHEMA", "RECORD", "STATE", "ACTIVATE_VERSION", "BATCH"}
_LOOKED_AT = 200


class _Typed(msgspec.Struct):
    type: str = ""


_TYPED = msgspec.json.Decoder(_Typed)


class Answer(msgspec.Struct):
    """What a plugin said.

    Args:
        returncode: its exit code, negative for a signal.
        stdout: what it printed, up to where it was stopped.
        stderr_tail: the last lines of its log, masked.
        sent_messages: it began to send Singer messages and was stopped.
        timed_out: it took too long and was stopped.
    """

    returncode: int
    stdout: bytes
    stderr_tail: list[str]
    sent_messages: bool = False
    timed_out: bool = False


async def ask(
    plugin: Plugin,
    arguments: Sequence[str],
    *,
    masker: TextMasker,
    timeout: float,
    log: Callable[[str], None] | None = None,
) -> Answer:
    """Run a plugin with `arguments` and collect its answer.

    Args:
        plugin: tap, target or mapper.
        arguments: what follows its own argv; never a secret.
        masker: masks secrets in its log.
        timeout: seconds after which it is killed, with all that it forked.
        log: called with each masked line of its stderr.

    Raises:
        ConfigError: the program does not exist or can't be started.
        StreamlineError: the answer is too large to be one.
    """
    argv = [*plugin.argv, *arguments]
    try:
        child = Child.start(plugin.name, argv, env=plugin.env, cwd=Path(plugin.cwd))
    except OSError as error:
        raise ConfigError(
            f"{plugin.argv[0]} can't be started: {error.strerror or error}",
            where=plugin.name,
            hint="check the plugin's `command` or `executable` in streamline.yaml",
            code="plugin.not_started",
        ) from None
    tail = LogTail()
    answer = Answer(-signal.SIGKILL, b"", [])

    def keep(line: str) -> None:
        tail.add(line)
        if log is not None:
            log(line)

    try:
        with anyio.move_on_after(timeout) as limit:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(log_lines, child.stderr, keep, masker)
                await _collect(child, answer, plugin.name)
                if answer.sent_messages:
                    child.send_signal(signal.SIGKILL)
                answer.returncode = await child.wait()
                # A daemon that it forked may hold its stderr open for ever.
                tasks.cancel_scope.deadline = anyio.current_time() + 1.0
        answer.timed_out = limit.cancelled_caught
    finally:
        child.dispose()
    answer.stderr_tail = list(tail.lines)
    return answer


async def _collect(child: Child, answer: Answer, name: str) -> None:
    """Read the answer to its end, or until its first line that is a Singer message."""
    parts: list[bytes] = []
    size = 0
    watched: bytes | None = b""
    seen = 0
    while chunk := await child.stdout.receive():
        parts.append(chunk)
        size += len(chunk)
        if watched is not None:
            *lines, watched = (watched + chunk).split(b"\n")
            if any(_is_message(line) for line in lines):
                answer.sent_messages = True
                break
            seen += len(lines)
            if seen > _LOOKED_AT or len(watched) > 8 << 20:
                watched = None
        if size > MAX_ANSWER_BYTES:
            raise StreamlineError(
                f"it answered with more than {MAX_ANSWER_BYTES >> 20} MiB", where=name, code="plugin.answer_too_large"
            )
    answer.stdout = b"".join(parts)
    if watched and _is_message(watched):
        answer.sent_messages = True


def _is_message(line: bytes) -> bool:
    if not line.lstrip().startswith(b"{"):
        return False
    try:
        return _TYPED.decode(line).type in _MESSAGES
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
        return False
