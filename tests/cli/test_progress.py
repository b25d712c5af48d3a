"""What a run shows in a terminal while it works."""

from __future__ import annotations

import re

import pytest

from streamline.cli.app import App
from streamline.cli.progress import Display
from streamline.execution.events import AttemptFailed, ProgressMade, RunPlanned, SensorWaiting, StreamStopped
from streamline.processes.job import Failure


def seen(text: str) -> list[str]:
    """Return the lines of a terminal after it was sent `text`."""
    lines, at = [""], 0
    for part in re.findall(r"\x1b\[\d*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
        if part == "\n":
            at += 1
            lines += [""] * (at + 1 - len(lines))
        elif part == "\x1b[J":
            lines[at:] = [""]
        elif part.endswith("A") and part.startswith("\x1b"):
            at -= int(part[2:-1])
        elif part[0] not in "\x1b\r":
            lines[at] += part
    return lines


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamline.cli.progress.is_terminal", lambda *stream: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")


TABLE = {"block": "export", "table": "renamed", "sent": 9, "written": 8, "quarantined": 0}


def progress(streams: int) -> ProgressMade:
    counts = [{"block": "load", "stream": f"s{number}", "read": number, "quarantined": 0} for number in range(streams)]
    counts[3]["quarantined"] = 2
    total = sum(range(streams))
    return ProgressMade(records=total, quarantined=2, streams=counts, tables=[TABLE], seconds=3.0)


@pytest.mark.usefixtures("terminal")
def test_the_total_of_many_streams_is_seen_with_the_busiest(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(App())
    display(progress(70))
    display(progress(70))
    lines = seen(capsys.readouterr().out)
    assert len(lines) < 24
    assert lines[0].split() == ["BLOCK", "STREAM", "READ", "QUARANTINED"]
    assert lines[1].split()[1] == "s3", "records were refused"
    assert lines[2].split()[1] == "s69"
    assert lines[-2].startswith("and 50 more streams: ")
    assert lines[-1].startswith("2,415 records read, ")
    assert ", 9 sent, " in lines[-1]
    display.close()
    assert seen("\n".join(lines) + capsys.readouterr().out) == [""]


@pytest.mark.usefixtures("terminal")
def test_streams_that_failed_stand_first_and_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(App())
    for name in ("s5", "unread"):
        display(StreamStopped(block="load", stream=name, failure=Failure(message="no column id", code="x.y")))
    display(progress(70))
    out, err = capsys.readouterr()
    lines = seen(out)
    assert err.splitlines()[0].split() == ["load", "s5", "failed:", "no", "column", "id"]
    assert [line.split() for line in lines[:4]] == [
        ["BLOCK", "STREAM", "READ", "QUARANTINED"],
        ["load", "s5", "5", "0", "failed"],
        ["load", "unread", "0", "0", "failed"],
        ["load", "s3", "3", "2"],
    ]
    assert ", 2 failed, " in lines[-1]
    display(AttemptFailed(block="load", failure=Failure(message="2 streams failed", code="x.y"), delay=0.0))
    display(progress(4))
    assert "failed" not in capsys.readouterr().out
    display.close()


@pytest.mark.parametrize(
    ("streams", "words"), [([], "p"), (["s5"], "s5 failed: p"), (["s5", "s6", "s7"], "s5 and 2 more failed: p")]
)
def test_a_failed_attempt_names_the_streams_that_were_stopped(
    streams: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = Failure(message="p", code="x.y")
    Display(App())(AttemptFailed(block="load", failure=failure, delay=None, streams=streams))
    assert capsys.readouterr().err.split(maxsplit=1) == ["load", f"{words}\n"]


@pytest.mark.usefixtures("terminal")
def test_long_names_do_not_push_the_counts_out(capsys: pytest.CaptureFixture[str]) -> None:
    event = progress(4)
    event.streams[0] = {"block": "load" * 30, "stream": "orders" * 30, "read": 123_456_789, "quarantined": 7}
    Display(App())(event)
    (line,) = [line for line in seen(capsys.readouterr().out) if "orders" in line]
    assert len(line) < 80
    assert line.split()[2:] == ["123,456,789", "7"]


def test_without_colours_and_in_a_dumb_terminal(
    terminal: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    Display(App())(progress(4))
    assert not re.search(r"\x1b\[[0-9;]*m", capsys.readouterr().out)
    monkeypatch.setenv("TERM", "dumb")
    Display(App())(progress(4))
    assert capsys.readouterr().out == ""


def test_a_sensor_that_waits_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(App())
    display(RunPlanned(run_id="r", pipeline="p", blocks=["ask"]))
    for _ in range(3):
        display(SensorWaiting(block="ask", seconds=0.5))
    display.close()
    lines = capsys.readouterr().out.splitlines()
    (waiting,) = lines[1:]
    assert waiting.endswith("condition not met; checking every 0.5 s")
