"""Print for commands: tables, plain lines, JSON for programs."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

if TYPE_CHECKING:
    from streamline.processes.job import Failure

_lost: list[OSError] = []

Function = TypeVar("Function", bound=Callable[..., Any])


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
    """Print a line. If that fails (`streamline run p | head`, a full disk), work continues; see `lost_output`."""
    try:
        click.echo(text, err=err)
    except OSError as error:
        if not err and error.errno != errno.EPIPE:
            _lost.append(error)
        _hush(sys.stderr if err else sys.stdout)


def lost_output() -> OSError | None:
    """Return once why lines of stdout were lost, if they were; a reader that is gone wants none."""
    error = _lost[0] if _lost else None
    _lost.clear()
    return error


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
    if is_terminal():
        import re

        # Raw members, and what JSON leaves as it is, may control the terminal.
        text = re.sub(rb"[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]", lambda sign: b"\\u%04x" % sign[0][-1], text)
    click.echo(text)


def masked(text: str) -> str:
    """Mask the secrets that the running command has read."""
    context = click.get_current_context(silent=True)
    return text if context is None or context.obj is None else str(context.obj.mask(text))


def masked_values(value: Any) -> Any:
    """Mask the strings in a JSON value: a setting, a bookmark or a command may contain secrets."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, list):
        return [masked_values(each) for each in value]
    if isinstance(value, dict):
        return {key: masked_values(each) for key, each in value.items()}
    return value


def print_diff(before: str, after: str, shown: str) -> bool:
    """Print the change of a file as a unified diff, with the secrets masked; return whether there is one."""
    import difflib

    lines = [text.splitlines(keepends=True) for text in (before, after)]
    diff = "".join(difflib.unified_diff(lines[0], lines[1], shown, shown))
    click.echo(masked(diff), nl=False)
    return bool(diff)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "") -> None:
    """Print a table with columns aligned by spaces.

    In a terminal that is too narrow, the widest columns move to lines of their own below their row. A pipe gets one
    line for each row. Nothing is cut.

    Args:
        rows: cells are shown by `cell`, masked.
        empty: printed on stderr if there are no rows.
    """
    cells = [[masked(cell(value)) for value in row] for row in rows]
    if not cells:
        if empty:
            click.echo(empty, err=True)
        return
    if not is_terminal():
        click.echo("\n".join(aligned([columns, *cells])))
        return
    head, *lines = fitted(columns, cells)
    click.echo("\n".join([click.style(head, bold=True) if has_colour(sys.stdout) else head, *lines]))


def fitted(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Format a table for a terminal of this width. Empty columns are left out, words are not broken."""
    widths = [max(map(columns_of, column)) for column in zip(columns, *rows, strict=True)]
    beside = [at for at in range(len(columns)) if not at or any(row[at] not in ("", "-") for row in rows)]
    while len(beside) > 1 and sum(widths[at] + 2 for at in beside) - 2 > shutil.get_terminal_size().columns:
        beside.remove(max(beside[1:], key=widths.__getitem__))
    head, *lines = aligned([[row[at] for at in beside] for row in (columns, *rows)])
    result = [head]
    for row, line in zip(rows, lines, strict=True):
        result.append(line)
        below = [f"{name.lower()}: {row[at]}" for at, name in enumerate(columns) if at not in beside]
        text = " · ".join(part for part in below if not part.endswith((": -", ": ")))
        result += _wrapped(text, "    ", "    ")
    return result


def print_text(text: str) -> None:
    """Print text, masked; in a terminal its lines are wrapped between words, and the rest indented."""
    for line in masked(text).split("\n"):
        indent = " " * (len(line) - len(line.lstrip()) + 4)
        click.echo("\n".join(_wrapped(line, indent)) if is_terminal() and line else line)


def _wrapped(line: str, indent: str, first: str = "") -> list[str]:
    width = shutil.get_terminal_size().columns
    return textwrap.wrap(
        line, width, initial_indent=first, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


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
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(cell(item) for item in value) or "-"
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else {"\n": " ", "\t": " "}.get(c, f"\\x{ord(c):02x}") for c in text)


def moment(time: str | None) -> str | None:
    """Format a stored time to the second, in UTC as in logs and run ids: `2026-01-02 03:04:05Z`."""
    if not time:
        return None
    from datetime import UTC, datetime

    return f"{datetime.fromisoformat(time).astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def count(number: int, one: str, many: str | None = None) -> str:
    """Format a number with its noun: `1 record`, `2,000 records`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def failure_json(failure: Failure, mask: Callable[[str], str]) -> dict[str, Any]:
    """Return a failure as JSON values, masked."""
    return {
        "code": failure.code,
        "message": mask(failure.message),
        "where": failure.where and mask(failure.where),
        "hint": failure.hint and mask(failure.hint),
        "trace": mask(failure.trace) if failure.trace else None,
    }
