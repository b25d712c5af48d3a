"""Templates in SQL."""

from __future__ import annotations

import pandas as pd
import pytest

from streamline.databases.base import DatabaseError
from streamline.errors import ConfigError, StreamlineError
from streamline.project.secrets import MASK
from tests.blocks.sql.workshop import SqlProject
from tests.support.failures import refuses


def test_variables_by_function_and_by_name(shop: SqlProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGION", "north")
    shop.add(
        "x",
        """\
        select '{{ env }}' as env, {{ limit }} as a, {{ variables('limit') }} as b, '{{ env_var('REGION') }}' as region,
            '{{ execution_date }}' as day, '{{ ds }}' as ds, '{{ execution_date.strftime('%H:%M') }}' as clock
        """,
    )
    assert shop.run("x", limit=3, env="prod").to_dict("records") == [
        {
            "env": "prod",
            "a": 3,
            "b": 3,
            "region": "north",
            "day": "2026-03-04",
            "ds": "2026-03-04",
            "clock": "05:06",
        }
    ]


def test_secrets(shop: SqlProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLINE_SECRET_SALT", "pepper")
    assert shop.rows("x", "select '{{ secret('salt') }}' as a") == [{"a": "pepper"}]


def test_a_variable_from_outside_is_no_template(shop: SqlProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLINE_SECRET_SALT", "pepper")
    shop.add("x", "select '{{ variables('given') }}' as a, '{{ given }}' as b")
    text = '{{ secret("salt") }}'
    assert shop.run("x", given=text).to_dict("records") == [{"a": text, "b": text}]


@pytest.mark.parametrize(
    "parse",
    [
        "lambda data: data['top']",
        "lambda data, vars: data['top'] + vars['more'] - 1",
        "lambda data, vars: max([one for one in (data['top'], 1) if one > 0])",
        "lambda data, vars: {'a,b)': data['top']}['a,b)']",
        "lambda data, vars:\n    data[\n      'top'\n    ]",
        "'lambda data: data[\"top\"]'",
        "\"lambda data, vars: data['top']\"",
    ],
)
def test_block_output_with_a_lambda_bare_or_quoted(shop: SqlProject, parse: str) -> None:
    shop.output("limits", {"top": 7})
    shop.add("x", f"select {{{{ block_output('limits', parse={parse}) }}}} as a, '(é' as b", "limits")
    assert shop.run("x", more=1).to_dict("records") == [{"a": 7, "b": "(é"}]


def test_a_lambda_with_backslashes_and_other_letters(shop: SqlProject) -> None:
    shop.output("names", ["é\n", "b"])
    shop.add(
        "x", r"""select '{{ block_output('names', parse=lambda d: '|'.join(d).replace("\n", 'ü')) }}' as a""", "names"
    )
    assert shop.run("x")["a"].tolist() == ["éü|b"]


def test_block_output_without_parse(shop: SqlProject) -> None:
    shop.output("top", 5)
    assert shop.rows("x", "select {{ block_output('top') }} * 2 as a", "top") == [{"a": 10}]


def test_block_output_of_another_block(shop: SqlProject) -> None:
    shop.output("top", 5)
    shop.add("x", "select {{ block_output('tops') }}", "top")
    with refuses("block.not_upstream", "block_output('tops')") as caught:
        shop.run("x")
    assert "'top'" in str(caught.value.hint)


def test_loops_and_conditions(shop: SqlProject) -> None:
    shop.output("up", pd.DataFrame({"a": [1, 2]}))
    rows = shop.rows(
        "x",
        """\
        {% for n in range(2) %}
        select {{ n }} as n, count(*) as c from {{ df_1 }}
        {% if not loop.last %}union all{% endif %}
        {% endfor %}
        order by n
        """,
        "up",
    )
    assert rows == [{"n": 0, "c": 2}, {"n": 1, "c": 2}]


def test_an_unknown_name_says_what_templates_know(shop: SqlProject) -> None:
    shop.add("x", "select\n  1 as a,\n  {{ nope }}")
    with pytest.raises(ConfigError, match="'nope' is undefined") as caught:
        shop.run("x")
    assert caught.value.where == "transformers/x.sql:3"


@pytest.mark.parametrize(
    ("expression", "code", "name"),
    [
        ("env_var('NOT_SET')", "environment_variable.not_set", "NOT_SET"),
        ("variables('none')", "variable.not_found", "'none'"),
        ("block_output('up', parse=lambda d: d['n'])", "template.failed", "KeyError"),
        ("1 +", "template.syntax", "{{"),
    ],
)
def test_errors_in_templates_name_the_line(shop: SqlProject, expression: str, code: str, name: str) -> None:
    shop.output("up", {"a": 1})
    shop.add("x", f"select 1;\n\nselect {{{{ {expression} }}}}", "up")
    with refuses(code, name) as caught:
        shop.run("x")
    assert caught.value.where == "transformers/x.sql:3"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("select 1 as a,\n  nope\nfrom range(1)", 2),
        ("select 1;\n\n-- and\nselect nope from range(1)", 4),
        ("{{ block_output('up',\n  parse=lambda d: '1') }}\n;\nselect\n  nope from range(1)", 5),
        ("{% for n in range(3) %}\nselect {{ n }};\n{% endfor %}\nselect\n  nope\nfrom range(1)", 5),
        ("select 1;\nselect 2 frm range;\nselect 3", 2),
    ],
)
def test_errors_name_the_line_of_the_file(shop: SqlProject, text: str, line: int) -> None:
    shop.output("up", 1)
    shop.add("x", text.replace("{{ block", "select {{ block"), "up")
    with pytest.raises(StreamlineError) as caught:
        shop.run("x")
    assert caught.value.where == f"transformers/x.sql:{line}"
    assert caught.value.message.startswith("DuckDB: ")


def test_an_error_shows_the_rendered_sql_around_the_line(shop: SqlProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLINE_SECRET_T", "hush-hush")
    columns = "{% for n in range(3) %}\n  {{ n }} as a{{ n }},{% endfor %}"
    shop.add("x", f"select 1;\nselect{columns}\n  nope, '{{{{ secret('t') }}}}' as t\nfrom range(1)\n")
    with pytest.raises(DatabaseError) as caught:
        shop.run("x")
    assert caught.value.hint is not None
    assert caught.value.hint.splitlines()[-5:] == [
        "rendered SQL:",
        "    4 |   1 as a1,",
        "    5 |   2 as a2,",
        f">   6 |   nope, '{MASK}' as t",
        "    7 | from range(1)",
    ]


def test_a_long_line_of_rendered_sql_is_cut_and_holds_no_half_of_a_secret(
    shop: SqlProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMLINE_SECRET_T", "hush-hush")
    shop.add("x", f"select nope, '{'x' * 180}{{{{ secret('t') }}}}'\nfrom range(1)")
    with pytest.raises(DatabaseError) as caught:
        shop.run("x")
    assert "hush" not in str(caught.value.hint)
    assert max(map(len, str(caught.value.hint).splitlines())) < 220
