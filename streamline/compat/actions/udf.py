"""The action that adds a column: what is put into it, by the name in `options['udf']`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from streamline.compat.actions.constants import Action, ColumnType, column_type

EARTH_RADIUS = 6371
"""Kilometres."""


def add_column(df: pd.DataFrame, action: Action) -> pd.DataFrame:
    """Add the column `outputs[0]`, with its type."""
    from streamline.compat.actions.impute import converted

    name = action["action_options"].get("udf")
    if name is None or not action["action_arguments"]:
        return df
    if name not in _FUNCTIONS:
        raise ValueError(f"there is no udf '{name}'; there are: {', '.join(_FUNCTIONS)}")
    output = action["outputs"][0]
    df[output["uuid"]] = _FUNCTIONS[name](df, action)
    df[output["uuid"]] = converted(df[output["uuid"]], output.get("column_type"))
    return df


def _addition(df: pd.DataFrame, action: Action) -> Any:
    first, *others = action["action_arguments"]
    value = action["action_options"].get("value")
    if not others and value is None:
        raise ValueError("addition needs a second column or options['value']")
    result = df[first]
    for name in others:
        result = result + df[name]
    if value is None:
        return result
    return _moved(result, action, value) if _is_date(action) else result + value


def _difference(df: pd.DataFrame, action: Action) -> Any:
    first, *others = action["action_arguments"]
    value = action["action_options"].get("value")
    if others:
        if _is_date(action):
            return (_moments(df[first]) - _moments(df[others[0]])).dt.days
        return df[first] - df[others[0]]
    if value is None:
        raise ValueError("difference needs a second column or options['value']")
    return _moved(df[first], action, -value) if _is_date(action) else df[first] - value


def _multiply(df: pd.DataFrame, action: Action) -> Any:
    first, second = _operands(df, action, "multiply")
    return first * second


def _divide(df: pd.DataFrame, action: Action) -> Any:
    first, second = _operands(df, action, "divide")
    return first / second


def _operands(df: pd.DataFrame, action: Action, what: str) -> tuple[Any, Any]:
    first, *others = action["action_arguments"]
    value = action["action_options"].get("value")
    if others:
        return df[first].astype(float), df[others[0]].astype(float)
    if value is None:
        raise ValueError(f"{what} needs a second column or options['value']")
    return df[first], float(value)


def _constant(df: pd.DataFrame, action: Action) -> Any:
    return action["action_arguments"][0]


def _date_trunc(df: pd.DataFrame, action: Action) -> Any:
    part = action["action_options"]["date_part"]
    if part != "week":
        raise ValueError(f"date_trunc knows the date_part 'week' only, not '{part}'")
    moments = pd.to_datetime(df[action["action_arguments"][0]], format="mixed")
    return (moments - pd.to_timedelta(moments.dt.day_of_week, unit="D")).dt.strftime("%Y-%m-%d")


def _formatted_date(df: pd.DataFrame, action: Action) -> Any:
    moments = pd.to_datetime(df[action["action_arguments"][0]], format="mixed")
    return moments.dt.strftime(action["action_options"]["format"])


def _distance_between(df: pd.DataFrame, action: Action) -> Any:
    """Return the kilometres between (latitude, longitude) and (latitude, longitude), by the haversine formula."""
    lat1, lng1, lat2, lng2 = (np.radians(df[name].astype(float)) for name in action["action_arguments"][:4])
    half = np.sin((lat2 - lat1) / 2) ** 2 + np.cos(lat1) * np.cos(lat2) * np.sin((lng2 - lng1) / 2) ** 2
    return 2 * EARTH_RADIUS * np.arcsin(np.sqrt(half))


def _if_else(df: pd.DataFrame, action: Action) -> Any:
    from streamline.compat.actions.filters import matches

    options = action["action_options"]
    yes, no = (
        df[argument] if options.get(key) == "column" else pd.Series(argument, index=df.index)
        for argument, key in zip(action["action_arguments"], ("arg1_type", "arg2_type"), strict=False)
    )
    chosen = matches(df, action["action_code"])
    both = yes.astype("object").where(chosen, no.astype("object"))
    # A missing value of the first stands for the second, as there.
    return both.where(both.notna(), no.astype("object")).infer_objects()


def _string_replace(df: pd.DataFrame, action: Action) -> Any:
    options = action["action_options"]
    pattern, replacement = options.get("pattern"), options.get("replacement")
    if pattern is None or replacement is None:
        raise ValueError("string_replace needs options['pattern'] and options['replacement']")
    return df[action["action_arguments"][0]].str.replace(pattern, replacement, regex=options.get("regex", True))


def _string_split(df: pd.DataFrame, action: Action) -> Any:
    options = action["action_options"]
    separator, part = options.get("separator"), options.get("part_index")
    if separator is None or part is None:
        raise ValueError("string_split needs options['separator'] and options['part_index']")
    return df[action["action_arguments"][0]].str.split(separator).str[part].str.strip()


def _substring(df: pd.DataFrame, action: Action) -> Any:
    start, stop = (action["action_options"].get(key) for key in ("start", "stop"))
    if start is None and stop is None:
        raise ValueError("substring needs options['start'] or options['stop']")
    return df[action["action_arguments"][0]].str.slice(start, stop)


_FUNCTIONS: dict[str, Callable[[pd.DataFrame, Action], Any]] = {
    "addition": _addition,
    "constant": _constant,
    "date_trunc": _date_trunc,
    "difference": _difference,
    "distance_between": _distance_between,
    "divide": _divide,
    "formatted_date": _formatted_date,
    "if_else": _if_else,
    "multiply": _multiply,
    "string_replace": _string_replace,
    "string_split": _string_split,
    "substring": _substring,
}


def _is_date(action: Action) -> bool:
    kind = action["action_options"].get("column_type") or column_type(action, action["action_arguments"][0])
    return bool(kind == ColumnType.DATETIME)


def _moments(column: pd.Series[Any]) -> pd.Series[Any]:
    return pd.to_datetime(column, format="mixed", utc=True)


def _moved(column: pd.Series[Any], action: Action, value: Any) -> pd.Series[Any]:
    """Shift dates by a number of units (`options['time_unit']`, days unless said), as text."""
    unit = action["action_options"].get("time_unit", "d")
    step = pd.to_timedelta(value, unit="D" if unit == "d" else unit)
    moved: pd.Series[Any] = (_moments(column) + step).dt.strftime("%Y-%m-%d %H:%M:%S")
    return moved
