"""An action as it is described: a dict, from its JSON or from `build_transformer_action`."""

from __future__ import annotations

from typing import Any, TypeAlias

from streamline.compat.actions.constants import ColumnType

Action: TypeAlias = dict[str, Any]


def column_type(action: Action, name: str) -> ColumnType | None:
    """Return the type of a column from the action's variables."""
    for variable in action["action_variables"].values():
        feature = (variable or {}).get("feature") or variable or {}
        if feature.get("uuid") == name and feature.get("column_type"):
            return ColumnType(feature["column_type"])
    return None
