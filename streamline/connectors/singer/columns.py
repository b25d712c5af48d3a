"""Which of a stream's columns are read, down to nested properties."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from streamline.connectors.singer.catalog import Breadcrumb, CatalogStream, is_glob, matches, unknown_name
from streamline.connectors.singer.settings import Resolved
from streamline.errors import ConfigError


def property_marks(
    stream: CatalogStream,
    properties: Mapping[str, Any],
    resolved: Resolved,
    kept: Sequence[str],
    where: str | None,
) -> dict[Breadcrumb, bool]:
    """Return whether each property, nested ones and array items included, is read.

    Args:
        stream: the catalog's stream.
        properties: its schema's properties, the user's override included.
        resolved: its settings.
        kept: columns that always stay: key and replication key.
        where: the block, for errors.

    Raises:
        ConfigError: `columns` names one that does not exist or can't be read or left out.
    """
    paths = dict(_paths(properties))
    wanted = resolved.get("columns")
    place = resolved.where("columns") or where
    listed: set[str] | None = None
    excluded: set[str] = set()
    if isinstance(wanted, dict):
        excluded = _match_columns(stream, wanted["exclude"], paths, place)
        _refuse_automatic(stream, wanted["exclude"], paths, kept, place)
    elif wanted is not None:
        listed = _match_columns(stream, wanted, paths, place)
        for column in wanted:
            path = next((path for path, name in paths.items() if name == column), ())
            if stream.metadata.get(path, {}).get("inclusion") == "unsupported":
                raise ConfigError(
                    f"stream {stream.id!r}: the tap can't read column {column!r}",
                    where=place,
                    code="column.unsupported",
                )
    marks: dict[Breadcrumb, bool] = {}
    for path, name in paths.items():
        parent = path[:-1] if is_items(path) else path[:-2]
        metadata = stream.metadata.get(path, {})
        inclusion = metadata.get("inclusion")
        if (parent and not marks.get(parent, True)) or inclusion == "unsupported":
            marks[path] = False
        elif inclusion == "automatic" or (len(path) == 2 and path[1] in kept):
            marks[path] = True
        elif listed is not None and not _is_technical(path):
            marks[path] = _is_listed(name, listed)
        elif name in excluded:
            marks[path] = False
        else:
            marks[path] = _default_mark(stream, path, metadata, marks.get(parent, True))
    return marks


def unread_paths(
    properties: Mapping[str, Any],
    marks: Mapping[Breadcrumb, bool],
    columns: Sequence[str] | Mapping[str, Sequence[str]] | None,
    kept: Collection[str],
) -> Iterator[tuple[str, ...]]:
    """Return the properties of a SCHEMA that are not to be read, as paths of names.

    The catalog's marks decide about what the catalog has, and `columns` about what is new since. Columns that taps add
    for the target (`_sdc_…`) are never left out unless they are named.

    Args:
        properties: the SCHEMA's properties.
        marks: results of `property_marks`.
        columns: the user's `columns`.
        kept: top-level columns that always stay.
    """
    excluded = columns["exclude"] if isinstance(columns, Mapping) else ()
    for path, name in _paths(properties):
        if is_items(path) or (len(path) == 2 and name in kept):
            continue
        if _is_technical(path):
            left_out = name in excluded
        elif path in marks:
            left_out = not marks[path]
        elif columns is None or isinstance(columns, Mapping):
            left_out = any(matches(pattern, (name,)) for pattern in excluded)
        else:
            left_out = not _is_listed(name, {*columns, *(name for glob in columns if matches(glob, (name,)))})
        if left_out:
            yield _property_names(path)


def is_items(path: Breadcrumb) -> bool:
    """Return whether a breadcrumb is that of an array's items: a property may have this name, too."""
    parts = iter(path)
    return [next(parts) if part == "properties" else None for part in parts][-1] is None


def unread_names(
    marks: Mapping[Breadcrumb, bool], columns: Sequence[str] | Mapping[str, Sequence[str]] | None
) -> Iterator[tuple[str, ...]]:
    """Return the catalog's properties that are not to be read, as `unread_paths` does."""
    excluded = columns["exclude"] if isinstance(columns, Mapping) else ()
    for path, read in marks.items():
        if not read and not is_items(path) and (not _is_technical(path) or path[1] in excluded):
            yield _property_names(path)


def _property_names(path: Breadcrumb) -> tuple[str, ...]:
    """Return the names in a breadcrumb: `properties` and `items` may be names, too, behind a `properties`."""
    names = []
    parts = iter(path)
    for part in parts:
        if part == "properties":
            names.append(next(parts))
    return tuple(names)


def _is_technical(path: Breadcrumb) -> bool:
    """Return whether taps or targets made with Meltano's SDK or PipelineWise add this column."""
    return len(path) == 2 and path[1].startswith("_sdc_")


def _default_mark(stream: CatalogStream, path: Breadcrumb, metadata: Mapping[str, Any], parent: bool) -> bool:
    legacy = stream.properties.get(path[1], {}) if len(path) == 2 else {}
    for value in (metadata.get("selected"), legacy.get("selected") if isinstance(legacy, dict) else None):
        if isinstance(value, bool):
            return value
    return parent and metadata.get("selected-by-default") is not False


def _is_listed(name: str, listed: set[str]) -> bool:
    # `address` takes all of it; `address.city` takes `address` with that part only.
    if name in listed or any(entry.startswith(f"{name}.") for entry in listed):
        return True
    return any(name.startswith(f"{entry}.") and not _has_part(entry, listed) for entry in listed)


def _has_part(name: str, listed: set[str]) -> bool:
    return any(entry.startswith(f"{name}.") for entry in listed)


def _paths(properties: Mapping[str, Any], prefix: Breadcrumb = (), name: str = "") -> Iterable[tuple[Breadcrumb, str]]:
    """Yield the breadcrumb and dotted name of each property and array item; an array's items have its name."""
    for column, schema in properties.items():
        path = (*prefix, "properties", column)
        full = f"{name}.{column}" if name else column
        yield path, full
        yield from _below(schema, path, full)


def _below(schema: object, path: Breadcrumb, name: str) -> Iterable[tuple[Breadcrumb, str]]:
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("properties"), dict):
        yield from _paths(schema["properties"], path, name)
    items = schema.get("items")
    if isinstance(items, dict) and (isinstance(items.get("properties"), dict) or isinstance(items.get("items"), dict)):
        yield (*path, "items"), name
        yield from _below(items, (*path, "items"), name)


def _match_columns(
    stream: CatalogStream, columns: Sequence[str], paths: Mapping[Breadcrumb, str], where: str | None
) -> set[str]:
    """Return the dotted names that a list of columns and globs means.

    Raises:
        ConfigError: an exact name that is no column.
    """
    names = set(paths.values())
    matched: set[str] = set()
    for column in columns:
        if column in names:
            matched.add(column)
        elif is_glob(column):
            matched.update(name for name in names if matches(column, (name,)))
        elif names:
            raise unknown_name("column", column, names, of=stream.id, where=where)
    return matched


def _refuse_automatic(
    stream: CatalogStream,
    columns: Sequence[str],
    paths: Mapping[Breadcrumb, str],
    kept: Sequence[str],
    where: str | None,
) -> None:
    for path, name in paths.items():
        if name in columns and name not in kept and stream.metadata.get(path, {}).get("inclusion") == "automatic":
            raise ConfigError(
                f"stream {stream.id!r}: column {name!r} can't be excluded: the tap always sends it",
                where=where,
                hint="exclude it at the destination: `columns: {exclude: […]}` there",
                code="column.always_sent",
            )
