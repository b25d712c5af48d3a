"""The language of filters."""

from __future__ import annotations

import operator
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.compat.actions.filters import matches

FRAME = pd.DataFrame(
    {
        "brand": ["ax", None, "by", "", "ax b"],
        "value": [1.0, 70.0, None, 60.0, 61.0],
        "limit": [0, 100, 5, 60, 60],
        "sold": [True, False, True, False, True],
        "long name": ["a (b)", "c", "d", "e", None],
    }
)


@pytest.mark.parametrize(
    ("code", "rows"),
    [
        ("value > 60", [1, 4]),
        ("value>=60", [1, 3, 4]),
        ("brand == null", [1, 3]),
        ("brand != null", [0, 2, 4]),
        ("value == null", [2]),
        ("(brand != null and value > 60) or (value == null)", [2, 4]),
        ("brand != null and value > 60 or value == null", [2, 4]),
        ("brand == 'ax'", [0]),
        ('brand == "ax" or brand == "by"', [0, 2]),
        ("brand contains 'ax'", [0, 4]),
        ("brand not contains 'ax'", [1, 2, 3]),
        ("sold == True", [0, 2, 4]),
        ("sold == true and limit != 0", [2, 4]),
        ("value > limit", [0, 4]),
        ("'long name' == 'a (b)'", [0]),
        ('"long name" contains "[cd]"', [1, 2]),
        ("`long name` != null and not (limit == 0)", [1, 2, 3]),
        ("value == -1", []),
        ("limit < 1e2", [0, 2, 3, 4]),
    ],
)
def test_filters(code: str, rows: list[int]) -> None:
    assert list(FRAME.index[matches(FRAME, code)]) == rows


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("price > 1", "no column 'price'.*brand"),
        ("vale > 1", "'vale'.*'value'"),
        ("value >", "a value or a column was expected, not its end"),
        ("value 5", "an operator .* was expected, not '5'"),
        ("value = 5", "'= 5'"),
        ("(value > 5", r"'\)' was expected"),
        ("value > 5 6", "'and' or 'or' was expected, not '6'"),
        ("value > abc", "a number, True, False, null, a quoted text or a column was expected, not 'abc'"),
        ("brand not like 'x'", "'contains' was expected"),
    ],
)
def test_what_is_no_filter(code: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        matches(FRAME, code)


def test_only_text_contains() -> None:
    with pytest.raises(TypeError, match="'value' holds none"):
        matches(FRAME, "value contains 'x'")


def test_rows_of_one_index_are_told_apart() -> None:
    frame = pd.DataFrame({"a": [1, 2, 3]}, index=[7, 7, 7])
    assert list(frame[matches(frame, "a >= 2")]["a"]) == [2, 3]


OPERATORS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
clauses = st.builds(
    lambda column, sign, value: (f"{column} {sign} {value}", lambda row: OPERATORS[sign](row[column], value)),
    st.sampled_from(["x", "y"]),
    st.sampled_from(list(OPERATORS)),
    st.integers(-3, 3),
)


def _joined(parts: Any) -> Any:
    def both(left: Any, word: str, right: Any) -> Any:
        if word == "and":
            return f"({left[0]}) and ({right[0]})", lambda row: left[1](row) and right[1](row)
        return f"({left[0]}) or ({right[0]})", lambda row: left[1](row) or right[1](row)

    return st.builds(both, parts, st.sampled_from(["and", "or"]), parts) | st.builds(
        lambda part: (f"not ({part[0]})", lambda row: not part[1](row)), parts
    )


@given(st.recursive(clauses, _joined, max_leaves=8))
def test_any_expression_means_what_python_makes_of_it(expression: Any) -> None:
    code, meaning = expression
    frame = pd.DataFrame([{"x": x, "y": y} for x in range(-3, 4) for y in range(-3, 4)])
    expected = [meaning(row) for row in frame.to_dict("records")]
    assert list(matches(frame, code)) == expected
