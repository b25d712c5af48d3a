"""Connect to the warehouse that dbt writes to."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamline.databases.registry import database
from streamline.errors import ConfigError
from streamline.project.lockfile import file_lock

if TYPE_CHECKING:
    import pandas as pd

    from streamline.blocks.dbt.profiles import DbtProfile
    from streamline.databases.database import Database
    from streamline.project.project import Project

_POSTGRES = {
    "POSTGRES_HOST": ("host",),
    "POSTGRES_PORT": ("port",),
    "POSTGRES_USER": ("user",),
    "POSTGRES_PASSWORD": ("password", "pass"),
    "POSTGRES_DBNAME": ("dbname", "database"),
    "POSTGRES_SSLMODE": ("sslmode",),
    "POSTGRES_CONNECT_TIMEOUT": ("connect_timeout",),
}


def open_postgres(profile: DbtProfile) -> Database:
    """Connect to the PostgreSQL database of a profile.

    Raises:
        ConfigError: a key is missing.
        DatabaseError: the database cannot be reached.
    """
    config = {
        key: profile.output[name]
        for key, names in _POSTGRES.items()
        for name in names
        if profile.output.get(name) is not None
    }
    return database("postgres", config, origin=f"{profile.file.name}, target '{profile.target}'")


def settle_duckdb(project: Project, folder: Path, profile: DbtProfile, scratch: Path) -> Path | None:
    """Make the path of a DuckDB profile absolute. Return the database file; None: it is not a local file.

    A relative path starts at the dbt project if the file exists there, else at the project. Without a path, dbt-duckdb
    would use memory; a temporary file is used instead, so that the models can be read.
    """
    path = str(profile.output.get("path") or ":memory:")
    if path == ":memory:":
        file = scratch / "memory.duckdb"
    elif "://" in path or path.split(":")[0] in ("md", "motherduck", "ducklake", "quack"):
        return None
    else:
        beside = folder / Path(path).expanduser()
        file = beside if beside.exists() else project.path(path)
        if not file.parent.is_dir():
            raise ConfigError(
                f"the folder of the DuckDB file {path} does not exist: {project.shown(file.parent)}",
                where=project.shown(profile.file),
                hint="create it, or change `path:`",
                code="file.not_found",
            )
    profile.output["path"] = str(file)
    return file


@contextlib.contextmanager
def alone(project: Project, file: Path | None) -> Iterator[None]:
    """Lock a DuckDB file: only one process can write it, and dbt fails if another process has it open."""
    if file is None:
        yield
        return
    name = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:16]
    with file_lock(project.work_dir / "dbt" / f".{name}.lock"):
        yield


def read_rows(path: Path) -> pd.DataFrame:
    """Read rows that dbt exported: numbers, text, booleans, dates and times."""
    import pandas as pd

    data = json.loads(path.read_text(encoding="utf-8"))
    columns = list(zip(*data["rows"], strict=True)) if data["rows"] else [()] * len(data["names"])
    kinds = zip(columns, data["kinds"], strict=True)
    result = pd.DataFrame({number: _column(column, kind) for number, (column, kind) in enumerate(kinds)})
    result.columns = pd.Index(data["names"])
    return result


def _column(values: Any, kind: str) -> pd.Series[Any]:
    import pandas as pd

    convert = _CONVERSIONS.get(kind, str)
    converted = [None if value is None else convert(value) for value in values]
    if kind in ("Number", "Integer"):
        numbers = [value for value in converted if value is not None]
        if all(value == value.to_integral_value() and abs(value) < 2**63 for value in numbers):
            return pd.Series([None if value is None else int(value) for value in converted], dtype="Int64")
        return pd.Series([None if value is None else float(value) for value in converted], dtype="float64")
    if kind == "Boolean":
        return pd.Series(converted, dtype="boolean")
    if kind == "DateTime":
        return pd.Series(pd.to_datetime(pd.Series(converted, dtype=object)))
    return pd.Series(converted, dtype=object)


_CONVERSIONS: dict[str, Any] = {
    "Number": Decimal,
    "Integer": Decimal,
    "Boolean": lambda text: text == "True",
    "Date": dt.date.fromisoformat,
    "DateTime": dt.datetime.fromisoformat,
}
