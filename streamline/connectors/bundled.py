"""The connectors that come along, and the names that systems go by."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from typing import Literal

import msgspec

Role = Literal["tap", "target", "mapper"]


class Connector(msgspec.Struct, frozen=True, kw_only=True):
    """A connector that comes with Streamline. It is run by path: `python <folder>/run.py <system>`.

    Args:
        role: tap or target.
        system: its folder's name; the connector is `<role>-<system>`.
        modules: what must be importable for it to run in an interpreter.
        requirements: what brings these; the distribution's own extra of the connector's name beats it.
        max_processes: how many of it may write at once in one pipeline.
    """

    role: Role
    system: str
    modules: tuple[str, ...]
    requirements: tuple[str, ...]
    max_processes: int | None = None

    @property
    def name(self) -> str:
        """`tap-sqlite`; also the extra's name."""
        return f"{self.role}-{self.system}"

    @property
    def run_file(self) -> Path:
        """The program that runs it: in a checkout beside the package, in an installation likewise."""
        beside = Path(__file__).parents[2]
        for folder in (f"streamline_{self.role}s", f"{self.role}s"):
            found = beside / folder / "run.py"
            if found.is_file():
                return found
        return beside / f"{self.role}s" / "run.py"

    @property
    def code_folders(self) -> list[Path]:
        """Every folder whose modules it runs: its own, those shared by its role, and the kit."""
        folder = self.run_file.parent
        kit = folder.with_name(folder.name.removesuffix(f"{self.role}s") + "kit")
        return [folder / self.system, folder / "common", folder, kit]

    def exists(self) -> bool:
        """Whether its code is there."""
        return (self.run_file.parent / self.system / "__main__.py").is_file()

    def importable_here(self) -> bool:
        """Whether the running interpreter has all that it needs; imports nothing."""
        return all(_importable(module) for module in self.modules)

    def all_requirements(self) -> list[str]:
        """What an environment for it must hold."""
        from importlib.metadata import PackageNotFoundError, requires

        try:
            declared = requires("streamline") or []
        except PackageNotFoundError:
            declared = []
        pattern = re.compile(rf"""(.+?)\s*;.*\bextra\s*==\s*["']{re.escape(self.name)}["']""")
        found = [match[1].strip() for one in declared if (match := pattern.fullmatch(one))]
        return found or list(self.requirements)


_SINGER = "singer-python>=6.0"

CONNECTORS = {
    one.name: one
    for one in (
        Connector(role="tap", system="sqlite", modules=("singer", "orjson"), requirements=(_SINGER, "orjson>=3.10")),
        Connector(
            role="tap",
            system="files",
            modules=("singer", "msgspec", "pyarrow"),
            requirements=(_SINGER, "msgspec>=0.19", "pyarrow>=17"),
        ),
        Connector(
            role="target",
            system="duckdb",
            modules=("msgspec", "duckdb", "pyarrow"),
            requirements=("msgspec>=0.19", "duckdb>=1.2", "pyarrow>=17"),
            max_processes=1,  # one process at a time may write to a DuckDB file
        ),
        Connector(
            role="target",
            system="files",
            modules=("msgspec", "pyarrow"),
            requirements=("msgspec>=0.19", "pyarrow>=17"),
            max_processes=8,
        ),
    )
}

_ALIASES = {
    "postgresql": "postgres",
    "pg": "postgres",
    "sqlite3": "sqlite",
    "file": "files",
    "csv": "files",
    "jsonl": "files",
    "parquet": "files",
    "mariadb": "mysql",
    "sqlserver": "mssql",
    "sql_server": "mssql",
    "mongo": "mongodb",
    "amazon_s3": "s3",
    "google_sheets": "google-sheets",
    "google_analytics": "google-analytics",
    "delta_lake_s3": "delta-lake-s3",
}
# Systems that people ask for and that no connector here serves yet, with a package known to work where one is.
_KNOWN_PACKAGES = {
    "tap-postgres": "pipelinewise-tap-postgres==2.1.0",
    "tap-mysql": "pipelinewise-tap-mysql==1.6.0",
    "tap-s3": "pipelinewise-tap-s3-csv==3.0.1",
    "target-postgres": "pipelinewise-target-postgres==2.1.2",
    "target-sqlite": "target-sqlite==0.2.0",
}
_KNOWN_SYSTEMS = frozenset(
    (
        *("postgres", "mysql", "mssql", "oracledb", "mongodb", "redshift", "snowflake", "bigquery", "clickhouse", "s3"),
        *("dynamodb", "salesforce", "hubspot", "stripe", "github", "google-sheets", "google-analytics", "zendesk"),
        *("intercom", "elasticsearch", "opensearch", "kafka", "sftp", "couchbase", "trino", "teradata", "sqlite"),
        *("duckdb", "files"),
    )
)


def connector_name(name: str, role: Role) -> str:
    """The connector that `name` means: `postgresql` is `tap-postgres` for a tap; `tap-x` is itself."""
    if name.startswith(f"{role}-"):
        return name
    system = name.lower()
    return f"{role}-{_ALIASES.get(system, system)}"


def known_system(name: str, role: Role) -> str | None:
    """The connector's name if `name` is a system that people know; None if it says nothing to us."""
    connector = connector_name(name, role)
    system = connector.removeprefix(f"{role}-").replace("_", "-")
    return connector if system in _KNOWN_SYSTEMS or connector in CONNECTORS else None


def known_package(connector: str) -> str | None:
    """A package that is known to work for a connector that does not come along."""
    return _KNOWN_PACKAGES.get(connector)


def builtin_names(role: Role) -> list[str]:
    """The connectors of a role that come along and are there."""
    return [name for name, one in CONNECTORS.items() if one.role == role and one.exists()]


def _importable(module: str) -> bool:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    if spec is None or spec.origin is None:
        return False
    # Forks of singer-python answer to the same module; ours is known by its distribution beside the module.
    return module != "singer" or _has_distribution(Path(spec.origin).parent.parent, "singer_python-", minimum=6)


def _has_distribution(folder: Path, prefix: str, minimum: int) -> bool:
    try:
        names = os.listdir(folder)  # noqa: PTH208 (a plain list of names, the fastest)
    except OSError:
        return False
    for name in names:
        # Older pips (Debian 12's) leave an egg-info behind for what comes as a source archive.
        if name.startswith(prefix) and name.endswith((".dist-info", ".egg-info")):
            major = name.removeprefix(prefix).partition(".")[0]
            return major.isdigit() and int(major) >= minimum
    return False
