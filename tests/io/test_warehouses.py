"""Warehouses that cannot be run here: what their clients are asked for, by clients that only write it down."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from streamline.blocks.sql.settings import Profiles, read_settings
from streamline.databases.base import DatabaseError, TableExists
from streamline.errors import ConfigError
from streamline.io import BigQuery, ConfigFileLoader, Redshift, Snowflake
from streamline.io.google_cloud_storage import google_settings
from streamline.project.project import Project

FRAME = pd.DataFrame({"id": [1, 2, 2], "name": ["a", "b", "c"]})


class ClientError(Exception):
    """What the clients raise."""


class Cursor:
    """Writes down what it is asked, and gives the answers it was told."""

    rowcount = 1
    description = (("N",),)

    def __init__(self, asked: list[str], answers: dict[str, list[tuple[Any, ...]]]) -> None:
        self.asked, self.answers = asked, answers
        self.rows: list[tuple[Any, ...]] = []

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute(self, query: str, *args: Any, **kwargs: Any) -> Cursor:
        if "wrong" in query:
            raise ClientError("no such thing")
        self.asked.append(query)
        self.rows = next((rows for part, rows in self.answers.items() if part in query), [])
        return self

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self.rows

    def fetch_dataframe(self) -> pd.DataFrame:
        return pd.DataFrame({"N": [1]})

    def fetch_arrow_all(self, force_return_table: bool = False) -> pa.Table:
        assert force_return_table
        return pa.table({"N": [1]}) if "long" not in self.asked[-1] else pa.table({"N": [2**53 + 1, None]})


class Connection:
    """Its cursors share what was asked."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.asked: list[str] = []
        self.answers: dict[str, list[tuple[Any, ...]]] = {}

    def cursor(self) -> Cursor:
        return Cursor(self.asked, self.answers)

    def commit(self) -> None:
        self.asked.append("commit")

    def rollback(self) -> None:
        self.asked.append("rollback")

    def close(self) -> None:
        self.asked.append("close")


def module(name: str, monkeypatch: pytest.MonkeyPatch, **contents: Any) -> types.ModuleType:
    made = types.ModuleType(name)
    made.__dict__.update(contents)
    monkeypatch.setitem(sys.modules, name, made)
    return made


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Snowflake's client; what `write_pandas` was called with."""
    calls: list[dict[str, Any]] = []

    def write_pandas(connection: Connection, frame: pd.DataFrame, table: str, **options: Any) -> None:
        calls.append({"table": table, "rows": len(frame), "columns": list(frame.columns), **options})

    errors = module(
        "snowflake.connector.errors",
        monkeypatch,
        Error=ClientError,
        NotSupportedError=type("NotSupportedError", (ClientError,), {}),
    )
    tools = module("snowflake.connector.pandas_tools", monkeypatch, write_pandas=write_pandas)
    connector = module("snowflake.connector", monkeypatch, connect=Connection, errors=errors, pandas_tools=tools)
    module("snowflake", monkeypatch, connector=connector, __path__=[])
    return calls


def make_project(folder: Path) -> Path:
    (folder / "streamline.yaml").touch()
    return folder


def profile(folder: Path, **keys: Any) -> ConfigFileLoader:
    path = folder / "io_config.yaml"
    path.write_text("default:\n" + "".join(f"  {key}: {value}\n" for key, value in keys.items()))
    return ConfigFileLoader(path, "default")


def test_key_files_are_those_of_the_project(tmp_path: Path) -> None:
    project = Project.open(make_project(tmp_path))
    config = profile(tmp_path, GOOGLE_SERVICE_ACC_KEY_FILEPATH="keys/google.json")
    assert google_settings(config) == {"path_to_credentials": str(tmp_path / "keys/google.json")}
    absolute = profile(tmp_path, GOOGLE_SERVICE_ACC_KEY_FILEPATH="/etc/google.json")
    assert google_settings(absolute) == {"path_to_credentials": "/etc/google.json"}
    config = profile(tmp_path, GOOGLE_SERVICE_ACC_KEY_FILEPATH="keys/google.json")
    profiles = Profiles(project, project.renderer)
    in_sql = profiles.get(read_settings({"data_provider": "bigquery"}, "q.sql"), "q.sql")
    assert google_settings(in_sql) == {"path_to_credentials": str(tmp_path / "keys/google.json")}


def test_snowflake_by_profile(tmp_path: Path, written: list[dict[str, Any]]) -> None:
    make_project(tmp_path)
    config = profile(
        tmp_path,
        SNOWFLAKE_ACCOUNT="a",
        SNOWFLAKE_USER="u",
        SNOWFLAKE_PASSWORD="null",
        SNOWFLAKE_PRIVATE_KEY_PATH="k.p8",
        SNOWFLAKE_DEFAULT_DB="DB",
        SNOWFLAKE_TIMEOUT="null",
    )
    with Snowflake.with_config(config, schema="S") as loader:
        assert loader.conn.settings == {
            "login_timeout": 20,
            "network_timeout": 300,
            "account": "a",
            "user": "u",
            "database": "DB",
            "schema": "S",
            "private_key_file": str(tmp_path / "k.p8"),
        }
        assert loader.load("select 1;", limit=5)["N"].to_list() == [1]
        assert loader.conn.asked == ["select 1\nLIMIT 5"]
        assert loader.load("select long")["N"].to_list()[0] == 2**53 + 1
        with pytest.raises(DatabaseError, match="Snowflake: no such thing"):
            loader.load("select wrong")
    with pytest.raises(ConfigError, match="SNOWFLAKE_ACCOUNT"):
        Snowflake.with_config(profile(tmp_path, SNOWFLAKE_USER="u"))


def test_snowflake_exports(written: list[dict[str, Any]]) -> None:
    loader = Snowflake(account="a", user="u", database="DB", schema="S")
    loader.export(FRAME, "T")
    assert written.pop() == {
        "table": "T",
        "rows": 3,
        "columns": ["id", "name"],
        "database": "DB",
        "schema": "S",
        "use_logical_type": True,
        "auto_create_table": True,
        "overwrite": False,
    }
    assert loader.conn.asked[-1] == 'CREATE SCHEMA IF NOT EXISTS "DB"."S"'
    loader.conn.answers = {"schemata": [(1,)], ".tables": [(1,)]}
    loader.export(FRAME, "T", if_exists="replace")
    assert written.pop()["overwrite"] is True
    with pytest.raises(TableExists):
        loader.export(FRAME, "T", if_exists="fail")
    loader.export(FRAME, "T", unique_constraints=["id"], unique_conflict_method="UPDATE")
    staged = written.pop()
    assert (staged["rows"], staged["table_type"]) == (2, "temp")
    assert loader.conn.asked[-2] == (
        f'MERGE INTO "DB"."S"."T" AS a\nUSING "DB"."S"."{staged["table"]}" AS b\nON a."id" = b."id"\n'
        'WHEN MATCHED THEN UPDATE SET "name" = b."name"\n'
        'WHEN NOT MATCHED THEN INSERT ("id", "name") VALUES (b."id", b."name")'
    )
    with pytest.raises(ConfigError, match="export needs schema"):
        Snowflake(account="a", user="u", database="DB").export(FRAME, "T")


def test_redshift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module("redshift_connector", monkeypatch, connect=Connection, Error=ClientError)
    config = profile(
        tmp_path,
        REDSHIFT_DBNAME="d",
        REDSHIFT_HOST="h",
        REDSHIFT_PORT="5439",
        REDSHIFT_TEMP_CRED_USER="u",
        REDSHIFT_TEMP_CRED_PASSWORD="p",
        REDSHIFT_SCHEMA="s",
    )
    with Redshift.with_config(config) as loader:
        assert loader.conn.settings == {"database": "d", "host": "h", "port": 5439, "user": "u", "password": "p"}
        loader.export(FRAME, "t", overwrite_types={"name": "VARCHAR(9)"})
        asked = loader.conn.asked
        assert asked[1:] == [
            'CREATE TABLE "s"."t" ("id" BIGINT, "name" VARCHAR(9))',
            'INSERT INTO "s"."t" ("id", "name") VALUES (%s, %s), (%s, %s), (%s, %s)',
            "commit",
        ]
        loader.conn.answers = {"information_schema": [("id",), ("name",)]}
        loader.export(FRAME[:1], "other.t", if_exists="replace")
        assert 'DELETE FROM "other"."t"' in asked
        with pytest.raises(TableExists):
            loader.export(FRAME, "t", if_exists="fail")
        assert asked[-1] == "rollback"
    assert asked[-2:] == ["commit", "close"]
    with pytest.raises(ConfigError, match="how to reach Redshift"):
        Redshift.with_config(profile(tmp_path, REDSHIFT_DBNAME="d"))


def test_bigquery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class NotFound(ClientError):
        pass

    class Job:
        def result(self) -> Job:
            return self

        def to_dataframe(self) -> pd.DataFrame:
            return pd.DataFrame({"n": [1]})

    class Client:
        def __init__(self, **settings: Any) -> None:
            self.settings, self.project = settings, settings.get("project", "default")

        def query(self, query: str, **options: Any) -> Job:
            asked.append(query)
            return Job()

        def get_dataset(self, name: str) -> None:
            raise NotFound(name)

        def create_dataset(self, name: str, exists_ok: bool) -> None:
            asked.append(f"create {name}")

        def get_table(self, name: str) -> None:
            asked.append(f"look at {name}")

        def load_table_from_dataframe(self, frame: pd.DataFrame, table: str, job_config: dict[str, Any]) -> Job:
            asked.append((table, len(frame), job_config))
            return Job()

        def delete_table(self, table: str, not_found_ok: bool) -> None:
            asked.append(f"delete {table}")

    class Credentials:
        project_id = "mine"

        @classmethod
        def from_service_account_info(cls, info: dict[str, Any], scopes: list[str]) -> Credentials:
            asked.append(info)
            return cls()

    bigquery = module("google.cloud.bigquery", monkeypatch, Client=Client, LoadJobConfig=dict, SchemaField=tuple)
    cloud = module("google.cloud", monkeypatch, bigquery=bigquery, __path__=[])
    service = module("google.oauth2.service_account", monkeypatch, Credentials=Credentials)
    oauth = module("google.oauth2", monkeypatch, service_account=service, __path__=[])
    exceptions = module("google.api_core.exceptions", monkeypatch, GoogleAPIError=ClientError, NotFound=NotFound)
    core = module("google.api_core", monkeypatch, exceptions=exceptions, __path__=[])
    module("google", monkeypatch, cloud=cloud, oauth2=oauth, api_core=core, __path__=[])

    loader = BigQuery.with_config(
        profile(tmp_path, GOOGLE_SERVICE_ACC_KEY="{type: service_account}", GOOGLE_LOCATION="EU")
    )
    assert loader.load("select 1")["n"].to_list() == [1]
    assert loader.client.settings["location"] == "EU"
    assert loader.default_database() == "mine"
    assert asked == [{"type": "service_account"}, "select 1"]
    asked.clear()
    loader.export(FRAME.rename(columns={"name": "full name"}), "shop.orders")
    assert asked == ["create mine.shop", ("mine.shop.orders", 3, {"write_disposition": "WRITE_TRUNCATE"})]
    asked.clear()
    loader.export(FRAME, "p.shop.t", if_exists="append", unique_constraints=["id"], unique_conflict_method="IGNORE")
    staged = asked[2][0]
    assert asked[2][1:] == (2, {"write_disposition": "WRITE_TRUNCATE"})
    assert asked[3] == (
        f"MERGE INTO `p.shop.t` AS a\nUSING `{staged}` AS b\nON a.`id` = b.`id`\n"
        "WHEN NOT MATCHED THEN INSERT (`id`, `name`) VALUES (b.`id`, b.`name`)"
    )
    assert asked[4] == f"delete {staged}"
    with pytest.raises(ConfigError, match="invalid table_id 'orders'"):
        loader.export(FRAME, "orders")


@pytest.mark.parametrize(
    ("loader", "module_name", "extra"),
    [
        (Snowflake(account="a"), "snowflake", "snowflake"),
        (Redshift(database="d"), "redshift_connector", "redshift"),
        (BigQuery(), "google", "bigquery"),
    ],
    ids=["snowflake", "redshift", "bigquery"],
)
def test_a_client_that_is_not_installed(
    loader: Any, module_name: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module_name, None)
    with pytest.raises(ConfigError, match="not installed") as caught:
        loader.load("select 1")
    assert f"pip install 'streamline[{extra}]'" in str(caught.value)
