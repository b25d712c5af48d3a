"""Quote unquoted `{{ … }}` values before a text is parsed as YAML.

Mage accepts `port: {{ env_var('PORT') }}`, which YAML parses as a mapping in a mapping. The scanner below knows enough
YAML to distinguish plain values from comments, quoted strings and block scalars. It changes nothing else, and never the
number of lines.
"""

from __future__ import annotations

from streamline.project.templates import template_end

_SPACE = " \t"
_LINE_END = "\r\n"
_LONGEST_BROKEN = 1000
"""Characters within which a template ends, where one before it had no end: looking to the end each time is slow."""


def quote_templates(text: str) -> str:
    """Return `text` with single quotes around plain values that YAML cannot parse because of `{{ … }}`."""
    if "{{" not in text:
        return text
    return _Scanner(text).run()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.out: list[str] = []
        self.copied = 0  # text up to here is in `out`
        self.at = 0
        self.flow_depth = 0
        self.parent_column = -1  # column of the block collection whose value comes next
        self.plain_open = False  # a plain value may continue on the next line
        self.broken = False  # a template had no end

    def run(self) -> str:
        text, length = self.text, len(self.text)
        while self.at < length:
            line_start = self.at == 0 or text[self.at - 1] == "\n"
            self._skip(_SPACE)
            if self.at >= length:
                break
            char = text[self.at]
            if char in _LINE_END:
                self.at += 1
                continue
            if char == "#" and (self.at == 0 or text[self.at - 1] in " \t\n"):
                self.plain_open = False
                self._skip_line()
                continue
            if line_start and self.flow_depth == 0:
                column = self._column(self.at)
                if column == 0 and text[self.at : self.at + 3] in ("---", "..."):
                    self.parent_column, self.plain_open = -1, False
                    self.at += 3
                    continue
                if self.plain_open and column > self.parent_column:
                    self._skip_line()  # a continuation line, in which braces are plain text
                    continue
                self.parent_column = min(self.parent_column, column - 1)
            self.plain_open = False
            self._token(char)
        self.out.append(text[self.copied :])
        return "".join(self.out)

    def _token(self, char: str) -> None:
        text = self.text
        after = text[self.at + 1 : self.at + 2]
        if char in "-?" and self.flow_depth == 0 and after in " \t\r\n":
            self.parent_column = self._column(self.at)
            self.at += 1
        elif char in "!&" or (char == "*" and after not in _SPACE):
            while self.at < len(text) and text[self.at] not in " \t\r\n,]}":
                self.at += 1
        elif char in "'\"":
            start = self.at
            self._skip_quoted(char)
            self._maybe_key(start)
        elif char in "|>" and self.flow_depth == 0:
            self._skip_block_scalar()
        elif char in "[{" and self._template_end() < 0:
            self.flow_depth += 1
            self.at += 1
        elif char in "]}" and self.flow_depth:
            self.flow_depth -= 1
            self.at += 1
        elif (char == "," and self.flow_depth) or (char == ":" and (after in " \t\r\n" or self.flow_depth)):
            self.at += 1
        else:
            self._plain()

    def _plain(self) -> None:
        """Read a plain scalar: up to `: `, ` #`, the end of the line or, in a flow collection, an indicator."""
        text, length, start = self.text, len(self.text), self.at
        templates = hard = False
        while self.at < length:
            char = text[self.at]
            if (end := self._template_end()) > 0:
                inside = text[self.at : end]
                templates = True
                hard = hard or ": " in inside or " #" in inside or "\n" in inside
                self.at = end
                continue
            after = text[self.at + 1 : self.at + 2]
            if char in _LINE_END or (char in _SPACE and after == "#"):
                break
            if char == ":" and (after in " \t\r\n" or (self.flow_depth and after in ",[]{}")):
                break
            if self.flow_depth and char in ",[]{}":
                break
            self.at += 1
        end = start + len(text[start : self.at].rstrip(" \t"))
        is_key = self._maybe_key(start)
        if templates and (self.flow_depth or hard or text.startswith("{{", start)):
            self._quote(start, end)
        elif not is_key:
            self.plain_open = self.flow_depth == 0

    def _template_end(self) -> int:
        """Return the end of the template that begins here; -1 if none does."""
        if not self.text.startswith("{{", self.at):
            return -1
        end = template_end(self.text, self.at, self.at + _LONGEST_BROKEN if self.broken else None)
        self.broken = self.broken or end < 0
        return end

    def _maybe_key(self, start: int) -> bool:
        """Return whether the scalar from `start` to here is a key; remember the column of a block mapping's key."""
        i = self.at
        while i < len(self.text) and self.text[i] in _SPACE:
            i += 1
        after = self.text[i + 1 : i + 2]
        if self.text[i : i + 1] != ":" or after not in " \t\r\n":
            return False
        if self.flow_depth == 0:
            self.parent_column = self._column(start)
        return True

    def _quote(self, start: int, end: int) -> None:
        self.out.append(self.text[self.copied : start])
        self.out.append("'" + self.text[start:end].replace("'", "''") + "'")
        self.copied = end

    def _skip(self, chars: str) -> None:
        while self.at < len(self.text) and self.text[self.at] in chars:
            self.at += 1

    def _skip_line(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end + 1

    def _skip_quoted(self, quote: str) -> None:
        text, length = self.text, len(self.text)
        self.at += 1
        while self.at < length:
            char = text[self.at]
            if (char == "\\" and quote == '"') or (quote == "'" and text.startswith("''", self.at)):
                self.at += 2
            elif char == quote:
                self.at += 1
                return
            else:
                self.at += 1

    def _skip_block_scalar(self) -> None:
        """Skip the header line, and all lines that are blank or indented deeper than the parent."""
        self._skip_line()
        text = self.text
        while self.at < len(text):
            end = text.find("\n", self.at)
            end = len(text) if end < 0 else end + 1
            line = text[self.at : end]
            if line.strip() and len(line) - len(line.lstrip(" ")) <= self.parent_column:
                return
            self.at = end

    def _column(self, index: int) -> int:
        return index - (self.text.rfind("\n", 0, index) + 1)
