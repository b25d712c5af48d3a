"""A stage of a block's code, run as the router runs it, and the items that it is given."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import anyio

from streamline.blocks.python.function import BlockFile
from streamline.blocks.python.live.transform import TransformStage
from streamline.flow.items import Item, JSONObject, Position, RawBatch, Schema

INTEGER = {"type": ["null", "integer"]}
NUMBER = {"type": ["null", "number"]}
STRING = {"type": ["null", "string"]}


def schema(stream: str = "orders", keys: Sequence[str] = (), **props: JSONObject) -> Schema:
    return Schema(
        stream, {"type": "object", "properties": props}, key_properties=list(keys), raw=b"as the tap wrote it"
    )


def records(*rows: JSONObject | str, stream: str = "orders", **envelope: Any) -> RawBatch:
    lines = []
    for row in rows:
        text = row if isinstance(row, str) else json.dumps(row)
        rest = "".join(f',"{key}":{json.dumps(value)}' for key, value in envelope.items())
        lines.append(f'{{"type":"RECORD","stream":"{stream}","record":{text}{rest}}}\n'.encode())
    return RawBatch(stream, list(lines), len(lines), sum(map(len, lines)))


def position(number: int) -> Position:
    return Position("shop", number, {})


class Kitchen:
    """Makes a stage of a block's code and runs items through it as the router does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def block(self, code: str) -> BlockFile:
        path = self.folder / "mask.py"
        path.write_text(code)
        return BlockFile("mask", str(path))

    def run(
        self, code: str, items: Iterable[Item], *, flush_each: bool = True, finish: bool = True, **options: Any
    ) -> list[Item]:
        async def cook() -> list[Item]:
            stage = TransformStage(self.block(code), **options)
            out: list[Item] = []
            try:
                for item in items:
                    out += await stage.process(item)
                    if flush_each and stage.pending:
                        out += await stage.flush()
                if finish:
                    out += await stage.finish()
            finally:
                await stage.close()
            return out

        return anyio.run(cook)


def lines(batch: RawBatch) -> list[bytes]:
    return b"".join(map(bytes, batch.slices)).splitlines()


def rows_of(items: Iterable[Item], stream: str = "orders") -> list[JSONObject]:
    return [
        json.loads(line)["record"]
        for item in items
        if isinstance(item, RawBatch) and item.stream == stream
        for line in lines(item)
    ]


def props_of(items: Iterable[Item]) -> list[JSONObject]:
    return [item.schema["properties"] for item in items if isinstance(item, Schema)]


def kinds(items: Iterable[Item]) -> list[str]:
    return [f"{type(item).__name__}" for item in items]


def code(body: str, signature: str = "rows: list[dict], *args, **kwargs", head: str = "") -> str:
    lines = "\n".join("    " + line for line in body.splitlines())
    return (
        f"from streamline.decorators import transformer\n{head}\n\n@transformer\ndef transform({signature}):\n{lines}\n"
    )


PANDAS = {"signature": "df: pd.DataFrame, *args, **kwargs", "head": "import pandas as pd"}
