"""Actions: making them, and carrying them out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import pandas as pd

from streamline.compat.actions.constants import Action, ActionType, Axis, ColumnType

Step: TypeAlias = "Callable[[pd.DataFrame, Action], pd.DataFrame]"

_VARIABLE = re.compile(r"%\{(\w+)\}")


def build_action_variables(
    df: pd.DataFrame, ctypes: Mapping[str, ColumnType] | None = None, columns: Iterable[str] | None = None
) -> dict[str, Any]:
    """Describe a frame's columns for an action.

    Args:
        ctypes: types of columns that are known; those of the others are inferred from their values.
        columns: which columns; all by default.
    """
    from streamline.compat.actions.column_types import infer_column_types

    wanted = list(df.columns if columns is None else columns)
    types = infer_column_types(df[wanted], column_types=ctypes or {})
    return {name: {"feature": {"column_type": types[name], "uuid": name}, "type": "feature"} for name in wanted}


def build_transformer_action(
    df: pd.DataFrame,
    action_type: ActionType | str,
    arguments: Iterable[str] = (),
    action_code: str = "",
    options: Mapping[str, Any] | None = None,
    axis: Axis | str = Axis.COLUMN,
    outputs: Sequence[Mapping[str, Any]] = (),
) -> Action:
    """Build an action for `BaseAction`.

    Args:
        df: the frame that it is for, whose columns' types are inferred.
        arguments: the columns that it works on.
        action_code: a filter, or the code of a custom action.
        options: depends on the action.
        outputs: the new columns, `{"uuid": name, "column_type": type}` each.
    """
    return {
        "action_type": action_type,
        "action_arguments": list(arguments),
        "action_code": action_code,
        "action_options": dict(options or {}),
        "action_variables": build_action_variables(df),
        "axis": axis,
        "outputs": [dict(output) for output in outputs],
    }


class BaseAction:
    """One action, to be carried out on frames."""

    def __init__(self, action: Mapping[str, Any]) -> None:
        self.action: Action = {
            "action_arguments": [],
            "action_code": "",
            "action_options": {},
            "action_variables": {},
            "outputs": [],
            **action,
        }

    @property
    def action_type(self) -> str:
        """Return a value of `ActionType`."""
        return str(self.action["action_type"])

    @property
    def axis(self) -> str:
        """Return a value of `Axis`."""
        return str(self.action.get("axis", Axis.COLUMN))

    def execute(self, df: pd.DataFrame, **kwargs: Any) -> pd.DataFrame:
        """Apply the action to a copy of the frame. An empty frame is returned as it is.

        Args:
            kwargs: `df_to_join`, the other frame of a join.

        Raises:
            ValueError: there is no such action, or it lacks an option.
        """
        if df.empty:
            return df
        action = _filled_in(self.action)
        if self.action_type == ActionType.JOIN:
            from streamline.compat.actions.rows import join

            return join(df, kwargs["df_to_join"], action)
        if self.action_type == ActionType.GROUP:
            return self._by_group(df, action)
        return _step(self.axis, self.action_type)(df.copy(deep=False), action)

    @staticmethod
    def _by_group(df: pd.DataFrame, action: Action) -> pd.DataFrame:
        parts = []
        for _, group in df.groupby(action["action_arguments"], sort=False):
            part = group
            for child in action["child_actions"]:
                part = BaseAction(child).execute(part)
            parts.append(part)
        return pd.concat(parts, ignore_index=True) if parts else df


def _step(axis: str, action_type: str) -> Step:
    from streamline.compat.actions import aggregate, columns, impute, outliers, rows, udf

    steps: dict[tuple[str, str], Step] = {
        (Axis.COLUMN, ActionType.ADD): udf.add_column,
        (Axis.COLUMN, ActionType.CLEAN_COLUMN_NAME): columns.clean_column_names,
        (Axis.COLUMN, ActionType.CUSTOM): rows.custom,
        (Axis.COLUMN, ActionType.DIFF): columns.diff,
        (Axis.COLUMN, ActionType.FIX_SYNTAX_ERRORS): columns.fix_syntax_errors,
        (Axis.COLUMN, ActionType.IMPUTE): impute.impute,
        (Axis.COLUMN, ActionType.NORMALIZE): columns.normalize,
        (Axis.COLUMN, ActionType.REFORMAT): columns.reformat,
        (Axis.COLUMN, ActionType.REMOVE): columns.remove,
        (Axis.COLUMN, ActionType.REMOVE_OUTLIERS): outliers.remove_outliers,
        (Axis.COLUMN, ActionType.SELECT): columns.select,
        (Axis.COLUMN, ActionType.SHIFT_DOWN): columns.shift_down,
        (Axis.COLUMN, ActionType.SHIFT_UP): columns.shift_up,
        (Axis.COLUMN, ActionType.STANDARDIZE): columns.standardize,
        (Axis.ROW, ActionType.CUSTOM): rows.custom,
        (Axis.ROW, ActionType.DROP_DUPLICATE): rows.drop_duplicates,
        (Axis.ROW, ActionType.FILTER): rows.filter_rows,
        (Axis.ROW, ActionType.REMOVE): rows.remove,
        (Axis.ROW, ActionType.SORT): rows.sort,
        **{(Axis.COLUMN, name): aggregate.aggregation(method) for name, method in aggregate.METHODS.items()},
    }
    if (axis, action_type) not in steps:
        known = ", ".join(sorted(name for known_axis, name in steps if known_axis == axis)) or "nothing"
        raise ValueError(f"there is no action '{action_type}' on axis '{axis}'; there are: {known}, group, join")
    return steps[axis, action_type]


def _filled_in(action: Action) -> Action:
    """Replace `%{1_1}` by the name of the column that the variable `1_1` stands for."""
    names = {key: _uuid(variable) for key, variable in action["action_variables"].items() if variable}

    def fill(text: str) -> str:
        return _VARIABLE.sub(lambda match: str(names.get(match[1]) or match[0]), text)

    options = action["action_options"]
    if "%{" in str(options):
        options = json.loads(fill(json.dumps(options)))
    return {
        **action,
        "action_code": fill(action["action_code"] or ""),
        "action_arguments": [fill(name) if isinstance(name, str) else name for name in action["action_arguments"]],
        "action_options": options,
    }


def _uuid(variable: Mapping[str, Any]) -> str | None:
    version = variable.get("feature_set_version") or {}
    feature = variable.get("feature") or version.get("feature_set") or {}
    uuid = feature.get("uuid")
    return None if uuid is None else str(uuid)
