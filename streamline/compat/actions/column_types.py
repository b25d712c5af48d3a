"""What the values of a column are taken for, from their dtype, their look, and the column's name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd
from pandas.api import types

from streamline.compat.actions.constants import NUMBER_TYPES, ColumnType

SAMPLE_ROWS = 100_000
MANY_CATEGORIES = 255
LONG_TEXT_WORDS = 40

_PHONE_NAMES = ("phone", "landline")
_ZIP_NAMES = ("zip", "postal", "zipcode", "postcode")

_BEFORE = r"(?:[$€¥₹£]|Rs|CAD)?\s*"
_AFTER = r"\s*(?:[元€$]|CAD)?"
_DIGITS = r"(?:\d+(?:,\d+)*)?"
_INTEGER = rf"-?\s*(?:{_BEFORE}{_DIGITS}(?:\.0*)?|{_DIGITS}(?:\.0*)?{_AFTER})"
_NUMBER = rf"-?\s*(?:{_BEFORE}{_DIGITS}(?:\.\d*)?|{_DIGITS}(?:\.\d*)?{_AFTER})\s*%?"
_EMAIL = r"[a-zA-Z0-9_.+#-]+@[a-zA-Z0-9-]+\.[a-zA-Z0-9.-]+"
_PHONE = r"\s*\+?(?:\d{1,3})?[-. (]*\d{3}[-. )]*\d{3}[-. ]*\d{4}(?: *x\d+)?\s*"
_ZIP = r"\d{3,5}(?:[-\s]\d{4})?"
_LIST = r"[\[(][^\n\r]*[\])]"
_MONTH = (
    "(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sep(?:tember)?|Oct(?:ober)?|"
    "Nov(?:ember)?|Dec(?:ember)?)"
)
_CLOCK = r"[Tt ]\d{1,2}:\d{1,2}"
# Dates end the value; a time, or a date with the month's name, may have anything behind it.
_DATETIME = (
    rf"\d{{2,4}}-\d{{1,2}}-\d{{1,2}}(?:$|{_CLOCK})|\d{{1,4}}[-/]\d{{1,2}}[-/]\d{{1,2}}$|"
    rf"\d{{1,2}}[-/]\d{{1,2}}[-/]\d{{1,4}}$|\d{{1,2}}[-/]\d{{1,2}}[-/]\d{{2,4}}{_CLOCK}|{_MONTH}\s+\d{{1,2}}[\s,]+\d{{2,4}}"
)

INVALID: Mapping[ColumnType, Any] = {
    ColumnType.DATETIME: None,
    ColumnType.NUMBER: None,
    ColumnType.NUMBER_WITH_DECIMALS: None,
}
"""What stands for a value that is wrong; for other types it is 'invalid'."""


def infer_column_types(df: pd.DataFrame, **kwargs: Any) -> dict[str, ColumnType]:
    """Infer the type of each column.

    Args:
        kwargs: `column_types`, those that are known.
    """
    known: Mapping[str, ColumnType] = kwargs.get("column_types") or {}
    sample = df.sample(SAMPLE_ROWS) if len(df) > SAMPLE_ROWS else df
    return {
        name: ColumnType(known[name]) if name in known else _infer(sample[name], str(name).lower())
        for name in df.columns
    }


def find_syntax_errors(series: pd.Series[Any], column_type: ColumnType | str) -> pd.Series[bool]:
    """Find the values that do not fit the column's type. Missing ones are not wrong, nor are the placeholders that
    actions put in ('missing', 'invalid').
    """
    kind = ColumnType(column_type)
    patterns = {ColumnType.EMAIL: _EMAIL, ColumnType.PHONE_NUMBER: _PHONE, ColumnType.ZIP_CODE: _ZIP}
    nothing = series.isna() & False
    if kind in patterns:
        text = series.astype("object").astype(str)
        return ~_looks(text, patterns[kind]) & ~text.str.match("missing|invalid") & series.notna()
    if kind in NUMBER_TYPES and not types.is_numeric_dtype(series.dtype):
        return ~_looks(series.astype("object").astype(str), _NUMBER) & series.notna()
    if kind == ColumnType.DATETIME and not types.is_datetime64_any_dtype(series.dtype):
        return ~series.astype("object").astype(str).str.match(_DATETIME) & series.notna()
    return nothing


def parse_list(value: Any) -> Any:
    """Parse a list written as text (`[1, 'a']`), as a list; anything else as it is."""
    if not isinstance(value, str):
        return value
    text = value.strip(" '\"")
    if not re.fullmatch(_LIST, text):
        return value
    inner = text[1:-1].strip()
    return [_literal(item) for item in re.split(r"\s*,\s*", inner)] if inner else []


def _infer(column: pd.Series[Any], name: str) -> ColumnType:
    dtype = column.dtype
    if types.is_datetime64_any_dtype(dtype):
        return ColumnType.DATETIME
    if types.is_bool_dtype(dtype):
        return ColumnType.TRUE_OR_FALSE
    if types.is_numeric_dtype(dtype):
        kind = _infer_number(column, name)
    elif types.is_object_dtype(dtype) or types.is_string_dtype(dtype):
        kind = _infer_object(column, name)
    elif isinstance(dtype, _categorical()):
        kind = _infer_object(column.astype("object"), name)
    else:
        kind = ColumnType.TEXT
    if kind in NUMBER_TYPES and column.nunique(dropna=False) == 2:
        return ColumnType.TRUE_OR_FALSE
    return kind


def _categorical() -> type:
    return pd.CategoricalDtype


def _infer_number(column: pd.Series[Any], name: str) -> ColumnType:
    # As plain floats: Arrow's numbers have no remainder.
    present = column.dropna().to_numpy(dtype=float)
    if not present.size:
        return ColumnType.NUMBER_WITH_DECIMALS
    whole = present == present.round()
    if "phone" in name and ((present >= 1e9) & (present < 1e12) & whole).mean() >= 0.8:
        return ColumnType.PHONE_NUMBER
    if types.is_integer_dtype(column.dtype):
        in_range = present.min() >= 100 and present.max() <= 99_999
        return ColumnType.ZIP_CODE if in_range and _named(name, _ZIP_NAMES) else ColumnType.NUMBER
    return ColumnType.NUMBER if bool(whole.all()) else ColumnType.NUMBER_WITH_DECIMALS


def _infer_object(column: pd.Series[Any], name: str) -> ColumnType:
    values = [value.strip(" '\"") if isinstance(value, str) else value for value in column[column.notna()]]
    values = [value for value in values if not (isinstance(value, str) and value == "")]
    if values and isinstance(values[0], list | tuple | set):
        return ColumnType.LIST
    distinct = len({_hashable(value) for value in values})
    if distinct <= 2:
        return ColumnType.TRUE_OR_FALSE
    if isinstance(values[0], bool):
        return ColumnType.CATEGORY

    texts = pd.Series([str(value) for value in values], dtype="object")
    if _looks(texts, _NUMBER).all():
        return _infer_written_number(texts, name)
    return _infer_text(texts, name, distinct, distinct + bool(len(values) < len(column)))


def _infer_written_number(texts: pd.Series[Any], name: str) -> ColumnType:
    if not _looks(texts, _INTEGER).all():
        return ColumnType.NUMBER_WITH_DECIMALS
    if _named(name, _PHONE_NAMES) and _looks(texts, _PHONE).mean() >= 0.8:
        return ColumnType.PHONE_NUMBER
    if _named(name, _ZIP_NAMES) and _looks(texts, _ZIP).mean() >= 0.8:
        return ColumnType.ZIP_CODE
    # Too many digits for a number: an identifier.
    if texts.str.count(r"\d").max() > 18:
        return _category(texts.nunique())
    return ColumnType.NUMBER


def _infer_text(texts: pd.Series[Any], name: str, distinct: int, distinct_with_missing: int) -> ColumnType:
    if texts.str.match(_DATETIME).mean() >= 0.5:
        return ColumnType.DATETIME
    if _looks(texts, _EMAIL).mean() >= 0.3:
        return ColumnType.EMAIL
    if _named(name, _PHONE_NAMES) and _looks(texts, _PHONE).mean() >= 0.3:
        return ColumnType.PHONE_NUMBER
    if _named(name, _ZIP_NAMES) and _looks(texts, _ZIP).mean() >= 0.3:
        return ColumnType.ZIP_CODE
    if _looks(texts, _LIST).mean() >= 0.3:
        return ColumnType.LIST
    if distinct_with_missing == 2:
        return ColumnType.TRUE_OR_FALSE
    if distinct / len(texts) >= 0.8 or texts.str.count(" ").max() + 1 > LONG_TEXT_WORDS:
        return ColumnType.TEXT
    return _category(distinct)


def _category(distinct: int) -> ColumnType:
    return ColumnType.CATEGORY if distinct <= MANY_CATEGORIES else ColumnType.CATEGORY_HIGH_CARDINALITY


def _looks(texts: pd.Series[Any], pattern: str) -> pd.Series[bool]:
    return texts.str.fullmatch(pattern).astype(bool)


def _named(name: str, words: tuple[str, ...]) -> bool:
    return any(word in name for word in words)


def _hashable(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value


def _literal(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"True": True, "False": False, "None": None}.get(text, text.strip("'\""))
