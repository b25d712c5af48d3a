"""Taps and targets as a connector of streaming pipelines: what they promise.

What opens them needs the project and the state store: `SingerAttempt`, where streaming pipelines are planned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from streamline.connectors.stream_connector import Config, Side, SinkTraits, SourceTraits, StreamContext, Where

FORMAT = "JSON"
"""Name of the format of records: that of Kafka's JSON values, which are written as they are."""


class SingerConnector:
    """Implements the part of `StreamConnector` that can be said before a tap or target is asked."""

    name = "singer"

    def describe_source(self, config: Config, context: StreamContext, where: Where) -> SourceTraits:
        """See `StreamConnector.describe_source`."""
        from streamline.connectors.kafka.serialization.json_text import JsonDecoder

        return SourceTraits(
            replays=True,
            positions="the state database",
            decoder=JsonDecoder,
            format=FORMAT,
            batch_size=1_000,
            ends=config.get("interval") is None,
        )

    def describe_sink(self, config: Config, context: StreamContext, where: Where) -> SinkTraits:
        """See `StreamConnector.describe_sink`."""
        return SinkTraits(proof="the STATEs that it prints, or the end of its session", format=FORMAT, keeps_data=False)

    def open_source(self, config: Config, context: StreamContext, where: Where) -> NoReturn:
        """Refuse: see the module."""
        raise TypeError("taps are opened by a SingerAttempt")

    def open_sink(self, configs: Mapping[str, Config], context: StreamContext, where: Mapping[str, Where]) -> NoReturn:
        """Refuse: see the module."""
        raise TypeError("targets are opened by a SingerAttempt")

    def check(self, side: Side, config: Config, context: StreamContext, where: Where) -> NoReturn:
        """Refuse: taps and targets are checked as those of integration pipelines."""
        raise TypeError("taps and targets are checked with their blocks")

    def template(self, side: Side, pipeline: str, block: str) -> NoReturn:
        """Refuse: `streamline add` knows what it writes for each tap and target."""
        raise TypeError("templates of taps and targets are those of their blocks")


SINGER = SingerConnector()
