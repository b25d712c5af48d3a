"""Every connector by name: the bundled ones, those of other packages, and sources and sinks inside this process.

A bundled connector is a folder in `taps/` or `targets/` with its `manifest.json`; its name is `<role>-<folder>`. Other
packages add connectors by the entry point group `streamline.connectors`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from streamline.errors import ConfigError
from streamline.extensions import extensions, load_extension, load_object
from streamline.project.suggest import suggestion

if TYPE_CHECKING:
    from streamline.connectors.stream_connector import StreamConnector
    from streamline.flow.protocols import Sink, Source

Role = Literal["tap", "target", "mapper"]
GROUP = "streamline.connectors"
"""The entry point group: a `Connector` under its name (`tap-shop`), or an `InProcess` under its own."""

HOME = Path(__file__).parents[2]
"""The folder that holds the bundled connectors' folders: a checkout or site-packages."""

Config: TypeAlias = Mapping[str, Any]


class Connector(msgspec.Struct, frozen=True, kw_only=True):
    """A tap, target or mapper that needs no entry in streamline.yaml.

    Args:
        role: tap, target or mapper.
        system: what it connects to; the connector's name is `<role>-<system>`.
        module: of another package: run as `python -m module`. None: bundled, run by path.
        modules: what must be importable for a bundled one to run in the current environment.
        requirements: what an environment of its own must hold otherwise; also the extra of its name in pyproject.toml.
        max_processes: how many of it may write at once in one pipeline.
        cheap_discovery: of a tap: `--discover` is quick, so that every run asks for the catalog anew.
        place: of a target: the setting that names the file or folder which it writes; without it, it is empty.
        config: the config that a new block starts with.
    """

    role: Role
    system: str
    module: str | None = None
    modules: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    max_processes: int | None = None
    cheap_discovery: bool = False
    place: str | None = None
    config: Mapping[str, Any] = {}

    @property
    def name(self) -> str:
        """`tap-sqlite`."""
        return f"{self.role}-{self.system}"

    @property
    def run_file(self) -> Path:
        """The program that runs a bundled connector."""
        return _folder(self.role) / "run.py"

    @property
    def code_folders(self) -> list[Path]:
        """Every folder whose modules a bundled one runs: its own, those shared by its role, and the kit."""
        folder = self.run_file.parent
        kit = folder.with_name(folder.name.removesuffix(f"{self.role}s") + "kit")
        return [folder / self.system, folder / "common", folder, kit]

    def importable_here(self) -> bool:
        """Return whether the current environment has all that it needs. Imports nothing."""
        return all(_importable(module) for module in self.modules)


class InProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A source or a sink that runs in this process. Factories are written `package.module:function`.

    Args:
        source: `(id: str, config: Mapping, start: Mapping[str, bytes]) -> flow.protocols.Source`, where `start` are the
            saved parts of its position; None: it is no source.
        sink: `(id: str, config: Mapping) -> flow.protocols.Sink`; None: it is no sink.
        stream: the object that is its `StreamConnector` (stream_connector.py), for streaming pipelines; None: blocks of
            these cannot name it.
    """

    source: str | None = None
    sink: str | None = None
    stream: str | None = None


class System(msgspec.Struct, frozen=True, kw_only=True):
    """A system that people name in blocks.

    Args:
        aliases: other names for it.
        port: of an SQL server: the default port.
        tap: a package that is known to work as its tap.
        target: the same as its target.
    """

    aliases: tuple[str, ...] = ()
    port: int | None = None
    tap: str | None = None
    target: str | None = None


SYSTEMS: Mapping[str, System] = {
    "bigquery": System(),
    "clickhouse": System(),
    "couchbase": System(),
    "delta-lake-s3": System(aliases=("delta_lake_s3",)),
    "duckdb": System(),
    "dynamodb": System(),
    "elasticsearch": System(),
    "files": System(aliases=("file", "csv", "jsonl", "parquet")),
    "github": System(),
    "google-analytics": System(aliases=("google_analytics",)),
    "google-sheets": System(aliases=("google_sheets",)),
    "hubspot": System(),
    "intercom": System(),
    "kafka": System(),
    "mongodb": System(aliases=("mongo",)),
    "mssql": System(aliases=("sqlserver", "sql_server"), port=1433),
    "mysql": System(aliases=("mariadb",), port=3306, tap="pipelinewise-tap-mysql==1.6.0"),
    "opensearch": System(),
    "oracledb": System(port=1521),
    "postgres": System(
        aliases=("postgresql", "pg"),
        port=5432,
        tap="pipelinewise-tap-postgres==2.1.0",
        target="pipelinewise-target-postgres==2.1.2",
    ),
    "redshift": System(port=5439),
    "s3": System(aliases=("amazon_s3",), tap="pipelinewise-tap-s3-csv==3.0.1"),
    "salesforce": System(),
    "sftp": System(),
    "snowflake": System(),
    "sqlite": System(aliases=("sqlite3",), target="target-sqlite==0.2.0"),
    "stripe": System(),
    "teradata": System(),
    "trino": System(),
    "zendesk": System(),
}
_ALIASES = {alias: name for name, system in SYSTEMS.items() for alias in system.aliases}

DEFAULT_SYSTEMS: Mapping[Role, str] = {"tap": "sqlite", "target": "duckdb"}
"""What `streamline add` uses where nothing is named."""

IN_PROCESS: Mapping[str, InProcess] = {
    "amazon_s3": InProcess(stream="streamline.connectors.objects.connector:AMAZON_S3"),
    "duckdb": InProcess(stream="streamline.connectors.tables.connector:DUCKDB"),
    "files": InProcess(stream="streamline.connectors.files.connector:CONNECTOR"),
    "http": InProcess(stream="streamline.connectors.http.connector:CONNECTOR"),
    "kafka": InProcess(stream="streamline.connectors.kafka.connector:CONNECTOR"),
    "objects": InProcess(stream="streamline.connectors.objects.connector:OBJECTS"),
    "postgres": InProcess(stream="streamline.connectors.tables.connector:POSTGRES"),
    "s3": InProcess(stream="streamline.connectors.objects.connector:S3"),
    # Taps and targets, whatever their names.
    "singer": InProcess(stream="streamline.connectors.singer.connector:SINGER"),
    "stdin": InProcess(stream="streamline.connectors.stdio.connector:STDIN"),
    "stdout": InProcess(stream="streamline.connectors.stdio.connector:STDOUT"),
}
"""The sources and sinks of this process that come with Streamline."""


def connector_name(name: str, role: Role) -> str:
    """Return the connector that `name` means: `postgresql` is `tap-postgres` for a tap; `tap-x` is itself."""
    if name.startswith(f"{role}-"):
        return name
    system = name.lower()
    return f"{role}-{_ALIASES.get(system, system)}"


def system_names() -> list[str]:
    """Return the names of all systems, with their aliases."""
    return [*SYSTEMS, *_ALIASES]


def system_of(connector: str) -> tuple[str, System] | None:
    """Return the system that a connector's name ends with, such as `postgres` of `tap-postgres`; None if unknown."""
    name = connector.partition("-")[2].replace("_", "-")
    return (name, SYSTEMS[name]) if name in SYSTEMS else None


def find_connector(name: str) -> Connector | None:
    """Return the connector of this full name. Entry points of other packages are read only where none is bundled.

    Raises:
        ConfigError: another package registers it, and it cannot be imported.
    """
    role, _, system = name.partition("-")
    if role in ("tap", "target") and system:
        bundled = _bundled(role, system)
        if bundled is not None:
            return bundled
    return load_extension(GROUP, name, Connector)


def bundled_connectors() -> list[Connector]:
    """Return the bundled connectors, taps first, each role sorted by name."""
    names = [(role, folder.name) for role in ("tap", "target") for folder in sorted(_folder(role).glob("*/"))]
    return [connector for role, name in names if (connector := _bundled(role, name)) is not None]


def installed_connectors() -> dict[str, str]:
    """Return the connectors that other packages add, and the packages. Reads every installed package's metadata."""
    return {
        name: point.dist.name if point.dist is not None else point.value
        for name, point in sorted(extensions(GROUP).items())
        if name.startswith(("tap-", "target-", "mapper-"))
    }


def example_config(connector: str) -> Mapping[str, Any]:
    """Return the config that a new block for this connector starts with; empty if nothing is known about it."""
    known = find_connector(connector)
    if known is not None:
        return known.config
    system = system_of(connector)
    if system is None or system[1].port is None:
        return {}
    return {
        "host": "{{ env_var('DB_HOST', 'localhost') }}",
        "port": system[1].port,
        "user": "reader",
        "password": "{{ secret('db') }}",
        "dbname": "shop",
    }


def open_source(name: str, block: str, config: Config, start: Mapping[str, bytes]) -> Source:
    """Make the in-process source `name` for a block.

    Args:
        start: the saved parts of its position.

    Raises:
        ConfigError: no such source exists.
    """
    made: Source = _factory(name, "source")(block, config, start)
    return made


def open_sink(name: str, block: str, config: Config) -> Sink:
    """Make the in-process sink `name` for a block.

    Raises:
        ConfigError: no such sink exists.
    """
    made: Sink = _factory(name, "sink")(block, config)
    return made


def find_stream_connector(name: str) -> StreamConnector | None:
    """Return the connector that blocks of streaming pipelines name so. Nothing of its libraries is imported.

    Raises:
        ConfigError: another package registers it, and it cannot be imported.
    """
    entry = IN_PROCESS.get(name) or load_extension(GROUP, name, InProcess)
    if entry is None or entry.stream is None:
        return None
    connector: StreamConnector = load_object(entry.stream)
    return connector


def stream_connector_names() -> list[str]:
    """Return the names of connectors that blocks of streaming pipelines can use."""
    others = [name for name in extensions(GROUP) if not name.startswith(("tap-", "target-", "mapper-"))]
    return [*(name for name, entry in IN_PROCESS.items() if entry.stream is not None), *others]


def _factory(name: str, side: Literal["source", "sink"]) -> Callable[..., Any]:
    entry = IN_PROCESS.get(name) or load_extension(GROUP, name, InProcess)
    target = getattr(entry, side) if entry is not None else None
    if target is None:
        raise ConfigError(
            f"there is no in-process {side} '{name}'",
            hint=suggestion(name, [*IN_PROCESS, *extensions(GROUP)], what=f"{side}s"),
            code="connector.unknown",
        )
    factory: Callable[..., Any] = load_object(target)
    return factory


def _folder(role: str) -> Path:
    """Return the folder of a role's bundled connectors: beside the package in an installation and in a checkout."""
    installed = HOME / f"streamline_{role}s"
    return installed if installed.is_dir() else HOME / f"{role}s"


def _bundled(role: str, system: str) -> Connector | None:
    try:
        manifest = (_folder(role) / system / "manifest.json").read_bytes()
    except OSError:
        return None
    return msgspec.convert({"role": role, "system": system, **msgspec.json.decode(manifest)}, Connector)


def _importable(module: str) -> bool:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    if spec is None or spec.origin is None:
        return False
    # Forks of singer-python provide the same module; ours is known by its distribution beside the module.
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
