"""PostgreSQL and DuckDB as sinks of streaming pipelines. No driver is imported before one is opened or checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from streamline.connectors.one_sided import SinkOnly
from streamline.connectors.stream_connector import Config, SinkTraits, StreamContext, Where
from streamline.connectors.tables.settings import TITLES, System, table_settings

if TYPE_CHECKING:
    from streamline.connectors.tables.sink import TableSink

_PLACE = {
    "postgres": """\
host: "{{{{ env_var('DB_HOST', 'localhost') }}}}"
port: 5432
user: writer
password: "{{{{ secret('db') }}}}"
dbname: shop
""",
    "duckdb": """\
path: {block}.duckdb
""",
}
_SINK = """\
connector_type: {system}
{place}\
# {{stream}} stands for the source's topic or stream.
table: {block}
# The columns that a row is replaced by; without it, the message key (column `_key`):
key: [id]
mode: upsert  # append
schema_change: evolve  # freeze
"""


class TableConnector(SinkOnly):
    """Implements `StreamConnector`."""

    def __init__(self, system: System) -> None:
        self.name = self._system = system
        self.title = TITLES[system]

    def describe_sink(self, config: Config, context: StreamContext, where: Where) -> SinkTraits:
        """See `StreamConnector.describe_sink`."""
        settings = table_settings(self._system, config, context, where)
        return SinkTraits(
            proof=f"{self.title} has committed its transaction", replaces=not settings.append, keeps_data=True
        )

    def open_sink(self, configs: Mapping[str, Config], context: StreamContext, where: Mapping[str, Where]) -> TableSink:
        """See `StreamConnector.open_sink`."""
        from streamline.connectors.tables.sink import TableSink

        ((block, config),) = configs.items()
        return TableSink(table_settings(self._system, config, context, where[block]), context)

    def _check(self, config: Config, context: StreamContext, where: Where) -> str:
        from streamline.connectors.tables.destination import TableDestination

        settings = table_settings(self._system, config, context, where)
        destination = TableDestination(settings, context.root, context.block)
        try:
            if "{stream}" in settings.table:
                return f"{settings.address} answers; rows of a stream go to table {settings.table}"
            count = len(destination.columns(settings.table))
        finally:
            destination.close()
        return f"{settings.address}, table {settings.table}: {f'{count} columns' if count else 'it will be made'}"

    def _template(self, pipeline: str, block: str) -> str:
        return _SINK.format(system=self.name, place=_PLACE[self.name].format(block=block), block=block)


POSTGRES = TableConnector("postgres")
DUCKDB = TableConnector("duckdb")
