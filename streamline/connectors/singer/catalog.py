"""A Singer catalog: what a tap offers. It wraps the tap's own JSON and keeps every key that it does not know."""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from streamline.errors import ConfigError
from streamline.flow.codecs import jsontext
from streamline.flow.items import JSONObject
from streamline.project.suggest import suggestion

Breadcrumb: TypeAlias = tuple[str, ...]

METHODS = ("FULL_TABLE", "INCREMENTAL", "LOG_BASED")


class CatalogStream:
    """One stream of a catalog. `entry` is the tap's own object."""

    def __init__(self, entry: JSONObject) -> None:
        self.entry = entry
        self._metadata: dict[Breadcrumb, JSONObject] | None = None

    @property
    def id(self) -> str:
        """`tap_stream_id`: what bookmarks are keyed by."""
        return str(self.entry.get("tap_stream_id") or self.entry.get("stream"))

    @property
    def stream(self) -> str:
        """The name that the tap's messages probably have (settings of the tap may change it)."""
        return str(self.entry.get("stream") or self.id)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that its messages may have: alias, stream name, id, `schema-table` as some taps call it."""
        root = self.root
        names = [self.entry.get("stream_alias"), self.stream, self.id]
        table = self.entry.get("table_name") or self.stream
        # The forks of tap-postgres and tap-mysql put the schema's or the database's name before the table's.
        for scope in (root.get("schema-name"), root.get("database-name")):
            if scope:
                names += [f"{scope}-{table}", f"{scope}-{self.stream}"]
        return tuple(dict.fromkeys(str(name) for name in names if name))

    @property
    def schema(self) -> JSONObject:
        """Its JSON schema; empty if the entry has none."""
        schema = self.entry.get("schema")
        return schema if isinstance(schema, dict) else {}

    @property
    def properties(self) -> JSONObject:
        """The schema's properties by name."""
        properties = self.schema.get("properties")
        return properties if isinstance(properties, dict) else {}

    @property
    def metadata(self) -> dict[Breadcrumb, JSONObject]:
        """Metadata by breadcrumb; `()` is the stream."""
        if self._metadata is None:
            self._metadata = {}
            for item in self.entry.get("metadata") or ():
                if isinstance(item, dict) and isinstance(item.get("metadata"), dict):
                    self._metadata.setdefault(tuple(item.get("breadcrumb") or ()), {}).update(item["metadata"])
        return self._metadata

    @property
    def root(self) -> JSONObject:
        """Metadata of the stream itself."""
        return self.metadata.get((), {})

    @property
    def is_view(self) -> bool:
        """Whether it is a view: its key is what the user says."""
        return bool(self.root.get("is-view", self.entry.get("is_view")))

    @property
    def is_table(self) -> bool:
        """Whether its metadata is that of a database's table, as the taps for databases describe them."""
        root = self.root
        return (
            any(name in root for name in ("is-view", "database-name", "schema-name", "row-count"))
            or "is_view" in self.entry
            or any("sql-datatype" in metadata for metadata in self.metadata.values())
        )

    @property
    def key_properties(self) -> list[str]:
        """Its key columns, from wherever the catalog says them."""
        root = self.root
        candidates = [self.entry.get("key_properties"), root.get("table-key-properties")]
        if self.is_view:
            candidates.insert(0, root.get("view-key-properties"))
        return next((names for value in candidates if (names := _strings(value))), [])

    @property
    def replication_method(self) -> str | None:
        """The method that the catalog itself names, None where the tap decides."""
        root = self.root
        for value in (self.entry.get("replication_method"), root.get("replication-method")):
            if isinstance(value, str) and value:
                return method_name(value)
        return self.forced_replication_method

    @property
    def forced_replication_method(self) -> str | None:
        """The only method that the tap says it has for this stream."""
        forced = self.root.get("forced-replication-method")
        if isinstance(forced, dict):
            forced = forced.get("replication-method")
        return method_name(forced) if isinstance(forced, str) and forced else None

    @property
    def replication_keys(self) -> list[str]:
        """Its bookmark columns as the catalog has them, the first one being the replication key."""
        several = _strings(self.entry.get("bookmark_properties"))
        if several:
            return several
        root = self.root
        for value in (self.entry.get("replication_key"), root.get("replication-key")):
            if names := _strings(value):
                return names
        valid = self.valid_replication_keys
        return valid if len(valid) == 1 else []

    @property
    def valid_replication_keys(self) -> list[str]:
        """The columns that the tap offers as replication keys."""
        return _strings(self.root.get("valid-replication-keys"))

    @property
    def parent(self) -> str | None:
        """The id of the stream whose records drive this one."""
        parent = self.root.get("parent-tap-stream-id") or self.entry.get("parent_stream")
        return str(parent) if parent else None

    @property
    def unsupported(self) -> bool:
        """Whether the tap can't read it."""
        return self.root.get("inclusion") == "unsupported"

    @property
    def discovery_error(self) -> str | None:
        """Why the tap's discovery could not read it, as bundled taps say of a broken file or view."""
        error = self.root.get("discovery-error")
        return str(error) if error is not None else None

    @property
    def selected_by_default(self) -> bool:
        """Whether it is read when the user says nothing: a stream without any mark is."""
        root = self.root
        for value in (root.get("selected"), self.entry.get("selected"), self.schema.get("selected")):
            if isinstance(value, bool):
                return value
        return root.get("selected-by-default") is not False


class Catalog:
    """A tap's catalog.

    Args:
        data: the catalog's JSON, `{"streams": […]}`; Mage's `{"catalog": {…}}` is unwrapped.
        where: the file or block that it comes from, for errors.

    Raises:
        ConfigError: it is no catalog, or two streams have one id.
    """

    def __init__(self, data: Any, *, where: str | None = None) -> None:
        if isinstance(data, dict) and isinstance(data.get("catalog"), dict) and "streams" not in data:
            data = data["catalog"]
        entries = data.get("streams") if isinstance(data, dict) else None
        if not isinstance(entries, list):
            raise ConfigError("not a Singer catalog: it has no list `streams`", where=where, code="catalog.invalid")
        self.data: JSONObject = data
        self.where = where
        self.streams: list[CatalogStream] = []
        self._by_id: dict[str, CatalogStream] = {}
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict) or not (entry.get("tap_stream_id") or entry.get("stream")):
                raise ConfigError(
                    f"stream number {number + 1} of the catalog has no tap_stream_id",
                    where=where,
                    code="catalog.invalid",
                )
            stream = CatalogStream(entry)
            if stream.id in self._by_id:
                raise ConfigError(
                    f"the catalog has two streams with the id {stream.id!r}", where=where, code="catalog.invalid"
                )
            self.streams.append(stream)
            self._by_id[stream.id] = stream

    @classmethod
    def parse(cls, text: bytes, *, where: str | None = None) -> Catalog:
        """Read a catalog's JSON text.

        Raises:
            ConfigError: it is not valid JSON, or not a catalog.
        """
        try:
            return cls(jsontext.decode(text), where=where)
        except jsontext.JSONTextError as error:
            raise ConfigError(f"invalid catalog: {error}", where=where, code="catalog.invalid") from None

    def __iter__(self) -> Iterator[CatalogStream]:
        return iter(self.streams)

    def __len__(self) -> int:
        return len(self.streams)

    def get(self, tap_stream_id: str) -> CatalogStream | None:
        """Return the stream with this id."""
        return self._by_id.get(tap_stream_id)

    def find(self, name: str, *, where: str | None = None) -> CatalogStream | None:
        """Return the stream that a user means: its id, else its stream name, matched whole.

        Raises:
            ConfigError: several streams have the name.
        """
        if match := self._by_id.get(name):
            return match
        named = [stream for stream in self.streams if stream.stream == name]
        if len(named) > 1:
            ids = ", ".join(stream.id for stream in named)
            raise ConfigError(
                f"{len(named)} streams have the name {name!r}",
                where=where,
                hint=f"use an id: {ids}",
                code="stream.ambiguous",
            )
        return named[0] if named else None

    def require(self, name: str, *, where: str | None = None) -> CatalogStream:
        """Return what `find` does; raise a ConfigError that suggests the nearest name if it is None."""
        stream = self.find(name, where=where)
        if stream is None:
            raise unknown_stream(name, self.streams, where=where)
        return stream

    def to_json(self) -> bytes:
        """Return the catalog's JSON text, for the tap."""
        return jsontext.encode(self.data)


def layer(base: Catalog | None, over: Catalog) -> Catalog:
    """Lay a catalog over a discovered one. `over` says which streams there are; `base` fills in what it leaves out.

    Keys of an entry, and of its metadata, that `over` has win; a missing schema, or a missing key, is `base`'s.

    Raises:
        ConfigError: a stream of `over` has no schema and `base` does not know it.
    """
    entries: list[JSONObject] = []
    for stream in over:
        below = base.get(stream.id) or base.find(stream.id) if base is not None else None
        if not isinstance(stream.entry.get("schema"), dict) and below is None:
            if base is None:
                raise ConfigError(
                    f"stream {stream.id!r} has no schema, and the tap has no discovery to take it from",
                    where=over.where,
                    code="catalog.no_schema",
                )
            raise unknown_stream(stream.id, base.streams, where=over.where)
        entry = {**copy.deepcopy(below.entry), **_present(stream.entry)} if below is not None else dict(stream.entry)
        if below is not None and (below.metadata or stream.metadata):
            breadcrumbs = dict.fromkeys([*below.metadata, *stream.metadata])
            entry["metadata"] = [
                {
                    "breadcrumb": list(breadcrumb),
                    "metadata": {**below.metadata.get(breadcrumb, {}), **stream.metadata.get(breadcrumb, {})},
                }
                for breadcrumb in breadcrumbs
            ]
        entries.append(copy.deepcopy(entry))
    return Catalog({**over.data, "streams": entries}, where=over.where)


def needs_discovery(over: Catalog) -> bool:
    """Return whether a catalog leaves out a schema that only discovery can give."""
    return any(not isinstance(stream.entry.get("schema"), dict) for stream in over)


def is_glob(name: str) -> bool:
    """Return whether a name is a pattern (`*`, `?`, `[…]`)."""
    return any(character in name for character in "*?[")


def matches(pattern: str, names: Iterable[str]) -> bool:
    """Return whether a name or a pattern is or matches one of a stream's names, whole and with regard to case."""
    return any(name == pattern or fnmatch.fnmatchcase(name, pattern) for name in names)


def unknown_stream(name: str, streams: Sequence[CatalogStream], *, where: str | None = None) -> ConfigError:
    """Return the error for a stream that does not exist, with the nearest name as a hint."""
    known = list(dict.fromkeys(known_name for stream in streams for known_name in (stream.id, stream.stream)))
    return unknown_name("stream", name, known, where=where)


def unknown_name(
    what: str, name: str, known: Iterable[str], *, of: str | None = None, where: str | None = None
) -> ConfigError:
    """Return the error for a name that does not exist, with the nearest ones as a hint.

    Args:
        what: the noun, as `column`.
        of: what it would belong to, as a stream's id.
    """
    owner = f" in {of!r}" if of is not None else ""
    return ConfigError(
        f"{what} {name!r} not found{owner}",
        where=where,
        hint=suggestion(name, known, what=f"{what}s"),
        code="stream.unknown" if what == "stream" else "column.unknown",
    )


def method_name(value: str) -> str:
    """Return a replication method in the usual spelling (`full table`, `Full-Table` → `FULL_TABLE`)."""
    return value.strip().upper().replace(" ", "_").replace("-", "_")


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value] if value else []
    if isinstance(value, list | tuple):
        return [str(item) for item in value if item not in (None, "")]
    return []


def _present(entry: Mapping[str, Any]) -> JSONObject:
    return {name: value for name, value in entry.items() if value is not None}
