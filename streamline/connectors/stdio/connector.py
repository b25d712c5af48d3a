"""The standard input and output of the command as a source and a sink of streaming pipelines."""

from __future__ import annotations

from collections.abc import Mapping

from streamline.connectors.files.records import PASSED_ON, decoder_of
from streamline.connectors.files.settings import RECORD_KINDS, record_settings
from streamline.connectors.one_sided import SinkOnly, SourceOnly
from streamline.connectors.setting_kinds import choice, read_settings
from streamline.connectors.stdio.sink import StdoutSink
from streamline.connectors.stdio.source import StdinSource
from streamline.connectors.stream_connector import Config, SinkTraits, SourceTraits, StreamContext, Where


class StdinConnector(SourceOnly):
    """Implements `StreamConnector`."""

    name = title = "stdin"

    def describe_source(self, config: Config, context: StreamContext, where: Where) -> SourceTraits:
        """See `StreamConnector.describe_source`."""
        records = record_settings(read_settings(config, RECORD_KINDS, where, what="stdin"))
        return SourceTraits(
            replays=False,
            positions="nowhere: the input is read once",
            decoder=decoder_of(records.format, records.delimiter, records.columns),
            format=PASSED_ON.get(records.format),
            include_metadata=records.include_metadata,
            batch_size=records.batch_size,
            ends=True,
        )

    def open_source(self, config: Config, context: StreamContext, where: Where) -> StdinSource:
        """See `StreamConnector.open_source`."""
        return StdinSource(context.block, record_settings(read_settings(config, RECORD_KINDS, where, what="stdin")))

    def _check(self, config: Config, context: StreamContext, where: Where) -> str:
        return "reads what the command is given"

    def _template(self, pipeline: str, block: str) -> str:
        return "connector_type: stdin\nformat: json  # one JSON value per line; text, csv\n"


class StdoutConnector(SinkOnly):
    """Implements `StreamConnector`."""

    name = title = "stdout"

    def describe_sink(self, config: Config, context: StreamContext, where: Where) -> SinkTraits:
        """See `StreamConnector.describe_sink`."""
        _as_text(config, where)
        return SinkTraits(proof="the line is written", keeps_data=True)

    def open_sink(
        self, configs: Mapping[str, Config], context: StreamContext, where: Mapping[str, Where]
    ) -> StdoutSink:
        """See `StreamConnector.open_sink`."""
        ((block, config),) = configs.items()
        return StdoutSink(context, as_text=_as_text(config, where[block]))

    def _check(self, config: Config, context: StreamContext, where: Where) -> str:
        return "writes lines"

    def _template(self, pipeline: str, block: str) -> str:
        return "connector_type: stdout\nformat: json  # text: strings as they are\n"


def _as_text(config: Config, where: Where) -> bool:
    given = read_settings(config, {"format": choice("json", "text")}, where, what="stdout")
    return given.get("format") == "text"


STDIN = StdinConnector()
STDOUT = StdoutConnector()
