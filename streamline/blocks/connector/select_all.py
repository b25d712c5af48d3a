"""Which streams a catalog selects that a block's function is given or returns: the argument `select_all`."""

from __future__ import annotations

import copy

from streamline.connectors.singer.catalog import Catalog, CatalogStream
from streamline.flow.items import JSONObject


def with_all_selected(catalog: JSONObject) -> JSONObject:
    """Return a copy of a catalog that selects every stream that can be read."""
    selecting = Catalog(copy.deepcopy(catalog))
    for stream in selecting:
        _mark(stream, True)
    return selecting.data


def with_default(catalog: JSONObject, select_all: bool) -> JSONObject:
    """Return a copy of a catalog that says of each stream whether it is selected: a mark against the default wins.

    So a stream can be selected or deselected in its metadata, its entry or its schema, whatever stands in the others.
    """
    marked = Catalog(copy.deepcopy(catalog))
    for stream in marked:
        marks = (stream.root.get("selected"), stream.entry.get("selected"), stream.schema.get("selected"))
        _mark(stream, select_all if (not select_all) not in marks else not select_all)
    return marked.data


def _mark(stream: CatalogStream, selected: bool) -> None:
    if stream.unsupported:
        return
    for place in (stream.entry, stream.schema):
        if isinstance(place.get("selected"), bool):
            place["selected"] = selected
    metadata = [item for item in stream.entry.get("metadata") or () if isinstance(item, dict)]
    root = next((item for item in metadata if not item.get("breadcrumb")), None)
    if root is None:
        root = {"breadcrumb": [], "metadata": {}}
        stream.entry["metadata"] = [root, *metadata]
    root["metadata"] = {**(root.get("metadata") or {}), "selected": selected}
