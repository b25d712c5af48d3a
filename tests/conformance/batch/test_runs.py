"""What a run of a batch pipeline does with its blocks."""

from __future__ import annotations

import json
import subprocess
import sys

import pandas as pd
import pytest

from tests.support.batch import BatchProject, failed

LOAD = """
import pandas as pd

if 'data_loader' not in globals():
    from streamline.decorators import data_loader

@data_loader
def load(*args, **kwargs):
    return pd.DataFrame({'id': [1, 2, 3], 'amount': [10.0, 20.0, 30.0]})
"""
NOTE = "open('log.txt', 'a').write('{}\\n')"


def test_blocks_run_in_the_order_of_their_dependencies(project: BatchProject) -> None:
    project.block("load", LOAD, type="data_loader")
    project.block(
        "double",
        """
        @transformer
        def double(rows, *args, **kwargs):
            return rows.assign(amount=rows['amount'] * 2)
        """,
    )
    project.block(
        "export",
        """
        @data_exporter
        def export(rows, *args, **kwargs):
            rows.to_csv('out.csv', index=False)
        """,
        type="data_exporter",
    )
    completed = project.run().expect(0, "load .*completed", "completed: 3 completed")
    assert pd.read_csv(project.root / "out.csv")["amount"].tolist() == [20.0, 40.0, 60.0]
    # The seed's place for outputs, and plain Parquet.
    stored = project.root / ".streamline" / "data" / "p" / "double" / "output_0.parquet"
    assert pd.read_parquet(stored)["amount"].tolist() == [20.0, 40.0, 60.0]
    assert project.output("export") is None
    assert project.statuses() == {"load": "completed", "double": "completed", "export": "completed"}, completed


def test_a_project_may_be_named_before_the_pipeline(project: BatchProject) -> None:
    project.block("load", LOAD, type="data_loader")
    project.command("run", str(project.root), "p").expect(0)


def test_a_failed_block_stops_what_is_behind_it_and_nothing_else(project: BatchProject) -> None:
    project.block("load", LOAD, type="data_loader")
    project.block("bad", "@transformer\ndef bad(rows, *args):\n    return rows['total']\n", upstream=["load"])
    project.block("behind", "@transformer\ndef behind(rows, *args):\n    return rows\n", upstream=["bad"])
    project.block("other", "@transformer\ndef other(rows, *args):\n    return len(rows)\n", upstream=["load"])
    completed = project.run()
    failed(completed, r"bad: transformers/bad.py:3: KeyError: 'total'", "--resume")
    assert project.statuses() == {
        "load": "completed",
        "bad": "failed",
        "behind": "upstream_failed",
        "other": "completed",
    }
    assert project.output("other") == 3


def test_independent_blocks_run_side_by_side(project: BatchProject) -> None:
    # Each waits until the other has begun: alone, none would ever end.
    for name, other in (("a", "b"), ("b", "a")):
        project.block(
            name,
            f"""
            import pathlib, time
            @data_loader
            def load(*args, **kwargs):
                pathlib.Path('{name}.begun').touch()
                while not pathlib.Path('{other}.begun').exists():
                    time.sleep(0.01)
                return '{name}'
            """,
            type="data_loader",
            timeout=30,
        )
    project.run().expect(0)


def test_only_so_many_blocks_run_at_once(project: BatchProject) -> None:
    project.keys["concurrency_config"] = {"block_run_limit": 2}
    for number in range(6):
        project.block(
            f"b{number}",
            """
            import os, time
            @data_loader
            def load(*args, **kwargs):
                open('log.txt', 'a').write('+')
                time.sleep(0.1)
                open('log.txt', 'a').write('-')
            """,
            type="data_loader",
        )
    project.run().expect(0)
    running = most = 0
    for sign in (project.root / "log.txt").read_text():
        running += 1 if sign == "+" else -1
        most = max(most, running)
    assert most <= 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--runtime-vars", '{"env": "prod", "limit": 3}'], {"env": "prod", "limit": 3, "own": "yes"}),
        (["--runtime-vars", "env=prod", "--runtime-vars", "limit=3"], {"env": "prod", "limit": 3, "own": "yes"}),
        ([], {"env": "dev", "limit": 1, "own": "yes"}),
    ],
)
def test_variables_of_the_run_win_over_the_pipelines(
    project: BatchProject, given: list[str], expected: dict[str, object]
) -> None:
    project.keys["variables"] = {"limit": 1, "own": "yes"}
    project.block(
        "load",
        """
        @data_loader
        def load(*args, **kwargs):
            return {key: kwargs.get(key) for key in ('env', 'limit', 'own')}
        """,
        type="data_loader",
    )
    project.run(*given).expect(0)
    assert project.output("load") == expected


def test_env_is_the_environments_where_no_variable_says_otherwise(project: BatchProject) -> None:
    project.block("load", "@data_loader\ndef load(**kwargs):\n    return kwargs['env']\n", type="data_loader")
    project.run(env={"ENV": "staging"}).expect(0)
    assert project.output("load") == "staging"


def test_every_block_is_told_when_and_what_it_is(project: BatchProject) -> None:
    project.block(
        "load",
        """
        @data_loader
        def load(*args, **kwargs):
            date = kwargs['execution_date']
            kwargs['logger'].info('hello from the logger')
            return {
                'ds': kwargs['ds'] == date.strftime('%Y-%m-%d'), 'hr': kwargs['hr'] == date.strftime('%H'),
                'aware': date.tzinfo is not None, 'pipeline': kwargs['pipeline_uuid'], 'block': kwargs['block_uuid'],
                'run': kwargs['run_id'], 'configuration': kwargs['configuration'], 'context': kwargs['context'],
                'attempts': kwargs['retry']['attempts'], 'start': kwargs['interval_start_datetime'] == date,
            }
        """,
        type="data_loader",
        configuration={"table": "orders"},
    )
    project.run().expect(0)
    output = project.output("load")
    run = project.runs()[0]["run_id"]
    assert output == {
        "ds": True, "hr": True, "aware": True, "pipeline": "p", "block": "load", "run": run,
        "configuration": {"table": "orders"}, "context": {}, "attempts": 1, "start": True,
    }  # fmt: skip
    assert "hello from the logger" in project.logs()


def test_templates_in_a_configuration_see_variables_and_upstream_outputs(project: BatchProject) -> None:
    project.keys["variables"] = {"table": "orders", "full": "{{ variables('table') }}_2026"}
    project.block("first", "@data_loader\ndef load():\n    return {'host': 'h'}\n", type="data_loader")
    project.block(
        "second",
        "@transformer\ndef show(first, **kwargs):\n    return [kwargs['configuration'], kwargs['full']]\n",
        configuration={
            "table": "{{ variables('full') }}",
            "host": "{{ block_output('first', parse='lambda data: data[\"host\"]') }}",
        },
    )
    project.run().expect(0)
    assert project.output("second") == [{"table": "orders_2026", "host": "h"}, "orders_2026"]


def test_a_block_is_tried_again(project: BatchProject) -> None:
    project.block(
        "flaky",
        """
        @data_loader
        def load(*args, **kwargs):
            open('log.txt', 'a').write(f"{kwargs['retry']['attempts']}\\n")
            if kwargs['retry']['attempts'] < 3:
                raise ConnectionError('the server is away')
            return 'there'
        """,
        type="data_loader",
        retry_config={"retries": 3, "delay": 0.01},
    )
    project.run().expect(0, "ConnectionError: the server is away; retry in 0.01 s", "3 attempts")
    assert project.lines() == ["1", "2", "3"]
    assert project.shown()["blocks"][0]["attempts"] == 3


def test_retries_end(project: BatchProject) -> None:
    project.keys["retry_config"] = {"retries": 2, "delay": 0.01}
    project.block(
        "down",
        "@data_loader\ndef load():\n    open('log.txt', 'a').write('x\\n')\n    raise OSError('down')\n",
        type="data_loader",
    )
    failed(project.run(), "down: data_loaders/down.py:4: OSError: down")
    assert len(project.lines()) == 3


def test_one_block_alone_runs_on_stored_inputs(project: BatchProject) -> None:
    for name, upstream in (("a", []), ("b", ["a"]), ("c", ["b"])):
        project.block(
            name,
            f"@custom\ndef run(value=0, *args, **kwargs):\n    {NOTE.format(name)}\n    return (value or 0) + 1\n",
            type="custom",
            upstream=upstream,
        )
    project.run("--block-uuid", "b", "--json").expect(2, "block.no_stored_output", "--block-uuid a")
    assert project.lines() == []
    project.run().expect(0)
    project.run("--block-uuid", "b").expect(0)
    assert project.lines() == ["a", "b", "c", "b"]
    assert project.output("b") == 2
    project.run("--block-uuid", "nope").expect(2, "no block 'nope'")


def test_tests_run_when_they_are_asked_for(project: BatchProject) -> None:
    project.block(
        "load",
        """
        @data_loader
        def load():
            return [1, 2]

        @test
        def test_length(output, *args):
            assert len(output) == 3, 'three were expected'

        @test
        def test_first(output, *args):
            assert output[0] == 7
        """,
        type="data_loader",
    )
    project.block("behind", "@transformer\ndef show(found):\n    return found\n")
    project.run().expect(0)
    failed(project.run("--test"), "2 of 2 tests failed", "test_length.*three were expected", "test_first")
    assert project.statuses() == {"load": "failed", "behind": "upstream_failed"}
    # A block that is run alone is tested, as it always is in Mage.
    failed(project.run("--block-uuid", "load"), "three were expected")


def test_tests_of_stored_outputs_run_no_block(project: BatchProject) -> None:
    project.command("test", "p").expect(2, "'p'")
    code = "@data_loader\ndef load():\n    open('log.txt', 'a').write('x\\n')\n    return [1]\n\n"
    test = "@test\ndef test_output(output):\n    assert len(output) == {}, 'wrong length'\n"
    project.block("load", code + test.format(1), type="data_loader")
    project.command("test", "p").expect(2, "no stored outputs")
    project.run().expect(0)
    project.command("test", "p").expect(0, "load: test_output passed", "1 test passed, 0 failed")
    project.write("data_loaders/load.py", code + test.format(2))
    completed = project.command("test", "p")
    assert completed.code == 1, completed
    assert "load: test_output: data_loaders/load.py:8: AssertionError: wrong length" in completed.err
    report = json.loads(project.command("test", "p", "--json").out)
    assert report["blocks"][0]["tests"][0]["passed"] is False
    assert project.lines() == ["x"]


def test_json_of_a_run_is_all_that_stdout_has(project: BatchProject) -> None:
    project.block("load", "@data_loader\ndef load():\n    print('noise')\n    return 1\n", type="data_loader")
    completed = project.run("--json").expect(0, "noise")
    report = json.loads(completed.out)
    assert report["status"] == "completed"
    (block,) = report["blocks"]
    assert (block["uuid"], block["status"], block["attempts"]) == ("load", "completed", 1)
    assert block["results"] == [{"name": "output_0", "kind": "json", "rows": None}]


def test_a_secret_output_is_never_stored(project: BatchProject) -> None:
    project.block(
        "token",
        "@data_loader\ndef load():\n    return {'token': 'hunter2-hunter2'}\n",
        type="data_loader",
        configuration={"secret_output": True},
    )
    project.block("use", "@transformer\ndef use(found):\n    return len(found['token'])\n")
    project.run().expect(0)
    assert project.output("use") == 15
    for file in (project.root / ".streamline").rglob("*"):
        assert not file.is_file() or b"hunter2" not in file.read_bytes(), file
    project.run("--block-uuid", "use", "--json").expect(2, "block.no_stored_output", "secret")


def test_what_a_block_reads_as_a_secret_is_masked_in_what_it_prints(project: BatchProject) -> None:
    project.block(
        "load",
        """
        @data_loader
        def load(*args, **kwargs):
            print('the password is', kwargs['configuration']['password'])
            raise ValueError('cannot log in with ' + kwargs['configuration']['password'])
        """,
        type="data_loader",
        configuration={"password": "{{ secret('shop') }}"},
    )
    completed = project.run(env={"STREAMLINE_SECRET_SHOP": "hunter2-hunter2"})
    failed(completed, "the password is", "cannot log in with")
    assert "hunter2" not in completed.text + project.logs()


def test_two_runs_of_a_pipeline_do_not_go_on_at_once(project: BatchProject) -> None:
    project.block(
        "wait",
        """
        import pathlib, time
        @data_loader
        def load():
            pathlib.Path('begun').touch()
            while not pathlib.Path('end').exists():
                time.sleep(0.01)
        """,
        type="data_loader",
        timeout=60,
    )
    from tests.support.processes import wait_until

    running = project.start("run", "p")
    wait_until((project.root / "begun").exists, "the block begins")
    project.command("run", "p", "--json").expect(1, "run.lease_held")
    (project.root / "end").touch()
    running.finish().expect(0)


def test_blocks_import_what_lies_in_the_project(project: BatchProject) -> None:
    project.write("utils/__init__.py", "")
    project.write("utils/dates.py", "def first():\n    return '2026-01-01'\n")
    project.block(
        "load",
        """
        from shop.utils.dates import first as through_the_parent
        from utils.dates import first

        @data_loader
        def load():
            return [first(), through_the_parent(), open('streamline.yaml').read()]
        """,
        type="data_loader",
    )
    project.run().expect(0)
    assert project.output("load") == ["2026-01-01", "2026-01-01", "name: shop\n"]


def test_variables_that_no_other_process_could_be_given_are_refused_at_once(project: BatchProject) -> None:
    project.block("a", "@data_loader\ndef load(**kwargs):\n    return 1\n", type="data_loader")
    script = "import streamline, threading\nstreamline.Pipeline('p').execute_sync({'guard': threading.Lock()})\n"
    ran = subprocess.run([sys.executable, "-c", script], cwd=project.root, capture_output=True, text=True, check=False)
    assert "ConfigError: the variable 'guard' cannot be sent to a worker process" in ran.stderr
    assert project.runs() == []


def test_an_output_that_becomes_secret_is_deleted(project: BatchProject) -> None:
    project.block("key", "@data_loader\ndef load():\n    return 'pass'\n", type="data_loader")
    project.block("user", "@transformer\ndef use(key):\n    return len(key)\n")
    project.run().expect(0)
    project.entries["blocks"][0]["configuration"] = {"secret_output": True}
    project.save()
    project.run("--block-uuid", "user", "--json").expect(2, "'key'", "block.no_stored_output", "secret")
    project.run().expect(0)
    assert not (project.root / ".streamline" / "data" / "p" / "key").exists()
    assert project.output("user") == 4


def test_a_mended_test_is_run_on_the_output_that_failed_it(project: BatchProject) -> None:
    code = "@data_loader\ndef load():\n    open('log.txt', 'a').write('ran\\n')\n    return [1]\n\n"
    test = "@test\ndef test_length(output):\n    assert len(output) == {}\n"
    project.block("a", code + test.format(2), type="data_loader")
    failed(project.run("--test"), "test_length")
    project.command("test", "p").expect(1, "1 failed")
    project.write("data_loaders/a.py", code + test.format(1))
    project.command("test", "p").expect(0, "1 test passed")
    assert project.lines() == ["ran"]


def test_a_date_given_moves_the_execution_date(project: BatchProject) -> None:
    code = "@data_loader\ndef load(execution_date, ds, **kwargs):\n    return [execution_date.isoformat(), ds]\n"
    project.block("a", code, type="data_loader")
    for given in ("2026-03-04", "2026-03-04T00:00+00:00"):
        project.run("--runtime-vars", f"execution_date={given}").expect(0)
        assert project.output("a") == ["2026-03-04T00:00:00+00:00", "2026-03-04"]
    project.keys["variables"] = {"execution_date": "{{ env_var('DAY', '2026-05-06') }}"}
    project.save()
    project.run().expect(0)
    assert project.output("a") == ["2026-05-06T00:00:00+00:00", "2026-05-06"]


@pytest.mark.parametrize("given", ["soon", "12"])
def test_what_is_no_date_is_refused_before_anything_runs(project: BatchProject, given: str) -> None:
    project.block("a", "@data_loader\ndef load(**kwargs):\n    return 1\n", type="data_loader")
    project.run("--runtime-vars", f"execution_date={given}", "--json").expect(2, "variable.not_a_date")
    assert project.runs() == []


def test_a_block_alone_whose_inputs_are_not_stored_is_no_run(project: BatchProject) -> None:
    project.block("a", "@data_loader\ndef load():\n    return 1\n", type="data_loader")
    project.block("b", "@transformer\ndef b(x):\n    return x\n")
    project.run("--block-uuid", "b", "--json").expect(2, "block.no_stored_output", "--block-uuid a")
    assert project.runs() == []


def test_a_timeout_may_be_of_months(project: BatchProject) -> None:
    project.block("a", "@data_loader\ndef load():\n    return 1\n", type="data_loader", timeout=90 * 86_400)
    project.run().expect(0)


def test_a_block_alone_whose_tests_fail_keeps_the_output_that_passed(project: BatchProject) -> None:
    code = "@data_loader\ndef load():\n    return {0}\n@test\ndef ok(x):\n    assert x == 1, 'only one'\n"
    project.block("load", code.format(1), type="data_loader")
    project.block("use", "@transformer\ndef use(x):\n    return x\n")
    project.run().expect(0)
    (project.root / "data_loaders/load.py").write_text(code.format(2))
    failed(project.run("--block-uuid", "load"), "only one")
    assert project.output("load") == 1
    project.run("--block-uuid", "use").expect(0)
    (project.root / "data_loaders/load.py").write_text(code.format("True"))
    project.run("--block-uuid", "load").expect(0)
    assert project.output("load") is True
