"""Actions on columns, one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from keyword import iskeyword
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from streamline.compat.actions.constants import Action, column_type

_CURRENCIES = r"[$€¥₹元£]|Rs|CAD"
_AROUND = " '\"_-"
_BETWEEN = re.compile(r"[\s.-]")
_NOT_ALLOWED = re.compile(r"[^a-zA-Z0-9_]")
_CAPITALISED = re.compile(r"[A-Z][a-z]*")
_CAMEL = re.compile(r"([a-z]*)((?:[A-Z][a-z]*)*)")


def clean_column_names(df: pd.DataFrame, action: Action) -> pd.DataFrame:
    """Rename the columns to cleaned names."""
    return df.rename(columns={name: clean_column_name(name) for name in action["action_arguments"]})


def diff(df: pd.DataFrame, action: Action) -> pd.DataFrame:
    """Add a column with each row's difference to the row before."""
    return _derived(df, action, lambda column: column.diff())


def shift_up(df: pd.DataFrame, action: Action) -> pd.DataFrame:
    """Add a column with the values of the rows below."""
    return _derived(df, action, lambda column: column.shift(-1))


def shift_down(df: pd.DataFrame, action: Action) -> pd.DataFrame:
    """Add a column with the values of the rows `periods` above, within the groups of `groupby_columns`."""
    options = action["action_options"]
    periods = options.get("periods", 1)
    groups = options.get("groupby_columns")
    if groups:
        return _derived(df, action, lambda column: column.groupby([df[name] for name in groups]).shift(periods))
    return _derived(df, action, lambda column: column.shift(periods))


def normalize(df: pd.DataFrame, action: Action) -> pd.DataFrame:
    """Scale the values to 0 … 1."""
    for name in action["action_arguments"]:
        low, high = df[name].min(), df[name].max()
        df[name] = (df[name] - low) / (high - low)
    return df


def standardize(df: pd.DataFrame, action: Action) -> pd.DataFrame:
    """Scale the values to mean 0 and (population) standard deviation 1."""
    for name in action["action_arguments"]:
        df[name] = (df[name] - df[name].mean()) / df[name].std(ddof=0)
    return df


def remove(df: pd.DataFrame, action: Action) -> pd.DataFrame:
    """Remove the columns."""
    return df.drop(columns=[name for name in action["action_arguments"] if name in df.columns])


def select(df: pd.DataFrame, action: Action) -> pd.DataFrame:
    """Select the columns, in this order."""
    return df[list(action["action_arguments"])]


def fix_syntax_errors(df: pd.DataFrame, action: Action) -> pd.DataFrame:
    """Replace text that does not fit the column's type: by NaN in numbers and dates, else by 'invalid'."""
    from streamline.compat.actions.column_types import INVALID, find_syntax_errors

    for name in text_columns(df, action["action_arguments"]):
        kind = column_type(action, name)
        if kind is not None:
            wrong = find_syntax_errors(df[name], kind)
            df[name] = df[name].mask(wrong, INVALID.get(kind, "invalid"))
    return df


def reformat(df: pd.DataFrame, action: Action) -> pd.DataFrame:
    """Reformat values: `options['reformat']` is caps_standardization, currency_to_num,
    date_format_conversion, trim, or None, which makes blank text missing.
    """
    options = action["action_options"]
    names = list(action["action_arguments"])
    kind = options.get("reformat")
    if kind == "caps_standardization":
        upper = options.get("capitalization") == "uppercase"
        for name in text_columns(df, names):
            df[name] = df[name].str.upper() if upper else df[name].str.lower()
        return without_blanks(df, names)
    if kind == "currency_to_num":
        for name in text_columns(df, names):
            bare = df[name].astype("object").replace(rf"{_CURRENCIES}|\s", "", regex=True)
            df[name] = pd.to_numeric(bare, errors="coerce").astype(float)
        return df
    if kind in ("date_format_conversion", "date_time_conversion"):
        for name in names:
            df[name] = _dates(df[name])
        return df
    if kind == "trim":
        for name in text_columns(df, names):
            df[name] = df[name].str.strip()
        return df
    if kind is not None:
        raise ValueError(
            f"there is no reformat '{kind}'; there are: caps_standardization, currency_to_num, "
            "date_format_conversion, trim"
        )
    return without_blanks(df, names)


def text_columns(df: pd.DataFrame, names: list[str]) -> Iterator[str]:
    """Yield the columns whose first value is text."""
    for name in names:
        if isinstance(first_value(df[name]), str):
            yield name


def first_value(column: pd.Series[Any]) -> Any:
    """Return the first value that is not missing; None if all are."""
    index = column.first_valid_index()
    return None if index is None else column[column.notna()].iloc[0]


def without_blanks(df: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Replace text that is only white space by missing values."""
    for name in names:
        df[name] = without_blank(df[name])
    return df


def without_blank(column: pd.Series[Any]) -> pd.Series[Any]:
    """Replace white space in one column."""
    if not (types.is_object_dtype(column.dtype) or types.is_string_dtype(column.dtype)):
        return column
    blank = column.map(lambda value: isinstance(value, str) and not value.strip()).astype(bool)
    if not blank.any():
        return column
    column = column.mask(blank, np.nan)
    return column.infer_objects() if types.is_object_dtype(column.dtype) else column


def _dates(column: pd.Series[Any]) -> pd.Series[Any]:
    if isinstance(first_value(column), str):
        column = column.astype("object").map(_tidy_date, na_action="ignore")
    return pd.to_datetime(column, format="mixed", errors="coerce")


def _tidy_date(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    return re.sub(r"\s*([/\\.-])[/\\.-]*\s*", r"\1", re.sub(r"[,\s]+", " ", text)).lower()


def _derived(df: pd.DataFrame, action: Action, function: Any) -> pd.DataFrame:
    if not action["action_arguments"]:
        return df
    df[action["outputs"][0]["uuid"]] = function(df[action["action_arguments"][0]])
    return df


def clean_column_name(name: str) -> str:
    """`PascalCase`, `camelCase` and `bad case` in snake case, without signs; a number and a keyword of Python are
    marked as what they are (`number_42`, `class_`).
    """
    name = _keyword_marked(name).strip(_AROUND)
    name = _NOT_ALLOWED.sub("", _BETWEEN.sub("_", name))
    if not name or name.isdigit():
        name = f"number_{name}"
    name = _keyword_marked(name)
    match = _CAMEL.fullmatch(name)
    if match and not name.isupper():
        # Only names of letters; in others it is not known where words begin.
        name = "_".join(filter(None, [match[1], *_CAPITALISED.findall(match[2])]))
    return name.lower()


def _keyword_marked(name: str) -> str:
    return f"{name}_" if iskeyword(name) else name
