"""What a run shows in a terminal while it works."""

from __future__ import annotations

import re

import pytest

from streamline.cli.app import App
from streamline.cli.progress import Display
from streamline.execution.events import ProgressMade, RunPlanned, SensorWaiting


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


def progress(streams: int) -> ProgressMade:
    counts = [{"block": "load", "stream": f"s{number}", "read": number, "quarantined": 0} for number in range(streams)]
    counts[3]["quarantined"] = 2
    total = sum(range(streams))
    return ProgressMade(records=total, quarantined=2, streams=counts, tables=[], seconds=3.0)


@pytest.mark.usefixtures("terminal")
def test_the_total_of_many_streams_is_seen_with_the_busiest(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(App())
    display(progress(70))
    display(progress(70))
    lines = seen(capsys.readouterr().out)
    assert len(lines) < 24
    assert lines[0].split() == ["BLOCK", "STREAM", "READ", "SENT"]
    assert lines[1].split()[1] == "s3", "records were refused"
    assert lines[2].split()[1] == "s69"
    assert lines[-2].startswith("and 50 more streams: ")
    assert lines[-1].startswith("2,415 records read")
    display.close()
    assert seen("\n".join(lines) + capsys.readouterr().out) == [""]


def test_a_sensor_that_waits_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(App())
    display(RunPlanned(run_id="r", pipeline="p", blocks=["ask"]))
    for _ in range(3):
        display(SensorWaiting(block="ask", seconds=0.5))
    display.close()
    lines = capsys.readouterr().out.splitlines()
    (waiting,) = lines[1:]
    assert waiting.endswith("condition not met; checking every 0.5 s")
