"""The missing side of connectors that are only a source, or only a sink, of streaming pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from streamline.connectors.registry import Role, connector_name, find_connector, system_of
from streamline.connectors.stream_connector import Config, Side, SinkTraits, SourceTraits, StreamContext, Where
from streamline.errors import ConfigError

_ROLES: Mapping[Side, Role] = {"source": "tap", "destination": "target"}


class _OneSided:
    """Implements what `StreamConnector` asks of both sides.

    Attributes:
        name: as blocks name it.
        title: as messages do.
    """

    name: str
    title: str
    _side: Side

    def check(self, side: Side, config: Config, context: StreamContext, where: Where) -> str:
        """See `StreamConnector.check`."""
        if side != self._side:
            raise self._wrong_side(where)
        return self._check(config, context, where)

    def template(self, side: Side, pipeline: str, block: str) -> str:
        """See `StreamConnector.template`. Empty where a tap or target of the same name is what is meant.

        Raises:
            ConfigError: there is none.
        """
        if side == self._side:
            return self._template(pipeline, block)
        plugin = connector_name(self.name, _ROLES[side])
        if system_of(plugin) is None and find_connector(plugin) is None:
            raise self._wrong_side()
        return ""

    def _check(self, config: Config, context: StreamContext, where: Where) -> str:
        raise NotImplementedError

    def _template(self, pipeline: str, block: str) -> str:
        raise NotImplementedError

    def _wrong_side(self, where: Where | None = None) -> ConfigError:
        missing = "destination" if self._side == "source" else "source"
        return ConfigError(
            f"{self.title} is no {missing}; it is a {self._side} only",
            where=where("connector_type") if where is not None else None,
            hint="see docs/streaming.md for what is",
            code="connector.wrong_side",
        )


class SourceOnly(_OneSided):
    """A connector without sinks. A subclass adds `describe_source`, `open_source`, `_check` and `_template`."""

    _side = "source"

    def describe_sink(self, config: Config, context: StreamContext, where: Where) -> SinkTraits:
        """See `StreamConnector.describe_sink`."""
        raise self._wrong_side(where)

    def open_sink(self, configs: Mapping[str, Config], context: StreamContext, where: Mapping[str, Where]) -> NoReturn:
        """See `StreamConnector.open_sink`."""
        raise self._wrong_side(next(iter(where.values())))


class SinkOnly(_OneSided):
    """A connector without sources. A subclass adds `describe_sink`, `open_sink`, `_check` and `_template`."""

    _side = "destination"

    def describe_source(self, config: Config, context: StreamContext, where: Where) -> SourceTraits:
        """See `StreamConnector.describe_source`."""
        raise self._wrong_side(where)

    def open_source(self, config: Config, context: StreamContext, where: Where) -> NoReturn:
        """See `StreamConnector.open_source`."""
        raise self._wrong_side(where)
