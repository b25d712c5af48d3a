"""What an integration run will do: which processes, which streams in which, and how they are joined.

`planner.py` makes a plan; `attempt.py` carries it out; `explain` prints it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from streamline.blocks.connector.spec import DestinationSpec, MapperSpec, SourceSpec
from streamline.connectors.plugins import Plugin
from streamline.connectors.singer.capabilities import Capabilities
from streamline.connectors.singer.catalog import Catalog, matches
from streamline.connectors.singer.catalog_changes import CatalogWatch
from streamline.connectors.singer.selection import SelectedStream
from streamline.connectors.singer.settings import Resolved, StreamSettings
from streamline.connectors.singer.stages.stream_plan import CASE_CAPABILITY, StreamPlan
from streamline.errors import ConfigError
from streamline.flow.protocols import Sink, Source
from streamline.pipeline.model import Block
from streamline.state.store import BookmarkOverride, Cause

if TYPE_CHECKING:
    from streamline.blocks.python.function import BlockFile


class ProvingSink(Sink, Protocol):
    """A sink that tells whether it has proven all that it was sent."""

    @property
    def unproven(self) -> bool:
        """Whether it was sent something that it has not proven."""
        ...


DEFAULT_SESSION_INTERVAL = 60.0
"""Seconds after which a target that proves nothing is closed and started anew, in pipelines without an end."""

DEFAULT_MAX_PARALLEL = 4
"""Tap processes of one source that run at once, where the block does not say."""

_VANISHED = frozenset(
    (
        *("stream.unknown", "stream.unsupported", "stream.column_unknown", "stream.key_missing"),
        *("column.unknown", "column.unsupported", "replication.no_key"),
    )
)
"""Codes of errors that a setting gets when what it names is gone from the source."""


class GroupPlan(msgspec.Struct, kw_only=True):
    """One tap process.

    Args:
        id: unique in the run, also part of file names.
        source: uuid of its source block.
        streams: what it reads; empty where the tap has no catalog and sends what it likes.
        catalog: what it is given as `--catalog`.
        state: the state that it starts from.
        rows: the same, by stream.
    """

    id: str
    source: str
    streams: tuple[SelectedStream, ...]
    catalog: Mapping[str, Any] | None
    state: bytes
    rows: dict[str, bytes]


class SourcePlan(msgspec.Struct, kw_only=True):
    """A source block.

    Args:
        catalog: all that the tap offers; None for a tap that has no discovery.
        selected: the streams that are read.
        groups: its tap processes.
        max_parallel: how many of them at once.
        keep_config: keeps the config that its tap wrote back.
        cause_of: streams whose old bookmark is not used in this run, and why.
        overrides: stored bookmark overrides that this run uses.
        forgotten: bookmarks that the tap dropped in this run.
        keyless: streams whose SCHEMA named no key in this run.
        left_out: LOG_BASED streams with a bookmark that this run does not read.
        loaded: names of streams that earlier runs have loaded.
        seen: names of streams that the tap has discovered, now or earlier.
        only: names and globs of the streams that the run is about (`--stream`); empty: all.
        gone: streams that the run should read, and cannot, through no fault of the settings, and why.
        passed: those of them past which the tap moves the log by its start.
        notes: what the user should know (a bookmark that is not used, …).
        endless: it is not expected to end by itself.
        watch: compares the SCHEMAs of the run with the catalog.
        senders: ids of the groups that have sent each stream that the catalog does not declare.
        open: makes the source of a group in this process; None: it is a tap.
    """

    block: Block
    spec: SourceSpec
    plugin: Plugin
    config: dict[str, Any]
    capabilities: Capabilities
    catalog: Catalog | None
    selected: list[SelectedStream]
    groups: list[GroupPlan]
    max_parallel: int
    keep_config: Callable[[dict[str, Any]], None]
    cause_of: dict[str, Cause] = {}
    overrides: dict[str, list[BookmarkOverride]] = {}
    forgotten: set[str] = set()
    keyless: set[str] = set()
    left_out: list[str] = []
    passed: list[str] = []
    loaded: frozenset[str] = frozenset()
    seen: frozenset[str] = frozenset()
    only: list[str] = []
    gone: dict[str, ConfigError] = {}
    notes: list[str] = []
    endless: bool = False
    watch: CatalogWatch | None = None
    senders: dict[str, set[str]] = {}
    open: Callable[[GroupPlan], Source] | None = None

    @property
    def id(self) -> str:
        """The block's uuid."""
        return self.block.uuid

    def set_aside(self, names: Sequence[str], error: ConfigError) -> bool:
        """Leave out a stream that cannot be read or written as the settings say; return whether the source is at fault.

        It is if the stream was loaded before: that was no mistake in the settings. The name of a stream is none either
        if it was discovered before.

        Args:
            names: the stream's id, and its other names.
        """
        known = self.loaded | self.seen if error.code == "stream.unknown" else self.loaded
        if error.code != "stream.not_readable" and (error.code not in _VANISHED or known.isdisjoint(names)):
            return False
        self.leave_out(names, error)
        return True

    def leave_out(self, names: Sequence[str], error: ConfigError) -> None:
        """Do not read a stream; the run fails for it if it is about the stream."""
        if not self.only or any(matches(pattern, names) for pattern in self.only):
            self.gone[names[0]] = error
        self.selected = [stream for stream in self.selected if stream.id != names[0]]

    def without_vanished(self, streams: StreamSettings) -> StreamSettings:
        """Return settings without streams that are left out and that the source does not have any more."""
        offered = {name for stream in self.catalog or () for name in (stream.id, *stream.names)}
        vanished = (self.loaded | self.seen) - offered
        entries = (
            entry
            for entry in streams.entries
            if entry.settings.get("selected") is not False or entry.pattern not in vanished
        )
        return StreamSettings(tuple(entries))

    def find(self, name: str) -> SelectedStream | None:
        """Return the selected stream that has this id, or this name in messages."""
        return next((each for each in self.selected if name in (each.id, each.stream, *each.names)), None)

    def name_in_messages(self, stream: SelectedStream) -> str:
        """Return the name that the messages of a stream are expected to have."""
        # PipelineWise's taps put the id in place of the name, as `public-orders` for `orders`.
        return stream.id if self.plugin.library == "pipelinewise-singer-python" else stream.stream

    def sharing(self, name: str) -> list[SelectedStream]:
        """Return the selected streams whose messages are expected to have this name."""
        return [each for each in self.selected if self.name_in_messages(each) == name]

    def bearers(self, name: str) -> list[SelectedStream]:
        """Return the selected streams that may be meant by this name in messages; several if names are not unique."""
        return [each for each in self.selected if name in (each.id, each.stream, *each.names)]

    def keys_of(self, name: str) -> tuple[str, ...]:
        """Return the keys that the bookmark of a stream may have, which has this name in messages.

        Most taps key bookmarks by `tap_stream_id`, some by the stream's name.
        """
        bearers = self.bearers(name)
        keys = [key for stream in bearers for key in (stream.id, stream.stream, *stream.names)] or [name]
        return tuple(dict.fromkeys(keys))

    def bookmarks_of(self, name: str) -> tuple[str, ...]:
        """Return the keys of all bookmarks that may cover the records of this name in messages."""
        return (*self.keys_of(name), *self.parents_of(name))

    def parents_of(self, name: str) -> tuple[str, ...]:
        """Return the streams that drive the stream of this name, which may share its parent's bookmark."""
        parents: list[str] = []
        waiting = [stream.parent for stream in self.bearers(name)]
        while waiting:
            parent = waiting.pop()
            if parent is not None and parent not in parents:
                parents.append(parent)
                above = self.catalog.get(parent) if self.catalog is not None else None
                waiting.append(above.parent if above is not None else None)
        return tuple(parents)


class TransformPlan(msgspec.Struct, kw_only=True):
    """A transformer block in the live pipe; `lane` is what its function is given."""

    block: Block
    file: BlockFile
    lane: str


class MapperPlan(msgspec.Struct, kw_only=True):
    """A Singer mapper between a tap and what comes after it."""

    block: Block
    spec: MapperSpec
    plugin: Plugin
    config: dict[str, Any]


def config_overwrites(config: Mapping[str, Any]) -> bool:
    """Return whether a target's config makes it replace every table."""
    return str(config.get("load_method", "")).lower() in ("overwrite", "replace")


class SinkPlan(msgspec.Struct, kw_only=True):
    """A destination block.

    Args:
        processes: how many target processes it gets.
        slot_of: a stream's name, as the target sees it → the process that takes it.
        settings_of: (source uuid, stream's name in messages) → the destination's settings for it; None where it is
            not exported.
        plan_of: (source uuid, stream's name in messages) → how it reaches its table; None where it is not exported.
        stream_of: (source uuid, name that the target sees) → the stream's name in the source's messages.
        plans: `plan_of` for the streams that are known before the start, for `explain`.
        replaces: it takes ACTIVATE_VERSION.
        batch_dialects: dialects of BATCH that it takes.
        open: makes its sink in this process; None: it is a target.
    """

    block: Block
    spec: DestinationSpec
    plugin: Plugin
    config: dict[str, Any]
    capabilities: Capabilities
    processes: int
    slot_of: Callable[[str], int]
    settings_of: Callable[[str, str], Resolved | None]
    plan_of: Callable[[str, str], StreamPlan | None]
    stream_of: Callable[[str, str], str]
    plans: dict[tuple[str, str], StreamPlan]
    replaces: bool
    batch_dialects: frozenset[str]
    open: Callable[[], ProvingSink] | None = None

    @property
    def id(self) -> str:
        """The block's uuid."""
        return self.block.uuid

    def setting(self, name: str, source: str, stream: str) -> Any:
        """Return a setting of a stream, or else that of the whole destination."""
        settings = self.settings_of(source, stream)
        own = settings.get(name) if settings is not None else None
        return own if own is not None else getattr(self.spec, name)

    def shares_table(self, source: SourcePlan, stream: str) -> bool:
        """Return whether another source, or another stream of this name, is written to the table of a stream."""
        plan = self.plan_of(source.id, stream)
        table = plan.table if plan is not None and plan.table else stream
        others = ((other.table or name) for (of, name), other in self.plans.items() if of != source.id)
        return table in others or len(source.bearers(stream)) > 1

    def same_but_case(self, source: SourcePlan, stream: str) -> str | None:
        """Return the table of an earlier stream that the target takes for this stream's, whose name differs by case."""
        if CASE_CAPABILITY not in self.capabilities.names:
            return None
        plan = self.plan_of(source.id, stream)
        own = plan.table if plan is not None and plan.table else stream
        tables = ((other.table or name) for (_, name), other in self.plans.items())
        first = next((table for table in tables if table.lower() == own.lower()), own)
        return first if first != own else None

    @property
    def overwrites(self) -> bool:
        """Its config makes the target drop tables when it starts: it must not be started twice for a stream in a run.

        The setting is that of Meltano's SDK, whose SQL targets drop the table at the SCHEMA, and of our own targets.
        """
        return config_overwrites(self.config)

    def session_interval(self, *, endless: bool) -> float | None:
        """Return after how many seconds without proof a session is closed; None if a run is one session.

        Args:
            endless: a source that feeds it has no end.
        """
        if self.overwrites:
            return None
        return self.spec.session_interval or (DEFAULT_SESSION_INTERVAL if endless else None)


class PathPlan(msgspec.Struct, kw_only=True):
    """From a source, or the end of another path, through transformers, into destinations or on to other paths."""

    transforms: list[TransformPlan]
    sinks: list[str]
    branches: list[PathPlan]

    def all_sinks(self) -> list[str]:
        """Return uuids of the destination blocks that this path leads to."""
        sinks = [*self.sinks, *(sink for branch in self.branches for sink in branch.all_sinks())]
        return list(dict.fromkeys(sinks))

    def all_transforms(self) -> list[TransformPlan]:
        """Return transformer blocks on this path and its branches."""
        return [*self.transforms, *(each for branch in self.branches for each in branch.all_transforms())]

    def transforms_before(self, sink: str) -> list[str]:
        """Return uuids of the transformer blocks on the way to a destination; of several ways, the first one's."""
        uuids = [each.block.uuid for each in self.transforms]
        if sink in self.sinks:
            return uuids
        branch = next(branch for branch in self.branches if sink in branch.all_sinks())
        return [*uuids, *branch.transforms_before(sink)]

    def blocks(self) -> list[str]:
        """Return uuids of the blocks on this path and its branches."""
        behind = [uuid for branch in self.branches for uuid in branch.blocks()]
        return list(dict.fromkeys([*(each.block.uuid for each in self.transforms), *behind, *self.sinks]))


class Plan(msgspec.Struct, kw_only=True):
    """An integration run. `mappers` and `paths` are by source uuid.

    Args:
        confirms: sources are told what is saved; not where positions wait for something else, because a source may
            then release what another run has to read.
    """

    pipeline: str
    sources: dict[str, SourcePlan]
    mappers: dict[str, list[MapperPlan]]
    paths: dict[str, PathPlan]
    sinks: dict[str, SinkPlan]
    variables: dict[str, Any] = {}
    confirms: bool = True

    def mappers_of(self, source: str) -> list[str]:
        """Return uuids of the mapper blocks directly after a source."""
        return [mapper.block.uuid for mapper in self.mappers.get(source, ())]

    def feeding(self, sink: str) -> list[SourcePlan]:
        """Return the sources that feed a destination."""
        return [source for source in self.sources.values() if sink in self.paths[source.id].all_sinks()]

    def groups(self) -> list[GroupPlan]:
        """Return all tap processes."""
        return [group for source in self.sources.values() for group in source.groups]
