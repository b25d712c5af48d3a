"""What is printed where: tables, plain lines, JSON."""

from __future__ import annotations

import json
from decimal import Decimal

import click
import pytest
from msgspec import Raw

from streamline.cli.app import App
from streamline.cli.output import (
    cell,
    count,
    cut,
    failure_json,
    has_colour,
    moment,
    print_json,
    print_table,
    print_text,
)
from streamline.processes.job import Failure
from tests.cli.conftest import Shop


def test_a_pipe_gets_aligned_lines_with_nothing_cut(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["NAME", "VALUE"], [["a", "x" * 300], ["longer", None], ["żółw", 1.25]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "NAME    VALUE"
    assert lines[1] == "a       " + "x" * 300
    assert lines[2:] == ["longer  -", "żółw    1.25"]
    assert "\x1b" not in "".join(lines)


def in_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))


def test_in_a_narrow_terminal_long_columns_stand_below_their_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_terminal(monkeypatch, 40)
    why = "a sentence of several words, none of which is broken"
    print_table(["NAME", "WHY", "SIZE", "NOTE"], [["a", why, 1, "[b]n[/b]"], ["b", None, 2, "n" * 40]])
    assert capsys.readouterr().out.splitlines() == [
        "NAME  SIZE",
        "a     1",
        "    why: a sentence of several words,",
        "    none of which is broken · note:",
        "    [b]n[/b]",
        "b     2",
        "    note:",
        "    " + "n" * 40,
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 110, 200])
def test_a_table_that_is_too_wide_loses_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    in_terminal(monkeypatch, width)
    letters = "ABCDEFGHI"
    print_table([f"XX {letter}" for letter in letters], [[letter.lower() * 18 for letter in letters]])
    out = capsys.readouterr().out
    assert all(out.count(letter.lower() * 18) == 1 for letter in letters)
    assert max(map(len, out.splitlines())) <= width


def test_wide_signs_take_two_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["NAME", "VALUE"], [["注文", 1], ["e\u0301te", 2]])
    assert capsys.readouterr().out.splitlines() == ["NAME  VALUE", "注文  1", "e\u0301te   2"]


def test_cut() -> None:
    assert (cut("abc", 3), cut("abcd", 3), cut("注文です", 5)) == ("abc", "ab…", "注文…")


def test_no_rows_say_so_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["A"], [], empty="Nothing.")
    print_table(["A"], [])
    assert capsys.readouterr() == ("", "Nothing.\n")


def test_cells_hold_nothing_that_a_terminal_obeys() -> None:
    assert cell("a\nb\x1b[31mc\u202e") == "a b\\x1b[31mc\\x202e"
    assert cell(["x", "y"]) == "x, y"
    assert (cell([]), cell(None), cell(True), cell(7)) == ("-", "-", "yes", "7")


def test_json_keeps_raw_members_and_decimals(capsys: pytest.CaptureFixture[str]) -> None:
    print_json([{"value": Raw(b'{"b":  1, "a": NaN}')}, {"value": Decimal("0.10")}])
    assert capsys.readouterr().out == '[\n{"value":{"b":  1, "a": NaN}},\n{"value":0.10}\n]\n'
    print_json([])
    print_json({"ż": [1, None]})
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [[], {"ż": [1, None]}]


def test_words_for_numbers_and_times(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (count(1, "record"), count(2000, "record"), count(0, "entry", "entries")) == (
        "1 record",
        "2,000 records",
        "0 entries",
    )
    assert moment(None) is None
    assert moment("2026-01-02T03:04:05.678+02:00") == "2026-01-02 01:04:05Z"


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    assert not has_colour(sys.stdout)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert has_colour(sys.stdout)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not has_colour(sys.stdout)


def test_tables_and_texts_are_masked(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    app = App(str(shop.root))
    app.project.secrets.masker.add("hunter2-hunter2")
    with click.Context(click.Command("x"), obj=app):
        print_table(["STREAM", "TABLE"], [["orders", "t_hunter2-hunter2"]])
        print_text("to hunter2-hunter2")
    out = capsys.readouterr().out
    assert "t_********" in out
    assert "hunter2" not in out


def test_a_failure_as_json_is_masked_whole() -> None:
    failure = Failure(message="m s3cret", where="w s3cret", hint="h s3cret", trace="t s3cret")
    shown = failure_json(failure, lambda text: text.replace("s3cret", "***"))
    assert "s3cret" not in json.dumps(shown)
