"""Bookmarks given for a run: what nothing would start from is refused, and variables are rendered."""

from __future__ import annotations

import re

import pytest

from tests.conformance.integration.common import rows_tap
from tests.conftest import MakeProject
from tests.support.project import target, transformer


@pytest.mark.parametrize(
    ("given", "message"),
    [("nubmers.id=3", "no stream 'nubmers'.*numbers"), ("other.id=3", "reads no stream 'other'")],
)
def test_a_bookmark_of_a_stream_that_is_not_read_is_refused(
    make_project: MakeProject, given: str, message: str
) -> None:
    project = make_project(rows_tap({"numbers": 30, "other": 5}), target())

    project.run("--stream", "numbers", "--bookmark", given).expect(2, message)

    assert project.rows() == []


@pytest.mark.parametrize("name", ["nubmers", "nubm*"])
@pytest.mark.parametrize("more", [(), ("--full-refresh",), ("--stream", "numbers")])
def test_a_stream_that_no_source_has_is_refused(make_project: MakeProject, name: str, more: tuple[str, ...]) -> None:
    project = make_project(rows_tap({"numbers": 30}), target())

    project.run("--stream", name, *more).expect(2, f"--stream {re.escape(name)}: no source has that stream")

    assert project.rows() == []


def test_bookmark_values_of_a_block_that_is_no_source_are_refused(make_project: MakeProject) -> None:
    values = {"__bookmark_values__": {"laod": {"numbers": {"id": 25}}}}
    project = make_project(rows_tap({"numbers": 30}), target(), variables=values)

    project.run().expect(2, "no source 'laod'.*'load'")


def test_bookmark_values_are_rendered(make_project: MakeProject) -> None:
    values = {"__bookmark_values__": {"load": {"numbers": {"id": "{{ env_var('BEGIN') }}"}}}}
    blocks = (rows_tap({"numbers": 30}, {"spy": "spy"}), target())
    project = make_project(*blocks)
    project.run().expect(0)
    project.pipeline("p", *blocks, variables=values)

    project.run(env={"BEGIN": "28"}).expect(0)

    assert project.spied()[-1]["state"]["bookmarks"]["numbers"]["replication_key_value"] == 28


def test_a_transformer_gets_its_variables_rendered(make_project: MakeProject) -> None:
    code = (
        "from streamline.decorators import transformer\n\n\n@transformer\n"
        "def change(messages: list[dict], *args, **kwargs):\n"
        "    return [{**m, 'text': f\"{kwargs['shop']} {kwargs['given']}\"} for m in messages]\n"
    )
    project = make_project(
        rows_tap({"numbers": 1}), transformer(code), target(), variables={"shop": "{{ env_var('SHOP') }}", "given": ""}
    )

    project.run("--runtime-vars", "given={{ secret }}", env={"SHOP": "north"}).expect(0)

    assert project.rows()[0]["text"] == "north {{ secret }}"


def test_a_transformer_is_told_which_run_and_attempt_it_is_part_of(make_project: MakeProject) -> None:
    code = (
        "from streamline.decorators import transformer\n\n\n@transformer\n"
        "def change(messages: list[dict], *args, **kwargs):\n"
        "    words = [kwargs['env'], kwargs['ds'], kwargs['hr'], kwargs['execution_date'].isoformat(),\n"
        "             str(kwargs['retry']['attempts']), kwargs['run_id'], kwargs['block_uuid']]\n"
        "    return [{**m, 'text': ' '.join(words)} for m in messages]\n"
    )
    fail = {"fail": {"stream": "numbers", "after": 20, "once": "failed"}}
    project = make_project(
        rows_tap({"numbers": 30}, fail), transformer(code), target(), retry_config={"retries": 1, "delay": 1}
    )

    project.run(env={"ENV": "staging"}).expect(0)

    (run,) = project.runs()
    seen = [row["text"].split() for row in project.rows()]
    assert [seen[0][4], seen[-1][4]] == ["1", "2"]
    for env, ds, hr, date, _, run_id, block in seen:
        assert (env, run_id, block) == ("staging", run["run_id"], "change")
        assert date == seen[0][3], "one run has one date"
        assert date.startswith(f"{ds}T{hr}:")
