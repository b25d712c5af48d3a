"""The names that actions use, and the type of an action."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, TypeAlias

Action: TypeAlias = dict[str, Any]
"""An action as a dict, from its JSON or from `build_transformer_action`."""


class ColumnType(StrEnum):
    """List the kinds of columns."""

    CATEGORY = "category"
    CATEGORY_HIGH_CARDINALITY = "category_high_cardinality"
    DATETIME = "datetime"
    EMAIL = "email"
    LIST = "list"
    NUMBER = "number"
    NUMBER_WITH_DECIMALS = "number_with_decimals"
    PHONE_NUMBER = "phone_number"
    TEXT = "text"
    TRUE_OR_FALSE = "true_or_false"
    ZIP_CODE = "zip_code"


CATEGORICAL_TYPES = frozenset([ColumnType.CATEGORY, ColumnType.CATEGORY_HIGH_CARDINALITY, ColumnType.TRUE_OR_FALSE])
NUMBER_TYPES = frozenset([ColumnType.NUMBER, ColumnType.NUMBER_WITH_DECIMALS])
STRING_TYPES = frozenset([ColumnType.EMAIL, ColumnType.PHONE_NUMBER, ColumnType.TEXT, ColumnType.ZIP_CODE])


class ActionType(StrEnum):
    """Everything that an action can be named; not all of them exist, here or there."""

    ADD = "add"
    AVERAGE = "average"
    CLEAN_COLUMN_NAME = "clean_column_name"
    COUNT = "count"
    COUNT_DISTINCT = "count_distinct"
    CUSTOM = "custom"
    DIFF = "diff"
    DROP_DUPLICATE = "drop_duplicate"
    EXPAND_COLUMN = "expand_column"
    EXPLODE = "explode"
    FILTER = "filter"
    FIRST = "first"
    FIX_SYNTAX_ERRORS = "fix_syntax_errors"
    GROUP = "group"
    IMPUTE = "impute"
    JOIN = "join"
    LAST = "last"
    LIMIT = "limit"
    MAX = "max"
    MEDIAN = "median"
    MIN = "min"
    MODE = "mode"
    NORMALIZE = "normalize"
    REFORMAT = "reformat"
    REMOVE = "remove"
    REMOVE_OUTLIERS = "remove_outliers"
    SCALE = "scale"
    SELECT = "select"
    SHIFT_DOWN = "shift_down"
    SHIFT_UP = "shift_up"
    SORT = "sort"
    STANDARDIZE = "standardize"
    SUM = "sum"
    UNION = "union"
    UPDATE_TYPE = "update_type"
    UPDATE_VALUE = "update_value"


class Axis(StrEnum):
    """List what an action works on."""

    COLUMN = "column"
    ROW = "row"


class VariableType(StrEnum):
    """List what an action's variable can stand for."""

    FEATURE = "feature"
    FEATURE_SET = "feature_set"
    FEATURE_SET_VERSION = "feature_set_version"


class Operator(StrEnum):
    """List the operators of filters."""

    CONTAINS = "contains"
    NOT_CONTAINS = "not contains"
    EQUALS = "=="
    NOT_EQUALS = "!="
    GREATER_THAN = ">"
    GREATER_THAN_OR_EQUALS = ">="
    LESS_THAN = "<"
    LESS_THAN_OR_EQUALS = "<="


class ImputationStrategy(StrEnum):
    """List what can replace missing values."""

    AVERAGE = "average"
    COLUMN = "column"
    CONSTANT = "constant"
    MEDIAN = "median"
    MODE = "mode"
    NOOP = "no_action"
    RANDOM = "random"
    ROW_RM = "remove_rows"
    SEQ = "sequential"


def column_type(action: Action, name: str) -> ColumnType | None:
    """Return the type of a column from the action's variables."""
    for variable in action["action_variables"].values():
        feature = (variable or {}).get("feature") or variable or {}
        if feature.get("uuid") == name and feature.get("column_type"):
            return ColumnType(feature["column_type"])
    return None
