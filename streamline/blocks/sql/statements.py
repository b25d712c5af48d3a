"""SQL text cut into statements, as the database's own client would cut it.

Semicolons in strings, quoted names, comments, dollar quotes and brackets end nothing; neither do those in the body of
a procedure, function or trigger. MySQL's `DELIMITER` is understood, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from streamline.project.suggest import words

_BACKSLASHES = ("mysql", "bigquery", "snowflake")
_HASH_COMMENTS = ("mysql", "bigquery")
_NESTED_COMMENTS = ("postgres", "duckdb")
_DOLLARS = ("postgres", "duckdb", "redshift", "snowflake")
_BRACKETS = ("sqlite", "sqlalchemy")
_BODIES = words("PROCEDURE FUNCTION TRIGGER EVENT PACKAGE")
# Words that open something that ends with END inside a body, where a statement can begin.
_OPENERS = words("IF LOOP WHILE REPEAT FOR")
_BEFORE_STATEMENT = words("BEGIN THEN ELSE DO LOOP REPEAT ROW ; : )")

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<line_comment>--[^\n]*)
    |(?P<block_comment>/\*)
    |(?P<escape>[eE]')
    |(?P<quote>['"`])
    |(?P<dollar>\$(?:[^\W\d]\w*)?\$)
    |(?P<word>[^\W\d][\w$]*)
    |(?P<number>\d[\w.]*)
    |(?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)

_QUERIES = words("SELECT WITH VALUES TABLE FROM (")
_NO_ROWS = words(
    "CREATE DROP ALTER SET RESET TRUNCATE GRANT REVOKE BEGIN START COMMIT END ROLLBACK SAVEPOINT RELEASE USE LOCK "
    "UNLOCK ATTACH DETACH VACUUM REINDEX CLUSTER COMMENT COPY LOAD INSTALL DECLARE CLOSE LISTEN NOTIFY DISCARD RENAME"
)
_CHANGES = words("INSERT UPDATE DELETE MERGE REPLACE UPSERT")
# What a database refuses inside a transaction, or what is one itself.
_ALONE = words("BEGIN START COMMIT END ROLLBACK SAVEPOINT RELEASE VACUUM REINDEX ATTACH DETACH PRAGMA CHECKPOINT LOCK")
_ALONE_PAIRS = {
    ("CREATE", "DATABASE"),
    ("DROP", "DATABASE"),
    ("CREATE", "TABLESPACE"),
    ("DROP", "TABLESPACE"),
    ("ALTER", "SYSTEM"),
    ("PREPARE", "TRANSACTION"),
}


class Statement(msgspec.Struct, frozen=True):
    """One statement.

    Args:
        text: without the semicolon, and without space and comments before it.
        line: the line of the text that it begins on, from 1.
        words: its words outside of strings, comments and brackets, in capitals; `(` where it begins with one.
        names: every word and quoted name in it, folded.
    """

    text: str
    line: int
    words: tuple[str, ...]
    names: frozenset[str]

    @property
    def is_select(self) -> bool:
        """Return whether it is a query that can stand inside another statement."""
        if not self.words or self.words[0] not in _QUERIES or "INTO" in self.words:
            return False
        return self.words[0] != "WITH" or not any(word in _CHANGES for word in self.words)

    @property
    def may_give_rows(self) -> bool:
        """Return whether it could give rows; False is certain."""
        if not self.words:
            return False
        changes = self.words[0] in _CHANGES or (self.words[0] == "WITH" and not self.is_select)
        return "RETURNING" in self.words if changes else self.words[0] not in _NO_ROWS

    @property
    def stands_alone(self) -> bool:
        """Return whether it cannot be part of a transaction that we open."""
        return bool(self.words) and (
            self.words[0] in _ALONE or self.words[:2] in _ALONE_PAIRS or "CONCURRENTLY" in self.words[:5]
        )


def split(text: str, dialect: str = "") -> list[Statement]:
    """Return the statements of a text; what holds nothing but space and comments is none.

    Args:
        dialect: a provider's name (`postgres`, `mysql`, `snowflake`, …).
    """
    return list(_Splitter(text, dialect).run())


class _Splitter:
    def __init__(self, text: str, dialect: str) -> None:
        self.text = text
        self.dialect = dialect
        self.at = 0
        self.delimiter = ";"
        self._clear()

    def _clear(self) -> None:
        self.start: int | None = None
        self.end = 0
        self.words: list[str] = []
        self.names: set[str] = set()
        self.depth = 0
        self.open: list[str] = []  # what END will close, in a body
        self.before = ";"

    def run(self) -> Iterator[Statement]:
        text = self.text
        while self.at < len(text):
            if self.start is None and self.dialect == "mysql" and self._delimiter_command():
                continue
            if text.startswith(self.delimiter, self.at) and self.depth <= 0 and not self.open:
                self.at += len(self.delimiter)
                yield from self._finish()
                continue
            match = _TOKEN.match(text, self.at)
            assert match is not None
            kind, token = match.lastgroup or "sign", match[0]
            if kind == "space" or self._comment(kind, token):
                self.at = max(self.at, match.end()) if kind == "space" else self.at
                continue
            if self.start is None:
                self.start = self.at
            self._take(kind, token, match.end())
            self.end = self.at
        yield from self._finish()

    def _finish(self) -> Iterator[Statement]:
        if self.start is not None:
            yield Statement(
                self.text[self.start : self.end],
                self.text.count("\n", 0, self.start) + 1,
                tuple(self.words),
                frozenset(self.names),
            )
        self._clear()

    def _comment(self, kind: str, token: str) -> bool:
        """Skip the comment that begins here, if one does."""
        if kind == "line_comment":
            # To MySQL `--` begins one only before space: `5--1` is 6.
            if self.dialect == "mysql" and len(token) > 2 and not token[2].isspace():
                return False
            self.at += len(token)
            return True
        if kind == "sign" and token == "#" and self.dialect in _HASH_COMMENTS:
            end = self.text.find("\n", self.at)
            self.at = len(self.text) if end < 0 else end
            return True
        if kind != "block_comment" or (self.dialect == "mysql" and self.text.startswith(("/*!", "/*M!"), self.at)):
            return False  # what `/*! … */` holds is run
        self._skip_block_comment()
        return True

    def _skip_block_comment(self) -> None:
        depth, at = 1, self.at + 2
        while depth and at < len(self.text):
            if self.text.startswith("*/", at):
                depth, at = depth - 1, at + 2
            elif self.dialect in _NESTED_COMMENTS and self.text.startswith("/*", at):
                depth, at = depth + 1, at + 2
            else:
                at += 1
        self.at = at

    def _take(self, kind: str, token: str, end: int) -> None:
        """Step over one token of a statement, and note what it tells."""
        if kind == "escape":
            backslashes = self.dialect == "postgres"
            if not backslashes:
                end = self.at + 1
                self._word(token[0])
                self.at = end
                return
            self.at = self._after_quoted("'", self.at + 2, backslashes=True)
        elif kind == "quote":
            inside = self.at + 1
            self.at = self._after_quoted(token, inside, backslashes=self.dialect in _BACKSLASHES and token != "`")
            if token != "'":
                self.names.add(self.text[inside : self.at - 1].replace(token * 2, token).casefold())
        elif kind == "dollar" and self.dialect in _DOLLARS:
            close = self.text.find(token, end)
            self.at = len(self.text) if close < 0 else close + len(token)
        elif kind == "word":
            self.at = end
            self._word(token)
            return
        elif token == "[" and self.dialect in _BRACKETS:
            close = self.text.find("]", end)
            self.at = len(self.text) if close < 0 else close + 1
            self.names.add(self.text[end : self.at - 1].casefold())
        elif kind == "block_comment":  # MySQL's /*! … */
            self._skip_block_comment()
        else:
            self.at = self.at + 1 if kind in ("sign", "line_comment", "dollar") else end
            token = token[0] if kind in ("line_comment", "dollar") else token
            if not self.words and not self.depth and token == "(":
                self.words.append(token)
            self.depth += (token in "([") - (token in ")]")
        self.before = token

    def _after_quoted(self, quote: str, at: int, *, backslashes: bool) -> int:
        text, length = self.text, len(self.text)
        while at < length:
            if backslashes and text[at] == "\\":
                at += 2
            elif text[at] != quote:
                at += 1
            elif text.startswith(quote * 2, at):
                at += 2
            else:
                return at + 1
        return length

    def _word(self, token: str) -> None:
        word = token.upper()
        self.names.add(token.casefold())
        if self.depth == 0:
            self.words.append(word)
        if self.words[:1] == ["CREATE"] and not _BODIES.isdisjoint(self.words[:8]):
            self._body(word)
        self.before = word

    def _body(self, word: str) -> None:
        """Keep account of what is open in a procedure's body."""
        if self.before == "END":
            # `END IF` and its like: what END has closed already. `END CASE` closes a CASE statement.
            return
        if word == "BEGIN":
            self.open.append(word)
        elif word == "CASE" and (self.open or self.before in _BEFORE_STATEMENT):
            self.open.append("CASE" if self.before in _BEFORE_STATEMENT and self.before != ")" else "EXPRESSION")
        elif word in _OPENERS and self.before in _BEFORE_STATEMENT and self.open[-1:] != ["EXPRESSION"]:
            # MySQL's bodies may be one IF or WHILE; IF(a, b, c) and REPEAT('x', 2) stand elsewhere.
            if word != "FOR" or self.open:
                self.open.append(word)
        elif word == "END" and self.open:
            self.open.pop()

    def _delimiter_command(self) -> bool:
        match = re.compile(r"[ \t]*delimiter[ \t]+(\S+)[ \t]*(?:\r?\n|$)", re.IGNORECASE).match(self.text, self.at)
        if match is None:
            return False
        self.delimiter = match[1]
        self.at = match.end()
        return True
