"""Recipes: items in → stage → items out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from streamline.flow.codecs.envelope import records, version_of, wrap
from streamline.flow.items import ActivateVersion, BadRecord, Item, Position, RawBatch, RowBatch, Schema
from streamline.flow.protocols import Stage


def run(stage: Stage, items: Iterable[Item], *, finish: bool = True) -> list[Item]:
    """What comes out of a stage; with `finish` the source ends well, without it fails."""

    async def go() -> list[Item]:
        out: list[Item] = []
        for item in items:
            out += await stage.process(item)
        if finish:
            out += await stage.finish()
        await stage.close()
        return out

    return asyncio.run(go())


def schema(stream: str, *keys: str, **types: str | dict[str, Any]) -> Schema:
    properties = {name: {"type": [t, "null"]} if isinstance(t, str) else t for name, t in types.items()}
    return Schema(stream, {"type": "object", "properties": properties}, list(keys))


def raw(stream: str, *rows: dict[str, Any], version: int | None = None) -> RawBatch:
    return wrap(stream, [json.dumps(row).encode() for row in rows], version=version)


def position(number: int, *withheld: str) -> Position:
    return Position("tap", number, {"n": b"%d" % number}, frozenset(withheld))


def tell(items: Iterable[Item]) -> list[Any]:
    """Items as short texts and tuples, as an operator would tell them."""
    told: list[Any] = []
    for item in items:
        if isinstance(item, RawBatch):
            rows = [json.loads(text) for text in records(item)]
            assert item.count == len(rows)
            told.append((item.stream, rows, version_of(item)) if version_of(item) is not None else (item.stream, rows))
        elif isinstance(item, RowBatch):
            told.append(
                (item.stream, item.rows, item.version) if item.version is not None else (item.stream, item.rows)
            )
        elif isinstance(item, Schema):
            told.append(
                f"SCHEMA {item.stream} {','.join(item.schema['properties'])} key {','.join(item.key_properties or [])}"
            )
        elif isinstance(item, ActivateVersion):
            told.append(f"ACTIVATE {item.stream} {item.version}")
        elif isinstance(item, Position):
            told.append(
                f"STATE {item.number}" + (f" without {','.join(sorted(item.withheld))}" if item.withheld else "")
            )
        elif isinstance(item, BadRecord):
            told.append(f"BAD {item.stream} {item.record.decode()}")
        else:
            told.append(item)
    return told
