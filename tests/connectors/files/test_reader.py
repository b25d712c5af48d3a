"""What is read of files that grow, are rotated, cut off, compressed, and come and go."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from streamline.connectors.files.reader import FileReader
from streamline.connectors.files.records import CsvDecoder, Format
from streamline.connectors.files.settings import FileSettings, RecordSettings
from streamline.errors import StreamlineError
from streamline.flow.items import FORGOTTEN


class Reading:
    """A reader, and what it gave."""

    def __init__(
        self,
        path: Path,
        root: Path,
        start: Mapping[str, bytes] | None = None,
        *,
        whole: bool = False,
        format: Format = "text",
        batch_size: int = 1_000,
        until_caught_up: bool = False,
        from_end: bool = False,
    ) -> None:
        self.later = 0.0
        self.parts: dict[str, bytes] = dict(start or {})
        settings = FileSettings(
            path=path,
            records=RecordSettings(format=format, batch_size=batch_size),
            settle=1.0 if whole else None,
            from_end=from_end,
        )
        self.reader = FileReader(
            "load",
            settings,
            start or {},
            root=root,
            until_caught_up=until_caught_up,
            clock=lambda: root.stat().st_mtime + self.later,
        )

    def read(self) -> list[str]:
        """Read all that there is now."""
        values: list[str] = []
        while (read := self.reader.read()) is not None:
            batch, self.parts = read
            values += [value.decode() for value in batch.data] if batch is not None else []
        return values

    def decoded(self) -> list[Any]:
        read = self.reader.read()
        assert read is not None
        assert read[0] is not None
        origins = [origin for origin in read[0].origins or [] if origin is not None]
        return CsvDecoder(",", None).decode_batch(read[0].data, origins)


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


def test_lines_come_when_they_are_complete(log: Path, tmp_path: Path) -> None:
    log.write_text("a\nb\npart")
    reading = Reading(log, tmp_path)
    assert reading.read() == ["a", "b"]
    append(log, "ial\r\nc\n")
    assert reading.read() == ["partial", "c"]
    assert Reading(log, tmp_path, reading.parts).read() == []


def test_a_file_may_appear_later(log: Path, tmp_path: Path) -> None:
    reading = Reading(log, tmp_path)
    assert reading.read() == []
    log.write_text("a\n")
    assert reading.read() == ["a"]


@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
def test_a_rotated_file_is_read_to_its_end_and_not_again(tmp_path: Path, log: Path, pattern: str) -> None:
    log.write_text("a\n")
    reading = Reading(tmp_path / pattern, tmp_path)
    assert reading.read() == ["a"]
    append(log, "b\n")
    log.rename(tmp_path / "app.log.1")
    log.write_text("c\n")
    assert sorted(reading.read()) == ["b", "c"]
    append(tmp_path / "app.log.1", "late\n")
    assert reading.read() == ["late"]
    reading.later = 10.0
    assert reading.read() == []
    left = [part for part in reading.parts.values() if part != FORGOTTEN]
    assert len(left) == (2 if pattern.endswith("*") else 1)
    append(log, "d\n")
    assert reading.read() == ["d"]


@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
def test_it_may_be_rotated_while_nothing_runs(tmp_path: Path, log: Path, pattern: str) -> None:
    log.write_text("a\nb\nc\n")
    reading = Reading(tmp_path / pattern, tmp_path, batch_size=1)
    read = reading.reader.read()
    assert read is not None
    log.rename(tmp_path / "app.log.1")
    log.write_text("d\n")
    again = Reading(tmp_path / pattern, tmp_path, read[1], until_caught_up=True)
    assert again.read() == ["b", "c", "d"]


@pytest.mark.parametrize("text", ["x\n", "another beginning, longer than before\n"])
def test_a_file_that_is_cut_off_is_read_from_its_beginning(tmp_path: Path, log: Path, text: str) -> None:
    log.write_text("a first line\n")
    reading = Reading(log, tmp_path)
    reading.read()
    saved = reading.parts
    log.write_text(text)
    assert reading.read() == [text.strip()]
    assert Reading(log, tmp_path, saved).read() == [text.strip()]


def test_a_file_that_is_gone_is_forgotten(tmp_path: Path, log: Path) -> None:
    log.write_text("a\n")
    reading = Reading(log, tmp_path)
    reading.read()
    log.unlink()
    again = Reading(log, tmp_path, reading.parts)
    again.read()
    reading.later = 10.0
    reading.read()
    assert set(reading.parts.values()) == set(again.parts.values()) == {FORGOTTEN}
    assert reading.reader.read([reading.parts]) is None


def test_files_of_a_folder_are_read_whole_when_they_no_longer_change(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "1").write_text("a\nb")
    (folder / ".hidden").write_text("no\n")
    reading = Reading(folder, tmp_path, whole=True)
    assert reading.read() == ["a"]
    reading.later = 10.0
    assert reading.read() == ["b"]
    (folder / "2").write_text("c")
    assert reading.read() == ["c"]
    assert Reading(folder, tmp_path, reading.parts, whole=True).read() == []


def test_compressed_files_are_read_whole_and_resumed_within(tmp_path: Path) -> None:
    file = tmp_path / "a.gz"
    file.write_bytes(gzip.compress(b"1\n2\n3"))
    reading = Reading(tmp_path / "*.gz", tmp_path, batch_size=1)
    reading.later = 10.0
    read = reading.reader.read()
    assert read is not None
    again = Reading(tmp_path / "*.gz", tmp_path, read[1])
    again.later = 10.0
    assert again.read() == ["2", "3"]
    third = Reading(tmp_path / "*.gz", tmp_path, again.parts)
    third.later = 10.0
    assert third.read() == []


def test_a_compressed_file_that_is_cut_off_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"1\n2\n3")[:-9])
    reading = Reading(tmp_path / "a.gz", tmp_path)
    reading.later = 10.0
    with pytest.raises(StreamlineError) as caught:
        reading.read()
    assert caught.value.code == "files.unreadable"


def test_caught_up_it_ends_at_the_sizes_at_its_start(tmp_path: Path, log: Path) -> None:
    log.write_text("a\nb\nc\n")
    reading = Reading(tmp_path / "*.log", tmp_path, batch_size=1, until_caught_up=True)
    assert reading.reader.read() is not None
    append(log, "later\n")
    (tmp_path / "new.log").write_text("later\n")
    assert reading.read() == ["b", "c"]
    assert reading.reader.caught_up


def test_caught_up_a_missing_file_is_an_error(tmp_path: Path, log: Path) -> None:
    with pytest.raises(StreamlineError) as caught:
        Reading(log, tmp_path, until_caught_up=True).read()
    assert caught.value.code == "files.missing"


def test_from_the_end_only_what_is_added_is_read(tmp_path: Path, log: Path) -> None:
    log.write_text("old\npart")
    reading = Reading(log, tmp_path, from_end=True)
    assert reading.read() == []
    assert reading.parts
    append(log, "ial\n")
    assert Reading(log, tmp_path, reading.parts, from_end=True).read() == reading.read() == ["partial"]


def test_rows_of_csv_have_the_names_of_their_file_and_may_have_line_breaks(tmp_path: Path, log: Path) -> None:
    log.write_text('\ufeffid,name\n1,"a\nb"\n2,c\n')
    reading = Reading(log, tmp_path, format="csv", batch_size=1)
    assert reading.decoded() == [{"id": "1", "name": "a\nb"}]
    read = reading.reader.read()
    assert read is not None
    append(log, "3\n")
    again = Reading(log, tmp_path, read[1], format="csv")
    with pytest.raises(ValueError, match="2 columns"):
        again.decoded()
    assert again.reader.read() is None


def test_a_record_that_is_too_long_is_an_error(tmp_path: Path, log: Path) -> None:
    log.write_text("x" * (17 << 20))
    with pytest.raises(StreamlineError) as caught:
        Reading(log, tmp_path).read()
    assert caught.value.code == "files.record_too_long"
