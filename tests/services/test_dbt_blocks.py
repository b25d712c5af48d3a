"""dbt blocks, run by dbt itself from the package index."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamline.blocks.dbt import block as dbt
from streamline.blocks.dbt.environment import dbt_environment
from streamline.blocks.dbt.profiles import DbtProfile, load_profile
from streamline.errors import ConfigError, StreamlineError
from tests.blocks.call_inputs import Calls, Given
from tests.services.postgres import PostgresServer
from tests.services.require import missing

pytestmark = pytest.mark.services


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose environments all tests use."""
    return Calls(tmp_path_factory.mktemp("dbt") / "environments").project.ensure_work_dir()


@pytest.fixture
def calls(tmp_path: Path, environments: Path, request: pytest.FixtureRequest) -> Iterator[Calls]:
    calls = Calls(tmp_path / "shop")
    (environments / "venvs").mkdir(exist_ok=True)
    (calls.project.ensure_work_dir() / "venvs").symlink_to(environments / "venvs")
    adapter = "postgres" if "postgres_server" in request.fixturenames else "duckdb"
    try:
        dbt_environment(calls.project, adapter, print)
    except ConfigError as error:
        missing(f"dbt cannot be installed: {error}")
    project(calls)
    before = snapshot(calls)
    yield calls
    assert snapshot(calls) == before, "the user's dbt project was written to"


def project(calls: Calls) -> None:
    calls.write("dbt/demo/dbt_project.yml", "name: demo\nversion: '1.0'\nprofile: demo\n")
    calls.write("dbt/demo/profiles.yml", "demo: {target: dev, outputs: {dev: {type: duckdb, path: w.duckdb}}}\n")


def snapshot(calls: Calls) -> list[Path]:
    """What stands in dbt/demo beside the tests' own files."""
    own = (".sql", ".yml", ".csv", ".py", ".duckdb")
    return sorted(one for one in (calls.root / "dbt").rglob("*") if one.is_file() and one.suffix not in own)


def model(calls: Calls, name: str, text: str) -> Path:
    return calls.write(f"dbt/demo/models/{name}", textwrap.dedent(text))


def run(
    calls: Calls,
    arguments: str,
    *inputs: Given,
    downstream: bool = True,
    uuid: str = "",
    variables: dict[str, Any] | None = None,
    kwargs: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[Any, list[dict[str, Any]]]:
    file = calls.write("dbts/it.yaml", arguments)
    configuration = {"dbt": {"command": "run", **options}, "dbt_project_name": "demo"}
    block = calls.block(
        "dbt", "yaml", file, configuration=configuration, downstream=["next"] if downstream else [], uuid=uuid
    )
    dbt.check_block(calls.project, block)
    call = calls.call(block, *inputs, variables=variables, **(kwargs or {}))
    return frames(dbt.run(call)), call.results


def frames(value: Any) -> Any:
    return pd.read_parquet(value.path) if hasattr(value, "path") else value


def short(results: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(one["resource_type"], one["name"], one["status"]) for one in results]


def test_models_tests_and_frames(calls: Calls) -> None:
    model(calls, "orders.sql", "select * from {{ source('streamline', 'load orders') }} where total > 1")
    model(calls, "sums.sql", "{{ config(materialized='table') }} select sum(total) as total from {{ ref('orders') }}")
    model(calls, "tests.yml", "version: 2\nmodels: [{name: orders, columns: [{name: id, data_tests: [unique]}]}]\n")
    orders = pd.DataFrame({"id": [1, 2, 3], "total": [1.0, 2.5, None], "note": ["ä", None, 'q"']})
    value, results = run(calls, "", Given("load orders", orders), command="build")
    assert short(results) == [
        ("model", "orders", "success"),
        ("test", "unique_orders_id", "pass"),
        ("model", "sums", "success"),
    ]
    assert all(one["seconds"] >= 0 for one in results)
    assert json.dumps(results)
    assert list(value) == ["orders", "sums"]
    assert value["orders"].drop(columns="note").to_dict("list") == {"id": [2], "total": [2.5]}
    assert pd.isna(value["orders"].note[0])
    assert value["sums"].total.tolist() == [2.5]
    # dbt's process has let go of the file, and the warehouse holds what the models made.
    with duckdb.connect(str(calls.root / "w.duckdb")) as warehouse:
        assert warehouse.execute("select total from sums").fetchall() == [(2.5,)]
    value, _ = run(calls, "--select sums", Given("load orders", orders))
    assert value.total.tolist() == [2.5]


def test_a_duckdb_file_that_another_block_has_open_is_waited_for(calls: Calls) -> None:
    model(calls, "one.sql", "select 1 as a")
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.readline()"
    command = [sys.executable, "-c", hold, str(calls.root / "w.duckdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        # Longer than dbt takes to come to the models, for which it needs the file.
        code = "import sys, time; time.sleep(8); print()"
        with subprocess.Popen([sys.executable, "-c", code], stdout=other.stdin):
            value, _ = run(calls, "")
    assert value.a.tolist() == [1]


def test_a_source_is_read_from_the_stored_file(calls: Calls, tmp_path: Path) -> None:
    file = tmp_path / "it's {here} (1).parquet"
    pq.write_table(pa.table({"id": [1, 2], "when": [dt.datetime(2024, 1, 1), None], "tags": [["a"], []]}), file)
    model(calls, "m.sql", "select id, \"when\", len(tags) as tags from {{ source('streamline', 'up') }}")
    value, _ = run(calls, "", Given("up", None, file=file))
    assert value.tags.tolist() == [1, 0]


def test_variables_and_targets(calls: Calls) -> None:
    calls.write(
        "dbt/demo/profiles.yml",
        "demo: {target: no, outputs: {no: {type: duckdb, path: \"{{ env_var('UNSET') }}\"}, "
        "dev: {type: duckdb, path: \"{{ var('file') }}\"}}}\n",
    )
    model(calls, "m.sql", "select '{{ var(\"who\") }}' as who, '{{ var(\"ds\") }}' as ds, {{ var('n') }} as n")
    value, _ = run(
        calls,
        "--target dev --vars '{who: {{ variables(\"name\") }}}'",
        variables={"name": "Ann: {x}", "file": "named.duckdb", "n": 3},
        kwargs={"ds": "2024-01-02", "logger": object()},
    )
    assert value.to_dict("list") == {"who": ["Ann: {x}"], "ds": ["2024-01-02"], "n": [3]}
    assert (calls.root / "named.duckdb").exists()


def test_a_model_that_fails(calls: Calls) -> None:
    model(calls, "sub/good.sql", "select 1 as id")
    model(calls, "sub/bad.sql", "select nothing from {{ ref('good') }}")
    model(calls, "after.sql", "select * from {{ ref('bad') }}")
    with pytest.raises(StreamlineError) as caught:
        run(calls, "")
    assert caught.value.message.startswith("dbt: model bad failed: ")
    assert "nothing" in caught.value.message
    assert caught.value.where == "dbt/demo/models/sub/bad.sql"


def test_a_test_that_fails_and_one_that_warns(calls: Calls) -> None:
    model(calls, "m.sql", "select 1 as id union all select 1")
    model(
        calls,
        "t.yml",
        """
        version: 2
        models:
          - name: m
            columns:
              - name: id
                data_tests: [unique, {accepted_values: {arguments: {values: [2]}, config: {severity: warn}}}]
        """,
    )
    file = calls.write("dbts/it.yaml", "")
    call = calls.call(calls.block("dbt", "yaml", file, configuration={"dbt": {"command": "build"}}))
    with pytest.raises(StreamlineError, match="dbt: test unique_m_id failed: Got 1 result, configured to fail if != 0"):
        dbt.run(call)
    assert {(one["name"], one["status"]) for one in call.results} == {
        ("m", "success"),
        ("unique_m_id", "fail"),
        ("accepted_values_m_id__2", "warn"),
    }
    assert any("accepted_values_m_id__2" in one for one in calls.warned)


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ("select * from {{ ref('gone') }}", "", "depends on a node named 'gone' which was not found"),
        ("select 1 as id", "--slect m", "No such option"),
        ("select {{ var('unset') }}", "", "Required var 'unset' not found"),
    ],
)
def test_what_dbt_refuses(calls: Calls, text: str, arguments: str, said: str) -> None:
    model(calls, "m.sql", text)
    with pytest.raises(StreamlineError) as caught:
        run(calls, arguments)
    assert said in caught.value.message
    assert caught.value.where in ("dbts/it.yaml", "dbt/demo/models/m.sql")


def test_an_output_that_is_no_table(calls: Calls) -> None:
    model(calls, "m.sql", "select * from {{ source('streamline', 'up') }}")
    with pytest.raises(StreamlineError, match=r"model m failed: IO Error: .*block up") as caught:
        run(calls, "", Given("up", 42))
    assert " up is no table, but int" in str(caught.value.hint)


def test_sources_that_are_upstream_of_other_blocks(calls: Calls) -> None:
    """dbt reads all of a project, and refuses it where a source is not described."""
    calls.write("pipelines/p/metadata.yaml", "blocks: [{uuid: up, type: data_loader, content: '#'}]\n")
    model(calls, "a.sql", "select * from {{ source('streamline', 'up') }}")
    model(calls, "b.sql", "select 1 as id")
    value, _ = run(calls, "--select b", uuid="first")
    assert value.id.tolist() == [1]
    with pytest.raises(StreamlineError, match=r"block up, .*not upstream of first"):
        run(calls, "--select a", uuid="first")
    run(calls, "--select a", Given("up", [{"id": 7}]), uuid="second")
    value, _ = run(calls, "--select a", uuid="first")
    assert value.id.tolist() == [7]


def test_one_model_by_its_file(calls: Calls) -> None:
    file = model(calls, "deep/one.sql", "select 1 as id")
    model(calls, "two.sql", "select 2 as id from {{ ref('one') }}")
    block = calls.block("dbt", "sql", file, uuid="deep/one", downstream=["next"])
    dbt.check_block(calls.project, block)
    call = calls.call(block)
    assert frames(dbt.run(call)).id.tolist() == [1]
    assert short(call.results) == [("model", "one", "success")]


def test_seeds_snapshots_packages_and_documentation(calls: Calls) -> None:
    calls.write("dbt/demo/seeds/countries.csv", "code,name\nDE,Germany\n")
    calls.write("dbt/shared/dbt_project.yml", "name: shared\nversion: '1.0'\n")
    calls.write("dbt/shared/macros/loud.sql", "{% macro loud(c) %}upper({{ c }}){% endmacro %}")
    calls.write("dbt/demo/packages.yml", "packages: [{local: ../shared}]\n")
    model(calls, "m.sql", "select {{ shared.loud('name') }} as name from {{ ref('countries') }}")
    value, results = run(calls, "", command="seed")
    assert short(results) == [("seed", "countries", "success")]
    assert value.name.tolist() == ["Germany"]
    value, _ = run(calls, "", command="build")
    assert value.name.tolist() == ["GERMANY"]
    value, results = run(calls, "", command="docs generate")
    assert value is None
    assert calls.logged[-1] == "dbt's documentation: .streamline/dbt/p/it/target/index.html"
    assert (calls.root / ".streamline/dbt/p/it/target/index.html").exists()
    value, results = run(calls, "--select m", command="test")
    assert (value, results) == (None, [])


def test_what_goes_downstream_can_be_chosen(calls: Calls) -> None:
    for name in ("a", "b", "c"):
        model(calls, f"{name}.sql", f"select '{name}' as name")
    assert run(calls, "", downstream=False)[0] is None
    assert list(run(calls, "", output=["a", "c"])[0]) == ["a", "c"]
    assert run(calls, "", output="b", downstream=False)[0].name.tolist() == ["b"]
    assert run(calls, "", output=False)[0] is None


def test_a_warehouse_in_memory(calls: Calls) -> None:
    calls.write("dbt/demo/profiles.yml", "demo: {target: dev, outputs: {dev: {type: duckdb}}}\n")
    model(calls, "m.sql", "select * from {{ source('streamline', 'up') }}")
    assert run(calls, "", Given("up", [{"id": 7}]))[0].id.tolist() == [7]


def test_secrets_stay_out_of_messages_and_command_lines(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLINE_SECRET_WORD", "open-sesame")
    model(calls, "m.sql", "select '{{ var(\"word\") }}'::int as word")
    with pytest.raises(StreamlineError) as caught:
        run(calls, "--vars '{word: {{ secret(\"word\") }}}'")
    assert "********" in caught.value.message
    assert "open-sesame" not in caught.value.message


def test_rows_of_other_warehouses_come_through_dbt(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    """What adapters without a connection of ours get, here with DuckDB in their place."""
    model(
        calls,
        "m.sql",
        "select s.id, s.note, s.ok, date '2024-02-29' as day, timestamp '2024-01-01 10:00:00.5' as at, 1.25 as x"
        " from {{ source('streamline', 'up') }} s order by id",
    )

    def as_other(*args: Any, **kwargs: Any) -> DbtProfile:
        profile = load_profile(*args, **kwargs)
        text = profile.text
        if kwargs.get("complete", True):
            profile.output["path"] = str(calls.root / "w.duckdb")
            profile.type = "duckdb_of_others"
            assert text()
        return profile

    monkeypatch.setattr("streamline.blocks.dbt.block.load_profile", as_other)
    here = dbt_environment(calls.project, "duckdb", print)
    monkeypatch.setattr("streamline.blocks.dbt.block.dbt_environment", lambda *_: here)
    up = pd.DataFrame({"id": [2, 1], "note": ['say "hi",\nthen', None], "ok": [True, False]})
    value, results = run(calls, "", Given("up", up))
    assert short(results) == [("model", "m", "success")]
    assert value.id.tolist() == [1, 2]
    assert value.note.tolist() == [None, 'say "hi",\nthen']
    assert value.ok.tolist() == [False, True]
    assert value.day.tolist() == [dt.date(2024, 2, 29)] * 2
    assert value["at"][0] == pd.Timestamp("2024-01-01 10:00:00.5")
    assert value.x.tolist() == [1.25, 1.25]


def test_postgres(calls: Calls, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLINE_SECRET_PG", postgres_server.password)
    with postgres_server.database() as database:
        calls.write(
            "dbt/demo/profiles.yml",
            f"""
demo:
  target: dev
  outputs:
    dev:
      {{type: postgres, host: {postgres_server.host}, port: {postgres_server.port}, user: {postgres_server.user},
       password: "{{{{ secret('pg') }}}}", dbname: {database}, schema: marts, threads: 2}}
""",
        )
        model(calls, "orders.sql", "select * from {{ source('streamline', 'load_orders') }}")
        model(calls, "sums.sql", "{{ config(materialized='table') }} select count(*) as n from {{ ref('orders') }}")
        orders = pd.DataFrame({"id": [1, 2], "at": pd.to_datetime(["2024-01-01", None]), "note": ["a", None]})
        value, results = run(calls, "", Given("load_orders", orders))
        assert short(results) == [("model", "orders", "success"), ("model", "sums", "success")]
        assert value["orders"].id.tolist() == [1, 2]
        assert value["orders"]["at"][0] == pd.Timestamp("2024-01-01")
        assert value["sums"].n.tolist() == [2]
        # The view `orders` reads the table: it stays while the table is filled anew, also when it is not run again.
        run(calls, "--select sums", Given("load_orders", pd.concat([orders, orders])))
        with postgres_server.connect(database) as connection:
            assert connection.execute("select count(*) from marts.orders").fetchone() == (4,)
            assert connection.execute("select n from marts.sums").fetchone() == (4,)
        # Other columns: the table is another, and its views with it.
        value, _ = run(calls, "", Given("load_orders", orders.assign(id=["x", "y"], more=1)))
        assert value["orders"].more.tolist() == [1, 1]


def test_two_blocks_on_one_file_wait_for_each_other(calls: Calls) -> None:
    model(calls, "a.sql", "{{ config(materialized='table') }} select 1 as id")
    file = calls.write("dbts/it.yaml", "")
    script = f"""
import sys
from pathlib import Path
from streamline.blocks.dbt import block as dbt
from tests.blocks.call_inputs import Calls
calls = Calls(Path({str(calls.root)!r}))
block = calls.block("dbt", "yaml", Path({str(file)!r}), uuid=sys.argv[1], downstream=["next"])
dbt.run(calls.call(block))
"""
    here = Path(__file__).parents[2]
    first = subprocess.Popen([sys.executable, "-c", script, "one"], cwd=here)
    second = subprocess.Popen([sys.executable, "-c", script, "two"], cwd=here)
    assert (first.wait(120), second.wait(120)) == (0, 0)


def test_dbt_dies_with_the_worker(calls: Calls) -> None:
    model(calls, "slow.sql", "select count(*) as n from range(1000000000000) a, range(1000000) b")
    file = calls.write("dbts/it.yaml", "")
    script = f"""
from pathlib import Path
from streamline.blocks.dbt import block as dbt
from tests.blocks.call_inputs import Calls
calls = Calls(Path({str(calls.root)!r}))
dbt.run(calls.call(calls.block("dbt", "yaml", Path({str(file)!r}))))
"""
    worker = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    try:
        children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
        deadline = time.monotonic() + 60
        while not (pids := children.read_text().split()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        worker.kill()
        worker.wait()
    deadline = time.monotonic() + 60
    while _alive(int(pids[0])):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return b") Z" not in Path(f"/proc/{pid}/stat").read_bytes()
    except (ProcessLookupError, FileNotFoundError):
        return False
