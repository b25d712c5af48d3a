"""The first records of one stream, from a tap that is stopped once it has sent them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from streamline.connectors.singer.capabilities import Capabilities, tap_traits
from streamline.connectors.singer.catalog import Catalog
from streamline.connectors.singer.selection import apply_settings, choose
from streamline.connectors.singer.settings import Entry, StreamSettings
from streamline.errors import ConfigError, StreamlineError
from streamline.flow.codecs import jsontext
from streamline.processes.child import Child, Tail, TextMasker, log_lines, private_file

if TYPE_CHECKING:
    from streamline.connectors.plugins import Plugin

TERM_SECONDS = 3.0
"""How long a tap that has sent enough may take to end; what it loses then, nobody wanted."""


class _Files:
    """What the tap is started with, and how its stream is called in its messages."""

    def __init__(self, arguments: list[str], names: frozenset[str], paths: list[Path]) -> None:
        self.arguments = arguments
        self.names = names
        self._paths = paths

    def remove(self) -> None:
        for path in self._paths:
            path.unlink(missing_ok=True)


async def sample(
    plugin: Plugin,
    config: Mapping[str, Any],
    stream: str,
    *,
    catalog: Catalog | None,
    streams: StreamSettings,
    capabilities: Capabilities,
    run_dir: Path,
    masker: TextMasker,
    records: int,
    timeout: float,
    log: Callable[[str], None] | None = None,
    where: str | None = None,
) -> list[bytes]:
    """The first records of a stream as JSON texts, at most `records` of them.

    The tap starts without a state. A LOG_BASED stream is read as a table: a look must not touch the log's position.

    Args:
        stream: id or stream name; it need not be selected.
        catalog: what the tap offers; None if it has no discovery.
        streams: the block's stream settings; they choose the columns.
        timeout: seconds until the tap is stopped whatever it has sent.

    Raises:
        ConfigError: there is no such stream, or its settings can't be honoured.
        StreamlineError: the tap failed before it had sent a record.
    """
    files = _prepare(plugin, config, stream, catalog, streams, capabilities, run_dir, where)
    found: list[bytes] = []
    tail = Tail()

    def keep(line: str) -> None:
        tail.add(line)
        if log is not None:
            log(line)

    try:
        argv = [*plugin.argv, *files.arguments]
        try:
            child = Child.start(plugin.name, argv, env=plugin.env, cwd=Path(plugin.cwd))
        except OSError as error:
            raise ConfigError(
                f"{argv[0]} can't be started: {error.strerror or error}", where=plugin.name, code="plugin.not_started"
            ) from None
        code: int | None = None
        try:
            with anyio.move_on_after(timeout):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(log_lines, child.stderr, keep, masker)
                    enough = await _read(child, files.names, records, found)
                    if not enough:
                        code = await child.wait()
                        tasks.cancel_scope.deadline = anyio.current_time() + 0.5
                    else:
                        tasks.cancel_scope.cancel()
            if code is None:
                await child.end(term_after=0, kill_after=TERM_SECONDS)
        finally:
            child.dispose()
    finally:
        files.remove()
    if code is None and not found:
        raise StreamlineError(
            f"the tap sent no record of {stream!r} within {timeout:g} s",
            where=plugin.name,
            hint=_said(tail, masker),
            code="tap.no_record",
        )
    if code and not found:
        raise StreamlineError(
            f"the tap failed with exit code {code}", where=plugin.name, hint=_said(tail, masker), code="tap.exited"
        )
    return found


def _prepare(
    plugin: Plugin,
    config: Mapping[str, Any],
    stream: str,
    catalog: Catalog | None,
    streams: StreamSettings,
    capabilities: Capabilities,
    run_dir: Path,
    where: str | None,
) -> _Files:
    paths = [private_file(run_dir, "sample-config.json", jsontext.encode(dict(config)))]
    names = frozenset({stream})
    given: str | None = None
    if catalog is not None:
        entry = catalog.require(stream, where=where)
        traits = tap_traits(plugin, capabilities, config)
        wanted = StreamSettings((*streams.entries, Entry(entry.id, {"selected": True})))
        chosen = [
            one
            for one in choose(catalog, wanted, tap=traits, stream_filter=[entry.id], where=where)
            if one.id == entry.id
        ]
        if chosen[0].replication_method == "LOG_BASED":
            chosen = [msgspec.structs.replace(chosen[0], replication_method="FULL_TABLE")]
        names = frozenset({stream, *entry.names})
        text = apply_settings(catalog, chosen, tap=traits).to_json()
        paths.append(private_file(run_dir, "sample-catalog.json", text))
        given = str(paths[-1])
    return _Files(capabilities.arguments(config=str(paths[0]), catalog=given), names, paths)


class _Message(msgspec.Struct):
    type: str = ""
    stream: str = ""
    record: msgspec.Raw = msgspec.Raw(b"")


_MESSAGE = msgspec.json.Decoder(_Message)


async def _read(child: Child, names: frozenset[str], records: int, found: list[bytes]) -> bool:
    """Collect the stream's records; True once there are enough, False at the end of the tap's output."""
    rest = b""
    while chunk := await child.stdout.receive():
        *lines, rest = (rest + chunk).split(b"\n")
        if _collect(lines, names, records, found):
            return True
    return _collect([rest], names, records, found)


def _collect(lines: Sequence[bytes], names: frozenset[str], records: int, found: list[bytes]) -> bool:
    for line in lines:
        if line.lstrip().startswith(b"{"):
            record = _record(line, names)
            if record is not None:
                found.append(record)
                if len(found) >= records:
                    return True
    return False


def _record(line: bytes, names: frozenset[str]) -> bytes | None:
    try:
        message = _MESSAGE.decode(line)
        return bytes(message.record) if message.type == "RECORD" and message.stream in names else None
    except (msgspec.DecodeError, msgspec.ValidationError):
        pass
    try:
        members = jsontext.members(line)
        if jsontext.decode(members["type"]) == "RECORD" and jsontext.decode(members["stream"]) in names:
            return members["record"]
    except (jsontext.JSONTextError, KeyError):
        pass
    return None


def _said(tail: Tail, masker: TextMasker) -> str:
    said = [masker.mask(line) for line in tail.lines if line.strip()]
    return "The tap said:\n    " + "\n    ".join(said) if said else "The tap said nothing."
