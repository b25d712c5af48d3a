"""`streamline explain` and `streamline check` of batch pipelines."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Shop
from tests.support.batch import FOLDERS, SUFFIXES

FUNCTIONS = {"conditional": "condition", "callback": "callback"}


def batch(root: Path, *blocks: dict[str, Any], files: dict[str, str] | None = None, **keys: Any) -> Shop:
    """A pipeline `p` of these blocks; their `text` is their file's, by default that of a function that does nothing."""
    (root / "streamline.yaml").write_text("name: shop\n")
    for block in blocks:
        kind, language = block["type"], block.get("language", "python")
        plain = f"@{FUNCTIONS.get(kind, kind)}\ndef f(*args, **kwargs):\n    return True\n"
        path = root / FOLDERS[kind] / f"{block['uuid']}.{SUFFIXES[language]}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(block.pop("text", plain))
    for name, text in (files or {}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    groups: dict[str, list[dict[str, Any]]] = {"blocks": [], "callbacks": [], "conditionals": []}
    for block in blocks:
        kind = block["type"]
        groups[f"{kind}s" if kind in FUNCTIONS else "blocks"].append(block)
    (root / "pipelines/p").mkdir(parents=True, exist_ok=True)
    lines = [f"{key}: {json.dumps(value)}" for key, value in keys.items()]
    for key, entries in groups.items():
        lines += [f"{key}:", *(f"- {json.dumps(entry)}" for entry in entries)]
    (root / "pipelines/p/metadata.yaml").write_text("\n".join(lines) + "\n")
    return Shop(root)


def block(kind: str, uuid: str, *upstream: str, **keys: Any) -> dict[str, Any]:
    return {"uuid": uuid, "type": kind, "upstream_blocks": list(upstream), **keys}


class TestExplain:
    @pytest.fixture
    def shop(self, tmp_path: Path) -> Shop:
        return batch(
            tmp_path,
            block("sensor", "wait", configuration={"interval": 5, "timeout": 60}),
            block("data_loader", "regions", "wait", configuration={"dynamic": True}),
            block("transformer", "fetch", "regions", retry_config={"retries": 2, "delay": 3}, timeout=30),
            block("transformer", "clean", "fetch", configuration={"reduce_output": True}),
            block("data_loader", "rates", configuration={"secret_output": True}),
            block("data_exporter", "export", "clean", "rates"),
            block("conditional", "if_open", "export"),
            block("callback", "tell", "fetch"),
            block("callback", "tell_all"),
            dynamic_blocks={"max_child_block_runs": 50, "max_concurrent_child_block_runs": 3},
            concurrency_config={"block_run_limit": 2},
        )

    def test_steps_and_what_runs_side_by_side(self, shop: Shop) -> None:
        told = shop.json("explain", "p")
        assert told["steps"] == [["wait", "rates"], ["regions"], ["fetch"], ["clean"], ["export"]]
        assert (told["at_once"], told["max_children"], told["on_exceeded"], told["children_at_once"]) == (
            2,
            50,
            "fail",
            3,
        )
        assert told["callbacks"] == ["tell_all"]

    def test_each_block(self, shop: Shop) -> None:
        blocks = {one["block"]: one for one in shop.json("explain", "p")["blocks"]}
        assert (blocks["wait"]["asked_every"], blocks["wait"]["gives_up_after"]) == (5, 60)
        assert blocks["regions"]["dynamic"]
        fetch = blocks["fetch"]
        assert (fetch["per_item_of"], fetch["retries"], fetch["timeout"]) == (["regions"], [3, 6], 30)
        assert fetch["callbacks"] == ["tell"]
        assert fetch["output"] == ".streamline/data/p/fetch/<n>"
        assert (blocks["clean"]["per_item_of"], blocks["clean"]["gathers"]) == (["regions"], True)
        assert blocks["rates"]["output"] is None
        assert (blocks["export"]["per_item_of"], blocks["export"]["conditions"]) == ([], ["if_open"])

    def test_in_words(self, shop: Shop) -> None:
        out = shop("explain", "p").stdout
        assert "p: 6 blocks, at most 2 at once" in out
        assert "stored in .streamline/data/p/." in out
        assert "never stored" in out
        assert "wait: checked every 5 s until it returns true, timeout 60 s" in out
        assert (
            "fetch: at most 50 children (if there are more, it fails); 3 of them in parallel; on failure retried "
            "up to 2 times, after 3, 6 s; timeout 30 s; tell called when it ends" in out
        )
        assert "export: runs only if if_open returns true" in out
        assert " pipeline ends: tell_all" in out

    def test_several_dynamic_parents_multiply(self, tmp_path: Path) -> None:
        dynamic = {"dynamic": True}
        shop = batch(
            tmp_path,
            block("data_loader", "a", configuration=dynamic),
            block("data_loader", "b", configuration=dynamic),
            block("transformer", "c", "a", "b"),
            block("transformer", "d", "c", "a"),
        )
        blocks = {one["block"]: one["per_item_of"] for one in shop.json("explain", "p")["blocks"]}
        assert blocks == {"a": [], "b": [], "c": ["a", "b"], "d": ["a", "b"]}
        assert "a × b" in shop("explain", "p").stdout

    def test_nothing_runs_and_nothing_is_made(self, tmp_path: Path) -> None:
        text = "open('ran', 'w')\n@custom\ndef f(*args):\n    open('ran', 'w')\n"
        shop = batch(tmp_path, block("custom", "a", text=text))
        shop("explain", "p")
        shop("check", "p")
        shop("run", "p", "--dry-run")
        assert not (tmp_path / "ran").exists()
        assert not (tmp_path / ".streamline/data").exists()

    def test_what_is_wrong_is_said_with_file_and_line(self, tmp_path: Path) -> None:
        shop = batch(tmp_path, block("custom", "a", text="def f():\n    return 1\n"))
        assert "custom/a.py:1: " in shop.refuses("block.function_missing", "explain", "p")

    def test_where_sql_runs_and_what_it_writes(self, tmp_path: Path) -> None:
        def sql(uuid: str, **configuration: Any) -> dict[str, Any]:
            return block("data_loader", uuid, language="sql", text="select 1 as id", configuration=configuration)

        shop = batch(
            tmp_path,
            sql("here"),
            sql("too", data_provider="duckdb", data_provider_profile="other"),
            sql(
                "file",
                data_provider="duckdb",
                data_provider_table="{{ variables('t') }}",
                export_write_policy="replace",
            ),
            sql("raw", data_provider="sqlite", use_raw_sql=True),
            sql("named", data_provider="sqlite", data_provider_schema="main"),
            files={"io_config.yaml": "default: {DUCKDB_DATABASE: w.duckdb, SQLITE_DATABASE: s.db}\nother: {A: 1}\n"},
            variables={"t": "totals"},
        )
        found = {one["block"]: (one["engine"], one["writes"]) for one in shop.json("explain", "p")["blocks"]}
        assert found == {
            "here": ("duckdb, embedded", None),
            "too": ("duckdb, embedded", None),
            "file": ("duckdb, profile default", "totals (replace)"),
            "raw": ("sqlite, profile default", "determined by its statements"),
            "named": ("sqlite, profile default", "main.p_named (append)"),
        }
        assert not (tmp_path / "w.duckdb").exists()

    def test_an_empty_pipeline(self, tmp_path: Path) -> None:
        assert "p: 0 blocks" in batch(tmp_path)("explain", "p").stdout


def checks(shop: Shop, code: int = 0) -> dict[str, dict[str, Any]]:
    """What was checked, by block, or by what it is where it is no block's."""
    found = json.loads(shop("check", "p", "--json", code=code).stdout)
    assert found["ok"] is (code == 0)
    return {one["block"] or one["what"]: one for one in found["checks"]}


class TestCheck:
    def test_all_is_well(self, tmp_path: Path) -> None:
        text = "import json, pandas as pd\nfrom mage_ai.settings.repo import get_repo_path\nimport helpers\n"
        shop = batch(
            tmp_path,
            block("data_loader", "a", text=f"{text}@data_loader\ndef f(**kwargs): return 1\n"),
            block("callback", "say"),
            files={"helpers.py": ""},
        )
        result = shop("check", "p")
        assert result.stdout.splitlines()[-1] == "3 of 3 ok"
        assert "ok      plan: 1 block can run" in result.stdout

    def test_all_that_is_wrong_is_told_at_once(self, tmp_path: Path) -> None:
        shop = batch(
            tmp_path,
            block("custom", "syntax", text="x = (\n"),
            block("custom", "plain", text="def f():\n    return 1\n"),
            block("custom", "two", text="@custom\ndef f(): ...\n\n@custom\ndef g(): ...\n"),
            block("custom", "imports", text="import os\nimport no_such_module\n@custom\ndef f(): ...\n"),
            block("custom", "good"),
        )
        found = checks(shop, code=2)
        assert found["good"]["ok"]
        wrong = {name: (one["where"], one["problem"]) for name, one in found.items() if not one["ok"]}
        assert wrong == {
            "syntax": ("custom/syntax.py:1", "configuration"),
            "plain": ("custom/plain.py:1", "configuration"),
            "two": ("custom/two.py:4", "configuration"),
            "imports": ("custom/imports.py:2", "configuration"),
        }
        assert "'no_such_module'" in found["imports"]["detail"]

    def test_an_import_that_may_fail_is_no_fault(self, tmp_path: Path) -> None:
        text = "try:\n    import no_such_module\nexcept ImportError:\n    no_such_module = None\n"
        shop = batch(tmp_path, block("custom", "a", text=f"{text}@custom\ndef f(): ...\n"))
        assert checks(shop)["a"]["ok"]

    def test_an_isolated_block_s_imports_are_its_environment_s(self, tmp_path: Path) -> None:
        text = "import no_such_module, pandas\n@custom\ndef f(): ...\n"
        shop = batch(tmp_path, block("custom", "a", text=text, configuration={"isolated": True}))
        assert "no requirements.txt" in checks(shop, code=2)["environment"]["detail"]
        (tmp_path / "pipelines/p/requirements.txt").write_text("# none\n")
        found = checks(shop, code=2)
        assert found["environment"]["ok"]
        assert found["a"]["where"] == "custom/a.py:1"

    def test_databases_are_asked(self, tmp_path: Path) -> None:
        sqlite3.connect(tmp_path / "there.db").close()
        profiles = (
            "default: {SQLITE_DATABASE: there.db}\nlater: {DUCKDB_DATABASE: new.duckdb}\n"
            "down: {POSTGRES_HOST: 127.0.0.1, POSTGRES_PORT: 9, POSTGRES_DBNAME: x, POSTGRES_USER: me, "
            "POSTGRES_PASSWORD: hunter2}\n"
        )

        def sql(uuid: str, provider: str, profile: str) -> dict[str, Any]:
            configuration = {"data_provider": provider, "data_provider_profile": profile}
            return block("data_loader", uuid, language="sql", text="select 1 as id", configuration=configuration)

        shop = batch(
            tmp_path, sql("a", "sqlite", "default"), sql("b", "duckdb", "later"), files={"io_config.yaml": profiles}
        )
        found = [one for one in json.loads(shop("check", "p", "--json").stdout)["checks"] if one["what"] == "profile"]
        assert [(one["plugin"], one["ok"]) for one in found] == [
            ("sqlite, profile default", True),
            ("duckdb, profile later", True),
        ]
        assert not (tmp_path / "new.duckdb").exists()
        shop = batch(tmp_path, sql("a", "postgres", "down"))
        result = shop("check", "p", code=1)
        assert "failed  profile (postgres, profile down)" in result.stdout
        assert "hunter2" not in result.output
        shop = batch(tmp_path, sql("a", "postgres", "nobody"))
        assert "'nobody'" in shop("check", "p", code=2).stdout

    def test_limits_that_cannot_be(self, tmp_path: Path) -> None:
        shop = batch(tmp_path, block("custom", "a"), concurrency_config={"block_run_limit": 0})
        assert "pipelines/p/metadata.yaml:1" in shop.refuses("setting.invalid", "check", "p")

    def test_every_profile_is_told_though_they_reach_one_database(self, tmp_path: Path) -> None:
        sqlite3.connect(tmp_path / "there.db").close()
        down = "{POSTGRES_HOST: 127.0.0.1, POSTGRES_PORT: 9, POSTGRES_DBNAME: x, POSTGRES_USER: %s}"
        profiles = f"one: {down % 'me'}\ntwo: {down % 'you'}\ndefault: {{SQLITE_DATABASE: there.db}}\n"

        def sql(uuid: str, provider: str, profile: str) -> dict[str, Any]:
            configuration = {"data_provider": provider, "data_provider_profile": profile}
            return block("data_loader", uuid, language="sql", text="select 1 as id", configuration=configuration)

        shop = batch(
            tmp_path,
            sql("a", "postgres", "one"),
            sql("b", "postgres", "two"),
            sql("c", "postgres", "two"),
            sql("d", "sqlite", "default"),
            files={"io_config.yaml": profiles},
        )
        found = [
            one for one in json.loads(shop("check", "p", "--json", code=1).stdout)["checks"] if one["what"] == "profile"
        ]
        assert [(one["plugin"], one["ok"]) for one in found] == [
            ("postgres, profile one", False),
            ("postgres, profile two", False),
            ("sqlite, profile default", True),
        ]

    def test_r_reads_an_r_file(self, tmp_path: Path) -> None:
        shop = batch(tmp_path, block("data_loader", "a", language="r", text="\nload_data <- function( {\n  1\n}\n"))
        found = checks(shop, code=2)["a"]
        assert found["where"] == "data_loaders/a.r:2"
        assert found["code"] == "block.syntax"
        assert "unexpected '{'" in found["detail"]
        shop = batch(tmp_path, block("data_loader", "a", language="r", text="load_data <- function() {\n  stop()\n}\n"))
        assert checks(shop)["a"]["ok"]

    @pytest.mark.parametrize(
        ("line", "name"),
        [
            ("from mage_ai.nonexistent import x", "mage_ai.nonexistent"),
            ("import mage_ai.nonexistent", "mage_ai.nonexistent"),
            ("from mage_ai.io.postgres import Postgress", "'Postgres'"),
        ],
    )
    def test_what_the_alias_does_not_serve(self, tmp_path: Path, line: str, name: str) -> None:
        shop = batch(tmp_path, block("custom", "a", text=f"import os\n{line}\n@custom\ndef f(): ...\n"))
        found = checks(shop, code=2)["a"]
        assert found["where"] == "custom/a.py:2"
        assert name in found["detail"]

    def test_what_the_alias_serves(self, tmp_path: Path) -> None:
        text = (
            "import mage_ai.io.postgres\nfrom mage_ai.io import config\nfrom mage_ai.io.config import *\n"
            "from mage_ai.io.postgres import Postgres\n@custom\ndef f(): ...\n"
        )
        assert checks(batch(tmp_path, block("custom", "a", text=text)))["a"]["ok"]

    def test_nothing_is_said_of_imports_where_the_environment_cannot_be_made(self, tmp_path: Path) -> None:
        shop = batch(tmp_path, block("custom", "a", configuration={"isolated": True}))
        assert "installed" not in checks(shop, code=2)["a"]["detail"]

    def test_what_a_profile_has_that_is_almost_a_key(self, tmp_path: Path) -> None:
        profiles = (
            "default: {POSTGRES_HOTS: db.example, POSTGRES_PORT: 9, POSTGRES_DBNAME: x, MY_OWN: 1}\n"
            "fine: {SQLITE_DATABASE: there.db, SQLITE_DATABSE: other.db}\n"
        )
        sqlite3.connect(tmp_path / "there.db").close()
        shop = batch(
            tmp_path,
            block(
                "data_loader", "a", language="sql", text="select 1 as id", configuration={"data_provider": "postgres"}
            ),
            block(
                "data_loader",
                "b",
                language="sql",
                text="select 1 as id",
                configuration={"data_provider": "sqlite", "data_provider_profile": "fine"},
            ),
            files={"io_config.yaml": profiles},
        )
        out = shop("check", "p", code=1).stdout
        assert re.search("POSTGRES_HOTS: .*POSTGRES_HOST[^S]", out)
        assert re.search("connected; .*SQLITE_DATABSE: .*SQLITE_DATABASE", out)
        assert "MY_OWN" not in out

    def test_the_password_of_a_url_is_not_shown(self, tmp_path: Path) -> None:
        sql = {"language": "sql", "text": "select 1 as id"}
        url = "postgresql+psycopg://me:hunter2@127.0.0.1:9/x"
        shop = batch(tmp_path, block("data_loader", "a", configuration={"data_provider": url}, **sql))
        result = shop("check", "p", code=1)
        assert "postgresql+psycopg://me:***@127.0.0.1:9/x" in result.stdout
        assert "hunter2" not in result.output
