"""Quote the bare lambda in `{{ block_output('uuid', parse=lambda data, vars: …) }}`, which Jinja cannot parse.

It becomes the string that `parse=` accepts. The number of lines stays the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from streamline.errors import ConfigError
from streamline.project.templates import template_end

if TYPE_CHECKING:
    from jinja2 import nodes

_BARE = re.compile(r"(?<![\w.])parse\s*=\s*(?=lambda\b)")


def quote_lambdas(text: str) -> str:
    """Return `text` with quotes around every bare `parse=lambda …` in `{{ … }}` or `{% … %}`."""
    if "lambda" not in text:
        return text
    out: list[str] = []
    at = 0
    while True:
        start = _next_template(text, at)
        if start < 0:
            return "".join([*out, text[at:]])
        end = template_end(text, start) if text.startswith("{{", start) else _block_end(text, start)
        if end < 0:
            return "".join([*out, text[at:]])
        out += [text[at:start], _quoted(text[start:end])]
        at = end


def parse_template(text: str, where: Callable[[int], str]) -> nodes.Template:
    """Parse a text with templates.

    Args:
        where: returns the location of a line for errors.

    Raises:
        ConfigError: the template has a syntax error.
    """
    from jinja2 import Environment
    from jinja2.exceptions import TemplateSyntaxError

    try:
        return Environment().parse(quote_lambdas(text))
    except TemplateSyntaxError as error:
        raise ConfigError(
            f"template syntax error: {error.message}",
            where=where(error.lineno),
            hint="check the quotes and brackets inside {{ … }}",
            code="template.syntax",
        ) from None


def _next_template(text: str, at: int) -> int:
    starts = [start for mark in ("{{", "{%") if (start := text.find(mark, at)) >= 0]
    return min(starts, default=-1)


def _block_end(text: str, start: int) -> int:
    end = text.find("%}", start)
    return end + 2 if end >= 0 else -1


def _quoted(template: str) -> str:
    out: list[str] = []
    at = 0
    for match in _BARE.finditer(template):
        if match.start() < at:
            continue  # inside of one that was quoted
        end = _lambda_end(template, match.end())
        source = template[match.end() : end].rstrip()
        # In brackets it may go over several lines, as it could where it stood.
        literal = _literal(f"({source})")
        out += [template[at : match.end()], literal, "\n" * source.count("\n")]
        at = match.end() + len(source)
    return "".join([*out, template[at:]])


def _lambda_end(text: str, at: int) -> int:
    """Where the lambda ends that begins at `at`: at a comma after its colon, or at a bracket that it did not open."""
    depth = 0
    in_body = False
    while at < len(text):
        char = text[at]
        if char in "'\"":
            at = _after_string(text, at)
            continue
        if char in "([{":
            depth += 1
        elif char in ")]}":
            if depth == 0:
                return at
            depth -= 1
        elif char == ":" and depth == 0:
            in_body = True
        elif char == "," and depth == 0 and in_body:
            return at
        at += 1
    return at


def _after_string(text: str, at: int) -> int:
    quote = text[at : at + 3] if text[at : at + 3] in ("'''", '"""') else text[at]
    at += len(quote)
    while at < len(text) and not text.startswith(quote, at):
        at += 2 if text[at] == "\\" else 1
    return at + len(quote)


def _literal(source: str) -> str:
    """A string as Jinja writes it: backslashes are its escapes, too."""
    escaped = source.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
    return f"'{escaped}'"
