"""HTTP as a sink of streaming pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from streamline.connectors.http.settings import http_settings
from streamline.connectors.stream_connector import Config, Side, SinkTraits, SourceTraits, StreamContext, Where
from streamline.connectors.wrong_side import wrong_side
from streamline.errors import StreamlineError
from streamline.flow.protocols import Sink

_SINK = """\
connector_type: http
url: https://example.com/{block}
method: POST
# One message in each request, or `list` (a JSON array) or `lines` of up to `batch_size`.
body: single
# auth:
#   bearer: "{{{{ secret('token') }}}}"
"""


class HttpConnector:
    """Implements `StreamConnector`."""

    name = "http"

    def describe_source(self, config: Config, context: StreamContext, where: Where) -> SourceTraits:
        """See `StreamConnector.describe_source`."""
        raise wrong_side("http", "source", where)

    def describe_sink(self, config: Config, context: StreamContext, where: Where) -> SinkTraits:
        """See `StreamConnector.describe_sink`."""
        http_settings(config, context, where)
        return SinkTraits(proof="the server has answered with 2xx")

    def open_source(self, config: Config, context: StreamContext, where: Where) -> NoReturn:
        """See `StreamConnector.open_source`."""
        raise wrong_side("http", "source", where)

    def open_sink(self, configs: Mapping[str, Config], context: StreamContext, where: Mapping[str, Where]) -> Sink:
        """See `StreamConnector.open_sink`."""
        from streamline.connectors.http.sink import HttpSink

        ((block, config),) = configs.items()
        return HttpSink(http_settings(config, context, where[block]), context)

    def check(self, side: Side, config: Config, context: StreamContext, where: Where) -> str:
        """See `StreamConnector.check`."""
        if side == "source":
            raise wrong_side("http", side, where)
        from streamline.connectors.http.client import HttpClient, NotReachable

        settings = http_settings(config, context, where)
        client = HttpClient(settings, pause=lambda seconds: False, startup_timeout=0.0, note=lambda text, level: None)
        try:
            client.connect()
        except OSError as error:
            raise NotReachable(f"cannot connect: {error}", where=where("url"), hint="check `url`") from None
        finally:
            client.close()
        return f"{settings.url} accepts connections; nothing was sent"

    def template(self, side: Side, pipeline: str, block: str) -> str:
        """See `StreamConnector.template`."""
        if side == "source":
            raise StreamlineError("http is no source", code="connector.wrong_side")
        return _SINK.format(block=block)


CONNECTOR = HttpConnector()
