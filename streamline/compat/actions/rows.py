"""Actions on rows, on whole frames, and joins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from streamline.compat.actions.constants import NUMBER_TYPES, Action, column_type


def custom(df: pd.DataFrame, action: Action) -> pd.DataFrame:
    """Run the action's own code: it changes `df`, and may mark functions from frame to frame with
    `@transformer_action`, which are called in their order.
    """
    functions: list[Callable[[pd.DataFrame], pd.DataFrame]] = []

    def transformer_action(function: Any) -> Any:
        functions.append(function)
        return function

    names: dict[str, Any] = {"df": df, "transformer_action": transformer_action}
    exec(action["action_code"].replace("\t", "    "), names)
    df = names["df"]
    for function in functions:
        df = function(df)
    return df


def drop_duplicates(df: pd.DataFrame, action: Action) -> pd.DataFrame:
    """Drop duplicate rows, by the columns named or all; `keep` is last, first or none (False)."""
    keep = action["action_options"].get("keep", "last")
    return df.drop_duplicates(subset=action["action_arguments"] or None, keep=keep)


def filter_rows(df: pd.DataFrame, action: Action) -> pd.DataFrame:
    """Keep the rows that pass the filter."""
    from streamline.compat.actions.filters import matches

    return df[matches(df, action["action_code"])] if action["action_code"].strip() else df


def remove(df: pd.DataFrame, action: Action) -> pd.DataFrame:
    """Remove the rows with these indices."""
    return df.drop(index=[row for row in action["action_options"]["rows"] if row in df.index])


def sort(df: pd.DataFrame, action: Action) -> pd.DataFrame:
    """Sort by columns. Rows without a value in the first one, if that is a number, come first in ascending order
    and last in descending order.
    """
    names = list(action["action_arguments"])
    if not names:
        return df
    options = action["action_options"]
    ascending: Any = options.get("ascendings") or options.get("ascending", True)
    numbers = [name for name in names if column_type(action, name) in NUMBER_TYPES]
    without = pd.Series(False, index=range(len(df)))
    keys = df[names].reset_index(drop=True)
    if names[0] in numbers:
        without = keys[names[0]].isna() | keys[names[0]].eq("").fillna(False)
    order = keys[~without].astype(dict.fromkeys(numbers, float)).sort_values(names, ascending=ascending, kind="stable")
    missing = list(keys.index[without])
    first = ascending[0] if isinstance(ascending, list) else ascending
    return df.iloc[[*missing, *order.index] if first else [*order.index, *missing]]


def join(df: pd.DataFrame, other: pd.DataFrame, action: Action) -> pd.DataFrame:
    """Join both frames by `options`: left_on, right_on, how (left), drop_columns, rename_columns. The other frame's
    columns are renamed first where the action's outputs say from what (`source_feature`).
    """
    options = action["action_options"]
    left_on, right_on = list(options["left_on"]), list(options["right_on"])
    df, other = df.copy(deep=False), other.copy(deep=False)
    for left, right in zip(left_on, right_on, strict=True):
        if df[left].dtype != other[right].dtype:
            df[left], other[right] = _as_text(df[left]), _as_text(other[right])
    renamed = {
        output["source_feature"]["uuid"]: output["uuid"]
        for output in action["outputs"] or ()
        if output.get("source_feature")
    }
    merged: pd.DataFrame = df.merge(
        other.rename(columns=renamed),
        left_on=left_on,
        right_on=[renamed.get(name, name) for name in right_on],
        how=options.get("how", "left"),
    )
    merged = merged.drop(columns=options.get("drop_columns", []))
    return merged.rename(columns=options.get("rename_columns", {}))


def _as_text(column: pd.Series[Any]) -> pd.Series[Any]:
    present = column.astype("object")
    return present.where(present.isna(), present.astype(str))
