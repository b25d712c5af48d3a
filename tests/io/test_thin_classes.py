"""Classes over the clients of other systems: the addresses and calls that they make."""

from __future__ import annotations

import importlib
import types
from typing import Any

import pandas as pd
import pytest

from streamline.errors import ConfigError
from tests.io.test_warehouses import module

URLS = [
    (
        "mssql:MSSQL",
        {"MSSQL_DATABASE": "d", "MSSQL_HOST": "h", "MSSQL_USER": "u", "MSSQL_PASSWORD": "p@", "MSSQL_SCHEMA": "s"},
        "mssql+pyodbc://u:p%40@h:1433/d?driver=ODBC+Driver+18+for+SQL+Server",
    ),
    (
        "oracledb:OracleDB",
        {"ORACLEDB_HOST": "h", "ORACLEDB_USER": "u", "ORACLEDB_PASSWORD": "p", "ORACLEDB_SERVICE": "x"},
        "oracle+oracledb://u:p@h:1521?service_name=x",
    ),
]


@pytest.mark.parametrize(("home", "profile", "url"), URLS)
def test_databases_by_url(home: str, profile: dict[str, str], url: str) -> None:
    name, _, kind = home.partition(":")
    served = getattr(importlib.import_module(f"mage_ai.io.{name}"), kind)
    assert served.with_config(profile).settings["SQLALCHEMY_URL"] == url


def test_options_of_databases(monkeypatch: pytest.MonkeyPatch) -> None:
    mssql = importlib.import_module("streamline.io.mssql")
    keys = {"MSSQL_DATABASE": "d", "MSSQL_HOST": "h", "MSSQL_USER": "u", "MSSQL_PASSWORD": "p"}
    assert "Trust" not in mssql.MSSQL.with_config(keys).settings["SQLALCHEMY_URL"]
    monkeypatch.setattr(mssql, "in_mage_project", lambda: True)
    url = mssql.MSSQL.with_config({**keys, "MSSQL_AUTHENTICATION": "ActiveDirectoryPassword"}).settings[
        "SQLALCHEMY_URL"
    ]
    assert "?Authentication=ActiveDirectoryPassword&TrustServerCertificate=yes&" in url


def test_oracle_in_thick_mode_loads_its_client_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    module("oracledb", monkeypatch, init_oracle_client=lambda: asked.append("init"))
    oracle = importlib.import_module("streamline.io.oracledb")
    monkeypatch.setattr(oracle.SQLAlchemy, "open", lambda self: asked.append("open"))
    monkeypatch.setattr(
        oracle.SQLAlchemy, "export", lambda self, *args, **kwargs: asked.append(str((args[1:], kwargs)))
    )
    keys = {"ORACLEDB_HOST": "h", "ORACLEDB_USER": "u", "ORACLEDB_PASSWORD": "p", "ORACLEDB_MODE": "thick"}
    loader = oracle.OracleDB.with_config(keys)
    loader.open()
    loader.export(pd.DataFrame({"n": [1]}), "orders", "append", index=True)
    assert asked == ["init", "open", "((None, 'orders', 'append'), {'index': True})"]


class Collection:
    """Records what it is asked, with pymongo's arguments."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def find(self, filter: Any = None, *, limit: int = 0) -> list[dict[str, Any]]:
        self.asked.append((filter, limit))
        return [{"n": 1}]

    def delete_many(self, filter: Any) -> None:
        self.asked.append("delete")

    def insert_many(self, documents: Any) -> None:
        self.asked.append(documents)


def test_mongodb(monkeypatch: pytest.MonkeyPatch) -> None:
    collection = Collection()
    module("pymongo", monkeypatch, MongoClient=lambda *_, **__: {"shop": {"orders": collection}})
    served = importlib.import_module("mage_ai.io.mongodb").MongoDB
    client = served.with_config({"MONGODB_CONNECTION_STRING": "mongodb://h", "MONGODB_DATABASE": "shop"})
    assert client.load("orders", {"n": 1}, limit=2)["n"].to_list() == [1]
    client.export(pd.DataFrame({"n": [1]}), "orders", if_exists="replace")
    client.export(pd.DataFrame({"at": [pd.Timestamp("2026-01-31"), pd.NaT], "x": [1.5, None]}), "orders")
    client.export([{"n": 1, "tags": ["a"]}, {"m": None}], collection="orders")
    client.export(None, "orders")
    client.export([], "orders")
    assert collection.asked == [
        ({"n": 1}, 2),
        "delete",
        [{"n": 1}],
        [{"at": pd.Timestamp("2026-01-31"), "x": 1.5}, {"at": None, "x": None}],
        [{"n": 1, "tags": ["a"]}, {"m": None}],
    ]
    with pytest.raises(ConfigError, match="needs a collection"):
        client.load()


def test_google_sheets(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Missing(Exception):
        pass

    def worksheet(title: str) -> Any:
        if title == "nosuch":
            raise Missing(title)
        return sheet

    sheet = types.SimpleNamespace(
        get_all_values=lambda: [["id", "name"], ["1", "a"]],
        get_all_records=lambda head: [{"id": 1, "name": "a"}],
        clear=lambda: asked.append("clear"),
        update=asked.append,
        append_rows=asked.append,
    )
    book = types.SimpleNamespace(get_worksheet=lambda position: sheet, worksheet=worksheet)
    client = types.SimpleNamespace(open_by_key=lambda key: book, open=lambda title: book)
    errors = module("gspread.exceptions", monkeypatch, SpreadsheetNotFound=Missing, WorksheetNotFound=Missing)
    module("gspread", monkeypatch, service_account_from_dict=lambda key: client, exceptions=errors, __path__=[])
    served = importlib.import_module("mage_ai.io.google_sheets").GoogleSheets
    loader = served.with_config({"GOOGLE_SERVICE_ACC_KEY": {"type": "service_account"}})
    assert loader.load(sheet_id="x").to_dict("records") == [{"id": 1, "name": "a"}]
    assert loader.load(None, None, "title", "first", 0, 0).to_numpy().tolist() == [["id", "name"], ["1", "a"]]
    assert (loader.exists(sheet_name="title"), loader.exists(sheet_id="x", worksheet_name="nosuch")) == (True, False)
    frame = pd.DataFrame({"id": [1, 2], "name": ["a", None]})
    loader.export(frame, sheet_id="x")
    loader.export(frame, sheet_id="x", if_exists="replace")
    loader.export(frame, sheet_id="x", if_exists="append")
    table = [["id", "name"], [1, "a"], [2, ""]]
    assert asked == [table, "clear", table, table[1:]]
    with pytest.raises(ConfigError, match="no Google Sheet is named"):
        loader.load()


@pytest.mark.parametrize(
    ("home", "extra"), [("mongodb:MongoDB", "mongodb"), ("google_sheets:GoogleSheets", "google-sheets")]
)
def test_a_client_that_is_missing(home: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, _, kind = home.partition(":")
    monkeypatch.setitem(importlib.import_module("sys").modules, {"mongodb": "pymongo"}.get(name, "gspread"), None)
    with pytest.raises(ConfigError) as caught:
        getattr(importlib.import_module(f"streamline.io.{name}"), kind)()
    assert caught.value.code == "package.missing"
    assert f"streamline[{extra}]" in (caught.value.hint or "")
