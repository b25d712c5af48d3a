"""What changed at a source: between two catalogs of its tap, and between a catalog and the SCHEMAs of a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from streamline.connectors.singer.catalog import Catalog

if TYPE_CHECKING:
    from streamline.state.store import Store

MANY = 20
"""So many changes are told one by one."""

_CACHE = "schema_differences"
_TECHNICAL = "_sdc_"


def catalog_changes(before: Catalog, after: Catalog) -> list[str]:
    """Return what a catalog has, or no longer has, compared with an earlier one, in words."""
    changes = []
    for stream in after:
        known = before.get(stream.id)
        if known is None:
            changes.append(f"new stream {stream.id}")
        elif known.properties and stream.properties:  # else its columns were or are not known
            changes += _column_changes(stream.id, known.properties, stream.properties)
    changes += [f"stream {stream.id} no longer exists" for stream in before if after.get(stream.id) is None]
    if len(changes) > MANY:
        changes = [*changes[:MANY], f"{len(changes) - MANY} more changes of streams and columns"]
    return changes


class CatalogWatch:
    """Compares the SCHEMAs that a tap sends in a run with its catalog.

    A cached catalog that a SCHEMA contradicts is dropped, so that the next run discovers again. Some taps always send
    other columns than they discover: a difference that a run with a new catalog shows is kept, and not told.

    Args:
        catalog: as the tap discovered it.
        store: keeps the differences that are known.
        key: names the catalog in the store.
        forget: drops the cached catalog; None: the catalog is new.
    """

    def __init__(self, catalog: Catalog, store: Store, key: str, *, forget: Callable[[], None] | None) -> None:
        self._catalog = catalog
        self._store = store
        self._key = key
        self._forget = forget
        # What an earlier catalog lacked says nothing about a new one.
        self._known: dict[str, list[str]] | None = {} if forget is None else None

    def look(self, stream: str, schema: Mapping[str, Any], *, deselected: Collection[str] = ()) -> list[str]:
        """Compare a SCHEMA's schema with the catalog.

        Args:
            stream: the stream's id.
            deselected: columns that the tap was told to leave out.

        Returns:
            the differences that are new, in words.
        """
        entry = self._catalog.get(stream)
        properties = schema.get("properties")
        if entry is None or not isinstance(properties, dict) or not entry.properties:
            return []
        asked_for = {
            name: schema_of_column for name, schema_of_column in entry.properties.items() if name not in deselected
        }
        sent = {name: schema_of_column for name, schema_of_column in properties.items() if name not in deselected}
        changes = _column_changes(stream, asked_for, sent)
        known = self._read()
        new = [change for change in changes if change not in known.get(stream, ())]
        if not new:
            return []
        known[stream] = [*known.get(stream, ()), *new]
        self._store.cache_put(_CACHE, self._key, json.dumps(known))
        if self._forget is None:
            return []
        self.forget()
        return new

    def forget(self) -> None:
        """Drop the catalog if it is a cached one."""
        if self._forget is not None:
            self._forget()

    def _read(self) -> dict[str, list[str]]:
        if self._known is None:
            text = self._store.cache_get(_CACHE, self._key)
            self._known = json.loads(text) if text else {}
        return self._known


def _column_changes(stream: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    new = [name for name in after if name not in before and not name.startswith(_TECHNICAL)]
    gone = [name for name in before if name not in after and not name.startswith(_TECHNICAL)]
    return [
        *(f"stream {stream}: new column {name}" for name in new),
        *(f"stream {stream}: column {name} no longer exists" for name in gone),
    ]
