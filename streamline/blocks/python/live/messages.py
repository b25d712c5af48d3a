"""What is sent to the worker of a transformer block, and what comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from streamline.blocks.python.function import BlockFile
from streamline.flow.items import Buffer, JSONObject

if TYPE_CHECKING:
    import pyarrow as pa


class CallSettings(msgspec.Struct, frozen=True):
    """What the calls of a block have in common.

    Args:
        block: its file.
        batch_rows: the maximum number of records per call.
        keywords: keyword arguments for every call; `stream` is added, and `logger` if there is none.
    """

    block: BlockFile
    batch_rows: int
    keywords: dict[str, Any]


class CallRequest(msgspec.Struct):
    """Records of one stream for the function.

    Args:
        stream: its name.
        schema: its JSON Schema.
        schema_number: counts the stream's schemas; a new number is a new schema.
        slices: RECORD lines.
        count: number of records.
        set_aside: find the records that the function raises on, and refuse them.
    """

    stream: str
    schema: JSONObject
    schema_number: int
    slices: list[Buffer]
    count: int
    set_aside: bool = False


class Returned(msgspec.Struct):
    """What one call returned: rows, a table, or neither.

    Args:
        version: the records' table version.
        time_extracted: of the first record.
        rows: records, if the function returned a list.
        table: records, if it returned a frame or a table.
        given: schema of the table that the function got; its fields define how columns are written back.
        span: the request's records in the list that the function got: the first, and how many.
        refused: lines that could not be decoded, or that the function raised on, and why.
    """

    version: int | None = None
    time_extracted: str | None = None
    rows: list[JSONObject] | None = None
    table: pa.Table | None = None
    given: pa.Schema | None = None
    span: tuple[int, int] = (0, 0)
    refused: list[tuple[bytes, str]] = []
