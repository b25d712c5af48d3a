"""Source, destination and mapper blocks: what their YAML says, rendered and checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec

from streamline.blocks.connector.json_values import json_value
from streamline.blocks.connector.mage_config import with_plugin_keys, without_line_ends
from streamline.connectors.singer.settings import (
    BAD_RECORD_POLICIES,
    SCHEMA_POLICIES,
    Side,
    StreamSettings,
    parse_streams,
)
from streamline.errors import ConfigError
from streamline.project.suggest import nearest
from streamline.project.yamlfile import PathKey, YamlFile, kind_of, load_yaml

if TYPE_CHECKING:
    from streamline.connectors.registry import Role
    from streamline.pipeline.model import Block
    from streamline.project.render import Renderer

Value = TypeVar("Value")
Default = TypeVar("Default")
Kind = TypeVar("Kind", "SourceSpec", "DestinationSpec", "MapperSpec")

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmMgG]?i?[bB]?)")
_BYTES = {
    "": 1,
    "B": 1,
    **{f"{letter}{end}": 1000**power for power, letter in enumerate("KMG", 1) for end in ("", "B")},
    **{f"{letter}I{end}": 1024**power for power, letter in enumerate("KMG", 1) for end in ("", "B")},
}


class SourceSpec(msgspec.Struct, kw_only=True):
    """A source block: `source: tap-shop`.

    Args:
        source: the plugin, or the system's name.
        config: the tap's config, rendered; `batch_config` of the block is in it.
        streams: settings by stream.
        max_parallel: tap processes that run at once; None: the engine decides.
        max_duration: seconds after which the tap is asked to end; None: never.
        idle_timeout: seconds without a message after which it is asked to end; None: never.
        max_record_bytes: the longest line that its taps may print; None: the engine decides.
        interval: in streaming pipelines: seconds from one poll to the next; None: the tap is left running.
        format: of the messages in streaming pipelines: `plain` records, or the lines of a `singer` stream.
        deletes: what a deleted row is in plain messages: its `record`, or a `tombstone`.
        where: `file:line` of the block's file.
    """

    source: str
    config: dict[str, Any] = {}
    streams: StreamSettings = StreamSettings()
    max_parallel: int | None = None
    max_duration: float | None = None
    idle_timeout: float | None = None
    max_record_bytes: int | None = None
    interval: float | None = None
    format: str = "plain"
    deletes: str = "record"
    where: str = ""


class DestinationSpec(msgspec.Struct, kw_only=True):
    """A destination block: `destination: target-duckdb`.

    Args:
        destination: the plugin, or the system's name.
        config: the target's config, rendered.
        streams: settings by stream.
        on_bad_record: pass, quarantine or fail.
        max_bad_records: per stream and run; None: the larger of 1,000 and 1 %.
        schema_change: evolve, freeze or pause.
        source_column: whether records get a column that names their source, as part of their key.
        session_interval: seconds after which a target that proves only at its end is closed and started anew; None:
            the engine decides.
        message_columns: in streaming pipelines: columns that say where a message was read.
        wrap_values: a message whose value is no object becomes a record with the column `value`.
        tombstones: what becomes of a message without a value: `skip`, or `delete`.
        where: `file:line` of the block's file.
    """

    destination: str
    config: dict[str, Any] = {}
    streams: StreamSettings = StreamSettings()
    on_bad_record: str = "pass"
    max_bad_records: int | None = None
    schema_change: str = "evolve"
    source_column: bool = False
    session_interval: float | None = None
    message_columns: list[str] = []
    wrap_values: bool = False
    tombstones: str = "skip"
    where: str = ""


class MapperSpec(msgspec.Struct, kw_only=True):
    """A Singer mapper between a source and what comes after it: `mapper: NAME`."""

    mapper: str
    config: dict[str, Any] = {}
    where: str = ""


Spec: TypeAlias = SourceSpec | DestinationSpec | MapperSpec

_STREAMING = frozenset({"interval", "format", "deletes", "message_columns", "wrap_values", "tombstones"})
"""Keys that only blocks of streaming pipelines have."""

MESSAGE_COLUMNS = ("key", "topic", "partition", "offset", "time", "headers")

_ROLES = {"data_loader": "source", "data_exporter": "destination", "transformer": "mapper"}


def _keys(kind: type[Spec], *more: str, streaming: bool) -> tuple[str, ...]:
    left_out = {"where"} if streaming else {"where", *_STREAMING}
    return (*(name for name in kind.__struct_fields__ if name not in left_out), *more)


def load_spec(
    block: Block,
    renderer: Renderer,
    *,
    text: str | None = None,
    file: YamlFile | None = None,
    streaming: bool = True,
) -> Spec:
    """Return what a YAML block says: a source for a data_loader, a destination for a data_exporter, else a mapper.

    Args:
        text: the text of its file, if it is not to be read from there.
        file: the file, if it was read already.
        streaming: whether it may have the keys that only streaming pipelines use.

    The values of secret-like keys of its config are masked from then on.

    Raises:
        ConfigError: the file is wrong, does not render, or is of another kind than the block.
    """
    role = _ROLES.get(block.type)
    file = file or open_spec(block, renderer, text)
    present = [key for key in ("source", "destination", "mapper") if key in file.mapping()]
    if role is None or present != [role]:
        expected = f"a {block.type} in YAML needs `{role}:`" if role else f"a {block.type} can't be written in YAML"
        if present:
            expected += f", and this is a {' and a '.join(present)}"
        hint = None
        if role is not None and not present:
            near = nearest(role, map(str, file.mapping()), limit=1)
            hint = (
                f"did you mean `{role}:` instead of `{near[0]}:`?"
                if near
                else f"write `{role}: NAME`, NAME being a plugin or system"
            )
        file.fail(expected, (present[0],) if present else (), hint=hint, code="block.wrong_kind")
    reader = _SpecReader(file, renderer)
    if role == "source":
        return _source(reader, streaming)
    return _destination(reader, streaming) if role == "destination" else _mapper(reader)


def load_source(block: Block, renderer: Renderer) -> SourceSpec:
    """`load_spec` of a block that must be a source."""
    return _must_be(SourceSpec, block, renderer)


def load_destination(block: Block, renderer: Renderer) -> DestinationSpec:
    """`load_spec` of a block that must be a destination."""
    return _must_be(DestinationSpec, block, renderer)


def load_mapper(block: Block, renderer: Renderer) -> MapperSpec:
    """`load_spec` of a block that must be a mapper."""
    return _must_be(MapperSpec, block, renderer)


def duration(value: object) -> float:
    """Seconds of a duration: a number, or text such as `90s`, `5m`, `1h30m`, `500ms`, `2d`.

    Raises:
        ValueError: it is no duration, or not above zero.
    """
    seconds: float | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str):
        text = value.strip().lower()
        parts = _DURATION.findall(text)
        if parts and _DURATION.sub("", text).strip() == "":
            seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
        elif re.fullmatch(r"\d+(\.\d+)?", text):
            seconds = float(text)
    if seconds is None or not 0 < seconds < float("inf"):
        raise ValueError(f"{value!r} is not a duration: write seconds, or text such as 90s, 5m, 1h30m")
    return seconds


def size(value: object) -> int:
    """Bytes of a size: a whole number, or text such as `512MB`, `1 GiB`.

    Raises:
        ValueError: it is no size, or not above zero.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    count = int(float(match[1]) * _BYTES.get(match[2].upper(), 0)) if match is not None else 0
    if count < 1:
        raise ValueError(f"{value!r} is not a size: write a number of bytes, or text such as 512MB, 1GiB")
    return count


def _must_be(kind: type[Kind], block: Block, renderer: Renderer) -> Kind:
    spec = load_spec(block, renderer)
    if isinstance(spec, kind):
        return spec
    raise ConfigError(
        f"not a {kind.__name__.removesuffix('Spec').lower()} block", where=block.uuid, code="block.wrong_kind"
    )


class _SpecReader:
    """Takes keys out of a block's file, each rendered when it is taken."""

    def __init__(self, file: YamlFile, renderer: Renderer) -> None:
        self.file = file
        self._renderer = renderer

    def take(self, key: str, check: Callable[[object], Value], default: Default) -> Value | Default:
        value = self._part(key)
        if value is None:
            return default
        try:
            return check(value)
        except ValueError as error:
            self.file.fail(f"{key}: {error}", (key,), code="setting.invalid")

    def config(self, name: str, role: Role) -> dict[str, Any]:
        """Return the config of a plugin; in projects of Mage its keys, too, under the plugin's names."""
        empty: dict[str, Any] = {}
        config = self.take("config", _mapping, empty)
        if self._renderer.project is not None and self._renderer.project.mage:
            config = with_plugin_keys(without_line_ends(config), name, role)
        if self._renderer.secrets is not None:
            self._renderer.secrets.masker.add_config(config)
        return config

    def streams(self, side: Side) -> StreamSettings:
        def where(path: Sequence[PathKey]) -> str:
            return self.file.where(("streams", *path))

        return parse_streams(self._part("streams"), side, where=where)

    @property
    def where(self) -> str:
        return self.file.where()

    def _part(self, key: str) -> Any:
        def refuse(got: str, hint: str) -> ConfigError:
            return ConfigError(f"{key}: {got}", where=self.file.where((key,)), hint=hint, code="setting.invalid")

        return json_value(self._renderer.part(self.file, key), refuse)


def _source(reader: _SpecReader, streaming: bool) -> SourceSpec:
    reader.file.refuse_unknown(_keys(SourceSpec, "batch_config", streaming=streaming))
    source = reader.take("source", _name, "")
    config = reader.config(source, "tap")
    batch_config = reader.take("batch_config", _mapping, None)
    if batch_config:
        config = {**config, "batch_config": batch_config}
    return SourceSpec(
        source=source,
        config=config,
        streams=reader.streams("source"),
        max_parallel=reader.take("max_parallel", _at_least(1), None),
        max_duration=reader.take("max_duration", duration, None),
        idle_timeout=reader.take("idle_timeout", duration, None),
        max_record_bytes=reader.take("max_record_bytes", size, None),
        interval=reader.take("interval", duration, None),
        format=reader.take("format", _one_of(("plain", "singer")), "plain"),
        deletes=reader.take("deletes", _one_of(("record", "tombstone")), "record"),
        where=reader.where,
    )


def _destination(reader: _SpecReader, streaming: bool) -> DestinationSpec:
    reader.file.refuse_unknown(_keys(DestinationSpec, streaming=streaming))
    destination = reader.take("destination", _name, "")
    return DestinationSpec(
        destination=destination,
        config=reader.config(destination, "target"),
        streams=reader.streams("destination"),
        on_bad_record=reader.take("on_bad_record", _one_of(BAD_RECORD_POLICIES), "pass"),
        max_bad_records=reader.take("max_bad_records", _at_least(0), None),
        schema_change=reader.take("schema_change", _one_of(SCHEMA_POLICIES), "evolve"),
        source_column=reader.take("source_column", _flag, False),
        session_interval=reader.take("session_interval", duration, None),
        message_columns=reader.take("message_columns", _message_columns, []),
        wrap_values=reader.take("wrap_values", _flag, False),
        tombstones=reader.take("tombstones", _one_of(("skip", "delete")), "skip"),
        where=reader.where,
    )


def _mapper(reader: _SpecReader) -> MapperSpec:
    reader.file.refuse_unknown(_keys(MapperSpec, streaming=False))
    mapper = reader.take("mapper", _name, "")
    return MapperSpec(mapper=mapper, config=reader.config(mapper, "mapper"), where=reader.where)


def open_spec(block: Block, renderer: Renderer, text: str | None = None) -> YamlFile:
    """Read a block's YAML file, or its text in metadata.yaml.

    Raises:
        ConfigError: it cannot be read or rendered, or is not YAML.
    """
    if block.file is not None and text is not None:
        shown = renderer.project.shown(block.file) if renderer.project is not None else None
        return load_yaml(block.file, text=text, shown=shown)
    if block.file is not None:
        return renderer.load(block.file)

    shown = f"content of block {block.uuid}"
    return load_yaml(Path(shown), text=block.content or "", shown=shown)


def _mapping(value: object) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise ValueError(f"must be a mapping, not {kind_of(value)}")


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"must be a name, not {kind_of(value)}")
    return value.strip()


def _at_least(least: int) -> Callable[[object], int | None]:
    def check(value: object) -> int:
        if isinstance(value, str) and value.strip().isdecimal():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"must be a whole number of at least {least}, not {value!r}")
        return value

    return check


def _flag(value: object) -> bool:
    if value is True or value is False:
        return value
    raise ValueError(f"must be true or false, not {value!r}")


def _message_columns(value: object) -> list[str]:
    if isinstance(value, bool):
        return [f"_message_{name}" for name in MESSAGE_COLUMNS] if value else []
    if not isinstance(value, list) or not set(value) <= set(MESSAGE_COLUMNS):
        raise ValueError(f"must be true, or a list of {', '.join(MESSAGE_COLUMNS)}, not {value!r}")
    return [f"_message_{name}" for name in value]


def _one_of(choices: Sequence[str]) -> Callable[[object], str]:
    def check(value: object) -> str:
        choice = value.strip().lower() if isinstance(value, str) else value
        if choice not in choices:
            raise ValueError(f"{value!r} is not one of {', '.join(choices)}")
        return str(choice)

    return check
