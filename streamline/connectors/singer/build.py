"""Builds the sources and sinks of Singer plugins: a tap and what stands right behind it, the processes of a target."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.connectors.singer.batch_files import FileSource
from streamline.connectors.singer.dropped_keys import DroppedKeys, DroppedKeysSource
from streamline.connectors.singer.parser import MAX_RECORD_BYTES
from streamline.connectors.singer.tap import TapCommand, TapProcess
from streamline.connectors.singer.target import DRAIN_SECONDS, TargetCommand, TargetProcess
from streamline.connectors.singer.target_input import Feed, SentCounts
from streamline.connectors.singer.target_pool import TargetPool
from streamline.flow.protocols import Source
from streamline.processes.child import TextMasker

if TYPE_CHECKING:
    from streamline.connectors.plugins import Plugin
    from streamline.connectors.singer.capabilities import Capabilities


class Workspace(msgspec.Struct, frozen=True, kw_only=True):
    """Where plugins run.

    Args:
        run_dir: the run's private folder.
        root: the project's folder, their working directory.
        log: called with the name of a process and a line that it logged.
    """

    run_dir: Path
    root: Path
    masker: TextMasker
    log: Callable[[str, str], None]

    def log_of(self, name: str) -> Callable[[str], None]:
        """Return the log of one process."""
        return lambda line: self.log(name, line)


def tap_command(
    id: str,
    plugin: Plugin,
    config: Mapping[str, Any],
    workspace: Workspace,
    *,
    capabilities: Capabilities | None = None,
    catalog: Mapping[str, Any] | None = None,
    state: bytes | None = None,
    max_duration: float | None = None,
    idle_timeout: float | None = None,
    timeout: float | None = None,
    max_record_bytes: int | None = None,
) -> TapCommand:
    """Return the command of a tap, or of a mapper, which has no capabilities; see `TapCommand`."""
    command = TapCommand(
        id=id,
        name=plugin.name,
        argv=plugin.argv,
        env=plugin.env,
        cwd=workspace.root,
        config=config,
        catalog=catalog,
        max_duration=max_duration,
        idle_timeout=idle_timeout,
        timeout=timeout,
        max_record_bytes=max_record_bytes or MAX_RECORD_BYTES,
    )
    if capabilities is None:
        return command
    return msgspec.structs.replace(
        command,
        takes_config=capabilities.config,
        catalog_flags=capabilities.catalog_flags,
        state=state if capabilities.state else None,
    )


def tap_source(
    command: TapCommand,
    mappers: Sequence[TapCommand],
    workspace: Workspace,
    *,
    keys: DroppedKeys,
    passed: Collection[str],
    on_config_change: Callable[[dict[str, Any]], None],
) -> tuple[Source, FileSource]:
    """Return a tap as a source, with its mappers behind it, and the part of it that deletes files of BATCHes.

    Args:
        mappers: in their order.
        keys: compares the tap's STATEs.
        passed: dialects of BATCH that go on as files.
        on_config_change: called with the config that the tap wrote back.
    """
    tap = TapProcess(
        command,
        run_dir=workspace.run_dir,
        masker=workspace.masker,
        log=workspace.log_of(command.id),
        on_config_change=on_config_change,
    )
    files = FileSource(tap, run_dir=workspace.run_dir, root=workspace.root, passed=passed)
    source: Source = files
    for mapper in mappers:
        from streamline.connectors.singer.mapper import MapperProcess  # most sources have none

        source = MapperProcess(
            mapper, source, run_dir=workspace.run_dir, masker=workspace.masker, log=workspace.log_of(mapper.id)
        )
    return DroppedKeysSource(source, keys), files


def target_sink(
    id: str,
    plugin: Plugin,
    config: Mapping[str, Any],
    workspace: Workspace,
    *,
    feeds: Sequence[Feed] = (),
    state: Mapping[str, bytes] | None = None,
    processes: int = 1,
    slot_of: Callable[[str], int] = lambda stream: 0,
    counts: SentCounts | None = None,
    echoes: bool = True,
    session_interval: float | None = None,
    drain_seconds: float = DRAIN_SECONDS,
    timeout: float | None = None,
) -> TargetPool:
    """Return a target as a sink; see `TargetCommand`, `TargetProcess` and `TargetPool`."""
    command = TargetCommand(
        id=id,
        name=plugin.name,
        argv=plugin.argv,
        env=plugin.env,
        cwd=workspace.root,
        config=config,
        echoes=echoes and plugin.proof != "exit",
        session_interval=session_interval,
        drain_seconds=drain_seconds,
        timeout=timeout,
        prestart=plugin.prestart,
    )
    names = [id] if processes == 1 else [f"{id}.{number}" for number in range(1, processes + 1)]
    return TargetPool(
        id,
        [
            TargetProcess(
                msgspec.structs.replace(command, id=name),
                feeds=feeds,
                state=state or {},
                run_dir=workspace.run_dir,
                masker=workspace.masker,
                log=workspace.log_of(name),
                counts=counts,
            )
            for name in names
        ],
        slot_of,
    )
