"""Write a DataFrame into a table: cleaned names, overridden types, unique keys, upserts."""

from __future__ import annotations

import functools
import hashlib
import re

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from streamline.databases.arrow import is_text
from streamline.databases.base import DatabaseError, IfExists, TableExists
from streamline.databases.database import Database
from streamline.errors import ConfigError
from streamline.io.base import check_policy
from streamline.io.reserved_words import RESERVED_WORDS


class Export(msgspec.Struct, kw_only=True):
    """The options of an export. `on_conflict` is `UPDATE`, `IGNORE` or None; `types` are SQL types by column;
    `mage`: names are cleaned as Mage does it."""

    name: str
    schema: str | None = None
    if_exists: str = "append"
    allow_reserved_words: bool | None = None
    clean_names: bool = True
    case_sensitive: bool = False
    cascade: bool = False
    drop: bool = False
    types: dict[str, str] = {}
    unique: list[str] = []
    on_conflict: str | None = None
    mage: bool = False

    @property
    def policy(self) -> IfExists:
        """Return the write policy, checked."""
        return check_policy(self.if_exists)

    @property
    def conflict(self) -> str | None:
        """`UPDATE`, `IGNORE` or None, checked.

        Raises:
            ConfigError: it is something else, or there are no unique columns.
        """
        if not self.on_conflict:
            return None
        method = str(self.on_conflict).upper()
        if method not in ("UPDATE", "IGNORE"):
            raise ConfigError(
                f"unknown unique_conflict_method {self.on_conflict!r}",
                hint="UPDATE or IGNORE",
                code="export.unknown_conflict_method",
            )
        if not self.unique:
            raise ConfigError(
                "unique_conflict_method needs unique_constraints",
                hint="name the columns of the key",
                code="export.no_unique_constraints",
            )
        return method


def export_table(db: Database, data: pa.Table, options: Export) -> None:
    """Write the rows, all of them or none.

    Raises:
        ConfigError: columns that do not fit together, or wrong options.
        TableExists: the table is there and must not be.
        DatabaseError: the database refuses.
    """
    policy, conflict = options.policy, options.conflict
    there = db.columns(options.name, options.schema) if db.exists(options.name, options.schema) else None
    if there is not None and policy == "fail":
        raise TableExists(
            f"the table {_shown(options)} exists, and if_exists is 'fail'", hint="remove it, or use append or replace"
        )
    spelling = _spelling(data.column_names, options, there or [])
    data = data.rename_columns([spelling[name] for name in data.column_names])
    unique = [_column(name, spelling, "unique_constraints", options) for name in options.unique]
    types = {_column(name, spelling, "overwrite_types", options): kind for name, kind in options.types.items()}
    if unique and conflict:
        data = one_row_per_key(data, unique, keep_last=conflict == "UPDATE")
    if there is None:
        _make(db, data, options, unique, types, replace=False)
    elif policy == "append":
        if unique and conflict:
            _upsert(db, data, options, unique, conflict)
        else:
            db.insert(_as_there(data, there, options), options.name, options.schema)
    elif options.drop or types or not _same(there, data.column_names):
        _make(db, data, options, unique, types, replace=True)
    else:
        _refill(db, data, options, unique)


def clean_column(name: str, *, case_sensitive: bool = False, mage: bool = False) -> str:
    """Return a column's name as SQL takes it without quotes: small letters, digits and `_`; not a digit first.

    Args:
        case_sensitive: capitals stay.
        mage: some signs are dropped instead of becoming `_`, as in Mage: `price$` is `price`.
    """
    if mage:
        name = re.sub('[\ufeff"$\n\r\t]', "", name) or name
    cleaned = re.sub(r"\W", "_", name)
    if cleaned[:1].isdigit():
        cleaned = f"letter_{cleaned}"
    return cleaned if case_sensitive else cleaned.lower()


def cleaned_as_in_mage(data: pa.Table, *, allow_reserved_words: bool) -> pa.Table:
    """Rename columns as Mage does it before it writes a DataFrame into a database.

    Raises:
        ConfigError: two columns get the same name.
    """
    options = Export(name="", allow_reserved_words=allow_reserved_words, mage=True)
    spelling = _spelling(data.column_names, options, [])
    return data.rename_columns([spelling[name] for name in data.column_names])


def one_row_per_key(data: pa.Table, key: list[str], *, keep_last: bool) -> pa.Table:
    """Drop rows with a repeated key: the last (or first) of them stays, in its place.

    A key with a NULL in it equals no other, as in SQL.
    """
    if not data.num_rows:
        return data
    whole = functools.reduce(pc.and_, [pc.is_valid(data.column(name)) for name in key])
    rows = pa.table(
        [*(data.column(name) for name in key), pa.array(range(data.num_rows))],
        names=[*(str(index) for index in range(len(key))), "row"],
    )
    try:
        groups = rows.filter(whole).group_by(rows.column_names[:-1]).aggregate([("row", "max" if keep_last else "min")])
    except pa.ArrowNotImplementedError as error:
        raise ConfigError(
            f"unique_constraints {key}: their values cannot be compared ({error})", code="export.key_not_comparable"
        ) from error
    if groups.num_rows == pc.sum(whole).as_py():
        return data
    kept = pa.concat_arrays(
        [
            *rows.column("row").filter(pc.invert(whole)).chunks,
            *groups.column(f"row_{'max' if keep_last else 'min'}").chunks,
        ]
    )
    return data.take(kept.take(pc.sort_indices(kept)))


def _spelling(names: list[str], options: Export, there: list[str]) -> dict[str, str]:
    """Return the name of each column in the table.

    Raises:
        ConfigError: two columns get the same name.
    """
    spelling: dict[str, str] = {}
    by_new: dict[str, str] = {}
    for name in names:
        new = (
            clean_column(name, case_sensitive=options.case_sensitive, mage=options.mage)
            if options.clean_names
            else name
        )
        if options.clean_names:
            if options.allow_reserved_words is False or (options.mage and not options.allow_reserved_words):
                prefixed = new.upper() in RESERVED_WORDS
            else:
                prefixed = options.allow_reserved_words is None and f"_{new}" in there and new not in there
            new = f"_{new}" if prefixed else new
        if new in by_new:
            both = f"'{by_new[new]}' and '{name}'" if by_new[new] != name else f"two of '{name}'"
            raise ConfigError(
                f"the columns {both} would both be '{new}' in the table",
                hint="rename one, or auto_clean_name=False",
                code="export.duplicate_column",
            )
        by_new[new] = name
        spelling[name] = new
    return spelling


def _column(name: str, spelling: dict[str, str], what: str, options: Export) -> str:
    """Return the table's name of a column that an argument names by its old or its new name."""
    if name in spelling:
        return spelling[name]
    known = {new.lower(): new for new in spelling.values()}
    cleaned = clean_column(name, mage=options.mage)
    for candidate in (name, cleaned, f"_{cleaned}"):
        if candidate.lower() in known:
            return known[candidate.lower()]
    raise ConfigError(
        f"{what}: there is no column '{name}'", hint=f"columns: {', '.join(spelling)}", code="export.unknown_column"
    )


def _same(there: list[str], names: list[str]) -> bool:
    return {name.lower() for name in there} == {name.lower() for name in names}


def _as_there(data: pa.Table, there: list[str], options: Export) -> pa.Table:
    """Rename the data's columns to the table's own spelling.

    Raises:
        DatabaseError: the table lacks one of them.
    """
    exact, folded = set(there), {name.lower(): name for name in there}
    names = []
    for name in data.column_names:
        if name not in exact and name.lower() not in folded:
            raise DatabaseError(
                f"the table {_shown(options)} has no column '{name}'",
                hint=f"its columns: {', '.join(there)}; if_exists='replace' makes it anew",
                code="database.column_missing",
            )
        names.append(name if name in exact else folded[name.lower()])
    return data.rename_columns(names)


def _refill(db: Database, data: pa.Table, options: Export, unique: list[str]) -> None:
    """Replace the table's rows; where they do not fit its types, replace the table."""
    outermost = not db.in_transaction
    try:
        with db.transaction():
            db.execute(f"delete from {db.qualified(options.name, options.schema)}")
            db.insert(_as_there(data, db.columns(options.name, options.schema), options), options.name, options.schema)
    except DatabaseError:
        if not outermost:
            raise
        _make(db, data, options, unique, {}, replace=True)


def _make(
    db: Database, data: pa.Table, options: Export, unique: list[str], types: dict[str, str], *, replace: bool
) -> None:
    """Create the table, or replace the existing one."""
    if db.provider == "mysql":
        # Without a length, MySQL has no index on text.
        types = {name: "varchar(255)" for name in unique if _is_text(data, name)} | types
    policy: IfExists = "replace" if replace else "append"
    with db.transaction():
        if replace and options.cascade and db.provider in ("postgres", "duckdb"):
            db.execute(f"drop table {db.qualified(options.name, options.schema)} cascade")
            policy = "append"
        first = data if db.retypes_rows or not types else data.slice(0, 0)
        db.write(first, options.name, options.schema, policy)
        db.change_types(options.name, options.schema, types)
        if unique:
            db.create_unique_index(index_name(options.name, unique), options.name, options.schema, unique)
        if first is not data:
            db.insert(data, options.name, options.schema)


def _upsert(db: Database, data: pa.Table, options: Export, unique: list[str], conflict: str) -> None:
    """Upsert by one statement from a temporary table."""
    there = db.columns(options.name, options.schema)
    data = _as_there(data, there, options)
    folded = {name.lower(): name for name in there}
    key = [folded.get(name.lower(), name) for name in unique]
    staged = f"streamline_upsert_{options.name}"[:60]
    listed = ", ".join(map(db.quote, data.column_names))
    table = db.qualified(options.name, options.schema)
    others = [name for name in data.column_names if name not in key]
    with db.transaction():
        db.write(data, staged, if_exists="replace", temporary=True)
        insert = f"insert into {table} ({listed}) select {listed} from {db.temporary_name(staged)}"
        complete = " and ".join(f"{db.quote(name)} is not null" for name in key)
        if any(data.column(name).null_count for name in key):
            # A key with a NULL in it is in conflict with none; DuckDB takes two such rows of one statement for equal.
            db.execute(f"{insert} where not ({complete})")
        # Also where all keys are complete: SQLite takes ON for a join's if no WHERE stands before it.
        clause = db.on_conflict(table, key, others if conflict == "UPDATE" else [])
        try:
            if not db.finds_conflicts(options.name, options.schema, key):
                raise _no_index(options, key)
            db.execute(f"{insert} where {complete} {clause}")
        except DatabaseError as error:
            if _no_constraint(error.message):
                raise _no_index(options, key) from error
            raise
        db.drop_temporary(staged)


def _no_constraint(message: str) -> bool:
    """Return whether PostgreSQL, SQLite or DuckDB report that the table has no matching unique index."""
    folded = message.lower()
    return "constraint" in folded and any(
        phrase in folded for phrase in ("no unique or exclusion", "does not match any", "not referenced by a unique")
    )


def _no_index(options: Export, key: list[str]) -> ConfigError:
    columns = ", ".join(key)
    return ConfigError(
        f"the table {_shown(options)} has no unique index on ({columns}), so conflicts cannot be detected",
        hint=f"make one (create unique index … on {_shown(options)} ({columns})), or replace the table once",
        code="database.no_unique_index",
    )


def index_name(table: str, columns: list[str]) -> str:
    """Return the unique index's name: short enough for every database, different for other columns."""
    name = re.sub(r"\W", "_", "_".join(["unique", table, *columns]))
    if len(name.encode()) <= 60:
        return name
    return f"{name.encode()[:50].decode(errors='ignore')}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _is_text(data: pa.Table, name: str) -> bool:
    return is_text(data.schema.field(name).type)


def _shown(options: Export) -> str:
    return f"{options.schema}.{options.name}" if options.schema else options.name
