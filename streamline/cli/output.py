"""Prints for commands: tables in a terminal, plain lines in a pipe, JSON for programs."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

if TYPE_CHECKING:
    from streamline.processes.job import Failure

Function = TypeVar("Function", bound=Callable[..., Any])

_SHORT = 24
"""Columns of a table up to this width are not wrapped, if there is room."""


def json_option(function: Function) -> Function:
    """Add `--json`, passed to the command as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.", callback=_note_json)(
        function
    )


def _note_json(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    """Note that the command's errors are to be printed as JSON, too."""
    if context.obj is not None:  # the App
        context.obj.as_json = value
    return value


def say(text: str, *, err: bool = False) -> None:
    """Print a line. If stdout is closed (`streamline run p | head`), work continues silently."""
    try:
        click.echo(text, err=err)
    except OSError:
        _hush(sys.stderr if err else sys.stdout)


def _hush(stream: TextIO) -> None:
    """Redirect a stream to /dev/null, so that the interpreter's flush at exit does not fail either."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def is_terminal(stream: TextIO | None = None) -> bool:
    """Return whether `stream` (by default stdout) is a terminal."""
    # A process may be started with its standard output closed; then there is no stream at all.
    stream = stream or sys.stdout
    return stream is not None and stream.isatty()


def has_colour(stream: TextIO) -> bool:
    """Return whether to use colours on `stream` (https://no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_json(value: Any) -> None:
    """Print a value as one line of JSON; a list with one line per element.

    Structs, dates and decimals are supported. `msgspec.Raw` members are printed byte for byte.
    """
    import msgspec

    encoder = msgspec.json.Encoder(decimal_format="number")
    if isinstance(value, list) and value:
        text = b"[\n" + b",\n".join(encoder.encode(element) for element in value) + b"\n]"
    else:
        text = encoder.encode(value)
    click.echo(text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "") -> None:
    """Print a table.

    A terminal gets a table cut to its width; a pipe gets lines with columns aligned by spaces, nothing cut.

    Args:
        rows: cells are shown by `cell`.
        empty: printed on stderr if there are no rows.
    """
    cells = [[cell(value) for value in row] for row in rows]
    if not cells:
        if empty:
            click.echo(empty, err=True)
        return
    if is_terminal():
        _print_rich(columns, cells)
        return
    for line in aligned([list(columns), *cells]):
        click.echo(line)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format rows as lines with columns aligned by spaces."""
    widths = [max(map(columns_of, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(padded, row, widths)).rstrip() for row in rows]


def columns_of(text: str) -> int:
    """Return the width of a text in a terminal: Chinese, Japanese and Korean characters take two columns."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(sign) else 2 if east_asian_width(sign) in "WF" else 1 for sign in text)


def padded(text: str, width: int) -> str:
    """Pad a text with spaces to `width` columns."""
    return text + " " * (width - columns_of(text))


def cut(text: str, width: int) -> str:
    """Cut a text to `width` columns, with `…` for the rest."""
    if columns_of(text) <= width:
        return text
    while text and columns_of(text) > width - 1:
        text = text[:-1]
    return f"{text}…"


def cell(value: object) -> str:
    """Format a value for a table: one line, without control characters."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(cell(item) for item in value) or "-"
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else {"\n": " ", "\t": " "}.get(c, f"\\x{ord(c):02x}") for c in text)


def moment(time: str | None) -> str | None:
    """Format a stored time to the second, in the local time zone."""
    if not time:
        return None
    from datetime import datetime

    return f"{datetime.fromisoformat(time).astimezone():%Y-%m-%d %H:%M:%S}"


def count(number: int, one: str, many: str | None = None) -> str:
    """Format a number with its noun: `1 record`, `2,000 records`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _print_rich(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, no_color=not has_colour(sys.stdout))
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    # What is short stays on one line, what is long gives way; but a column that may not wrap is cut where even the
    # short ones do not fit.
    needed = sum(width if width <= _SHORT else _SHORT for width in widths) + 3 * len(widths)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name, width in zip(columns, widths, strict=True):
        table.add_column(name, overflow="fold", no_wrap=width <= _SHORT and needed <= console.width)
    for row in cells:
        table.add_row(*(Text(text) for text in row))
    console.print(table)


def failure_json(failure: Failure, mask: Callable[[str], str]) -> dict[str, Any]:
    """Return a failure as JSON values, masked."""
    return {
        "code": failure.code,
        "message": mask(failure.message),
        "where": failure.where,
        "hint": failure.hint,
        "trace": mask(failure.trace) if failure.trace else None,
    }
