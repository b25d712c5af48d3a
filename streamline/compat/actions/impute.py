"""The action that fills in what is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from streamline.compat.actions.column_types import parse_list
from streamline.compat.actions.columns import without_blank, without_blanks
from streamline.compat.actions.constants import NUMBER_TYPES, Action, ColumnType, ImputationStrategy, column_type


def impute(df: pd.DataFrame, action: Action) -> pd.DataFrame:
    """Replace missing values and blank text by `options['strategy']`, or by `options['value']`.

    The columns have the types afterwards that the action's variables say: a column of whole numbers is int64.
    """
    names = list(action["action_arguments"])
    options = action["action_options"]
    strategy = options.get("strategy")
    if strategy == ImputationStrategy.NOOP:
        return df
    df = without_blanks(df, names)
    if strategy == ImputationStrategy.ROW_RM:
        return df.dropna(subset=names)
    if strategy == ImputationStrategy.SEQ:
        by = options.get("timeseries_index") or options.get("timeseries_cols")
        df = df.sort_values(by, kind="stable") if by else df
    fill = _filler(strategy, options)
    for name in names:
        kind = column_type(action, name)
        df[name] = converted(fill(df, name, kind), kind)
    return df


def converted(column: pd.Series[Any], kind: ColumnType | str | None) -> pd.Series[Any]:
    """Convert the column to its type; missing whole numbers become 0."""
    if kind == ColumnType.NUMBER:
        return pd.to_numeric(without_blank(column)).fillna(0).astype("int64")
    if kind == ColumnType.NUMBER_WITH_DECIMALS:
        return pd.to_numeric(without_blank(column)).astype(float)
    if kind == ColumnType.TEXT:
        return column.where(column.isna(), column.astype(str))
    if kind == ColumnType.LIST:
        return column.map(parse_list)
    return column


Filler = Callable[["pd.DataFrame", str, "ColumnType | None"], "pd.Series[Any]"]


def _filler(strategy: str | None, options: dict[str, Any]) -> Filler:
    """Return the function that fills one column."""
    value = options.get("value")
    if strategy == ImputationStrategy.CONSTANT:
        return lambda df, name, kind: filled(df[name], _default(kind) if value is None else _typed(value, kind))
    if strategy in _AGGREGATES:
        aggregate = _AGGREGATES[strategy]
        return lambda df, name, kind: filled(df[name], aggregate(df[name]))
    if strategy == ImputationStrategy.COLUMN:
        if value is None:
            raise ValueError("impute by column needs options['value'], the other column")
        return lambda df, name, kind: filled(df[name], df[str(value)])
    if strategy == ImputationStrategy.SEQ:
        return lambda df, name, kind: df[name].ffill()
    if strategy == ImputationStrategy.RANDOM:
        return lambda df, name, kind: _sampled(df[name])
    if value is not None:
        return lambda df, name, kind: filled(df[name], _typed(value, kind))
    raise ValueError(
        f"impute needs options['strategy'], one of {', '.join(ImputationStrategy)}, or options['value'] "
        f"(strategy is {strategy!r})"
    )


def filled(column: pd.Series[Any], value: Any) -> pd.Series[Any]:
    """Return the column with `value`, or another column's values, where its own are missing; its dtype gives way."""
    if not column.isna().any():
        return column
    other = value if isinstance(value, pd.Series) else pd.Series([value] * len(column), index=column.index)
    try:
        if pd.api.types.is_numeric_dtype(column.dtype) and pd.api.types.is_numeric_dtype(other.dtype):
            return column.where(column.notna(), other)
        if column.dtype == other.dtype:
            return column.where(column.notna(), other)
    except (TypeError, ValueError):
        pass
    return column.astype("object").where(column.notna(), other.astype("object")).infer_objects()


def _default(kind: ColumnType | None) -> Any:
    if kind in NUMBER_TYPES:
        return 0
    if kind == ColumnType.DATETIME:
        return pd.Timestamp.min
    return "[]" if kind == ColumnType.LIST else "missing"


def _typed(value: Any, kind: ColumnType | None) -> Any:
    """Return a value that was written as text, in a column of numbers."""
    if kind in NUMBER_TYPES and isinstance(value, str):
        return (
            float(value) if kind == ColumnType.NUMBER_WITH_DECIMALS or not value.lstrip("+-").isdigit() else int(value)
        )
    return value


def _mode(column: pd.Series[Any]) -> Any:
    present = column.dropna()
    if present.empty:
        return None
    try:
        return present.mode().iloc[0]
    except TypeError:  # lists cannot be counted, their texts can
        texts = present.map(repr)
        return present[texts == texts.mode().iloc[0]].iloc[0]


_AGGREGATES: dict[str, Callable[[pd.Series[Any]], Any]] = {
    ImputationStrategy.AVERAGE: lambda column: column.astype(float).mean(),
    ImputationStrategy.MEDIAN: lambda column: column.astype(float).median(),
    ImputationStrategy.MODE: _mode,
}


def _sampled(column: pd.Series[Any]) -> pd.Series[Any]:
    missing = column.isna()
    if missing.all():
        raise ValueError(f"random impute has no values to choose from in column '{column.name}'")
    drawn = column[~missing].sample(int(missing.sum()), replace=True)
    result = column.copy()
    result[missing] = drawn.to_numpy()
    return result
