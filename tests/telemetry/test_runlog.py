"""A run's log: one line an event, whoever writes and whatever they write."""

from __future__ import annotations

import re
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.telemetry import runlog
from streamline.telemetry.runlog import LEVELS, RunLog, level_of, message_of

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR) +\S+ \| .*")


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("INFO Starting sync", "INFO"),
        ("2024-01-01 10:00:00,123 | WARNING  | tap-x | rate limited", "WARNING"),
        ("time=2024 name=singer level=CRITICAL message=oh", "ERROR"),
        ('{"level": "error", "event": "x"}', "ERROR"),
        ("level=warn msg=INFO", "WARNING"),
        ("FATAL: password authentication failed", "ERROR"),
        ("debug: x", "DEBUG"),
        ("trace", "DEBUG"),
        ("3 errors found", "INFO"),
        ("Traceback (most recent call last):", "INFO"),
        ("", "INFO"),
        ("x" * 200 + " ERROR", "INFO"),
        ("level=17", "INFO"),
    ],
)
def test_the_level_of_a_line_is_what_its_first_words_say(line: str, level: str) -> None:
    assert level_of(line) == level


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("WARNING stream orders is old", "stream orders is old"),
        ("WARNING:root:stream orders is old", "stream orders is old"),
        ("Warning: stream orders is old", "stream orders is old"),
        ("2024-01-01 10:00:00,123 | WARNING  | tap-x                | rate limited", "rate limited"),
        ("time=2024-01-01 10:00:00 name=tap_x level=WARNING message=rate limited", "rate limited"),
        ('{"level": "warning", "event": "rate limited"}', "rate limited"),
        ('{"level": "warning", "event": 1}', '{"level": "warning", "event": 1}'),
        ("WARNINGS are on", "WARNINGS are on"),
        ("a | WARNING | b", "a | WARNING | b"),
        ("{", "{"),
        ("WARNING ", ""),
    ],
)
def test_the_message_of_a_line_stands_behind_its_level(line: str, message: str) -> None:
    assert message_of(line) == message


@given(st.text(), st.sampled_from(LEVELS))
def test_any_line_has_a_level(line: str, default: str) -> None:
    assert level_of(line, default) in LEVELS


def test_every_line_bears_time_level_and_source_and_only_its_owner_reads_them(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "run.log")
    log.write("streamline", "started")
    log.write("load", "one\ntwo\r\nthree\x0bfour\u2028five\n", "WARNING")
    log.write("load", "")
    log.child("load", "ERROR it broke \ud800")
    log.close()
    log.close()
    log.write("load", "too late")

    lines = log.path.read_text("utf-8").split("\n")
    assert lines.pop() == ""
    assert all(LINE.fullmatch(line) for line in lines), lines
    assert [line.split(" | ", 1)[1] for line in lines][:6] == ["started", "one", "two", "three", "four", "five"]
    assert len(lines) == 8
    assert " ERROR   load | ERROR it broke ?" in lines[-1]
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


def test_lines_of_several_threads_do_not_mix(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "run.log")

    def write(name: str) -> None:
        for _ in range(200):
            log.write(name, name * 300)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    texts = [line.split(" | ")[1] for line in log.path.read_text().splitlines()]
    assert sorted(texts) == sorted(name * 300 for name in "abcd" for _ in range(200))


def test_a_log_goes_on_where_it_was(tmp_path: Path) -> None:
    for number in (1, 2):
        log = RunLog(tmp_path / "run.log")
        log.write("load", str(number))
        log.close()
    assert [line[-1] for line in (tmp_path / "run.log").read_text().splitlines()] == ["1", "2"]


def test_of_a_long_output_both_ends_are_kept_before_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runlog, "HEAD_CHARACTERS", 1000)
    monkeypatch.setattr(runlog, "TAIL_CHARACTERS", 500)
    log = RunLog(tmp_path / "run.log")
    for number in range(1, 1001):
        log.child("load", f"line {number}")
    log.child("other", "INFO quiet")
    log.write("load", "it failed", "ERROR")
    log.close()

    lines = [line.split(" | ", 1) for line in log.path.read_text().splitlines()]
    load = [text for source, text in lines if source.endswith("load")]
    assert load[0] == "line 1"
    assert len([text for text in load if "lines are left out" in text]) == 1
    assert load[-2:] == ["line 1000", "it failed"]
    assert sum(len(text) for text in load) < 1500
    assert ["quiet" in text for _, text in lines].count(True) == 1


def test_what_a_child_printed_last_is_written_when_the_log_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runlog, "HEAD_CHARACTERS", 100)
    log = RunLog(tmp_path / "run.log")
    for number in range(1, 101):
        log.child("load", f"line {number}")
    log.close()

    lines = log.path.read_text().splitlines()
    assert len(lines) == 100
    assert lines[-1].endswith("line 100")
