"""Block files as people have them from Mage's templates, run by the real command."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.batch import BatchProject


@pytest.fixture
def project(tmp_path: Path) -> Iterator[BatchProject]:
    made = BatchProject(tmp_path / "shop")
    # Mage's project, not ours.
    (made.root / "streamline.yaml").unlink()
    made.write("metadata.yaml", "project_type: standalone\nproject_uuid: f00\nvariables_dir: ~/.mage_data\n")
    made.write("__init__.py", "")
    made.write("io_config.yaml", "version: 0.1.1\ndefault:\n  POSTGRES_DB: analytics\n  SQLITE_DATABASE: shop.db\n")
    yield made
    made.close()


LOADER = """
    from mage_ai.settings.repo import get_repo_path
    from mage_ai.io.config import ConfigFileLoader
    from mage_ai.io.sqlite import SQLite
    from os import path
    if 'data_loader' not in globals():
        from mage_ai.data_preparation.decorators import data_loader
    if 'test' not in globals():
        from mage_ai.data_preparation.decorators import test


    @data_loader
    def load_data_from_sqlite(*args, **kwargs):
        query = 'SELECT * FROM orders ORDER BY id'
        config_path = path.join(get_repo_path(), 'io_config.yaml')
        config_profile = 'default'

        with SQLite.with_config(ConfigFileLoader(config_path, config_profile)) as loader:
            return loader.load(query)


    @test
    def test_output(output, *args) -> None:
        assert output is not None, 'The output is undefined'
        assert len(output) == 4
"""
IMPUTER = """
    from mage_ai.data_cleaner.transformer_actions.base import BaseAction
    from mage_ai.data_cleaner.transformer_actions.constants import ActionType, Axis, ImputationStrategy
    from mage_ai.data_cleaner.transformer_actions.utils import build_transformer_action
    from pandas import DataFrame

    if 'transformer' not in globals():
        from mage_ai.data_preparation.decorators import transformer


    @transformer
    def execute_transformer_action(df: DataFrame, *args, **kwargs) -> DataFrame:
        action = build_transformer_action(
            df,
            action_type=ActionType.IMPUTE,
            arguments=df.columns,
            axis=Axis.COLUMN,
            options={'strategy': ImputationStrategy.CONSTANT},
        )

        return BaseAction(action).execute(df)
"""
EXPORTER = """
    from mage_ai.io.file import FileIO
    from pandas import DataFrame

    if 'data_exporter' not in globals():
        from mage_ai.data_preparation.decorators import data_exporter


    @data_exporter
    def export_data_to_file(df: DataFrame, **kwargs) -> None:
        FileIO().export(df, 'titanic_clean.csv')
"""


def test_load_clean_export(project: BatchProject) -> None:
    with sqlite3.connect(project.root / "shop.db") as database:
        database.execute("create table orders (id integer, who text, total real)")
        database.executemany(
            "insert into orders values (?, ?, ?)", [(1, "Ann", 1.5), (2, None, None), (3, "Cy", 2.25), (4, "Dee", 4)]
        )
    project.block("load_orders", LOADER, type="data_loader")
    project.block("impute", IMPUTER)
    project.block("export_csv", EXPORTER, type="data_exporter")
    project.command("run", "p", "--test").expect(0)
    assert (project.root / "titanic_clean.csv").read_text().splitlines() == [
        "id,who,total",
        "1,Ann,1.5",
        "2,missing,0.0",
        "3,Cy,2.25",
        "4,Dee,4.0",
    ]


def test_decorators_imported_without_the_idiom(project: BatchProject) -> None:
    project.block(
        "load",
        """
        from mage_ai.data_preparation.decorators import data_loader

        @data_loader
        def load(*args, **kwargs):
            return [1, 2, 3]
        """,
        type="data_loader",
    )
    project.command("run", "p").expect(0)
    assert project.output("load") == [1, 2, 3]


def test_a_module_of_the_project_by_the_project_s_name(project: BatchProject) -> None:
    project.write("utils/__init__.py", "")
    project.write("utils/sums.py", "def double(x):\n    return 2 * x\n")
    project.block(
        "load",
        """
        from shop.utils.sums import double
        if 'data_loader' not in globals():
            from mage_ai.data_preparation.decorators import data_loader

        @data_loader
        def load(*args, **kwargs):
            return double(21)
        """,
        type="data_loader",
    )
    project.command("run", "p").expect(0)
    assert project.output("load") == 42


def test_the_project_s_folder_is_known_wherever_the_block_goes(project: BatchProject) -> None:
    project.block(
        "load",
        """
        import os
        from mage_ai.data_preparation.repo_manager import (
            RepoConfig, get_project_uuid, get_repo_config, get_repo_path
        )
        from mage_ai.settings.repo import get_data_dir, get_repo_name, get_variables_dir
        if 'custom' not in globals():
            from mage_ai.data_preparation.decorators import custom

        @custom
        def where(*args, **kwargs):
            os.chdir('/')
            config = get_repo_config()
            return [get_repo_path(), get_repo_name(), get_variables_dir(), get_data_dir(), get_project_uuid(),
                    config.project_uuid, config.variables_dir, config.repo_name, config.spark_config,
                    RepoConfig(config_dict={'s3_bucket': 'b'}).s3_bucket]
        """,
        type="custom",
        upstream=[],
    )
    project.command("run", "p", env={"MAGE_DATA_DIR": ""}).expect(0)
    data = str(project.root / ".streamline" / "data")
    assert project.output("load") == [
        *[str(project.root), "shop", data, data, "f00"],
        *["f00", data, "shop", None, "b"],
    ]


def test_secrets_are_found_and_masked(project: BatchProject) -> None:
    project.block(
        "load",
        """
        from mage_ai.data_preparation.shared.secrets import get_secret_value
        if 'data_loader' not in globals():
            from mage_ai.data_preparation.decorators import data_loader

        @data_loader
        def load(*args, **kwargs):
            print('the password is', get_secret_value('shop'))
            return [get_secret_value('shop') == 'Tops3cret', get_secret_value('nothing')]
        """,
        type="data_loader",
    )
    completed = project.command("run", "p", env={"STREAMLINE_SECRET_SHOP": "Tops3cret"}).expect(0)
    assert project.output("load") == [True, None]
    log = "".join(path.read_text() for path in (project.root / ".streamline" / "runs").glob("*/*.log"))
    assert "the password is ********" in log
    assert "Could not find secret value for secret nothing" in log
    assert "Tops3cret" not in completed.text + log


def test_a_pipeline_that_triggers_another_and_a_sensor_that_waits_for_it(project: BatchProject) -> None:
    project.block(
        "write",
        """
        if 'data_loader' not in globals():
            from mage_ai.data_preparation.decorators import data_loader

        @data_loader
        def load(*args, **kwargs):
            with open('log.txt', 'a') as file:
                file.write(f"{kwargs['name']} {kwargs['trigger_name']}\\n")
        """,
        type="data_loader",
    )
    project.save("child")
    (project.root / "pipelines" / "p" / "metadata.yaml").unlink()
    project.entries["blocks"].clear()
    project.block(
        "trigger",
        """
        from mage_ai.orchestration.triggers.api import trigger_pipeline
        if 'custom' not in globals():
            from mage_ai.data_preparation.decorators import custom

        @custom
        def trigger(*args, **kwargs):
            run = trigger_pipeline(
                'child',
                variables={'name': 'Ann'},
                check_status=True,
                error_on_failure=True,
                poll_interval=60,
                poll_timeout=None,
                schedule_name='by hand',
                verbose=True,
            )
            return run.status
        """,
        type="custom",
        upstream=[],
    )
    project.block(
        "wait",
        """
        from mage_ai.orchestration.run_status_checker import check_status

        if 'sensor' not in globals():
            from mage_ai.data_preparation.decorators import sensor


        @sensor
        def check_condition(*args, **kwargs) -> bool:
            return check_status('child', kwargs['execution_date'], block_uuid='write', hours=24)
        """,
        type="sensor",
        upstream=["trigger"],
    )
    project.run().expect(0)
    assert project.output("trigger") == "completed"
    assert project.lines() == ["Ann by hand"]


def test_a_callback_of_the_template(project: BatchProject) -> None:
    project.block("load", "@data_loader\ndef load(): return 7\n", type="data_loader")
    project.block(
        "tell",
        """
        if 'callback' not in globals():
            from mage_ai.data_preparation.decorators import callback


        @callback('success')
        def success_callback(parent_block_data, **kwargs):
            open('log.txt', 'a').write(f"{kwargs['parent_block_uuid']} gave {parent_block_data}\\n")


        @callback('failure')
        def failure_callback(parent_block_data, **kwargs):
            open('log.txt', 'a').write('failed\\n')
        """,
        type="callback",
        upstream=["load"],
    )
    project.command("run", "p").expect(0)
    assert project.lines() == ["load gave 7"]


def test_variables_read_and_set_by_code(project: BatchProject) -> None:
    project.keys["variables"] = {"since": 3, "name": "{{ env_var('WHO') }}"}
    project.block("load", "@data_loader\ndef load(): return 'first', 'second'\n", type="data_loader")
    project.block(
        "note",
        """
        from mage_ai.data_preparation.variable_manager import get_global_variable, get_variable, set_global_variable
        if 'custom' not in globals():
            from mage_ai.data_preparation.decorators import custom

        @custom
        def note(*args, **kwargs):
            since = get_global_variable(kwargs['pipeline_uuid'], 'since')
            set_global_variable(kwargs['pipeline_uuid'], 'since', since + 1)
            return [since, get_global_variable('p', 'name'), get_variable('p', 'load', 'output_1')]
        """,
        type="custom",
    )
    project.command("run", "p", env={"WHO": "Ann"}).expect(0)
    project.command("run", "p", env={"WHO": "Ann"}).expect(0)
    assert project.output("note") == [4, "Ann", "second"]


def test_an_import_that_is_not_served_names_the_block_and_a_way_out(project: BatchProject) -> None:
    project.block(
        "load",
        """
        from mage_ai.services.slack import Slack

        @data_loader
        def load(): ...
        """,
        type="data_loader",
    )
    completed = project.command("run", "p")
    assert completed.code == 1
    assert "data_loaders/load.py:2" in completed.text
    assert "mage_ai.services.slack" in completed.text
