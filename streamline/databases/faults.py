"""Whose fault an error of a database is: of the rows, of an outage, or of a table that is not what it was."""

from __future__ import annotations

from typing import Literal, TypeAlias

Fault: TypeAlias = Literal["rows", "outage", "locked", "changed", "no_index", "other"]
"""`rows`: the database refuses what is written; `outage`: it may be tried again as it is; `locked`: another process has
the file; `changed`: a table or column is not there; `no_index`: there is no unique index on a key; `other`: settings,
permissions."""

_POSTGRES: tuple[tuple[str, Fault], ...] = (
    # https://www.postgresql.org/docs/current/errcodes-appendix.html
    ("42P10", "no_index"),
    ("42P01", "changed"),
    ("42703", "changed"),
    ("3F000", "changed"),
    ("42804", "rows"),
    ("21000", "rows"),
    ("22", "rows"),
    ("23", "rows"),
    ("44", "rows"),
    ("54", "rows"),
    ("P0001", "rows"),  # what a trigger raises
    ("08", "outage"),
    ("25006", "outage"),  # read-only, as during a failover
    ("40", "outage"),  # deadlocks, serialization
    ("53", "outage"),  # disk full, too many connections
    ("55P03", "outage"),
    ("57P", "outage"),  # shutdown, crash, starting up
    ("57014", "outage"),  # cancelled
    ("58", "outage"),
)
_WRONG_LOGIN = ("authentication failed", "does not exist", "no pg_hba.conf entry", "no password supplied")


def fault_of(error: Exception) -> Fault:
    """Return whose fault an error of `Database` is."""
    cause = error.__cause__
    package = type(cause).__module__.partition(".")[0]
    if package == "psycopg":
        return _postgres_fault(cause)
    return _duckdb_fault(cause) if "duckdb" in package else "other"


def _postgres_fault(cause: BaseException | None) -> Fault:
    import psycopg

    state = getattr(cause, "sqlstate", None)
    if state:
        return next((fault for prefix, fault in _POSTGRES if state.startswith(prefix)), "other")
    if isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError):
        # No code: it could not connect, or lost the connection.
        return "other" if any(phrase in str(cause) for phrase in _WRONG_LOGIN) else "outage"
    return "rows" if isinstance(cause, psycopg.DataError) else "other"


def _duckdb_fault(cause: BaseException | None) -> Fault:
    import duckdb

    text = str(cause)
    if isinstance(cause, duckdb.BinderException) and "conflict target" in text:
        return "no_index"
    if isinstance(cause, duckdb.IOException):
        return "locked" if "lock" in text else "outage"
    if isinstance(cause, duckdb.TransactionException):
        return "outage"
    if isinstance(cause, duckdb.CatalogException | duckdb.BinderException):
        return "changed"
    if isinstance(cause, duckdb.DataError | duckdb.IntegrityError | duckdb.InvalidInputException):
        return "rows"
    return "other"
