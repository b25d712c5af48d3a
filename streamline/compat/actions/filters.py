"""Filters: `(brand != null and value > 60) or "long name" contains 'x'`.

A clause is a column, an operator and a value or another column; names and texts that hold spaces or signs are quoted.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"[^"]*"|'[^']*'|`[^`]*`)|(?P<sign>==|!=|<=|>=|<|>|[()&|~])|(?P<word>[^\s()"'`=!<>&|~]+))"""
)
_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_LITERALS = {"true": True, "True": True, "false": False, "False": False}
_NULLS = ("null", "None")


class _Token(NamedTuple):
    kind: str
    text: str


def matches(df: pd.DataFrame, code: str) -> pd.Series[bool]:
    """Return which rows pass a filter.

    Raises:
        ValueError: it is no filter, or names a column that is not there; the message says where.
        TypeError: `contains` of a column that holds no text.
    """
    return _Parser(df, code).parse()


class _Parser:
    """Recursive descent: or, and, not, clause."""

    def __init__(self, df: pd.DataFrame, code: str) -> None:
        self.df = df
        self.code = code
        self.tokens = _tokens(code)
        self.place = 0

    def parse(self) -> pd.Series[bool]:
        mask = self._any()
        if self.place < len(self.tokens):
            raise self._wrong("'and' or 'or'")
        return mask.astype(bool)

    def _any(self) -> pd.Series[bool]:
        mask = self._all()
        while self._take("or", "|"):
            mask = mask | self._all()
        return mask

    def _all(self) -> pd.Series[bool]:
        mask = self._not()
        while self._take("and", "&"):
            mask = mask & self._not()
        return mask

    def _not(self) -> pd.Series[bool]:
        if self._take("not", "~"):
            return ~self._not()
        if self._take("("):
            mask = self._any()
            if not self._take(")"):
                raise self._wrong("')'")
            return mask
        return self._clause()

    def _clause(self) -> pd.Series[bool]:
        column = self._column()
        if self._take("contains"):
            return self._contains(column)
        if self._take("not"):
            if not self._take("contains"):
                raise self._wrong("'contains'")
            return ~self._contains(column)
        token = self._next("an operator (==, !=, <, <=, >, >=, contains, not contains)")
        if token.kind != "sign" or token.text not in _COMPARE:
            self.place -= 1
            raise self._wrong("an operator (==, !=, <, <=, >, >=, contains, not contains)")
        value = self._next("a value or a column")
        if value.kind == "word" and value.text in _NULLS and token.text in ("==", "!="):
            missing = _missing(column)
            return missing if token.text == "==" else ~missing
        compared = _COMPARE[token.text](column, self._value(value))
        mask: pd.Series[bool] = compared.fillna(False).astype(bool)
        return mask

    def _contains(self, column: pd.Series[Any]) -> pd.Series[bool]:
        from streamline.compat.actions.columns import first_value

        part = self._next("a text")
        if not isinstance(first_value(column[column != ""]), str):
            raise TypeError(f"'contains' is for columns of text, and '{column.name}' holds none")
        return column.str.contains(_bare(part), na=False).astype(bool)

    def _column(self) -> pd.Series[Any]:
        token = self._next("a column")
        name = _bare(token)
        if token.kind == "sign" or name not in self.df.columns:
            from streamline.project.suggest import suggestion

            hint = suggestion(name, list(map(str, self.df.columns)), what="the columns")
            raise ValueError(f"filter {self.code!r}: there is no column {name!r}; {hint}")
        column: pd.Series[Any] = self.df[name]
        return column

    def _value(self, token: _Token) -> Any:
        if token.kind == "sign":
            self.place -= 1
            raise self._wrong("a value or a column")
        name = _bare(token)
        if name in self.df.columns:
            return self.df[name]
        if token.kind == "text":
            return name
        if name in _LITERALS:
            return _LITERALS[name]
        for kind in (int, float):
            try:
                return kind(name)
            except ValueError:
                pass
        self.place -= 1
        raise self._wrong("a number, True, False, null, a quoted text or a column")

    def _next(self, wanted: str) -> _Token:
        if self.place >= len(self.tokens):
            raise self._wrong(wanted)
        self.place += 1
        return self.tokens[self.place - 1]

    def _take(self, *texts: str) -> bool:
        if self.place < len(self.tokens):
            token = self.tokens[self.place]
            if token.kind != "text" and token.text in texts:
                self.place += 1
                return True
        return False

    def _wrong(self, wanted: str) -> ValueError:
        there = f"{self.tokens[self.place].text!r}" if self.place < len(self.tokens) else "its end"
        return ValueError(f"filter {self.code!r}: {wanted} was expected, not {there}")


def _tokens(code: str) -> list[_Token]:
    tokens, place = [], 0
    code = code.rstrip()
    while place < len(code):
        match = _TOKEN.match(code, place)
        if match is None:
            raise ValueError(f"filter {code!r}: cannot be read from {code[place:].strip()!r} on")
        kind = match.lastgroup or ""
        tokens.append(_Token(kind, match[kind]))
        place = match.end()
    return tokens


def _bare(token: _Token) -> str:
    return token.text[1:-1] if token.kind == "text" else token.text


def _missing(column: pd.Series[Any]) -> pd.Series[bool]:
    """Return which values are missing or empty text."""
    return (column.isna() | column.eq("").fillna(False)).astype(bool)
