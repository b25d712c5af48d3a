"""PostgreSQL and DuckDB as sinks of streaming pipelines. No driver is imported before one is opened or checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from streamline.connectors.stream_connector import Config, Side, SinkTraits, SourceTraits, StreamContext, Where
from streamline.connectors.tables.settings import TITLES, System, table_settings
from streamline.connectors.wrong_side import wrong_side

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


class TableConnector:
    """Implements `StreamConnector`."""

    def __init__(self, system: System) -> None:
        self.name: System = system

    def describe_source(self, config: Config, context: StreamContext, where: Where) -> SourceTraits:
        """See `StreamConnector.describe_source`."""
        raise wrong_side(TITLES[self.name], "source", where)

    def describe_sink(self, config: Config, context: StreamContext, where: Where) -> SinkTraits:
        """See `StreamConnector.describe_sink`."""
        settings = table_settings(self.name, config, context, where)
        return SinkTraits(
            proof=f"{TITLES[self.name]} has committed its transaction", replaces=not settings.append, keeps_data=True
        )

    def open_source(self, config: Config, context: StreamContext, where: Where) -> NoReturn:
        """See `StreamConnector.open_source`."""
        raise wrong_side(TITLES[self.name], "source", where)

    def open_sink(self, configs: Mapping[str, Config], context: StreamContext, where: Mapping[str, Where]) -> TableSink:
        """See `StreamConnector.open_sink`."""
        from streamline.connectors.tables.sink import TableSink

        ((block, config),) = configs.items()
        return TableSink(table_settings(self.name, config, context, where[block]), context)

    def check(self, side: Side, config: Config, context: StreamContext, where: Where) -> str:
        """See `StreamConnector.check`."""
        from streamline.connectors.tables.destination import TableDestination

        if side == "source":
            raise wrong_side(TITLES[self.name], "source", where)
        settings = table_settings(self.name, config, context, where)
        destination = TableDestination(settings, context.root, context.block)
        try:
            if "{stream}" in settings.table:
                return f"{settings.address} answers; rows of a stream go to table {settings.table}"
            count = len(destination.columns(settings.table))
        finally:
            destination.close()
        return f"{settings.address}, table {settings.table}: {f'{count} columns' if count else 'it will be made'}"

    def template(self, side: Side, pipeline: str, block: str) -> str:
        """See `StreamConnector.template`."""
        return _SINK.format(system=self.name, place=_PLACE[self.name].format(block=block), block=block)


POSTGRES = TableConnector("postgres")
DUCKDB = TableConnector("duckdb")
