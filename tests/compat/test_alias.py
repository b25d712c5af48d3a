"""`mage_ai` where it is not installed: what is served, what is not, and who wins where a real one is."""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from unittest.mock import patch

import pytest

import streamline
from streamline.compat.alias import modules, names_in
from streamline.decorators import marks_of
from streamline.project.suggest import words

REPOSITORY = Path(__file__).parents[2]

COUNTED = [
    ("mage_ai.io.config", "ConfigFileLoader"),
    ("mage_ai.io.config", "ConfigKey"),
    ("mage_ai.io.config", "EnvironmentVariableLoader"),
    ("mage_ai.settings.repo", "get_repo_path"),
    ("mage_ai.settings.repo", "get_variables_dir"),
    ("mage_ai.settings.repo", "get_data_dir"),
    *(
        ("mage_ai.data_preparation.decorators", name)
        for name in sorted(
            words(
                "data_exporter data_loader test transformer sensor custom condition callback extension "
                "streaming_source streaming_sink on_success on_failure"
            )
        )
    ),
    ("mage_ai.io.postgres", "Postgres"),
    ("mage_ai.io.mysql", "MySQL"),
    ("mage_ai.io.duckdb", "DuckDB"),
    ("mage_ai.io.sqlite", "SQLite"),
    ("mage_ai.io.file", "FileIO"),
    ("mage_ai.io.s3", "S3"),
    ("mage_ai.io.google_cloud_storage", "GoogleCloudStorage"),
    ("mage_ai.io.azure_blob_storage", "AzureBlobStorage"),
    ("mage_ai.io.base", "DataSource"),
    ("mage_ai.io.base", "ExportWritePolicy"),
    ("mage_ai.io.base", "FileFormat"),
    ("mage_ai.io.constants", "UNIQUE_CONFLICT_METHOD_UPDATE"),
    ("mage_ai.orchestration.triggers.api", "trigger_pipeline"),
    ("mage_ai.orchestration.run_status_checker", "check_status"),
    ("mage_ai.data_cleaner.transformer_actions.base", "BaseAction"),
    ("mage_ai.data_cleaner.transformer_actions.constants", "ActionType"),
    ("mage_ai.data_cleaner.transformer_actions.constants", "Axis"),
    ("mage_ai.data_cleaner.transformer_actions.constants", "ImputationStrategy"),
    ("mage_ai.data_cleaner.transformer_actions.utils", "build_transformer_action"),
    ("mage_ai.data_cleaner.column_types.constants", "ColumnType"),
    ("mage_ai.data_preparation.models.pipeline", "Pipeline"),
    ("mage_ai.data_preparation.models.pipeline", "PipelineType"),
    ("mage_ai.data_preparation.models.constants", "BlockLanguage"),
    ("mage_ai.data_preparation.models.constants", "BlockType"),
    ("mage_ai.data_preparation.models.constants", "PipelineType"),
    ("mage_ai.data_preparation.models.triggers", "ScheduleStatus"),
    ("mage_ai.data_preparation.repo_manager", "get_repo_path"),
    ("mage_ai.data_preparation.shared.secrets", "get_secret_value"),
    ("mage_ai.data_preparation.variable_manager", "get_variable"),
    ("mage_ai.data_preparation.variable_manager", "set_global_variable"),
    ("mage_ai.streaming.sources.base_python", "BasePythonSource"),
    ("mage_ai.streaming.sinks.base_python", "BasePythonSink"),
    ("mage_ai.shared.hash", "ignore_keys"),
    ("mage_ai.shared.strings", "is_number"),
    ("mage_ai", "run"),
]


@pytest.mark.parametrize(("module", "name"), COUNTED)
def test_names_that_mage_files_import(module: str, name: str) -> None:
    space: dict[str, object] = {}
    exec(f"from {module} import {name}", space)
    assert space[name] is getattr(sys.modules[module], name)
    assert name in dir(sys.modules[module])


def test_every_name_that_is_said_to_be_served_is() -> None:
    for module in modules():
        for name in names_in(module):
            if f"{module}.{name}" not in modules():
                assert getattr(importlib.import_module(module), name) is not None, f"{module}.{name}"


def test_decorators_are_streamline_s_own() -> None:
    from mage_ai.data_preparation.decorators import callback, data_loader

    assert data_loader is streamline.decorators.data_loader

    @callback("failure")
    def tell() -> None: ...

    assert marks_of(tell)[0].args == ("failure",)


def test_a_name_that_is_not_there_says_what_is() -> None:
    with pytest.raises(ImportError, match=r"ConfigFileLoadr .*'ConfigFileLoader'"):
        exec("from mage_ai.io.config import ConfigFileLoadr")
    with pytest.raises(ImportError, match=r"mage_ai.orchestration.nothing.*run_status_checker, triggers"):
        exec("from mage_ai.orchestration import nothing")
    with pytest.raises(AttributeError, match=r"mage_ai\.nothing "):
        _ = importlib.import_module("mage_ai").nothing


@pytest.mark.parametrize(
    ("statement", "hint"),
    [
        ("import mage_ai.services.airbyte", "client library"),
        ("from mage_ai.services.hashicorp.vault.vault import get_secret", "hvac"),
        ("from mage_ai.services.slack import Slack", "client library"),
        ("from mage_ai.io.trino import Trino", "SQLAlchemy"),
        ("from mage_ai.io.airtable import Airtable", "client library"),
        ("from mage_ai.io.iceberg_s3 import Iceberg", "pyiceberg"),
        ("from mage_ai.io.azure_data_lake_storage import AzureDataLakeStorage", "adlfs"),
        ("from mage_ai.io.backblaze_b2 import BackblazeB2", "AWS_ENDPOINT"),
        ("from mage_ai.orchestration.db import db_connection", "state store"),
        ("from mage_ai.data_preparation.shared.secrets import create_secret", "STREAMLINE_SECRET_"),
        ("from mage_ai.data_preparation.variable_manager import VariableManager", "get_variable"),
        ("from mage_ai.streaming.sinks.kafka import KafkaSink", "YAML"),
    ],
)
def test_what_is_not_served_names_a_way_out(statement: str, hint: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=rf"is not served.*{hint}"):
        exec(statement)


def test_questions_about_modules_are_answered_as_python_asks_them() -> None:
    module = importlib.import_module("mage_ai.data_preparation.decorators")
    assert not hasattr(module, "__wrapped__")
    assert not hasattr(module, "nothing")
    # pickle looks through all modules for functions without one.
    assert pickle.loads(pickle.dumps(importlib.import_module("mage_ai.io.base").ExportWritePolicy.FAIL)) == "fail"


def test_mocks_find_classes_by_their_dotted_names() -> None:
    with patch("mage_ai.io.postgres.Postgres.with_config", return_value="mocked"):
        from streamline.io.postgres import Postgres

        assert Postgres.with_config({}) == "mocked"


def script(folder: Path, code: str, *path: Path, flags: tuple[str, ...] = ()) -> str:
    """What a script of its own process prints."""
    folder.joinpath("script.py").write_text(textwrap.dedent(code))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*path, REPOSITORY)))}
    done = subprocess.run(
        [sys.executable, *flags, "script.py"], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_any_script_has_the_alias_after_import_streamline(tmp_path: Path) -> None:
    output = script(
        tmp_path,
        """
        try:
            import mage_ai
        except ModuleNotFoundError:
            print("not yet")
        import streamline
        from mage_ai.settings.repo import get_repo_path
        print(get_repo_path())
        """,
    )
    assert output.split("\n")[:2] == ["not yet", str(tmp_path)]


def test_a_real_mage_ai_on_the_path_wins(tmp_path: Path) -> None:
    package = tmp_path / "site" / "mage_ai"
    (package / "io").mkdir(parents=True)
    (package / "__init__.py").write_text("REAL = True\n")
    (package / "io" / "__init__.py").write_text("")
    (package / "io" / "config.py").write_text("class ConfigFileLoader: real = True\n")
    output = script(
        tmp_path,
        """
        import streamline, mage_ai
        from mage_ai.io.config import ConfigFileLoader
        print(mage_ai.REAL, ConfigFileLoader.real)
        try:
            from mage_ai.settings.repo import get_repo_path
        except ModuleNotFoundError as error:
            print(error)
        """,
        tmp_path / "site",
    )
    assert output.splitlines() == ["True True", "No module named 'mage_ai.settings'"]


def test_a_folder_that_happens_to_be_named_mage_ai_is_no_package(tmp_path: Path) -> None:
    (tmp_path / "mage_ai" / "pipelines").mkdir(parents=True)
    output = script(
        tmp_path,
        "import streamline\nfrom mage_ai.data_preparation.decorators import test\nprint(test.__name__)",
    )
    assert output == "test\n"


def test_importing_streamline_imports_next_to_nothing(tmp_path: Path) -> None:
    output = script(
        tmp_path,
        """
        import sys
        before = set(sys.modules)
        import streamline
        print(*sorted(set(sys.modules) - before))
        """,
        flags=("-S",),
    )
    assert output.split() == ["streamline", "streamline.version"]


def test_secrets_of_clouds_are_masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from streamline.project import vaults
    from streamline.project.current import set_current
    from streamline.project.project import Project

    (tmp_path / "streamline.yaml").write_text("name: shop\n")
    project = Project.open(tmp_path)
    monkeypatch.setattr(vaults, "aws_secret", lambda name, cached, **client: f"{name}-Tops3cret")
    set_current(project)
    try:
        module = importlib.import_module("mage_ai.services.aws.secrets_manager.secrets_manager")
        assert module.get_secret("shop") == "shop-Tops3cret"
    finally:
        set_current(None)
    assert project.secrets.masker.mask("it is shop-Tops3cret") == "it is ********"
