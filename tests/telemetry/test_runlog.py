"""A run's log: one line an event, whoever writes and whatever they write."""

from __future__ import annotations

import re
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.telemetry.runlog import LEVELS, RunLog, level_of

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
