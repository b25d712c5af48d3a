"""A connector in memory for streaming pipelines: topics that are lists, consumer groups that are dicts."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import anyio

from streamline.connectors.stream_connector import (
    Config,
    OffsetSource,
    SinkTraits,
    SourceTraits,
    StreamContext,
    Where,
)
from streamline.errors import ConfigError, PipelineFailed, StreamlineError
from streamline.flow.items import FORGOTTEN, BadRecord, Item, MessageBatch, Origin, Position
from streamline.flow.protocols import Emit, Failed, Proven, Refused
from streamline.state.store import DeadLetter

KEY = "topic/0"


def part(offset: int) -> bytes:
    """The value of a part."""
    return b'{"offset":%d}' % offset


class World:
    """What exists outside of the pipeline."""

    def __init__(self) -> None:
        self.committed: dict[str, int] = {}
        self.written: dict[str, list[Any]] = {}
        self.letters: list[DeadLetter] = []
        self.failures: dict[str, int] = {}
        self.starts: dict[str, list[int]] = {}
        self.closed: list[str] = []
        self.running = anyio.Event()


class JSONDecoder:
    """Decodes JSON."""

    def decode(self, value: bytes, origin: Origin) -> Any:
        return json.loads(value)

    def decode_batch(self, values: Sequence[bytes | None], origins: Sequence[Origin]) -> list[Any]:
        return [None if value is None else json.loads(value) for value in values]


class MemorySource:
    """Gives the messages of its config, one at a time, each followed by its position."""

    def __init__(self, world: World, config: Config, context: StreamContext) -> None:
        self.id = context.block
        self.stopped: str | None = None
        self._world = world
        self._config = config
        self._until_caught_up = context.until_caught_up
        self._messages: list[Any] = config["messages"]
        start = context.start.get(KEY)
        self._next = json.loads(start)["offset"] if start is not None else 0
        self._stop = anyio.Event()

    async def run(self, emit: Emit) -> None:
        self._world.starts.setdefault(self.id, []).append(self._next)
        self._world.running.set()
        if self._config.get("unreachable"):
            raise StreamlineError("nobody answers")
        for number in range(self._next, len(self._messages)):
            if self.stopped is not None:
                return
            value = json.dumps(self._messages[number]).encode()
            data = value if self._config.get("decodes") else self._messages[number]
            key = str(self._messages[number]["key"]).encode() if self._config.get("keyed") else None
            origin = Origin("topic", 0, number, key, value)
            batch = MessageBatch(self.id, [data], [origin])
            await emit([batch, Position(self.id, number + 1, {KEY: part(number + 1)})])
            if self._fails(number):
                raise PipelineFailed("the source failed", blocks=[self.id])
        if self._config.get("endless") and not self._until_caught_up:
            await self._stop.wait()

    def _fails(self, number: int) -> bool:
        return _count_down(self._world, f"{self.id}@{number}", self._config.get("fail_after") == number)

    def stop(self, reason: str) -> None:
        self.stopped = self.stopped or reason
        self._stop.set()

    async def confirm(self, parts: Mapping[str, bytes]) -> None:
        pass

    async def release(self, keys: Collection[str]) -> None:
        pass


class GroupSource(MemorySource):
    """The same as a member of a consumer group."""

    def __init__(self, world: World, config: Config, context: StreamContext) -> None:
        super().__init__(world, config, context)
        self._next = world.committed.get(self.id, 0)

    def commit(self, parts: Mapping[str, bytes]) -> Mapping[str, bytes]:
        if KEY in parts:
            self._world.committed[self.id] = json.loads(parts[KEY])["offset"]
        return parts

    def shown(self, parts: Mapping[str, bytes]) -> Mapping[str, bytes]:
        return parts

    def transaction_offsets(self, parts: Mapping[str, bytes]) -> tuple[Mapping[Any, Any], Any]:
        return parts, None

    def committed(self, parts: Mapping[str, bytes]) -> Mapping[str, bytes]:
        return parts

    async def close(self) -> None:
        self._world.closed.append(self.id)


class MemorySink:
    """Writes into lists, proves every position. A message that equals `refuse` is refused."""

    def __init__(self, world: World, configs: Mapping[str, Config], context: StreamContext) -> None:
        self.id = context.block
        self.refused: Refused = lambda source, records: None
        self.offsets_from: Mapping[str, OffsetSource] = {}
        self._world = world
        self._configs = configs
        self._ended = anyio.Event()

    async def run(self, proven: Proven, failed: Failed) -> None:
        self._proven, self._failed = proven, failed
        await self._ended.wait()

    async def send(self, source: str, items: Sequence[Item]) -> None:
        for item in items:
            if isinstance(item, MessageBatch):
                self._write(source, item)
            elif isinstance(item, Position):
                if self.offsets_from:
                    self.offsets_from[source].transaction_offsets(item.parts)
                    self._world.committed[source] = json.loads(item.parts[KEY])["offset"]
                self._proven(source, item.number)

    def _write(self, source: str, batch: MessageBatch) -> None:
        block = batch.sink or self.id
        config = self._configs[block]
        for number, data in enumerate(batch.data):
            value = json.loads(data) if isinstance(data, bytes) else data
            if value == config.get("refuse"):
                origin = batch.origins[number] if batch.origins else None
                self.refused(
                    source,
                    [BadRecord(batch.stream, json.dumps(value).encode(), "too large", block, block, origin=origin)],
                )
                continue
            if _count_down(self._world, block, value == config.get("fail_at"), config.get("fail_times", 1)):
                error = PipelineFailed("the sink failed", blocks=[block])
                self._failed(error)
                raise error
            if config.get("changes_data") and isinstance(data, dict):
                data["changed by"] = block
            self._world.written.setdefault(block, []).append(data)

    def dead_letters(self, source: str, letters: Sequence[DeadLetter]) -> None:
        self._world.letters += letters

    async def source_ended(self, source: str) -> None:
        pass

    def limit(self, seconds: float) -> None:
        pass

    async def close(self) -> None:
        self._ended.set()


def _count_down(world: World, key: str, now: bool, times: int = 1) -> bool:
    """Return whether it fails this time."""
    if not now:
        return False
    world.failures[key] = world.failures.get(key, 0) + 1
    return world.failures[key] <= times


class MemoryConnector:
    """A `StreamConnector`. Keys of a block's file are keys of its traits, or say what goes wrong."""

    name = "memory"

    def __init__(self) -> None:
        self.world = World()

    def describe_source(self, config: Config, context: StreamContext, where: Where) -> SourceTraits:
        if "messages" not in config:
            raise ConfigError("messages is missing", where=where("messages"), code="setting.invalid")
        group = bool(config.get("group"))
        return SourceTraits(
            replays=config.get("replays", True),
            positions=f"consumer group {config['group']}" if group else "the state store",
            keeps_positions=group,
            ordered=config.get("keyed", False),
            cluster=config.get("cluster"),
            client=config.get("client"),
            decoder=JSONDecoder if config.get("decodes") else None,
            format="json",
            include_metadata=config.get("include_metadata", False),
        )

    def describe_sink(self, config: Config, context: StreamContext, where: Where) -> SinkTraits:
        return SinkTraits(
            proof="at once",
            cluster=config.get("cluster"),
            client=config.get("client"),
            replaces=config.get("replaces", False),
            changes_data=config.get("changes_data", False),
            keeps_data=config.get("keeps_data", True),
            format=config.get("format"),
        )

    def open_source(self, config: Config, context: StreamContext, where: Where) -> MemorySource:
        return (GroupSource if config.get("group") else MemorySource)(self.world, config, context)

    def open_sink(
        self, configs: Mapping[str, Config], context: StreamContext, where: Mapping[str, Where]
    ) -> MemorySink:
        return MemorySink(self.world, configs, context)

    def check(self, side: str, config: Config, context: StreamContext, where: Where) -> str:
        if config.get("unreachable"):
            raise StreamlineError("nobody answers", code="connector.unreachable")
        return "it answers"

    def set_positions(self, config: Config, context: StreamContext, where: Where, parts: Mapping[str, bytes]) -> None:
        if config.get("busy"):
            raise StreamlineError("the group has members", code="kafka.request_failed")
        for value in parts.values():
            if value == FORGOTTEN:
                del self.world.committed[context.block]
            else:
                self.world.committed[context.block] = json.loads(value)["offset"]

    def template(self, side: str, pipeline: str, block: str) -> str:
        return "connector_type: memory\n"


CONNECTOR = MemoryConnector()
