"""Databases and object stores as block files use them, against real servers."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from streamline.databases.base import DatabaseError, TableExists
from streamline.errors import ConfigError
from streamline.io import S3, AWSSecretLoader, ConfigFileLoader, MySQL, Postgres, SQLAlchemy
from streamline.io.sql import BaseSQL
from tests.services.mariadb import MariaDBServer
from tests.services.moto import S3Server
from tests.services.postgres import PostgresServer
from tests.services.require import missing

FRAME = pd.DataFrame({"id": [1, 2, 3], "name": ["Ann", "Bö", None], "total": [1.5, None, -2.0]})


@pytest.fixture
def postgres(postgres_server: PostgresServer, postgres_database: str, tmp_path: Path) -> Iterator[BaseSQL]:
    (tmp_path / "io_config.yaml").write_text(
        f"""\
default:
  POSTGRES_HOST: {postgres_server.host}
  POSTGRES_PORT: {postgres_server.port}
  POSTGRES_USER: {postgres_server.user}
  POSTGRES_PASSWORD: "{postgres_server.password}"
  POSTGRES_DB: {postgres_database}
"""
    )
    with Postgres.with_config(ConfigFileLoader(tmp_path / "io_config.yaml", "default")) as loader:
        yield loader


@pytest.fixture
def mariadb(mariadb_server: MariaDBServer, mariadb_database: str) -> Iterator[BaseSQL]:
    settings = {
        "MYSQL_HOST": mariadb_server.host,
        "MYSQL_PORT": mariadb_server.port,
        "MYSQL_USER": mariadb_server.user,
        "MYSQL_PASSWORD": mariadb_server.password,
        "MYSQL_DATABASE": mariadb_database,
    }
    with MySQL.with_config(ConfigFileLoader(config=settings)) as loader:
        yield loader


@pytest.fixture
def alchemy(postgres_server: PostgresServer, postgres_database: str) -> Iterator[BaseSQL]:
    try:
        import sqlalchemy  # noqa: F401 - what the test is about needs it
    except ImportError:
        missing("the package 'sqlalchemy' is not installed")
    with SQLAlchemy(postgres_server.url(postgres_database).replace("postgresql:", "postgresql+psycopg:")) as loader:
        yield loader


@pytest.fixture(params=["postgres", "mariadb", "alchemy"])
def loader(request: pytest.FixtureRequest) -> BaseSQL:
    found: BaseSQL = request.getfixturevalue(request.param)
    return found


def names(loader: BaseSQL, table: str = "t") -> list[str]:
    return loader.load(f"select name from {table} order by id")["name"].fillna("-").to_list()


def test_round_trip(loader: BaseSQL) -> None:
    loader.export(FRAME, None, "orders", index=False, if_exists="replace")
    assert_frame_equal(loader.load("select * from orders order by id;"), FRAME, check_dtype=False)
    assert loader.load("select * from orders order by id desc", limit=1)["id"].to_list() == [3]
    assert len(loader.sample(None, "orders", 2)) == 2
    assert loader.table_exists(None, "orders")


def test_types_come_back(loader: BaseSQL) -> None:
    frame = pd.DataFrame(
        {
            "id": [1, 2],
            "big": pd.array([2**62 + 1, None], "Int64"),
            "flag": [True, False],
            "at": pd.to_datetime(["2024-02-29 12:30:01.000002", None]),
            "day": [datetime.date(2024, 2, 29), None],
            "price": [decimal.Decimal("12.34"), None],
            "kind": pd.Categorical(["a", None]),
            "raw": [b"\x00\xff", None],
        }
    )
    loader.export(frame, None, "t")
    got = loader.load("select * from t order by id")
    assert got["big"][0] == 2**62 + 1
    assert [bool(one) for one in got["flag"]] == [True, False]
    assert got["at"][0] == pd.Timestamp("2024-02-29 12:30:01.000002")
    assert str(got["day"][0])[:10] == "2024-02-29"
    assert got["price"][0] == pytest.approx(12.34)
    assert (got["kind"][0], got["raw"][0]) == ("a", b"\x00\xff")
    exact = loader.load("select price from t order by id", coerce_float=False)["price"][0]
    assert exact == decimal.Decimal("12.34")


def test_nested_values_are_json(loader: BaseSQL) -> None:
    loader.export(pd.DataFrame({"tree": [{"a": [1, {"b": None}]}, None, {"c": "ü"}]}), None, "t")
    values = loader.load("select tree from t")["tree"].to_list()
    if isinstance(values[0], str):  # MariaDB's JSON is text
        import json

        values = [json.loads(one) if isinstance(one, str) else None for one in values]
    assert values == [{"a": [1, {"b": None}]}, None, {"c": "ü"}]


def test_policies(loader: BaseSQL) -> None:
    loader.export(FRAME, None, "t", "append")
    loader.export(FRAME, None, "t", "append")
    assert len(loader.load("select * from t")) == 6
    loader.export(FRAME[:1], None, "t")
    assert len(loader.load("select * from t")) == 1
    with pytest.raises(TableExists):
        loader.export(FRAME, None, "t", "fail")
    loader.export(pd.DataFrame({"id": ["x"], "other": [1]}), None, "t")
    assert loader.load("select * from t").to_dict("records") == [{"id": "x", "other": 1}]
    loader.export(pd.DataFrame({"id": [5], "other": ["text"]}), None, "t")
    assert loader.load("select other from t")["other"].to_list() == ["text"]


@pytest.mark.parametrize("key", ["id", "name"])
def test_rows_in_conflict(loader: BaseSQL, key: str) -> None:
    old = FRAME.assign(name=["Ann", "Bö", "Cy"])
    new = pd.DataFrame({"id": [2, 4], "name": ["Bö", "Di"], "total": [7.0, 8.0]})
    loader.export(old, None, "t", unique_constraints=[key], unique_conflict_method="UPDATE")
    loader.export(new, None, "t", "append", unique_constraints=[key], unique_conflict_method="IGNORE")
    assert names(loader) == ["Ann", "Bö", "Cy", "Di"]
    assert loader.load("select total from t where id = 2")["total"].isna().all()
    loader.export(new, None, "t", "append", unique_constraints=[key], unique_conflict_method="UPDATE")
    assert loader.load("select total from t where id = 2")["total"].to_list() == [7.0]
    assert len(loader.load("select * from t")) == 4
    with pytest.raises(DatabaseError):
        loader.export(new, None, "t", "append")
    loader.export(old, None, "u")
    with pytest.raises(ConfigError, match=f"no unique index on \\({key}\\)"):
        loader.export(new, None, "u", "append", unique_constraints=[key], unique_conflict_method="UPDATE")


def test_a_failed_export_changes_nothing(loader: BaseSQL) -> None:
    loader.export(FRAME, None, "t", unique_constraints=["id"])
    with pytest.raises(DatabaseError):
        loader.export(pd.DataFrame({"id": [9, 1], "name": ["new", "old"], "total": [0.0, 0.0]}), None, "t", "append")
    assert names(loader) == ["Ann", "Bö", "-"]
    with pytest.raises(DatabaseError):
        loader.export(
            pd.DataFrame({"id": [1, 1], "name": ["a", "b"], "other": [0, 0]}), None, "v", unique_constraints=["id"]
        )


def test_types_can_be_given(loader: BaseSQL) -> None:
    loader.export(FRAME, None, "t", overwrite_types={"id": "varchar(20)"})
    assert sorted(loader.load("select id from t")["id"]) == ["1", "2", "3"]


def test_transactions_and_parameters(loader: BaseSQL) -> None:
    mark = ":least" if loader.provider == "sqlalchemy" else "%(least)s"
    loader.export(FRAME, None, "t")
    assert len(loader.load(f"select * from t where id >= {mark}", params={"least": 2})) == 2
    assert loader.execute(f"delete from t where id >= {mark}", least=2) == 2
    loader.rollback()
    loader.execute("delete from t where name like 'A%'")
    loader.commit()
    loader.execute("delete from t")
    loader.close()
    assert names(loader) == ["Bö", "-"]


def test_replace_keeps_what_depends_on_the_table(postgres: BaseSQL) -> None:
    postgres.export(FRAME, "shop", "t")
    postgres.execute("create view shop.v as select id from shop.t")
    postgres.commit()
    postgres.export(FRAME[:1], "shop", "t")
    assert postgres.load("select * from shop.v")["id"].to_list() == [1]
    with pytest.raises(DatabaseError, match="depend"):
        postgres.export(FRAME[["id"]], "shop", "t")
    assert list(postgres.load("select * from shop.t")) == ["id", "name", "total"]
    postgres.export(FRAME[["id"]], "shop", "t", cascade_on_drop=True)
    assert list(postgres.load("select * from shop.t")) == ["id"]
    assert not postgres.table_exists("shop", "v")


def test_arrays_and_zones_in_postgresql(postgres: BaseSQL) -> None:
    frame = pd.DataFrame({"several": [[1, 2], None], "at": pd.to_datetime(["2024-01-01T00:00Z", None])})
    postgres.export(frame, None, "t")
    got = postgres.load("select * from t where at is not null")
    assert got["several"][0] == [1, 2]
    assert got["at"][0] == pd.Timestamp("2024-01-01", tz="UTC")
    assert postgres.load("select several[2] as second from t where at is not null")["second"].to_list() == [2]


def test_arguments_in_place_of_a_profile(
    postgres_server: PostgresServer, postgres_database: str, mariadb_server: MariaDBServer, mariadb_database: str
) -> None:
    pg, my = postgres_server, mariadb_server
    for loader in (
        Postgres(postgres_database, pg.user, pg.password, pg.host, pg.port, schema="made"),
        MySQL(mariadb_database, my.host, my.password, my.user, port=my.port),
    ):
        with loader:
            loader.export(FRAME, None, "t")
            assert names(loader) == ["Ann", "Bö", "-"]
    with pytest.raises(DatabaseError, match="password authentication failed"):
        Postgres(postgres_database, pg.user, "wrong", pg.host, pg.port).open()


@pytest.fixture
def store(s3_server: S3Server, tmp_path: Path) -> S3:
    try:
        import s3fs  # noqa: F401 - what the test is about needs it
    except ImportError:
        missing("the package 's3fs' is not installed")
    s3_server.make_bucket("tables")
    (tmp_path / "io_config.yaml").write_text(
        "default: {AWS_ACCESS_KEY_ID: a, AWS_SECRET_ACCESS_KEY: b, AWS_REGION: us-east-1, "
        f'AWS_ENDPOINT: "{s3_server.endpoint}"}}\n'
    )
    return S3.with_config(ConfigFileLoader(tmp_path / "io_config.yaml"))


@pytest.mark.parametrize("key", ["deep/a.csv", "a.csv.gz", "a.jsonl", "a.parquet", "a.xlsx"])
def test_objects(store: S3, key: str) -> None:
    store.export(FRAME, "tables", key)
    assert_frame_equal(store.load("tables", key), FRAME, check_dtype=False)
    assert store.load("tables", key, limit=1)["id"].to_list() == [1]
    store.export(FRAME[:2], "tables", key)
    assert len(store.load("tables", key)) == 2
    assert store.exists("tables", key)
    assert store.exists("tables", key[:-2])
    assert not store.exists("tables", "nothing")


def test_files_are_uploaded_as_they_are(store: S3, s3_server: S3Server, tmp_path: Path) -> None:
    (tmp_path / "raw.csv").write_text("n\n1\n")
    store.export(str(tmp_path / "raw.csv"), "tables", "raw.csv")
    assert store.load("tables", "raw.csv")["n"].to_list() == [1]
    s3_server.put("tables", "raw.csv", b"n\n2\n")  # what another program writes is seen
    assert store.load("tables", "raw.csv")["n"].to_list() == [2]
    assert store.client.list_objects_v2(Bucket="tables", Prefix="raw")["KeyCount"] == 1


def test_what_is_not_there(store: S3) -> None:
    with pytest.raises(FileNotFoundError, match=r"no object 'no\.csv' in 'tables'"):
        store.load("tables", "no.csv")
    with pytest.raises(FileNotFoundError):
        store.load("no-bucket", "no.csv")
    with pytest.raises((FileNotFoundError, OSError)):
        store.export(FRAME, "no-bucket", "a.csv")


def test_secrets_of_aws(store: S3, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_REGION", "us-east-1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    secrets = AWSSecretLoader()
    secrets.client.create_secret(Name="db", SecretString='{"password": "pass\\"word: 1"}')
    assert "db" in secrets
    assert "other" not in secrets
    assert secrets.get("other") is None
    path = tmp_path / "io_config.yaml"
    path.write_text(
        "default:\n  WHOLE: \"{{ aws_secret_var('db') }}\"\n"
        "  PART: {{ json_value(aws_secret_var('db'), 'password') }}\n"
        "  NONE: \"{{ aws_secret_var('other') }}\"\n"
    )
    config = ConfigFileLoader(path)
    assert config["WHOLE"] == secrets["db"]
    assert config["PART"] == 'pass"word: 1'
    with pytest.raises(ConfigError, match="'other'") as caught:
        config["NONE"]
    assert str(caught.value.where).endswith("io_config.yaml:4")
    assert "ResourceNotFound" in str(caught.value)
