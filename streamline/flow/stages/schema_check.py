"""Refuses a SCHEMA that no target can make a table of, so that it stops its stream and not the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from streamline.errors import StreamlineError
from streamline.flow.items import Item, Schema
from streamline.flow.protocols import ImmediateStage


class SchemaCheckStage(ImmediateStage):
    """Checks the columns and keys of every SCHEMA. Implements `flow.protocols.Stage`.

    Args:
        keys_of: the columns that identify a stream's rows in the target.
    """

    def __init__(self, keys_of: Callable[[Schema], Sequence[str]]) -> None:
        self._keys_of = keys_of

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`.

        Raises:
            StreamlineError: the SCHEMA has no columns (or was nested too deeply to read them), one without a name, or
                lacks a key.
        """
        if isinstance(item, Schema):
            reason = self._reason(item)
            if reason is not None:
                raise StreamlineError(
                    f"its SCHEMA {reason}",
                    where=f"stream {item.stream!r}",
                    hint="correct it with its `schema` or `unique_constraints` in the source block, or leave it out",
                    code="stream.schema_unusable",
                )
        return [item]

    def _reason(self, item: Schema) -> str | None:
        properties = item.schema.get("properties")
        if not isinstance(properties, Mapping):
            return "has no `properties`" if item.schema else "is empty, or nested too deeply to be read"
        if "" in properties:
            return "has a column without a name"
        missing = [key for key in self._keys_of(item) if key not in properties]
        return f"has no column for its key {', '.join(map(repr, missing))}" if missing else None
