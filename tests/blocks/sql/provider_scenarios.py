"""What every database does for SQL blocks; a test class for each kind of database inherits these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import pytest

from streamline.databases.base import DatabaseError, TableExists
from streamline.errors import StreamlineError
from tests.blocks.sql.workshop import SqlProject
from tests.support.failures import fails


class Look:
    """Reads a database as somebody else would.

    Args:
        read: runs a statement in a connection of its own, and gives its rows.
        tables: a query for the names of all tables.
    """

    def __init__(self, read: Callable[[str], Sequence[Any]], tables: str) -> None:
        self._read = read
        self._tables = tables

    def __call__(self, statement: str) -> list[Any]:
        return [tuple(row) for row in self._read(statement)]

    def tables(self) -> set[str]:
        return {row[0] for row in self(self._tables)}


ORDERS = pd.DataFrame({"id": [1, 2, 3], "total": [10, 20, None]})


class ProviderScenarios:
    """The project `shop` has the block `orders`, and the profiles `default` and `other`, which are two databases.

    A class that inherits defines the fixtures `provider` (a value of `data_provider`) and `look`, which reads the
    database of `default` as somebody else would.
    """

    def test_the_last_select_is_written_and_is_the_output(self, shop: SqlProject, provider: str, look: Look) -> None:
        text = "select id, total * 2 as twice from {{ df_1 }} where total is not null order by id"
        rows = shop.rows("double", text, "orders", data_provider=provider)
        assert rows == [{"id": 1, "twice": 20}, {"id": 2, "twice": 40}]
        assert look("select * from p_double order by id") == [(1, 20), (2, 40)]
        assert shop.logged[0].replace("public.", "") == "2 rows written to p_double (append)"

    def test_policies(self, shop: SqlProject, provider: str, look: Look) -> None:
        keys = {"data_provider": provider, "data_provider_table": "t"}
        shop.rows("x", "select 1 as a", **keys)
        assert shop.rows("x", "select 2 as a", **keys) == [{"a": 2}]  # append: the output is what the SELECT gave
        assert look("select a from t order by a") == [(1,), (2,)]
        shop.rows("x", "select sum(a) as a, 'x' as b from t", **keys, export_write_policy="replace")
        assert look("select * from t") == [(3, "x")]
        with pytest.raises(TableExists, match=r"the table (public\.)?t exists, and the write policy is 'fail'"):
            shop.rows("x", "select 1 as a", **keys, export_write_policy="fail")
        assert look("select * from t") == [(3, "x")]
        shop.rows("x", "select 1 as a", **keys | {"data_provider_table": "fresh"}, export_write_policy="fail")
        assert look("select * from fresh") == [(1,)]

    def test_a_failed_replace_leaves_the_old_table(self, shop: SqlProject, provider: str, look: Look) -> None:
        keys = {"data_provider": provider, "data_provider_table": "t", "export_write_policy": "replace"}
        shop.rows("x", "select 1 as a", **keys)
        with pytest.raises(StreamlineError):
            shop.rows("x", "select 2 as a; select nope from t; ", **keys)
        assert look("select * from t") == [(1,)]
        assert look.tables() == {"t"}
        with pytest.raises(StreamlineError):
            shop.rows("x", "select 2 as a; nonsense", **keys)
        # MySQL's DDL is not undone: what fails after it finds it done.
        assert look("select * from t") == [(1,)] or provider == "mysql"
        assert look.tables() == {"t"}

    def test_statements_around_the_select_share_its_transaction(
        self, shop: SqlProject, provider: str, look: Look
    ) -> None:
        keys = {"data_provider": provider, "data_provider_table": "t"}
        shop.rows("x", "create table log (a int)", **keys, use_raw_sql=True)
        shop.rows("x", "insert into log values (1); select 5 as a; insert into log values (2)", **keys)
        assert look("select a from log order by a") == [(1,), (2,)]
        with pytest.raises(DatabaseError):
            shop.rows("x", "insert into log values (3); select 6 as a; insert into nowhere values (2)", **keys)
        assert look("select count(*) from log") == [(2,)]
        assert look("select a from t") == [(5,)]

    def test_columns_are_matched_by_name(self, shop: SqlProject, provider: str, look: Look) -> None:
        keys = {"data_provider": provider, "data_provider_table": "t"}
        shop.rows("x", "select 1 as a, 'x' as b", **keys)
        shop.rows("x", "select 'y' as b, 2 as a", **keys)
        assert look("select a, b from t order by a") == [(1, "x"), (2, "y")]
        with fails("database.column_missing", "'c'") as caught:
            shop.rows("x", "\nselect 1 as c", **keys)
        assert caught.value.where == "transformers/x.sql:2"

    def test_raw_statements_run_as_they_are(self, shop: SqlProject, provider: str, look: Look) -> None:
        text = """\
            create table t (a int);
            insert into t select id from {{ df_1 }};
            select count(*) as n from t;
            update t set a = a + 1;
            """
        assert shop.rows("x", text, "orders", data_provider=provider, use_raw_sql=True) == [{"n": 3}]
        assert look("select a from t order by a") == [(2,), (3,), (4,)]

    def test_raw_statements_are_one_transaction(self, shop: SqlProject, provider: str, look: Look) -> None:
        keys = {"data_provider": provider, "use_raw_sql": True}
        shop.rows("x", "create table t (a int); insert into t values (1)", **keys)
        with pytest.raises(DatabaseError):
            shop.rows("x", "delete from t; insert into nowhere values (1)", **keys)
        assert look("select a from t") == [(1,)]

    def test_a_transaction_of_the_users_own(self, shop: SqlProject, provider: str, look: Look) -> None:
        keys = {"data_provider": provider, "use_raw_sql": True}
        shop.rows("x", "create table t (a int)", **keys)
        shop.rows(
            "x", "begin; insert into t values (1); commit; begin; insert into t values (2); rollback; select 1", **keys
        )
        assert look("select a from t") == [(1,)]

    def test_upstream_sql_in_the_same_database_is_its_table(self, shop: SqlProject, provider: str, look: Look) -> None:
        keys = {"data_provider": provider}
        shop.rows("first", "select 1 as a", **keys)
        look("insert into p_first values (41)")
        assert shop.rows("second", "select sum(a) as s from {{ df_1 }}", "first", **keys) == [{"s": 42}]

    def test_upstream_sql_in_another_database_is_its_output(self, shop: SqlProject, provider: str, look: Look) -> None:
        shop.rows("first", "select 7 as a", data_provider=provider, data_provider_profile="other")
        assert shop.rows("second", "select a from {{ df_1 }}", "first", data_provider=provider) == [{"a": 7}]
        shop.rows("raw", "select 8 as a", data_provider=provider, use_raw_sql=True)
        assert shop.rows("third", "select a from {{ df_1 }}", "raw", data_provider=provider) == [{"a": 8}]

    def test_nothing_of_upstream_data_is_left(self, shop: SqlProject, provider: str, look: Look) -> None:
        shop.rows("x", "select a.id from {{ df_1 }} a join {{ df_1 }} b using (id)", "orders", data_provider=provider)
        assert look.tables() == {"p_x"}

    def test_upstream_data_in_a_table_with_a_name(self, shop: SqlProject, provider: str, look: Look) -> None:
        shop.rows(
            "x",
            "select count(*) as n from {{ df_1 }}",
            "orders",
            data_provider=provider,
            upstream_block_configuration={"orders": {"table_name": "raw_orders"}},
        )
        assert look("select count(*) from raw_orders") == [(3,)]

    def test_an_upstream_that_is_not_used_is_not_read(self, shop: SqlProject, provider: str, look: Look) -> None:
        shop.output("model", 42)
        assert shop.rows("x", "select count(*) as n from {{ df_1 }}", "orders", "model", data_provider=provider) == [
            {"n": 3}
        ]

    def test_limits_count_for_the_output_alone(self, shop: SqlProject, provider: str, look: Look) -> None:
        keys = {"data_provider": provider, "limit_in_pipeline_run": 1, "limit": 2}
        assert shop.rows("x", "select id from {{ df_1 }} order by id", "orders", **keys) == [{"id": 1}]
        assert look("select count(*) from p_x") == [(3,)]

    def test_errors_name_file_and_line(self, shop: SqlProject, provider: str) -> None:
        shop.add("x", "select 1 as a,\n  nope\nfrom {{ df_1 }}", "orders", data_provider=provider)
        with pytest.raises(DatabaseError, match="nope") as caught:
            shop.run("x")
        assert caught.value.where == "transformers/x.sql:2"

    def test_percent_and_colon_signs_are_nothing_special(self, shop: SqlProject, provider: str) -> None:
        text = "select '5% %s :a' as a from (select 1 as n) x where 'abc' like 'a%'"
        assert shop.rows("x", text, data_provider=provider) == [{"a": "5% %s :a"}]
