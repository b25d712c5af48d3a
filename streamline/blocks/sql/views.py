"""Upstream outputs as tables in a DuckDB: Parquet files are scanned where they are, Arrow is not copied."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from streamline.blocks.call import BlockCall, Input
from streamline.blocks.sql.statements import Statement
from streamline.databases.base import DatabaseError
from streamline.errors import ConfigError

if TYPE_CHECKING:
    from streamline.databases.duckdb import DuckDB

_INDEX = "__index_level_"
"""How the columns begin that pandas keeps an unnamed index in."""


class Views:
    """Makes views of those upstream outputs that are used: by `{{ df_1 }}`, or by their name anywhere in the text.

    A column may bear the same name; then a view is made that nobody reads, which costs next to nothing, or cannot be
    made, which counts only if a table of that name is missing.

    Args:
        prefix: how the names of views begin that templates refer to; in a database of the user's, the upstream's name
            alone may be a table.
    """

    def __init__(self, call: BlockCall, database: DuckDB, prefix: str = "") -> None:
        self.call = call
        self.database = database
        self.prefix = prefix
        self._referred: set[int] = set()
        self._failed: dict[str, ConfigError] = {}

    def referred(self, index: int) -> str:
        """Return the quoted name of an upstream's view, which will be there."""
        self._referred.add(index)
        return self.database.temporary_name(self.prefix + self.call.inputs[index].uuid)

    def make(self, statements: Sequence[Statement], *, own_tables_first: bool = False) -> None:
        """Make the views that the statements use.

        Args:
            own_tables_first: a table of the database is meant where it bears the name that stands in the text.

        Raises:
            ConfigError: an output that is referred to is no table.
        """
        names = frozenset().union(*(statement.names for statement in statements)) if statements else frozenset()
        for index, upstream in enumerate(self.call.inputs):
            referred = {self.prefix + upstream.uuid} if index in self._referred else set()
            for name in sorted({upstream.uuid, f"df_{index + 1}", *referred}):
                must = name in referred
                if not must and (name.casefold() not in names or (own_tables_first and self.database.exists(name))):
                    continue
                try:
                    self._view(name, upstream)
                except ConfigError as error:
                    if must:
                        error.message = f"the output of '{upstream.uuid}' cannot be a table: {error.message}"
                        error.where = self.call.where
                        raise
                    self._failed[name.casefold()] = error

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Where a table is missing because an output is none, say so."""
        try:
            yield
        except DatabaseError as error:
            for name, reason in self._failed.items():
                if f"Table with name {name} does not exist" in error.message:
                    error.message += f"; the output of the block cannot be one: {reason.message}"
                    error.hint = reason.hint
            raise

    def _view(self, name: str, upstream: Input) -> None:
        files = upstream.parquet()
        view = self.database.quote(name)
        if files is None:
            self.database.register(name, upstream.table())
            return
        listed = ", ".join("'" + str(path).replace("'", "''") + "'" for path in files)
        union = ", union_by_name = true" if len(files) > 1 else ""
        scan = f"from read_parquet([{listed}]{union})"
        index = [column for column, _ in self.database.described(scan) if column.startswith(_INDEX)]
        columns = f"* exclude ({', '.join(map(self.database.quote, index))})" if index else "*"
        self.database.execute(f"create or replace temporary view {view} as select {columns} {scan}")
