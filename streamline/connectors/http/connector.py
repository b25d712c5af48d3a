"""HTTP as a source and a sink of streaming pipelines."""

from __future__ import annotations

from collections.abc import Mapping

from streamline.connectors.files.records import PASSED_ON, decoder_of
from streamline.connectors.http.listen_settings import listen_settings
from streamline.connectors.http.settings import http_settings
from streamline.connectors.stream_connector import Config, Side, SinkTraits, SourceTraits, StreamContext, Where
from streamline.flow.protocols import Sink, Source
from streamline.project.extras import need_installed

_SOURCE = """\
connector_type: http
host: 127.0.0.1  # 0.0.0.0: other machines reach it, too
port: 8080
path: /{block}
# When a request is answered with 2xx: its messages are durable in all sinks, or `accepted`.
respond: proven
# signature:  # as GitHub signs its webhooks
#   secret: "{{{{ secret('webhook') }}}}"
# auth:
#   bearer: "{{{{ secret('token') }}}}"
"""
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
        settings = listen_settings(config, context, where)
        need_installed("uvicorn", "webhook", "the HTTP source")
        proven = settings.respond == "proven"
        return SourceTraits(
            replays=proven,
            positions="the senders' hands: what is not answered with 2xx, which comes with the proof, they have to "
            "send again"
            if proven
            else "nowhere: requests are answered before their messages are proven",
            would_replay="`respond: proven`",
            decoder=decoder_of(settings.format, ",", None),
            format=PASSED_ON[settings.format],
            include_metadata=settings.include_metadata,
            batch_size=settings.batch_size,
        )

    def open_source(self, config: Config, context: StreamContext, where: Where) -> Source:
        """See `StreamConnector.open_source`."""
        from streamline.connectors.http.listener import Listener
        from streamline.connectors.http.source import HttpSource

        return HttpSource(listen_settings(config, context, where), context, Listener)

    def describe_sink(self, config: Config, context: StreamContext, where: Where) -> SinkTraits:
        """See `StreamConnector.describe_sink`."""
        http_settings(config, context, where)
        return SinkTraits(proof="the server has answered with 2xx")

    def open_sink(self, configs: Mapping[str, Config], context: StreamContext, where: Mapping[str, Where]) -> Sink:
        """See `StreamConnector.open_sink`."""
        from streamline.connectors.http.sink import HttpSink

        ((block, config),) = configs.items()
        return HttpSink(http_settings(config, context, where[block]), context)

    def check(self, side: Side, config: Config, context: StreamContext, where: Where) -> str:
        """See `StreamConnector.check`."""
        if side == "source":
            from streamline.connectors.http.listener import bound

            listening = listen_settings(config, context, where)
            bound(listening).close()
            return f"{listening.host}, port {listening.port} can be listened on"
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
        return (_SOURCE if side == "source" else _SINK).format(block=block)


CONNECTOR = HttpConnector()
