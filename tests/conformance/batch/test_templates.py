"""Templates that cannot be rendered are found before anything runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.batch import BatchProject, failed

LOAD = "@data_loader\ndef load(**kwargs):\n    open('log.txt', 'a').write('ran\\n')\n    return kwargs.get('zz', 1)\n"


def refused(project: BatchProject, *patterns: str, options: tuple[str, ...] = ()) -> None:
    """`run` is exit code 2 and runs nothing; `check` finds it as well."""
    project.run(*options).expect(2, *patterns)
    assert project.lines() == []
    assert project.runs() == []
    project.command("check", "p", *options).expect(2, *patterns)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("{{ env_var('NOPE_X') }}", "NOPE_X"),
        ("{{ secret('nope') }}", "nope"),
        ("{{ variables('nope') }}", "'nope'"),
        ("a {{ env_var('NOPE_X' }} b", "template syntax"),
        ("{{ block_output('load', parse='lambda d: d') ~ env_var('NOPE_X') }}", "NOPE_X"),
        ({"deep": ["{{ env_var('NOPE_X') }}"]}, "NOPE_X"),
    ],
)
def test_variables(project: BatchProject, value: Any, says: str) -> None:
    project.keys = {"variables": {"fine": 1, "zz": value}}
    project.block("load", LOAD, type="data_loader")
    refused(project, rf"pipelines/p/metadata.yaml:\d+: .*zz.*: .*{says}")
    # What this run overrides is never rendered.
    project.run("--runtime-vars", "zz={{ 1 }}").expect(0)
    project.command("check", "p", "--runtime-vars", "zz=1").expect(0)
    assert project.output("load") == "{{ 1 }}"


def test_a_variable_that_an_interrupted_run_was_given_counts_when_it_goes_on(project: BatchProject) -> None:
    project.keys = {"variables": {"zz": "{{ env_var('NOPE_X') }}"}}
    project.block("load", LOAD, type="data_loader")
    project.block("bad", "import os\n@transformer\ndef bad(x, **kwargs):\n    return 1 / os.path.exists('mended')\n")
    failed(project.run("--runtime-vars", "zz=3"))
    project.write("mended", "")
    project.run("--resume").expect(0)


def test_a_date_that_is_none(project: BatchProject) -> None:
    project.keys = {"variables": {"execution_date": "{{ 'tomorrow' }}"}}
    project.block("load", LOAD, type="data_loader")
    refused(project, r"metadata.yaml:\d+: the variable execution_date is not a date: 'tomorrow'")


def test_configuration(project: BatchProject) -> None:
    project.block("load", LOAD, type="data_loader")
    project.block(
        "next",
        "@transformer\ndef f(x, **kwargs):\n    return 1\n",
        configuration={"a": {"b": "{{ env_var('NOPE_X') }}"}},
    )
    refused(project, r"pipelines/p/metadata.yaml:\d+: .*NOPE_X")
    project.run("--block-uuid", "load").expect(0)


def test_configuration_that_only_a_run_can_render(project: BatchProject) -> None:
    project.block("load", LOAD, type="data_loader")
    given = {"up": "{{ block_output('load') }}", "on": "{{ execution_date.year > 2000 }}"}
    project.block(
        "next", "@transformer\ndef f(x, **kwargs):\n    return kwargs['configuration']\n", configuration=given
    )
    project.run().expect(0)
    assert project.output("next") == {"up": 1, "on": True}


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("select 1 as a,\n  '{{ env_var(\"NOPE_X\") }}' as b", r"next.sql:2: .*NOPE_X"),
        ("select 1 as a,\n  '{{ variables(\"nope\") }}' as b", r"next.sql:2: .*'nope'"),
        ("select '{{ secret('nope') | upper }}' as b", r"next.sql:1: .*nope"),
    ],
)
def test_sql(project: BatchProject, sql: str, says: str) -> None:
    project.block("load", LOAD, type="data_loader")
    project.block("next", sql, language="sql")
    refused(project, says)


def test_sql_that_may_not_need_it(project: BatchProject) -> None:
    project.block("load", LOAD, type="data_loader")
    sql = (
        "{% if nope is defined %}{{ env_var('NOPE_X') }}{% endif %}"
        "select {{ 1 if true else env_var('NOPE_X') }} as a, '{{ env_var(\"NOPE_X\", \"x\") }}' as b, "
        "{{ variables('n') }} as c"
    )
    project.block("next", sql, language="sql")
    project.run("--runtime-vars", "n=5").expect(0)
    assert project.output("next").to_dict("records") == [{"a": 1, "b": "x", "c": 5}]


def test_a_table_that_this_run_names(project: BatchProject) -> None:
    configuration = {"data_provider": "duckdb", "data_provider_table": "{{ variables('t') }}"}
    project.write("io_config.yaml", "default: {DUCKDB_DATABASE: w.duckdb}\n")
    project.block(
        "next", "select 1 as a", language="sql", type="data_exporter", upstream=[], configuration=configuration
    )
    project.run("--runtime-vars", "t=one").expect(0)


def test_check_tells_all_of_them(project: BatchProject) -> None:
    project.keys = {"variables": {"one": "{{ env_var('NOPE_X') }}", "two": "{{ variables('nope') }}"}}
    project.block("load", LOAD, type="data_loader")
    checks = json.loads(project.command("check", "p", "--json").expect(2).out)["checks"]
    wrong = [check["detail"] for check in checks if check["what"] == "variables"]
    assert len(wrong) == 2
    assert all(not check["ok"] for check in checks if check["what"] in ("variables", "plan"))


def test_what_is_rendered_stays_hidden(project: BatchProject) -> None:
    project.write(".streamline/secrets.yaml", "shop: hunter-2-hunter\n")
    (project.root / ".streamline/secrets.yaml").chmod(0o600)
    project.keys = {"variables": {"zz": "{{ secret('shop').nope.nope }}"}}
    project.block("load", LOAD, type="data_loader")
    completed = project.run().expect(2)
    assert "hunter-2" not in completed.text
