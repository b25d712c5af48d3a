"""Drops properties from a stream's SCHEMA and records, down to nested ones. What stays keeps its bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import msgspec

from streamline.flow.codecs import jsontext
from streamline.flow.codecs.envelope import map_records
from streamline.flow.codecs.jsontext import join_object, split_object
from streamline.flow.codecs.lanes import to_raw
from streamline.flow.items import ArrowBatch, Batch, JSONObject, RawBatch

Unread: TypeAlias = "dict[str, Unread | None]"
"""Names of properties; None: it is dropped, else what is dropped inside it or inside its items."""

_VARIANTS = ("anyOf", "oneOf", "allOf")
_items = msgspec.json.Decoder(list[msgspec.Raw])


def unread_tree(paths: Iterable[tuple[str, ...]]) -> Unread:
    """Return the tree of these paths of names."""
    tree: Unread = {}
    for *above, name in paths:
        node: Unread | None = tree
        for part in above:
            node = node.setdefault(part, {}) if node is not None else None
        if node is not None:
            node[name] = None
    return tree


def prune_schema(schema: JSONObject, unread: Unread) -> JSONObject:
    """Return the schema without these properties; its `required` does not name them either."""
    pruned = dict(schema)
    if isinstance(schema.get("properties"), dict):
        pruned["properties"] = {
            name: _prune_property(property_schema, unread.get(name, {}))
            for name, property_schema in schema["properties"].items()
            if unread.get(name, {}) is not None
        }
    if isinstance(schema.get("required"), list):
        pruned["required"] = [name for name in schema["required"] if unread.get(name, {}) is not None]
    return pruned


def _prune_property(schema: Any, unread: Unread | None) -> Any:
    if not unread or not isinstance(schema, dict):
        return schema
    pruned = prune_schema(schema, unread)
    if "items" in pruned:
        pruned["items"] = _prune_property(pruned["items"], unread)
    for name in _VARIANTS:
        if isinstance(pruned.get(name), list):
            pruned[name] = [_prune_property(variant, unread) for variant in pruned[name]]
    return pruned


def needles(paths: Iterable[tuple[str, ...]]) -> list[bytes]:
    """Return the spellings of these properties' names in JSON text."""
    names = {path[-1] for path in paths}
    return [text.encode("utf-8", "surrogatepass") for name in names for text in {json.dumps(name), f'"{name}"'}]


def may_hold(batch: Batch, texts: Sequence[bytes]) -> bool:
    """Return whether a batch may hold one of these texts; without texts it may."""
    if not texts or not isinstance(batch, RawBatch):
        return True
    return any(text in lines for lines in map(bytes, batch.slices) for text in texts)


def prune_batch(batch: Batch, unread: Unread) -> Batch:
    """Return the batch without these properties."""
    if isinstance(batch, ArrowBatch) and not any(unread.values()):
        kept = [name for name in batch.table.column_names if name not in unread]
        return ArrowBatch(batch.stream, batch.table.select(kept), batch.version, batch.time_extracted)
    return map_records(to_raw(batch), lambda text: prune(text, unread))


def prune(text: bytes, unread: Unread) -> bytes:
    """Return a record's JSON text without these properties: the same object where it has none of them."""
    members = split_object(text)
    kept: dict[str, msgspec.Raw] = {}
    changed = False
    for name, value in members.items():
        below = unread.get(name, {})
        if below is None:
            changed = True
            continue
        if below:
            whole = bytes(value)
            pruned = _prune_value(whole, below)
            changed = changed or pruned is not whole
            value = msgspec.Raw(pruned)
        kept[name] = value
    return join_object(kept) if changed else text


def _prune_value(text: bytes, unread: Unread) -> bytes:
    start = text.lstrip()[:1]
    if start == b"{":
        return prune(text, unread)
    if start != b"[":
        return text
    try:
        items = [bytes(item) for item in _items.decode(text)]
    except msgspec.DecodeError:  # numbers such as NaN, which only Python reads
        items = [jsontext.dumps(item) for item in jsontext.loads(text)]
    return b"[" + b",".join(_prune_value(item, unread) for item in items) + b"]"
