"""What the error of a failed plugin shows of its log."""

from __future__ import annotations

import pytest

from streamline.connectors.singer.log_tail import LogTail, hint_of, refuses_config

WRONG_PASSWORD = """INFO Starting sync
CRITICAL FATAL:  password authentication failed for user "ann"
Traceback (most recent call last):
  File "/bin/tap-shop", line 8, in <module>
    sys.exit(main())
             ^^^^^^
  File "/lib/psycopg2/__init__.py", line 122, in connect
    conn = _connect(dsn, connection_factory=connection_factory, **kwasync)
psycopg2.OperationalError: FATAL:  password authentication failed for user "ann"
"""

CHAINED = """2024-05-01 10:00:00,123 | INFO     | tap-shop             | Connecting
Traceback (most recent call last):
  File "/lib/a.py", line 1, in connect
    connect()
psycopg2.OperationalError: connection refused

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/bin/tap-shop", line 8, in <module>
    main()
sqlalchemy.exc.OperationalError: (psycopg2.OperationalError) connection refused
Is the server running?
(Background on this error at: https://sqlalche.me/e/20/e3q8)
"""

CUT = """    return self.parse()
  File "/lib/b.py", line 2, in parse
    raise ValueError(text)
ValueError: no such table
"""

PREFIXED = """ERROR Traceback (most recent call last):
ERROR   File "/lib/b.py", line 2, in parse
ERROR     raise ValueError(text)
ERROR ValueError: no such table
"""

JAVA = """INFO connecting
Exception in thread "main" java.sql.SQLException: access denied
\tat com.shop.Main.main(Main.java:5)
\t... 3 more
"""

RICH = """INFO connecting
╭─────── Traceback (most recent call last) ────────╮
│ /lib/a.py:1 in connect                            │
│ ❱ 1 raise OperationalError("access denied")       │
╰───────────────────────────────────────────────────╯
OperationalError: access denied
"""

GROUP = """  + Exception Group Traceback (most recent call last):
  |   File "/bin/tap-shop", line 8, in <module>
  | ExceptionGroup: two (1 sub-exception)
"""


@pytest.mark.parametrize(
    ("log", "shown"),
    [
        (
            WRONG_PASSWORD,
            'psycopg2.OperationalError: FATAL:  password authentication failed for user "ann"\n'
            "  Before that it logged:\n    INFO Starting sync",
        ),
        (
            CHAINED,
            "sqlalchemy.exc.OperationalError: (psycopg2.OperationalError) connection refused\n"
            "    Is the server running?\n    (Background on this error at: https://sqlalche.me/e/20/e3q8)\n"
            "  Before that it logged:\n    2024-05-01 10:00:00,123 | INFO     | tap-shop             | Connecting\n"
            "    psycopg2.OperationalError: connection refused",
        ),
        (CUT, "ValueError: no such table\n  Before that it logged:\n        return self.parse()"),
        (PREFIXED, "ValueError: no such table"),
        (
            JAVA,
            'Exception in thread "main" java.sql.SQLException: access denied\n'
            "  Before that it logged:\n    INFO connecting",
        ),
        (RICH, "OperationalError: access denied\n  Before that it logged:\n    INFO connecting"),
        ("3 errors found\nbye", "bye\n  Before that it logged:\n    3 errors found"),
        (
            WRONG_PASSWORD + "INFO again\n" * 9 + "CRITICAL gave up",
            "gave up\n  Before that it logged:" + "\n    INFO again" * 8,
        ),
        (
            WRONG_PASSWORD + "INFO again\n" * 4,
            'psycopg2.OperationalError: FATAL:  password authentication failed for user "ann"'
            + "\n    again" * 4
            + "\n  Before that it logged:\n    INFO Starting sync",
        ),
        ("ERROR no quota left\nINFO closing", "no quota left\n    closing"),
        ("one\ntwo\n\n", "two\n  Before that it logged:\n    one"),
        ("", "It logged nothing."),
    ],
)
def test_the_reason_comes_first_and_tracebacks_are_folded(log: str, shown: str) -> None:
    assert hint_of(log.splitlines()) == shown


def test_a_traceback_of_an_unknown_shape_is_shown() -> None:
    assert "ExceptionGroup: two" in hint_of(GROUP.splitlines())


@pytest.mark.parametrize(
    "line",
    [
        "CRITICAL Config is missing required keys: ['password']",
        "2024-05-01 10:00:00,123 | ERROR | target-x | Config validation failed: 'host' is a required property",
        "time=2024-05-01 name=target_x level=ERROR message=Invalid configuration:",
        "ERROR target-files: setting 'path' must be string, not 5 (where to write)",
    ],
)
def test_a_refused_config_is_known_by_the_words_of_libraries(line: str) -> None:
    assert refuses_config(1, ["INFO start", line])
    assert not refuses_config(0, [line])
    assert not refuses_config(-9, [line])


def test_other_failures_are_no_refused_config() -> None:
    assert not refuses_config(1, WRONG_PASSWORD.splitlines())
    assert not refuses_config(2, ["psql: error: connection to server failed"])


def test_a_tail_is_short_in_both_directions() -> None:
    tail = LogTail(3)
    for number in range(10):
        tail.add(f"{number}" * 100_000)
    assert [line[0] for line in tail.lines] == ["7", "8", "9"]
    assert sum(map(len, tail.lines)) < 20_000
    for length in (2000, 2001):
        tail.add("x" * length)
    assert list(tail.lines)[1:] == ["x" * 2000, "x" * 2000 + " …"]
