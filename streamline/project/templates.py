"""Finding `{{ … }}` in text, the way that Jinja's lexer ends them."""

from __future__ import annotations

_CLOSING = {")": "(", "]": "[", "}": "{"}


def template_end(text: str, start: int) -> int:
    """Index just after the `}}` that ends the template which begins at `start`; -1 if it is not ended.

    As in Jinja, `}}` inside a string or inside brackets that the expression opened itself ends nothing.
    """
    i = start + 2
    open_brackets = 0
    length = len(text)
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
    """The expression inside `text` if it is exactly one `{{ … }}` with nothing but space around, else None."""
    body = text.strip()
    if not body.startswith("{{") or template_end(body, 0) != len(body):
        return None
    return body[2:-2].removeprefix("-").removeprefix("+").removesuffix("-").removesuffix("+").strip()
