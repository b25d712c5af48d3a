"""Transformer actions on small frames. The results are those of Mage, on the same frames."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from streamline.compat.actions.action import BaseAction, build_transformer_action
from streamline.compat.actions.constants import ActionType, Axis, ImputationStrategy


@pytest.fixture
def people() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "name": ["Ann", "Bob", "Cy", "Dee", "Eve"],
            "age": [30.0, None, 50.0, 20.0, 30.0],
            "fare": [1.5, 2.5, None, 4.5, 6.5],
            "port": ["S", "C", "S", None, "C"],
            "note": ["x", "  ", "y", "", "x"],
        }
    )


def act(df: pd.DataFrame, action_type: str, arguments: Any = (), **keys: Any) -> pd.DataFrame:
    before = df.copy(deep=True)
    result = BaseAction(build_transformer_action(df, action_type, arguments, **keys)).execute(df)
    pd.testing.assert_frame_equal(df, before)  # whatever it does, it does to a frame of its own
    return result


def values(column: pd.Series[Any]) -> list[Any]:
    return [None if pd.isna(value) else value for value in column]


def new(*names: str) -> list[dict[str, str]]:
    return [{"uuid": name, "column_type": "number_with_decimals"} for name in names]


@pytest.mark.parametrize(
    ("action_type", "expected"),
    [
        (ActionType.AVERAGE, [40.0, 30.0, 40.0, None, 30.0]),
        (ActionType.MEDIAN, [40.0, 30.0, 40.0, None, 30.0]),
        (ActionType.SUM, [80.0, 30.0, 80.0, None, 30.0]),
        (ActionType.MIN, [30.0, 30.0, 30.0, None, 30.0]),
        (ActionType.MAX, [50.0, 30.0, 50.0, None, 30.0]),
        (ActionType.FIRST, [30.0, 30.0, 30.0, None, 30.0]),
        (ActionType.LAST, [50.0, 30.0, 50.0, None, 30.0]),
        (ActionType.COUNT, [2.0, 1.0, 2.0, None, 1.0]),
        (ActionType.COUNT_DISTINCT, [2.0, 1.0, 2.0, None, 1.0]),
    ],
)
def test_aggregates_by_groups(people: pd.DataFrame, action_type: str, expected: list[float | None]) -> None:
    result = act(people, action_type, ["age"], options={"groupby_columns": ["port"]}, outputs=new("out"))
    assert values(result["out"]) == expected
    assert list(result["name"]) == list(people["name"])


def test_aggregates_over_all_rows_and_behind_a_filter(people: pd.DataFrame) -> None:
    assert set(act(people, "average", ["fare"], outputs=new("out"))["out"]) == {3.75}
    result = act(
        people,
        "sum",
        ["fare", "age"],
        action_code="age != null and fare < 6",
        options={"groupby_columns": ["port"]},
        outputs=new("fares", "ages"),
    )
    assert values(result["fares"]) == [1.5, None, 1.5, None, None]
    assert values(result["ages"]) == [30.0, None, 30.0, None, None]


def test_aggregates_in_a_time_window() -> None:
    df = pd.DataFrame(
        {
            "user": ["a", "a", "b"],
            "paid": [1, 2, 4],
            "at": ["2024-01-03", "2024-01-09", "2024-01-02"],
            "since": ["2024-01-01", "2024-01-01", "2024-01-02"],
        }
    )
    options = {
        "groupby_columns": ["user"],
        "timestamp_feature_a": "at",
        "timestamp_feature_b": "since",
        "window": 3 * 86400,
    }
    assert values(act(df, "sum", ["paid"], options=options, outputs=new("out"))["out"]) == [1, 1, 4]


def test_without_columns_nothing_is_aggregated(people: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(act(people, "sum", [], options={"groupby_columns": ["port"]}), people)


@pytest.mark.parametrize(
    ("options", "age", "port", "note"),
    [
        ({"strategy": "constant"}, [30, 0, 50, 20, 30], ["S", "C", "S", "missing", "C"], "missing"),
        ({"strategy": "mode"}, [30, 30, 50, 20, 30], ["S", "C", "S", "C", "C"], "x"),
        ({"strategy": "sequential"}, [30, 30, 50, 20, 30], ["S", "C", "S", "S", "C"], None),
        ({"strategy": "column", "value": "name"}, None, ["S", "C", "S", "Dee", "C"], None),
        ({"strategy": "constant", "value": 7}, [30, 7, 50, 20, 30], ["S", "C", "S", 7, "C"], 7),
        ({"value": "7"}, [30, 7, 50, 20, 30], ["S", "C", "S", "7", "C"], "7"),
    ],
)
def test_impute(people: pd.DataFrame, options: dict[str, Any], age: Any, port: Any, note: Any) -> None:
    columns = ["port", "note"] if age is None else ["age", "port", "note"]
    result = act(people, ActionType.IMPUTE, columns, options=options)
    assert list(result["port"]) == port
    if age is not None:
        assert list(result["age"]) == age
        assert result["age"].dtype == "int64"  # a column of whole numbers
    if note is not None:
        assert list(result["note"]) == ["x", note, "y", note, "x"]


def test_impute_numbers_by_what_the_others_are(people: pd.DataFrame) -> None:
    average = act(people, "impute", ["age", "fare"], options={"strategy": ImputationStrategy.AVERAGE})
    assert list(average["age"]) == [30, 32, 50, 20, 30]  # 32.5, as a whole number
    assert list(average["fare"]) == [1.5, 2.5, 3.75, 4.5, 6.5]
    median = act(people, "impute", ["fare"], options={"strategy": ImputationStrategy.MEDIAN})
    assert list(median["fare"]) == [1.5, 2.5, 3.5, 4.5, 6.5]
    drawn = act(people, "impute", ["age"], options={"strategy": ImputationStrategy.RANDOM})
    assert drawn["age"][1] in {20, 30, 50}


def test_impute_along_time() -> None:
    df = pd.DataFrame({"day": [3, 1, 2], "text": [None, "a", "b"]})
    result = act(df, "impute", ["text"], options={"strategy": "sequential", "timeseries_index": ["day"]})
    assert list(zip(result["day"], result["text"], strict=True)) == [(1, "a"), (2, "b"), (3, "b")]


def test_impute_all_kinds_of_columns() -> None:
    df = pd.DataFrame(
        {
            "nullable": pd.array([1, None, 3], "Int64"),
            "arrow": pd.array([1.5, None, 2.5], "double[pyarrow]"),
            "date": pd.to_datetime(["2024-01-01", None, "2024-01-03"]),
            "kind": pd.Categorical(["u", None, "v"]),
            "lists": [[1], None, [3]],
            "flag": pd.array([True, None, False], "boolean"),
        }
    )
    result = act(df, "impute", df.columns, options={"strategy": "mode"})
    assert [result[name][1] for name in df.columns] == [1, 1.5, pd.Timestamp("2024-01-01"), "u", [1], False]


def test_impute_without_a_strategy_says_which_there_are(people: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"needs options.*average, column, constant"):
        act(people, "impute", ["age"], options={"strategy": "guess"})


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("good_name", "good_name"),
        ("bad case", "bad_case"),
        ("%@#342%34@@#342", "number_34234342"),
        ("PascalCaseColumn", "pascal_case_column"),
        ("camelCaseText", "camel_case_text"),
        ("___snake_case___", "snake_case"),
        ("yield", "yield_"),
        ("ABC", "abc"),
        ("ABTest", "a_b_test"),
        ("UPPER_CASE", "upper_case"),
        ("a.b-c", "a_b_c"),
        ("123.5", "123_5"),
        ("'quoted'", "quoted"),
        ("aB1", "ab1"),
    ],
)
def test_clean_column_names(name: str, cleaned: str) -> None:
    result = act(pd.DataFrame({name: [1, 2, 3]}), ActionType.CLEAN_COLUMN_NAME, [name])
    assert list(result.columns) == [cleaned]


def test_columns_derived_from_one(people: pd.DataFrame) -> None:
    assert values(act(people, "diff", ["fare"], outputs=new("d"))["d"]) == [None, 1.0, None, None, 2.0]
    assert values(act(people, "shift_up", ["name"], outputs=new("s"))["s"]) == ["Bob", "Cy", "Dee", "Eve", None]
    down = act(people, "shift_down", ["name"], options={"periods": 2}, outputs=new("s"))
    assert values(down["s"]) == [None, None, "Ann", "Bob", "Cy"]
    grouped = act(people, "shift_down", ["name"], options={"groupby_columns": ["port"]}, outputs=new("s"))
    assert values(grouped["s"]) == [None, None, "Ann", None, "Bob"]


def test_scales(people: pd.DataFrame) -> None:
    assert values(act(people, "normalize", ["fare"])["fare"]) == [0.0, 0.2, None, 0.6, 1.0]
    standard = act(people, "standardize", ["fare"])["fare"]
    assert (round(standard.mean(), 9), round(standard.std(ddof=0), 9)) == (0, 1)


def test_columns_removed_and_selected(people: pd.DataFrame) -> None:
    assert list(act(people, "remove", ["note", "nothing"]).columns) == ["name", "age", "fare", "port"]
    assert list(act(people, "select", ["fare", "name"]).columns) == ["fare", "name"]


def test_syntax_errors_are_marked() -> None:
    df = pd.DataFrame(
        {
            "email": ["a@x.com", "b@x.org", "c@x.net", "broken", None],
            "when": ["2024-01-01", "2024-02-02", "2024-03-03 10:00:00", "soon", None],
            "phone": ["555-123-4567", "(555) 123-4568", "5551234569", "12", None],
        }
    )
    result = act(df, ActionType.FIX_SYNTAX_ERRORS, df.columns)
    assert values(result["email"]) == ["a@x.com", "b@x.org", "c@x.net", "invalid", None]
    assert values(result["when"])[3] is None
    assert values(result["when"])[2] == "2024-03-03 10:00:00"
    assert values(result["phone"])[3] == "invalid"


def test_reformat() -> None:
    df = pd.DataFrame(
        {
            "word": [" Ab ", "  ", None],
            "price": ["  $ 10000", "- ¥ 22.5", "Rs - 3.25"],
            "day": ["2024-01-02", "3 Feb, 2024", "never"],
        }
    )

    def by(column: str, **options: Any) -> list[Any]:
        return values(act(df, "reformat", [column], options=options)[column])

    assert by("word", reformat="caps_standardization", capitalization="uppercase") == [" AB ", None, None]
    assert by("word", reformat="caps_standardization", capitalization="lowercase") == [" ab ", None, None]
    assert by("word", reformat="trim") == ["Ab", "", None]
    assert by("word", reformat=None) == [" Ab ", None, None]
    assert by("price", reformat="currency_to_num") == [10000.0, -22.5, -3.25]
    days = [pd.Timestamp("2024-01-02"), pd.Timestamp("2024-02-03"), None]
    assert by("day", reformat="date_format_conversion") == days
    with pytest.raises(ValueError, match="no reformat 'upside_down'"):
        by("word", reformat="upside_down")


def test_outliers() -> None:
    df = pd.DataFrame({"x": [*range(30), 1000, None], "y": [*range(30), -1000, 5.0], "name": ["n"] * 32})
    for method in ("auto", "lof"):
        kept = act(df, ActionType.REMOVE_OUTLIERS, df.columns, options={"method": method})
        assert 1000 not in set(kept["x"])
        assert kept["x"].isna().sum() == 1  # what is missing is no outlier
        assert len(kept) == 31
    pd.testing.assert_frame_equal(act(df, "remove_outliers", ["name"], options={"method": "auto"}), df)


def test_rows(people: pd.DataFrame) -> None:
    rows: dict[str, Any] = {"axis": Axis.ROW}
    assert list(act(people, "drop_duplicate", ["port"], options={"keep": "first"}, **rows)["name"]) == [
        "Ann",
        "Bob",
        "Dee",
    ]
    assert list(act(people, "drop_duplicate", ["port"], **rows)["name"]) == ["Cy", "Dee", "Eve"]
    assert list(act(people, "remove", options={"rows": [0, 3, 99]}, **rows)["name"]) == ["Bob", "Cy", "Eve"]
    assert list(act(people, "filter", action_code="port == 'S' or fare > 6", **rows)["name"]) == ["Ann", "Cy", "Eve"]


def test_sort_puts_rows_without_a_number_where_the_small_ones_are(people: pd.DataFrame) -> None:
    def sorted_by(*columns: str, **options: Any) -> str:
        return "".join(name[0] for name in act(people, "sort", columns, axis="row", options=options)["name"])

    assert sorted_by("age", ascending=True) == "BDAEC"
    assert sorted_by("age", ascending=False) == "CAEDB"
    assert sorted_by("age", "fare", ascendings=[False, False]) == "CEADB"
    assert sorted_by("name", ascending=False) == "EDCBA"
    assert sorted_by() == "ABCDE"


def test_custom_code(people: pd.DataFrame) -> None:
    code = "df['twice'] = df['age'] * 2\n@transformer_action\ndef last(d):\n\treturn d.tail(2)\n"
    result = act(people, "custom", action_code=code, axis="row")
    assert values(result["twice"]) == [40.0, 60.0]


@pytest.mark.parametrize(
    ("udf", "arguments", "options", "expected"),
    [
        ("addition", ["a", "b"], {}, [11.0, 22.0]),
        ("addition", ["a"], {"value": 5}, [6.0, 7.0]),
        ("difference", ["b", "a"], {}, [9.0, 18.0]),
        ("difference", ["a"], {"value": 1}, [0.0, 1.0]),
        ("multiply", ["a", "b"], {}, [10.0, 40.0]),
        ("multiply", ["a"], {"value": 3}, [3.0, 6.0]),
        ("divide", ["b", "a"], {}, [10.0, 10.0]),
        ("divide", ["b"], {"value": 4}, [2.5, 5.0]),
        ("constant", ["Z"], {}, ["Z", "Z"]),
        ("date_trunc", ["day"], {"date_part": "week"}, ["2024-01-01", "2024-01-08"]),
        ("formatted_date", ["day"], {"format": "%d.%m."}, ["03.01.", "10.01."]),
        ("addition", ["day"], {"value": 1, "column_type": "datetime"}, ["2024-01-04 00:00:00", "2024-01-11 00:00:00"]),
        (
            "difference",
            ["day"],
            {"value": 2, "time_unit": "h", "column_type": "datetime"},
            ["2024-01-02 22:00:00", "2024-01-09 22:00:00"],
        ),
        ("difference", ["day", "since"], {"column_type": "datetime"}, [2, 9]),
        ("string_replace", ["text"], {"pattern": "o+", "replacement": "0"}, ["f0 bar", "b0 far"]),
        ("string_split", ["text"], {"separator": " ", "part_index": 1}, ["bar", "far"]),
        ("substring", ["text"], {"start": 1, "stop": 3}, ["oo", "oo"]),
    ],
)
def test_columns_added(udf: str, arguments: list[str], options: dict[str, Any], expected: list[Any]) -> None:
    df = pd.DataFrame(
        {
            "a": [1.0, 2.0],
            "b": [10.0, 20.0],
            "day": ["2024-01-03", "2024-01-10"],
            "since": ["2024-01-01", "2024-01-01"],
            "text": ["foo bar", "boo far"],
        }
    )
    result = act(df, ActionType.ADD, arguments, options={"udf": udf, **options}, outputs=[{"uuid": "new"}])
    assert list(result["new"]) == expected


def test_a_column_by_a_condition(people: pd.DataFrame) -> None:
    out = [{"uuid": "new", "column_type": "text"}]
    code = "fare > 2 and age != null"
    result = act(people, "add", ["yes", "no"], action_code=code, options={"udf": "if_else"}, outputs=out)
    assert list(result["new"]) == ["no", "no", "no", "yes", "yes"]
    columns = {"udf": "if_else", "arg1_type": "column", "arg2_type": "column"}
    result = act(people, "add", ["port", "name"], action_code=code, options=columns, outputs=out)
    assert list(result["new"]) == ["Ann", "Bob", "Cy", "Dee", "C"]


def test_distances() -> None:
    df = pd.DataFrame({"lat1": [52.52], "lng1": [13.405], "lat2": [48.8566], "lng2": [2.3522]})
    result = act(df, "add", df.columns, options={"udf": "distance_between"}, outputs=[{"uuid": "km"}])
    assert 870 < result["km"][0] < 885  # Berlin to Paris


def test_join() -> None:
    users = pd.DataFrame({"id": [1, 2], "name": ["Ann", "Bob"]})
    orders = pd.DataFrame({"user": ["1", "3"], "total": [5, 6]})
    action = {
        "action_type": "join",
        "axis": "column",
        "action_options": {
            "left_on": ["id"],
            "right_on": ["user"],
            "drop_columns": ["key"],
            "rename_columns": {"id": "user_id"},
        },
        "outputs": [{"uuid": "key", "source_feature": {"uuid": "user"}}],
    }
    result = BaseAction(action).execute(users, df_to_join=orders)
    assert list(result.columns) == ["user_id", "name", "total"]
    assert values(result["total"]) == [5, None]
    assert list(users["id"]) == [1, 2]


def test_groups_of_child_actions() -> None:
    df = pd.DataFrame({"user": ["a", "b", "a"], "paid": [1, 2, 3]})
    child = {"action_type": "diff", "axis": "column", "action_arguments": ["paid"], "outputs": [{"uuid": "more"}]}
    action = {"action_type": "group", "axis": "row", "action_arguments": ["user"], "child_actions": [child]}
    result = BaseAction(action).execute(df)
    assert list(result["user"]) == ["a", "a", "b"]
    assert values(result["more"]) == [None, 2.0, None]


def test_variables_in_an_action_are_filled_in(people: pd.DataFrame) -> None:
    action = {
        "action_type": "filter",
        "axis": "row",
        "action_code": "%{1_1} > 2 and %{1_2} == 'C'",
        "action_variables": {
            "1_1": {"type": "feature", "feature": {"uuid": "fare", "column_type": "number_with_decimals"}},
            "1_2": {"type": "feature", "feature": {"uuid": "port", "column_type": "category"}},
        },
    }
    assert list(BaseAction(action).execute(people)["name"]) == ["Bob", "Eve"]


def test_actions_that_only_have_a_name(people: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="there is no action 'union' on axis 'row'"):
        act(people, "union", axis="row")


def test_an_empty_frame_is_given_back() -> None:
    empty = pd.DataFrame({"a": []})
    assert BaseAction(build_transformer_action(empty, "sum", ["a"], outputs=new("b"))).execute(empty) is empty
