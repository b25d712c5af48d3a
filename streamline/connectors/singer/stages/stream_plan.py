"""Decides before the start how a stream is written to its table, and rejects what the target cannot do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from streamline.connectors.singer.settings import Resolved
from streamline.errors import ConfigError
from streamline.project.suggest import suggestion

IGNORE_CAPABILITY = "conflict-ignore"
"""The capability of a target that reads `x-unique-conflict-method: IGNORE` in a SCHEMA's schema."""

CASE_CAPABILITY = "case-insensitive-tables"
"""The capability of a target to which `Orders` and `orders` are one table."""

HELD_VERSIONS_CAPABILITY = "held-versions"
"""The capability of a target that shows the rows of a new version only once it is activated, and reads `keep_old`."""

PARTITION_CAPABILITY = "partition-keys"
"""The capability of a target that reads `x-partition-keys` in a SCHEMA's schema."""

SOURCE_COLUMN = "streamline_source"
"""The column that names the source block, with `source_column: true`."""

_PARTIAL = ("INCREMENTAL", "LOG_BASED")
"""Replication methods by which a run reads part of the rows."""
_ENDLESS = "a source with max_duration or idle_timeout is never known to be complete"


class StreamPlan(msgspec.Struct, frozen=True):
    """How one stream is written to its table.

    Args:
        table: the stream name that the target sees; None: the source's.
        keys: key_properties that the target sees; None: the source's.
        only: the columns that are kept; None: all but `exclude`.
        exclude: the columns that are dropped.
        load_method: append, upsert or replace.
        why: the reason for `load_method`, for an operator.
        annotations: added to the SCHEMA's schema for a target with the capability.
        source: the uuid of the source block, if the records get a column that names it.
        where: the place of the settings, for errors.
    """

    table: str | None = None
    keys: tuple[str, ...] | None = None
    only: frozenset[str] | None = None
    exclude: frozenset[str] = frozenset()
    load_method: str = "append"
    why: str = ""
    annotations: Mapping[str, Any] = {}
    source: str | None = None
    where: str | None = None

    @property
    def drops_columns(self) -> bool:
        """Whether columns of the source's are dropped."""
        return self.only is not None or bool(self.exclude)

    @property
    def changes_records(self) -> bool:
        """Whether records are changed."""
        return self.drops_columns or self.source is not None

    def with_source(self, keys: Sequence[str]) -> list[str]:
        """Return the key that the target is given: with the column that names the source, if there is one."""
        return [*keys, SOURCE_COLUMN] if keys and self.source is not None else list(keys)

    def keeps(self, column: str) -> bool:
        """Return whether a column reaches the target."""
        if column in self.exclude:
            return False
        # What taps add for the target, as the mark of a deleted row, is no column of the user's.
        return self.only is None or column in self.only or column.startswith("_sdc_")


def plan_stream(
    stream: str,
    settings: Resolved,
    *,
    target: str,
    replaces: bool,
    capabilities: Collection[str] = (),
    replication_method: str | None = None,
    key_properties: Sequence[str] | None = (),
    columns: Collection[str] = (),
    load_methods: Collection[str] | None = None,
    endless: bool = False,
    default_method: str | None = None,
) -> StreamPlan:
    """Plan how `stream` is written to its table in `target`.

    Args:
        stream: its name, for messages.
        settings: the destination's settings for it.
        target: the target's name, for messages.
        replaces: the target has the capability `activate-version`.
        capabilities: all capabilities in the target's `--about`.
        replication_method: how the source reads it; None: the tap decides.
        key_properties: the source's keys; None: its SCHEMAs will name them.
        columns: the source's columns; empty if they are not known.
        load_methods: those in the target's `--about`; None if it lists none.
        endless: the source is stopped by `max_duration` or `idle_timeout`, so none of its tables is ever complete.
        default_method: the load method that the target's own config asks for, where the settings say none.

    Raises:
        ConfigError: a setting cannot be applied.
    """
    where = settings.where("columns", "unique_constraints", "load_method")
    if endless and (settings.get("load_method") or default_method) == "replace":
        raise ConfigError(
            f"stream {stream!r} cannot replace its table: {_ENDLESS}",
            where=settings.where("load_method"),
            hint="use load_method: upsert or append, or remove max_duration and idle_timeout from the source block",
            code="destination.load_method_unsupported",
        )
    cannot = _ENDLESS if endless else f"{target} cannot replace"
    replaces = replaces and not endless
    only, exclude = _columns(stream, settings, columns)
    keys = settings.get("unique_constraints")
    for key in keys or ():
        if columns and key not in columns:
            raise ConfigError(
                f"stream {stream!r} has no column {key!r} for unique_constraints",
                where=settings.where("unique_constraints"),
                hint=suggestion(key, columns, what="columns"),
                code="stream.column_unknown",
            )
    sent_keys = list((key_properties or ()) if keys is None else keys)
    method, why = _load_method(
        stream,
        settings,
        target,
        cannot if not replaces else None,
        capabilities,
        replication_method,
        None if keys is None and key_properties is None else sent_keys,
        default_method,
    )
    if replication_method in _PARTIAL and method == "replace":
        raise ConfigError(
            f"stream {stream!r} is {replication_method} and cannot replace its table: only the rows that are new or "
            "changed would remain",
            where=where,
            hint="use load_method: upsert or append, or replication_method: FULL_TABLE",
            code="destination.load_method_unsupported",
        )
    if load_methods is not None and method not in load_methods:
        if settings.get("load_method") or settings.get("unique_conflict_method"):
            raise ConfigError(
                f"{target} does not support load_method: {method} (stream {stream!r})",
                where=settings.where("load_method", "unique_conflict_method"),
                hint=f"it supports {', '.join(sorted(load_methods))}",
                code="destination.load_method_unsupported",
            )
        method, why = "append", f"{target} supports nothing else"
    if method == "append" and (key_properties is not None or settings.get("load_method")):
        keys = []  # a target merges rows when it is given keys
        sent_keys = []
    lost = [key for key in sent_keys if key in exclude or (only is not None and key not in only)]
    if lost:
        raise ConfigError(
            f"the columns of stream {stream!r} leave out its key {', '.join(map(repr, lost))}",
            where=settings.where("columns"),
            hint="keep the key columns, name others in unique_constraints, or set load_method: append",
            code="stream.key_missing",
        )
    annotations: dict[str, Any] = {}
    if settings.get("unique_conflict_method") == "IGNORE":
        annotations["x-unique-conflict-method"] = "IGNORE"
    if partition_keys := settings.get("partition_keys"):
        if PARTITION_CAPABILITY not in capabilities:
            raise ConfigError(
                f"{target} does not support partition_keys (stream {stream!r})",
                where=settings.where("partition_keys"),
                hint="remove the setting, and set partitions in the target's own config if it has them",
                code="destination.setting_unsupported",
            )
        annotations["x-partition-keys"] = list(partition_keys)
    changed = keys is not None and (key_properties is None or list(keys) != list(key_properties))
    return StreamPlan(
        table=settings.get("destination_table"),
        keys=tuple(keys) if changed and keys is not None else None,
        only=only,
        exclude=exclude,
        load_method=method,
        why=why,
        annotations=annotations,
        where=where,
    )


def check_tables(
    plans: Mapping[str, StreamPlan],
    *,
    set_aside: Callable[[str, str, ConfigError], bool] = lambda stream, other, error: False,
    where: str | None = None,
) -> None:
    """Check that no two streams share a table: each would overwrite the other's schema and versions.

    Args:
        plans: the plan of each stream.
        set_aside: is given a stream, an earlier one of its table, and the error; whether to do without the stream.
        where: the destination block.

    Raises:
        ConfigError: two streams share a table.
    """
    taken: dict[str, str] = {}
    for stream, plan in plans.items():
        other = taken.setdefault(plan.table or stream, stream)
        if other != stream:
            error = ConfigError(
                f"streams {other!r} and {stream!r} would both be written to table {plan.table or stream!r}",
                where=plan.where or where,
                hint="give each stream a destination_table of its own",
                code="destination.table_shared",
            )
            if not set_aside(stream, other, error):
                raise error


def _columns(stream: str, settings: Resolved, known: Collection[str]) -> tuple[frozenset[str] | None, frozenset[str]]:
    """Return the columns that are kept (None: all others), and those that are dropped."""
    columns = settings.get("columns")
    if columns is None:
        return None, frozenset()
    excluding = isinstance(columns, Mapping)
    names: Iterable[str] = columns["exclude"] if excluding else columns
    for name in names:
        if known and name not in known:
            raise ConfigError(
                f"stream {stream!r} has no column {name!r}",
                where=settings.where("columns"),
                hint=suggestion(name, known, what="columns"),
                code="stream.column_unknown",
            )
    return (None, frozenset(names)) if excluding else (frozenset(names), frozenset())


def _load_method(
    stream: str,
    settings: Resolved,
    target: str,
    cannot_replace: str | None,
    capabilities: Collection[str],
    replication_method: str | None,
    keys: Sequence[str] | None,
    default_method: str | None,
) -> tuple[str, str]:
    """Return the load method (append, upsert or replace), and the reason for it.

    Args:
        cannot_replace: why the table cannot be replaced; None if it can.
        keys: its key columns; None: not known yet.
        default_method: the one that the target's config asks for.

    Raises:
        ConfigError: the settings contradict each other, or the target does not support them.
    """
    method = settings.get("load_method")
    conflict = settings.get("unique_conflict_method")
    where = settings.where("unique_conflict_method", "load_method", "unique_constraints")
    if conflict == "IGNORE" and IGNORE_CAPABILITY not in capabilities:
        raise ConfigError(
            f"{target} does not support unique_conflict_method: IGNORE (stream {stream!r})",
            where=where,
            hint=f"use UPDATE, or a target with the capability {IGNORE_CAPABILITY}",
            code="destination.setting_unsupported",
        )
    if method == "append" and (conflict or settings.get("unique_constraints")):
        other = "unique_conflict_method" if conflict else "unique_constraints"
        raise ConfigError(
            f"load_method: append conflicts with {other} (stream {stream!r})",
            where=where,
            hint="remove one of them; append writes every record as a new row",
            code="destination.settings_conflict",
        )
    if method == "replace" and cannot_replace is not None:
        raise ConfigError(
            f"{target} cannot replace a table: it lacks the capability activate-version (stream {stream!r})",
            where=settings.where("load_method"),
            hint="use load_method: upsert or append, or another target",
            code="destination.load_method_unsupported",
        )
    if method is not None:
        why = f"load_method: {method}"
    elif conflict is not None:
        method, why = "upsert", f"unique_conflict_method: {conflict}"
    elif default_method is not None and cannot_replace is None:
        return default_method, f"load_method: {default_method} in the target's config"
    elif replication_method == "FULL_TABLE" and cannot_replace is None:
        return "replace", f"FULL_TABLE, and {target} has the capability activate-version"
    elif keys:
        method = "upsert"
        why = f"its key is {', '.join(keys)}"
        if replication_method == "FULL_TABLE":
            why = f"FULL_TABLE; {cannot_replace}, and {why}"
    else:
        method, why = "append", "it has no key"
        if replication_method == "FULL_TABLE":
            why = f"FULL_TABLE; {cannot_replace}, and {why}"
    if method == "upsert" and keys is not None and not keys:
        raise ConfigError(
            f"upsert needs a key, and stream {stream!r} has none",
            where=where,
            hint="name its key columns in unique_constraints",
            code="stream.key_missing",
        )
    return method, why
