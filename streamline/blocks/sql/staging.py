"""Make upstream data available in a database: `{{ df_1 }}` is a table there.

The output of an upstream SQL block in the same database is its table. Other outputs are written first: to a temporary
table or, if the block's configuration names one, to a permanent table. DuckDB uses views.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from streamline.blocks.call import BlockCall
from streamline.blocks.sql.settings import Profiles, SQLSettings, default_table, read_settings
from streamline.blocks.sql.statements import Statement
from streamline.blocks.sql.template import renderer
from streamline.blocks.sql.views import Views
from streamline.errors import ConfigError, StreamlineError
from streamline.pipeline.reader import load_pipeline

if TYPE_CHECKING:
    from streamline.databases.database import Database


class Staging:
    """The tables of upstream data that a block's SQL refers to."""

    def __init__(self, call: BlockCall, settings: SQLSettings, profiles: Profiles, database: Database) -> None:
        self.call = call
        self.settings = settings
        self.profiles = profiles
        self.database = database
        self._names: dict[int, str] = {}  # quoted, of those that are used
        self._to_write: dict[int, tuple[str, bool]] = {}  # name, and whether it lasts
        self._to_drop: list[str] = []
        self._views: Views | None = None
        if database.provider == "duckdb":
            self._views = Views(call, database, f"{call.pipeline}_")  # type: ignore[arg-type]

    def referred(self, index: int) -> str:
        """Return the quoted name of an upstream block's table, and mark it as used."""
        if index not in self._names:
            self._names[index] = self._name(index)
        return self._names[index]

    def make(self, statements: Sequence[Statement]) -> None:
        """Write the upstream data that the statements use."""
        for index, (name, lasting) in self._to_write.items():
            given = self.call.inputs[index]
            try:
                table = given.table()
            except ConfigError as error:
                error.message = f"the output of '{given.uuid}' cannot be a table: {error.message}"
                error.where = self.call.where
                raise
            try:
                if lasting:
                    self.database.write(table, name, self._schema, "replace")
                elif self.database.good_temporary:
                    self.database.write(table, name, temporary=True)
                else:
                    self._to_drop.append(name)
                    self.database.write(table, name, self._schema, "replace")
            except StreamlineError as error:
                title = self.database.title
                error.message = f"the output of '{given.uuid}' cannot be written to {title}: {error.message}"
                error.where = self.call.where
                raise
        if self._views is not None:
            self._views.make(statements, own_tables_first=True)

    def remove(self) -> None:
        """Drop the temporary tables."""
        for name in self._to_drop:
            with contextlib.suppress(StreamlineError):
                self.database.drop(name, self._schema)
        self._to_drop.clear()

    def explaining(self) -> contextlib.AbstractContextManager[None]:
        """Explain errors about missing tables."""
        return self._views.explaining() if self._views is not None else contextlib.nullcontext()

    @property
    def _schema(self) -> str | None:
        return self.settings.schema if self.database.provider != "mysql" else None

    def _name(self, index: int) -> str:
        uuid = self.call.inputs[index].uuid
        own = self._own_table(uuid)
        if own is not None:
            return own
        named = self.settings.upstream_tables.get(uuid)
        if named is None and self._views is not None:
            return self._views.referred(index)
        name = named or f"{self.call.pipeline}_{uuid}"
        if self.settings.unique_upstream:
            name = f"{name}_{self.call.run_id}"
        child = self.call.kwargs.get("dynamic_block_index")
        if named is None and not self.database.good_temporary:
            # A permanent table, dropped after the run: its name must be unique.
            name = f"_streamline_{name}_{self.call.block.uuid}" + (f"_{child}" if child is not None else "")
        if len(name.encode()) > self.database.longest_name:
            name = self.database.spare_name(name, "")
        self._to_write[index] = (name, named is not None)
        if named is None and self.database.good_temporary:
            return self.database.temporary_name(name)
        return self.database.qualified(name, self._schema)

    def _own_table(self, uuid: str) -> str | None:
        """Return the table that an upstream SQL block has written to the same database, if any."""
        block = load_pipeline(self.call.project, self.call.pipeline).blocks.get(uuid)
        if block is None or block.language != "sql" or block.type == "dbt":
            return None
        configuration: dict[str, Any] = renderer(self.call).render(block.configuration, f"block {uuid}")
        theirs = read_settings(configuration, f"block {uuid}")
        if theirs.provider is None or theirs.raw or configuration.get("dynamic"):
            return None
        where = self.call.where
        if theirs.kind != self.settings.kind or self.profiles.in_memory(theirs, where):
            return None
        if self.profiles.place(theirs, where) != self.profiles.place(self.settings, where):
            return None
        schema = theirs.schema or self.profiles.schema(theirs, where)
        schema = schema if self.database.provider != "mysql" else None
        name = theirs.table or default_table(self.call.pipeline, uuid, self.database)
        return self.database.qualified(name, schema) if self.database.exists(name, schema) else None
