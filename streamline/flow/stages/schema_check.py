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
        other_table: a stream → the table of another stream that the target takes for its own.
    """

    def __init__(
        self,
        keys_of: Callable[[Schema], Sequence[str]],
        other_table: Callable[[str], str | None] = lambda stream: None,
    ) -> None:
        self._keys_of = keys_of
        self._other_table = other_table

    async def process(self, item: Item) -> Sequence[Item]:
        """See `Stage.process`.

        Raises:
            StreamlineError: the SCHEMA has no columns (or was nested too deeply to read them), one without a name, or
                lacks a key; or its table is another stream's.
        """
        if isinstance(item, Schema):
            other = self._other_table(item.stream)
            if other is not None:
                raise StreamlineError(
                    f"its table differs from {other!r}, another stream's, by case only",
                    where=f"stream {item.stream!r}",
                    hint="give it another destination_table",
                    code="destination.table_shared",
                )
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
