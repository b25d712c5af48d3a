"""SQL texts cut into statements."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.blocks.sql.statements import split


def texts(text: str, dialect: str = "") -> list[str]:
    return [statement.text for statement in split(text, dialect)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" ; ;; \n-- nothing\n/* at all */;", []),
        ("select 1", ["select 1"]),
        ("select 1;", ["select 1"]),
        ("-- data_loader\nselect 1", ["select 1"]),
        ("select 1 -- one\n, 2 -- two\n", ["select 1 -- one\n, 2"]),
        ("select ';', \";\", 'it''s;';select 2", ["select ';', \";\", 'it''s;'", "select 2"]),
        ("select /* ; */ 1; select 2", ["select /* ; */ 1", "select 2"]),
        ("create rule r as on insert to t do (select 1; select 2); select 3", None),
    ],
)
def test_semicolons_that_end_statements(text: str, expected: list[str] | None) -> None:
    statements = texts(text)
    assert statements == expected if expected is not None else len(statements) == 2


@pytest.mark.parametrize(
    ("dialect", "text", "count"),
    [
        ("postgres", "create function f() returns int as $$ begin; return 1; end; $$ language plpgsql; select 1", 2),
        ("postgres", "do $body$ select ';' $$ ; $body$; select 1", 2),
        ("postgres", r"select E'\';', 'a\'; select 1", 2),
        ("postgres", "create function g() returns int begin atomic select 1; select 2; end; select 3", 2),
        ("postgres", "select $1; select 2", 2),
        ("postgres", "/* a /* ; */ ; */ select 1", 1),
        ("duckdb", "select $$;$$; select 2", 2),
        (
            "sqlite",
            "create trigger t after insert on o begin insert into x values (1); delete from y; end; select 1",
            2,
        ),
        (
            "sqlite",
            "create trigger t after insert on o begin select case when a then 1 else 2 end; end; select 1; select 2",
            3,
        ),
        ("sqlite", "select [a;b], `c;d` from t; select 2", 2),
        ("mysql", "select 'a\\';b', `c;d`, \"\\\";\" # ; comment\n; select 2", 2),
        ("mysql", "select 5--1; select 2", 2),
        (
            "mysql",
            "create procedure p(a int) begin declare x int; if a > 1 then set x = if(a, 1, 2); end if; "
            "while x do set x = x - 1; end while; case x when 1 then select 1; else select 2; end case; "
            "l: loop leave l; end loop; repeat set x = 1; until x end repeat; begin select 3; end; end; select 4",
            2,
        ),
        ("mysql", "create trigger t before insert on x for each row if new.a then set new.a = 0; end if; select 2", 2),
        ("mysql", "delimiter //\ncreate procedure p() begin select 1; end //\ndelimiter ;\nselect 1; call p()", 3),
    ],
)
def test_what_dialects_put_semicolons_into(dialect: str, text: str, count: int) -> None:
    assert len(texts(text, dialect)) == count


def test_transactions_are_statements() -> None:
    assert texts("begin; update t set a = case when b then 1 end; commit", "postgres") == [
        "begin",
        "update t set a = case when b then 1 end",
        "commit",
    ]


def test_lines() -> None:
    assert [statement.line for statement in split("-- x\n\nselect 1;\nselect\n2;  select 3")] == [3, 4, 5]


@pytest.mark.parametrize(
    ("text", "is_select", "may_give_rows", "alone"),
    [
        ("select 1", True, True, False),
        ("with a as (select 1) select * from a", True, True, False),
        ("with a as (select 1) insert into t select * from a", False, False, False),
        ("with a as (delete from t returning *) select * from a", True, True, False),
        ("select * into t2 from t", False, True, False),
        ("insert into t values (1)", False, False, False),
        ("insert into t values (1) returning id", False, True, False),
        ("values (1)", True, True, False),
        ("(select 1) union (select 2)", True, True, False),
        ("show tables", False, True, False),
        ("call p()", False, True, False),
        ("create table t as select 1", False, False, False),
        ("vacuum", False, False, True),
        ("create index concurrently i on t (a)", False, False, True),
        ("create database d", False, False, True),
        ("commit", False, False, True),
    ],
)
def test_kinds(text: str, is_select: bool, may_give_rows: bool, alone: bool) -> None:
    (statement,) = split(text)
    assert (statement.is_select, statement.may_give_rows, statement.stands_alone) == (
        is_select,
        may_give_rows,
        alone,
    )


PIECES = st.sampled_from(
    ["select 1", "'a;b'", '"c;d"', "-- x;\n", "/* ; */", " ", "\n", "(1)", "x", "'it''s'", "$$;$$", "e", "1.5e3", "é"]
)


@given(st.lists(st.lists(PIECES, min_size=1).map(" ".join), min_size=1))
def test_statements_joined_are_cut_again(pieces: list[str]) -> None:
    once = texts(";".join(pieces), "duckdb")
    assert texts(";\n".join(once), "duckdb") == once


@given(st.text(alphabet="ab';\"-/*$()[]\n #\\`{}eE", max_size=60), st.sampled_from(["", "postgres", "mysql", "sqlite"]))
def test_nothing_but_space_comments_and_semicolons_is_lost(text: str, dialect: str) -> None:
    at = 0
    for statement in split(text, dialect):
        at = text.index(statement.text, at)
        assert statement.line == text.count("\n", 0, at) + 1
        at += len(statement.text)
