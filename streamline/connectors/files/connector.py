"""Files as a source of streaming pipelines: logs as they grow, and folders in which files appear."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from typing import NoReturn

from streamline.connectors.files.reader import FilesMissing
from streamline.connectors.files.records import PASSED_ON, decoder_of
from streamline.connectors.files.settings import file_settings
from streamline.connectors.files.source import FileSource
from streamline.connectors.stream_connector import Config, Side, SinkTraits, SourceTraits, StreamContext, Where
from streamline.connectors.wrong_side import wrong_side

_SOURCE = """\
connector_type: files
# A file, a folder, or a pattern. Files are read as they grow, and followed when they are rotated.
path: logs/{block}.jsonl
format: json  # one JSON value per line; text, csv
start: beginning  # end: of files that are there at the first run, only what is added
"""


class FilesConnector:
    """Implements `StreamConnector`."""

    name = "files"

    def describe_source(self, config: Config, context: StreamContext, where: Where) -> SourceTraits:
        """See `StreamConnector.describe_source`."""
        records = file_settings(config, context, where).records
        return SourceTraits(
            replays=True,
            positions="the state database",
            decoder=decoder_of(records.format, records.delimiter, records.columns),
            format=PASSED_ON.get(records.format),
            include_metadata=records.include_metadata,
            batch_size=records.batch_size,
        )

    def open_source(self, config: Config, context: StreamContext, where: Where) -> FileSource:
        """See `StreamConnector.open_source`."""
        return FileSource(file_settings(config, context, where), context)

    def describe_sink(self, config: Config, context: StreamContext, where: Where) -> SinkTraits:
        """See `StreamConnector.describe_sink`."""
        raise wrong_side("files", "destination", where)

    def open_sink(self, configs: Mapping[str, Config], context: StreamContext, where: Mapping[str, Where]) -> NoReturn:
        """See `StreamConnector.open_sink`."""
        raise wrong_side("files", "destination", next(iter(where.values())))

    def check(self, side: Side, config: Config, context: StreamContext, where: Where) -> str:
        """See `StreamConnector.check`."""
        if side == "destination":
            raise wrong_side("files", side, where)
        path = file_settings(config, context, where).path
        if path.is_dir():
            count = sum(entry.is_file() for entry in path.iterdir())
        elif path.exists():
            count = 1
        else:
            count = len(glob.glob(str(path), recursive=True))  # noqa: PTH207 (takes an absolute pattern)
            if not glob.has_magic(str(path)):
                raise FilesMissing("the file does not exist", where=where("path"), hint="check `path`")
        return f"files that `path` means: {count}"

    def template(self, side: Side, pipeline: str, block: str) -> str:
        """See `StreamConnector.template`."""
        # As a destination, `files` is a target.
        return _SOURCE.format(block=block) if side == "source" else ""


CONNECTOR = FilesConnector()
