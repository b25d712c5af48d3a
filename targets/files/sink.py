"""Streams into files: what is written between two flushes appears at the second."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path

from kit.connector import Config, ConfigError, ConnectorError, disk_error, log

from ..common.arrays import BadValue
from ..common.columns import ColumnType, column_type, wider
from ..common.messages import JSONObject, KeyCheck, decode_records
from ..common.runner import Block
from ..common.streams import StreamSetting, StreamSettings
from .folder import StreamFolder, Unfinished, folder_name, sync_folder
from .writers import CSVWriter, JSONLWriter, ParquetWriter, WiderColumn, Writer

_OTHER_FILES = 40
"""Files that are open beside those of streams: libraries, pipes, folders that are synced."""


class Destination:
    """One stream: its folders, and the files that are not visible yet."""

    def __init__(self, stream: str, folder: StreamFolder) -> None:
        self.stream = stream
        self.folder = folder
        self.setting: StreamSetting
        self.key: KeyCheck
        self.types: dict[str, ColumnType] = {}
        self.into = folder.visible
        self.version: int | None = None
        self.saw_unversioned = False
        self.is_versioned = False
        """Whether its files are replaced by versions, not at the end of the input."""
        self.dropped: set[str] = set()
        self.file: Unfinished | None = None
        self.writer: Writer | None = None
        self.is_begun = False
        """Whether the open file has records."""
        self.finished: list[Unfinished] = []

    @property
    def replaces(self) -> bool:
        """Whether its files wait for the end of the input."""
        return self.setting.method == "replace" and not self.is_versioned

    def end_file(self) -> None:
        """End the current file: later records go into another one."""
        if self.file is not None and self.writer is not None:
            self.writer.close()
            if self.is_begun:
                self.finished.append(self.file)
            else:
                self.file.discard()
        self.file = self.writer = None

    def publish(self) -> None:
        """Make all files durable and gives them their names."""
        self.end_file()
        folders = {unfinished.final.parent for unfinished in self.finished}
        for unfinished in self.finished:
            unfinished.publish()
        self.finished = []
        for folder in folders:
            sync_folder(folder)

    def discard(self) -> None:
        """Remove what was not published."""
        for unfinished in (*self.finished, *((self.file,) if self.file else ())):
            unfinished.discard()
        self.finished, self.file, self.writer = [], None, None


def _most_files() -> int:
    """Raise the limit of open files as far as it goes; return how many of them streams may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return max(1, soft - _OTHER_FILES) if soft != resource.RLIM_INFINITY else sys.maxsize


class FilesSink:
    """See `runner.Sink`."""

    def __init__(self, config: Config, settings: StreamSettings) -> None:
        self._config = config
        self._settings = settings
        self._root = Path(config["path"])
        self._destinations: dict[str, Destination] = {}
        self._most_files = _most_files()
        suffix = ".gz" if config["compression"] == "gzip" and config["format"] != "parquet" else ""
        self._ending = f".{config['format']}{suffix}"

    def schema(self, stream: str, schema: JSONObject, key_properties: list[str]) -> None:
        """Take the columns; a file that was begun with others ends."""
        setting = self._settings.of(stream, key_properties, schema)
        destination = self._destinations.get(stream)
        if destination is None:
            destination = self._destinations[stream] = self._open(stream, setting)
        destination.setting = setting
        destination.key = KeyCheck(stream, setting.keys)
        types = {name: column_type(property_) for name, property_ in schema["properties"].items()}
        # A column that a value has widened stays wide.
        types = {name: wider(destination.types.get(name, type_), type_) for name, type_ in types.items()}
        if types != destination.types:
            destination.end_file()
            destination.types = types

    def _open(self, stream: str, setting: StreamSetting) -> Destination:
        try:
            name = folder_name(setting.table)
            for other in self._destinations.values():
                if other.folder.name == name:
                    raise ConnectorError(
                        f"streams {other.stream!r} and {stream!r} have one folder, {name!r}",
                        "give one of them another destination_table",
                    )
            return Destination(stream, StreamFolder(self._root, name))
        except UnicodeEncodeError:
            raise ConnectorError(
                f"stream {stream!r}: its name cannot be a folder name", "set destination_table"
            ) from None
        except OSError as error:
            raise ConfigError(f"{error.filename or self._root}: {error.strerror}", "setting 'path'") from error

    def write(self, block: Block) -> None:
        """Write a block into the file that is open, or into a new one."""
        destination = self._destinations[block.stream]
        rows: list[JSONObject] | None = None

        def decoded() -> list[JSONObject]:
            nonlocal rows
            if rows is None:
                rows = decode_records(block.records, block.stream, block.first)
                self._warn_of_unknown(destination, rows)
            return rows

        try:
            destination.key.check(block.records, block.first)
            self._turn_to(destination, block.version)
            while True:
                try:
                    self._writer(destination, block.version).write(block.records, decoded)
                except WiderColumn as error:
                    old = destination.types[error.column]
                    destination.end_file()
                    destination.types = {**destination.types, error.column: error.wider}
                    text = (
                        f"stream {block.stream!r}: column {error.column!r} was {old.sql} and is {error.wider.sql} now"
                    )
                    log("INFO", text)
                else:
                    destination.is_begun = True
                    return
        except BadValue as error:
            number = block.first + error.index
            raise ConnectorError(f"stream {block.stream!r}, record {number}: {error.reason}") from None
        except OSError as error:
            raise disk_error(error, destination.into) from error

    def _turn_to(self, destination: Destination, version: int | None) -> None:
        """Choose the folder for rows of this version."""
        folder = destination.folder
        if version is None:
            destination.saw_unversioned = True
            if destination.version is not None:
                destination.end_file()
                destination.version = None
                destination.into = folder.visible
            if destination.replaces and destination.into == folder.visible:
                destination.into = folder.hidden(None)
            return
        if destination.version == version:
            return
        destination.end_file()
        destination.version = version
        destination.is_versioned = True
        if folder.shows(version):
            destination.into = folder.visible
        else:
            destination.into = folder.hidden(version)

    def _writer(self, destination: Destination, version: int | None) -> Writer:
        if destination.writer is None:
            self._close_files()
            destination.file = destination.folder.new_file(destination.into, version, self._ending)
            destination.writer = self._new_writer(destination, destination.file)
            destination.is_begun = False
        return destination.writer

    def _close_files(self) -> None:
        """Publish what is written before there are more open files than the system allows."""
        destinations = self._destinations.values()
        opened = sum(len(each.finished) + (each.file is not None) for each in destinations)
        if opened >= self._most_files:
            self.flush()

    def _new_writer(self, destination: Destination, unfinished: Unfinished) -> Writer:
        compression = self._config["compression"]
        if self._config["format"] == "csv":
            return CSVWriter(unfinished.file, compression, list(destination.types))
        if self._config["format"] == "parquet":
            return ParquetWriter(unfinished.file, compression, destination.types)
        return JSONLWriter(unfinished.file, compression)

    def _warn_of_unknown(self, destination: Destination, rows: list[JSONObject]) -> None:
        new = sorted(set().union(*rows) - destination.types.keys() - destination.dropped)
        if new:
            destination.dropped.update(new)
            log("WARNING", f"stream {destination.stream!r}: not in its SCHEMA, and so not written: {', '.join(new)}")

    def activate(self, stream: str, version: int, *, keep_old: bool) -> None:
        """Remove files of other versions, and show those that wait."""
        destination = self._destinations[stream]
        if destination.replaces and destination.saw_unversioned:
            return
        destination.is_versioned = True
        destination.publish()
        folder = destination.folder
        waiting = folder.waiting(version)
        if waiting is not None and not keep_old:
            folder.put_in_place(waiting, version)
        else:
            if not keep_old:
                folder.delete_stale(version, unversioned=not destination.saw_unversioned)
            folder.show(version)
            if waiting is not None:
                folder.merge(waiting)
        if destination.version == version:
            destination.into = folder.visible

    def prepare(self) -> None:
        """See `runner.Sink.prepare`."""
        if self._config["format"] == "parquet":
            import pyarrow.parquet  # noqa: F401

    def flush(self) -> bool:
        """Publish all files."""
        try:
            for destination in self._destinations.values():
                destination.publish()
        except OSError as error:
            raise disk_error(error, self._root) from error
        return not any(destination.replaces for destination in self._destinations.values())

    def finish(self) -> None:
        """Publish, and replace what is to be replaced without versions."""
        self.flush()
        for destination in self._destinations.values():
            into, folder = destination.into, destination.folder
            if destination.replaces:
                folder.put_in_place(folder.hidden(None), None)
                destination.into = folder.visible
            elif into != folder.visible:
                log(
                    "WARNING",
                    f"stream {destination.stream!r}: the files of version {destination.version} wait in {into.name}, "
                    "because no ACTIVATE_VERSION came; a run with this version makes them visible, "
                    "another version deletes them",
                )

    def close(self) -> None:
        """Remove what is unfinished."""
        for destination in self._destinations.values():
            destination.discard()
            if destination.into.name.endswith(f".replacing-{os.getpid()}") and destination.into.exists():
                # Its files count for nothing without the end of the input.
                import shutil

                shutil.rmtree(destination.into)
