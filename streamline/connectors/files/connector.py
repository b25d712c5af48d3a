"""Files as a source of streaming pipelines: logs as they grow, and folders in which files appear."""

from __future__ import annotations

import glob

from streamline.connectors.files.records import PASSED_ON, decoder_of
from streamline.connectors.files.settings import file_settings
from streamline.connectors.files.source import FileSource
from streamline.connectors.one_sided import SourceOnly
from streamline.connectors.stream_connector import Config, SourceTraits, StreamContext, Where

_SOURCE = """\
connector_type: files
# A file, a folder, or a pattern. Files are read as they grow, and followed when they are rotated.
path: logs/{block}.jsonl
format: json  # one JSON value per line; text, csv
start: beginning  # end: of files that are there at the first run, only what is added
"""


class FilesConnector(SourceOnly):
    """Implements `StreamConnector`. As a destination, `files` is a target."""

    name = title = "files"

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

    def _check(self, config: Config, context: StreamContext, where: Where) -> str:
        path = file_settings(config, context, where).path
        if path.is_dir():
            count = sum(entry.is_file() for entry in path.iterdir())
        elif path.exists():
            count = 1
        else:
            count = len(glob.glob(str(path), recursive=True))  # noqa: PTH207 (takes an absolute pattern)
            if not glob.has_magic(str(path)):
                return f"{path} does not exist yet: a run waits for it"
        return f"files that `path` means: {count}"

    def _template(self, pipeline: str, block: str) -> str:
        return _SOURCE.format(block=block)


CONNECTOR = FilesConnector()
