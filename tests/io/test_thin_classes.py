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


class Collection:
    """Records what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def find(self, query: Any, limit: int) -> list[dict[str, Any]]:
        self.asked.append((query, limit))
        return [{"n": 1}]

    def delete_many(self, query: Any) -> None:
        self.asked.append("delete")

    def insert_many(self, documents: Any) -> None:
        self.asked.append(documents)


def test_mongodb(monkeypatch: pytest.MonkeyPatch) -> None:
    collection = Collection()
    module("pymongo", monkeypatch, MongoClient=lambda *_, **__: {"shop": {"orders": collection}})
    served = importlib.import_module("mage_ai.io.mongodb").MongoDB
    client = served.with_config({"MONGODB_CONNECTION_STRING": "mongodb://h", "MONGODB_DATABASE": "shop"})
    assert client.load({"n": 1}, "orders", limit=2)["n"].to_list() == [1]
    client.export(pd.DataFrame({"n": [1]}), "orders", if_exists="replace")
    assert collection.asked == [({"n": 1}, 2), "delete", [{"n": 1}]]


def test_google_sheets(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    sheet = types.SimpleNamespace(
        get_all_values=lambda: [["id", "name"], ["1", "a"]],
        clear=lambda: asked.append("clear"),
        update=asked.append,
        append_rows=asked.append,
    )
    book = types.SimpleNamespace(get_worksheet=lambda position: sheet)
    client = types.SimpleNamespace(open_by_key=lambda key: book)
    module("gspread", monkeypatch, service_account_from_dict=lambda key: client)
    served = importlib.import_module("mage_ai.io.google_sheets").GoogleSheets
    loader = served.with_config({"GOOGLE_SERVICE_ACC_KEY": {"type": "service_account"}})
    assert loader.load(sheet_id="x").to_dict("records") == [{"id": "1", "name": "a"}]
    frame = pd.DataFrame({"id": [1, 2], "name": ["a", None]})
    loader.export(frame, sheet_id="x")
    loader.export(frame, sheet_id="x", if_exists="append")
    assert asked == ["clear", [["id", "name"], [1, "a"], [2, ""]], [[1, "a"], [2, ""]]]


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
