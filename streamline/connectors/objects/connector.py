"""Object stores and folders as sinks of streaming pipelines."""

from __future__ import annotations

from collections.abc import Mapping

from streamline.connectors.objects.settings import object_settings
from streamline.connectors.one_sided import SinkOnly
from streamline.connectors.stream_connector import Config, SinkTraits, StreamContext, Where
from streamline.flow.protocols import Sink
from streamline.project.extras import need_installed

_PLACE = {
    "objects": "url: archive  # a folder, or s3://bucket/prefix\n",
    "s3": "bucket: archive\nprefix: {block}\n",
}
_SINK = """\
connector_type: {name}
{place}\
# {{stream}} stands for the source's topic or stream, {{date}} for the day of a message.
path: "{{stream}}/{{date}}"
format: jsonl  # parquet
compression: gzip
# A file is there when it is complete: when it is so large, or so old.
max_file_bytes: 67108864
max_file_seconds: 60
"""


class ObjectConnector(SinkOnly):
    """Implements `StreamConnector`.

    Args:
        name: `objects`, `s3`, or Mage's `amazon_s3`.
    """

    def __init__(self, name: str) -> None:
        self.name = self.title = name

    def describe_sink(self, config: Config, context: StreamContext, where: Where) -> SinkTraits:
        """See `StreamConnector.describe_sink`."""
        settings = object_settings(self.name, config, context, where)
        if settings.bucket is not None:
            need_installed("s3fs", "s3", "an S3 sink")
        return SinkTraits(
            proof=f"its file is complete: after {settings.max_file_seconds:g} s, or {settings.max_file_bytes:,} bytes"
        )

    def open_sink(self, configs: Mapping[str, Config], context: StreamContext, where: Mapping[str, Where]) -> Sink:
        """See `StreamConnector.open_sink`."""
        from streamline.connectors.objects.sink import ObjectSink

        ((block, config),) = configs.items()
        return ObjectSink(object_settings(self.name, config, context, where[block]), context)

    def _check(self, config: Config, context: StreamContext, where: Where) -> str:
        from streamline.connectors.objects.stores import StoreAway, StoreUnusable, open_store

        settings = object_settings(self.name, config, context, where)
        try:
            return open_store(settings, "check", context.root).look()
        except StoreAway as error:
            raise StoreUnusable(f"the store does not answer: {error}", where=settings.address) from None

    def _template(self, pipeline: str, block: str) -> str:
        name = "objects" if self.name == "objects" else "s3"
        return _SINK.format(name=self.name, place=_PLACE[name].format(block=block))


AMAZON_S3 = ObjectConnector("amazon_s3")
OBJECTS = ObjectConnector("objects")
S3 = ObjectConnector("s3")
