"""What reaches a terminal: no control characters of foreign text, and nothing that ends a command."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

import pytest

from streamline.cli.output import print_json
from streamline.cli.terminal import guard_streams, printable
from streamline.state.store import RunInfo
from tests.cli.conftest import Shop

HOSTILE = "a\x1b]52;c;aGk=\x07b\x1b[2J\x9b2Jc\rd\u202e"


class Tty(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def tty(encoding: str = "utf-8") -> Tty:
    return Tty(io.BytesIO(), encoding=encoding, write_through=True)


def test_control_characters_are_escaped_but_newlines_tabs_and_colours() -> None:
    assert printable(HOSTILE) == "a\\x1b]52;c;aGk=\\x07b\\x1b[2J\\x9b2Jc\\x0dd\\u202e"
    assert printable("a\n\tb \x1b[1;31mred\x1b[0m é 文") == "a\n\tb \x1b[1;31mred\x1b[0m é 文"


def test_the_logs_of_a_run_cannot_control_the_terminal(shop: Shop) -> None:
    store = shop.store()
    store.begin_run(RunInfo(run_id="r1", pipeline="shop"))
    store.finish_run("r1", "failed", {}, HOSTILE)
    store.close()
    folder = shop.root / ".streamline" / "runs" / "r1"
    folder.mkdir(parents=True)
    (folder / "run.log").write_text(f"{HOSTILE}\n")
    ours, theirs = pty.openpty()
    for command in (["runs", "logs"], ["runs", "show"]):
        argv = [sys.executable, "-m", "streamline", *command]
        subprocess.run(argv, cwd=shop.root, stdout=theirs, stderr=theirs, check=True)
        text = os.read(ours, 100_000)
        assert b"a\\x1b]52;c;aGk=\\x07b" in text
        assert b"\x1b]" not in text
        assert b"\x1b[2J" not in text
    os.close(ours)
    os.close(theirs)
    assert shop("runs", "logs").stdout.startswith("a\x1b]52;")  # a pipe gets the bytes


def test_json_in_a_terminal_is_escaped_and_means_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = tty()
    monkeypatch.setattr(sys, "stdout", stream)
    print_json({"v": "\x9b2J\x1b\x7f é"})
    written = stream.detach()
    assert isinstance(written, io.BytesIO)
    assert written.getvalue() == '{"v":"\\u009b2J\\u001b\\u007f é"}\n'.encode()


def test_a_stream_that_cannot_show_a_character_gets_its_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = {"stdout": io.TextIOWrapper(io.BytesIO(), "cp1252", write_through=True), "stderr": tty("ascii")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    guard_streams()
    print("a → b")
    print("é\x1b[2J", file=sys.stderr)
    out, err = (stream.detach() for stream in streams.values())
    assert isinstance(out, io.BytesIO)
    assert isinstance(err, io.BytesIO)
    assert out.getvalue() == b"a \\u2192 b\n"
    assert err.getvalue() == b"\\xe9\\x1b[2J\n"
