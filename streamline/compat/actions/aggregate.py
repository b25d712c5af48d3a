"""Actions that add a column with an aggregate of another one, by groups or over all rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from streamline.compat.actions.constants import Action, ActionType

METHODS = {
    ActionType.AVERAGE: "mean",
    ActionType.COUNT: "count",
    ActionType.COUNT_DISTINCT: "nunique",
    ActionType.FIRST: "first",
    ActionType.LAST: "last",
    ActionType.MAX: "max",
    ActionType.MEDIAN: "median",
    ActionType.MIN: "min",
    ActionType.SUM: "sum",
}
"""Actions, and the methods of pandas that they are."""


def aggregation(method: str) -> Callable[[pd.DataFrame, Action], pd.DataFrame]:
    """Return the action that aggregates by this method."""

    def aggregate(df: pd.DataFrame, action: Action) -> pd.DataFrame:
        if not action["action_arguments"]:
            return df
        groups = action["action_options"].get("groupby_columns")
        return _by_groups(df, action, method, groups) if groups else _over_all(df, action, method)

    return aggregate


def _by_groups(df: pd.DataFrame, action: Action, method: str, groups: list[str]) -> pd.DataFrame:
    names, outputs = action["action_arguments"], [output["uuid"] for output in action["outputs"]]
    if len(names) != len(outputs):
        raise ValueError(
            f"{len(names)} columns are aggregated and {len(outputs)} outputs named: one for each is needed"
        )
    chosen = _chosen(df, action)
    aggregated = chosen.groupby(groups)[names].agg(method)
    return df.merge(
        aggregated.set_axis(outputs, axis="columns"), left_on=groups, right_index=True, how="left"
    ).reset_index(drop=True)


def _over_all(df: pd.DataFrame, action: Action, method: str) -> pd.DataFrame:
    # Only the first column, as there.
    column = _chosen(df, action)[action["action_arguments"][0]]
    if method in ("first", "last"):
        present = column.dropna()
        value = None if present.empty else present.iloc[0 if method == "first" else -1]
    else:
        value = column.agg(method)
    df[action["outputs"][0]["uuid"]] = value
    return df


def _chosen(df: pd.DataFrame, action: Action) -> pd.DataFrame:
    """Return the rows in the time window and passing the filter, where these are set."""
    from streamline.compat.actions.filters import matches

    options = action["action_options"]
    if all(key in options for key in ("timestamp_feature_a", "timestamp_feature_b", "window")):
        df = df[_in_window(df, options)]
    return df[matches(df, action["action_code"])] if action["action_code"].strip() else df


def _in_window(df: pd.DataFrame, options: dict[str, Any]) -> pd.Series[bool]:
    first, second = (
        pd.to_datetime(df[options[key]], format="mixed", utc=True)
        for key in ("timestamp_feature_a", "timestamp_feature_b")
    )
    seconds = (first - second).dt.total_seconds()
    low, high = sorted((0, options["window"]))
    inside: pd.Series[bool] = seconds.between(low, high)
    return inside
