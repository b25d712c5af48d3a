"""Quote the bare lambda in `{{ block_output('uuid', parse=lambda data, vars: …) }}`, which Jinja cannot parse.

It becomes the string that `parse=` accepts. The number of lines stays the same.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from streamline.errors import ConfigError
from streamline.project.templates import template_end

if TYPE_CHECKING:
    from jinja2 import nodes

_OPENING = re.compile(r"\{\{|\{%")
_BARE = re.compile(r"(?<![\w.])parse\s*=\s*(?=lambda\b)")


def quote_lambdas(text: str) -> str:
    """Return `text` with quotes around every bare `parse=lambda …` in `{{ … }}` or `{% … %}`."""
    if "lambda" not in text:
        return text
    out: list[str] = []
    at = 0
    while opening := _OPENING.search(text, at):
        start = opening.start()
        end = template_end(text, start) if opening[0] == "{{" else text.find("%}", start) + 2
        if end < start + 2:
            break
        out += [text[at:start], _quoted(text[start:end])]
        at = end
    return "".join([*out, text[at:]])


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


def _quoted(template: str) -> str:
    out: list[str] = []
    at = 0
    for match in _BARE.finditer(template):
        source = _lambda_at(template, match.end())
        if match.start() < at or source is None:
            continue  # inside one that was quoted, or a syntax error, which Jinja reports
        # In brackets it may go over several lines, as it could where it stood. Backslashes are escapes in Jinja, too.
        escaped = source.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
        out += [template[at : match.end()], f"'({escaped})'", "\n" * source.count("\n")]
        at = match.end() + len(source)
    return "".join([*out, template[at:]])


def _lambda_at(text: str, start: int) -> str | None:
    """Return the lambda at `start`: up to the first comma or closing bracket that completes it."""
    for end in re.compile(r"[,)\]}]").finditer(text, start):
        source = text[start : end.start()].rstrip()
        try:
            ast.parse(f"({source})", mode="eval")
        except (SyntaxError, ValueError):
            continue
        return source
    return None
