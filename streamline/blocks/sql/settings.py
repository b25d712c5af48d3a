"""Read an SQL block's configuration, and find its database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.databases.base import WRITE_POLICIES, IfExists
from streamline.databases.database import Database
from streamline.databases.registry import PROVIDERS, Provider, database, find_provider
from streamline.errors import ConfigError
from streamline.io.config_keys import nested_settings
from streamline.project.ioconfig import IO_CONFIG_FILE, load_profile
from streamline.project.suggest import almost, suggestion, words

if TYPE_CHECKING:
    from streamline.databases.database import Database
    from streamline.project.ioconfig import Profile
    from streamline.project.project import Project
    from streamline.project.render import Renderer

KEYS = words(
    "data_provider data_provider_profile data_provider_database data_provider_schema data_provider_table "
    "export_write_policy use_raw_sql limit limit_in_pipeline_run disable_query_preprocessing "
    "unique_upstream_table_name upstream_block_configuration clean_columns allow_reserved_words"
)
"""The keys of `configuration` for SQL blocks. `limit` limits the preview in Mage's editor, not runs."""

_DEFAULT_PROFILE = "default"
_WORDS = {"true": True, "false": False, "yes": True, "no": False, "": False}


class SQLSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The validated configuration of an SQL block.

    Args:
        provider: the data provider; None: the embedded DuckDB.
        profile: the profile in io_config.yaml.
        database: overrides the profile's database.
        schema: overrides the profile's schema.
        table: the table to write; None: named after pipeline and block.
        policy: what to do if the table exists.
        raw: run the statements unchanged, without writing the last SELECT to a table.
        limit: the maximum number of rows of the output.
        unique_upstream: add the run's id to the names of tables with upstream data.
        upstream_tables: names of tables with upstream data, by upstream block.
        clean_columns: clean the names of columns in upstream data as Mage does; None: in projects of Mage.
        allow_reserved_words: cleaned names may be reserved words of SQL; otherwise `_` is put before them.
    """

    provider: str | None
    profile: str
    profile_given: bool
    database: str | None
    schema: str | None
    table: str | None
    policy: IfExists
    raw: bool
    limit: int | None
    unique_upstream: bool
    upstream_tables: dict[str, str]
    clean_columns: bool | None
    allow_reserved_words: bool

    @property
    def kind(self) -> str:
        """Return the provider's name in `registry.PROVIDERS`."""
        return self.entry.name

    @property
    def entry(self) -> Provider:
        """Return the provider; without one the embedded DuckDB."""
        return find_provider(self.provider) if self.provider else PROVIDERS["duckdb"]


def read_settings(configuration: Mapping[str, Any], where: str) -> SQLSettings:
    """Read a block's rendered configuration.

    Raises:
        ConfigError: a value is invalid, or a key is misspelled.
    """
    reader = _SettingsReader(configuration, where)
    for key in configuration:
        reader.refuse_misspelt(str(key))
    provider = reader.text("data_provider")
    if provider is not None:
        find_provider(provider, where=where)
    policy = (reader.text("export_write_policy") or "append").casefold()
    if policy not in WRITE_POLICIES:
        raise ConfigError(
            f"export_write_policy: unknown write policy '{policy}'",
            where=where,
            hint=suggestion(policy, WRITE_POLICIES, what="write policies"),
            code="export.unknown_write_policy",
        )
    schema, table = reader.text("data_provider_schema"), reader.text("data_provider_table")
    if (
        table is not None
        and schema is None
        and table.count(".") == 1
        and not table.startswith(".")
        and table[-1] != "."
    ):
        schema, table = table.split(".")
    return SQLSettings(
        provider=provider,
        profile=reader.text("data_provider_profile") or _DEFAULT_PROFILE,
        profile_given=bool(reader.text("data_provider_profile")),
        database=reader.text("data_provider_database"),
        schema=schema,
        table=table,
        policy=policy,
        raw=reader.flag("use_raw_sql"),
        limit=reader.count("limit_in_pipeline_run"),
        unique_upstream=reader.flag("unique_upstream_table_name"),
        upstream_tables=reader.upstream_tables(),
        clean_columns=reader.flag("clean_columns") if configuration.get("clean_columns") is not None else None,
        allow_reserved_words=reader.flag("allow_reserved_words"),
    )


def default_table(pipeline: str, uuid: str, database: Database) -> str:
    """Return the default table of a block: `<pipeline>_<block>`, shortened to the database's limit."""
    name = f"{pipeline}_{uuid}"
    return name if len(name.encode()) <= database.longest_name else database.spare_name(name, "")


class _SettingsReader:
    def __init__(self, configuration: Mapping[str, Any], where: str) -> None:
        self.configuration = configuration
        self.where = where

    def refuse_misspelt(self, key: str) -> None:
        if key not in KEYS and (near := almost(key, KEYS, 0.9)):
            self._fail(f"unknown key '{key}'", f"did you mean '{near}'?")

    def text(self, key: str) -> str | None:
        value = self.configuration.get(key)
        if value is None or value == "":
            return None
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self._fail(f"{key} must be text", "put it in quotes")
        return str(value).strip() or None

    def flag(self, key: str) -> bool:
        value = self.configuration.get(key)
        if isinstance(value, str):
            value = _WORDS.get(value.strip().casefold(), value)
        if value is not None and not isinstance(value, bool):
            self._fail(f"{key} must be true or false", f"the value is {value!r}")
        return bool(value)

    def count(self, key: str) -> int | None:
        value = self.configuration.get(key)
        if value is None or value == "":
            return None
        if isinstance(value, str) and value.strip().isdigit():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self._fail(f"{key} must be a number of rows", f"the value is {value!r}")
        return int(value)

    def upstream_tables(self) -> dict[str, str]:
        """`{uuid: {table_name: …}}`, or a list of `{uuid, table_name}`."""
        value = self.configuration.get("upstream_block_configuration") or {}
        if isinstance(value, list):
            value = {item.get("uuid"): item for item in value if isinstance(item, dict)}
        if not isinstance(value, dict):
            self._fail("upstream_block_configuration must be a mapping", "write <uuid>: {table_name: …}")
        named = {uuid: item.get("table_name") for uuid, item in value.items() if isinstance(item, dict)}
        return {str(uuid): str(name) for uuid, name in named.items() if name}

    def _fail(self, message: str, hint: str) -> None:
        raise ConfigError(message, where=self.where, hint=hint, code="sql.setting_invalid")


class _Flat(Mapping[str, Any]):
    """A profile by its flat keys, also if it has the older nested form (`PostgreSQL: {host: …}`)."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self.root = profile.file.path.parent
        """Where relative paths in it start."""
        self._paths: dict[str, tuple[str, ...]] = {}
        for heading, branch in profile.raw.items():
            names = nested_settings(heading) or {}
            if isinstance(branch, Mapping):
                self._paths |= {names[key]: (heading, key) for key in branch if key in names}
        self._paths |= {key: (key,) for key in profile.raw}

    def __getitem__(self, key: str) -> Any:
        return self._profile.at(*self._paths[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


class Profiles:
    """The profiles of io_config.yaml, each loaded once."""

    def __init__(self, project: Project, renderer: Renderer) -> None:
        self.project = project
        self.renderer = renderer
        self._read: dict[str, Mapping[str, Any]] = {}

    def get(self, settings: SQLSettings, where: str) -> Mapping[str, Any]:
        """Return a block's profile; an empty one if the block needs none and there is no io_config.yaml.

        Raises:
            ConfigError: io_config.yaml or the profile does not exist, or cannot be rendered.
        """
        if settings.profile not in self._read:
            self._read[settings.profile] = self._load(settings, where)
        return self._read[settings.profile]

    def _load(self, settings: SQLSettings, where: str) -> Mapping[str, Any]:
        path = self.project.root / IO_CONFIG_FILE
        if not path.is_file():
            if settings.provider is not None and "://" in settings.provider:
                return {}
            if settings.kind == "duckdb" and not settings.profile_given:
                return {}
            raise ConfigError(
                f"there is no {IO_CONFIG_FILE} with the connection settings of {settings.provider}",
                where=where,
                hint=f"create it in the project's folder, with the profile '{settings.profile}'",
                code="profile.not_found",
            )
        try:
            return _Flat(load_profile(path, self.renderer, settings.profile))
        except ConfigError as error:
            error.message += f" (for {where})"
            raise

    def origin(self, settings: SQLSettings) -> str:
        """Return the profile's name in errors."""
        return f"{IO_CONFIG_FILE}, profile '{settings.profile}'"

    def open(self, settings: SQLSettings, where: str) -> Database:
        """Connect to a block's database.

        Raises:
            ConfigError: a key of the profile or the driver is missing.
            DatabaseError: the database cannot be reached.
        """
        assert settings.provider is not None
        return database(
            settings.provider,
            self.get(settings, where),
            origin=self.origin(settings),
            root=self.project.root,
            name=settings.database,
            schema=settings.schema,
        )

    def place(self, settings: SQLSettings, where: str) -> tuple[Any, ...]:
        """Return a key that is equal for blocks that use the same database."""
        config = self.get(settings, where)
        entry = settings.entry
        assert settings.provider is not None
        url = settings.provider if "://" in settings.provider else None
        name = settings.database or next((config[key] for key in entry.database_keys if config.get(key)), None)
        values = [*(config.get(key) or None for key in entry.server_keys), name]
        return (entry.name, url, *(str(value) if value is not None else None for value in values))

    def schema(self, settings: SQLSettings, where: str) -> str | None:
        """Return the profile's schema."""
        config = self.get(settings, where)
        key = settings.entry.schema_key
        return config.get(key) if key is not None else None

    def in_memory(self, settings: SQLSettings, where: str) -> bool:
        """Return whether the block runs in the embedded DuckDB."""
        if settings.provider is None:
            return True
        if settings.kind != "duckdb" or settings.database:
            return False
        config = self.get(settings, where)
        return config.get("DUCKDB_DATABASE") in (None, "", ":memory:")
