"""Find `{{ … }}` in text, with the end that Jinja's lexer would find."""

from __future__ import annotations

_CLOSING = {")": "(", "]": "[", "}": "{"}


def template_end(text: str, start: int, stop: int | None = None) -> int:
    """Return the index after the `}}` of the template that begins at `start`; -1 if it has no end before `stop`.

    As in Jinja, `}}` in a string or in brackets of the expression does not end the template.
    """
    i = start + 2
    open_brackets = 0
    length = len(text) if stop is None else min(stop, len(text))
    if text.find("}}", i, length) < 0:
        return -1
    while i < length:
        char = text[i]
        if char in "'\"":
            i += 1
            while i < length and text[i] != char:
                i += 2 if text[i] == "\\" else 1
        elif char in "([{":
            open_brackets += 1
        elif char == "}" and open_brackets == 0:
            if text.startswith("}}", i):
                return i + 2
        elif char in _CLOSING:
            open_brackets -= 1
        i += 1
    return -1


def single_expression(text: str) -> str | None:
    """Return the expression if `text` is a single `{{ … }}` with optional whitespace around it, else None."""
    body = text.strip()
    if not body.startswith("{{") or template_end(body, 0) != len(body):
        return None
    return body[2:-2].removeprefix("-").removeprefix("+").removesuffix("-").removesuffix("+").strip()
