"""Which streams a catalog selects that a block's function is given or returns: the argument `select_all`."""

from __future__ import annotations

import copy
from collections.abc import Collection

from streamline.connectors.singer.catalog import Catalog, CatalogStream
from streamline.flow.items import JSONObject


def for_function(catalog: JSONObject, select_all: bool) -> JSONObject:
    """Return a copy of a discovered catalog that selects all streams, or says of none that it is selected."""
    given = Catalog(copy.deepcopy(catalog))
    for stream in given:
        _mark(stream, True if select_all else None)
    return given.data


def from_function(catalog: JSONObject, select_all: bool, names: Collection[str] = ()) -> JSONObject:
    """Return a copy of a catalog that says of each stream whether it is selected: a mark against the default wins.

    So a stream can be selected or deselected in its metadata, its entry or its schema, whatever stands in the others.

    Args:
        names: streams that are selected by default in any case.
    """
    returned = Catalog(copy.deepcopy(catalog))
    for stream in returned:
        default = select_all or stream.id in names or stream.stream in names
        marks = (stream.root.get("selected"), stream.entry.get("selected"), stream.schema.get("selected"))
        _mark(stream, (not default) if (not default) in marks else default)
    return returned.data


def deselect_others(catalog: Catalog, names: Collection[str]) -> None:
    """Deselect the streams of a catalog that are not named."""
    for stream in catalog:
        if stream.id not in names and stream.stream not in names:
            _mark(stream, False)


def _mark(stream: CatalogStream, selected: bool | None) -> None:
    """Write everywhere whether a stream is selected; None: remove what says so."""
    if stream.unsupported:
        return
    metadata = [item for item in stream.entry.get("metadata") or () if isinstance(item, dict)]
    root = next((item for item in metadata if not item.get("breadcrumb")), {})
    marks = dict(root.get("metadata") or {})
    for place in (stream.entry, stream.schema, marks):
        if isinstance(place.get("selected"), bool):
            del place["selected"]
    if selected is not None:
        marks["selected"] = selected
    others = [item for item in metadata if item is not root]
    stream.entry["metadata"] = [{**root, "breadcrumb": [], "metadata": marks}, *others]
