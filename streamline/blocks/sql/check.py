"""What can be said of an SQL block before anything runs."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from streamline.blocks.sql import template
from streamline.blocks.sql.lambdas import quote_lambdas
from streamline.blocks.sql.settings import KEYS, Profiles, Settings, read_settings
from streamline.blocks.sql.statements import split
from streamline.errors import ConfigError

if TYPE_CHECKING:
    from streamline.pipeline.model import Block
    from streamline.project.project import Project
    from streamline.project.render import Renderer

_NEEDED = {
    "postgres": (("POSTGRES_DBNAME", "POSTGRES_DB"),),
    "mysql": (("MYSQL_DATABASE",),),
    "sqlite": (("SQLITE_DATABASE",),),
    "duckdb": (("DUCKDB_DATABASE",),),
    "sqlalchemy": (("SQLALCHEMY_URL",),),
}
_READ = {
    "postgres": "POSTGRES_",
    "mysql": "MYSQL_",
    "sqlite": "SQLITE_",
    "duckdb": "DUCKDB_",
    "sqlalchemy": "SQLALCHEMY_",
}
_DRIVERS = {
    "postgres": ("psycopg", "PostgreSQL", "'psycopg[binary]'"),
    "mysql": ("pymysql", "MySQL and MariaDB", "'streamline[mysql]'"),
    "sqlalchemy": ("sqlalchemy", "SQLAlchemy URLs", "'streamline[sqlalchemy]'"),
}


def check(project: Project, block: Block, renderer: Renderer) -> None:
    """Check configuration, profile, driver and templates.

    Raises:
        ConfigError: one of them is wrong.
    """
    where = project.shown(block.file) if block.file is not None else f"block {block.uuid}"
    text = template.source(block, where)
    if not split(text, "duckdb") and "{%" not in text:
        raise ConfigError("there is no SQL in it", where=where, hint="write a SELECT")
    template.check_frames(text, block.upstream, where)
    _check_syntax(text, where)
    raw = {key: value for key, value in block.configuration.items() if not _needs_run(value)}
    ours = renderer.render({key: raw[key] for key in raw if key in KEYS}, f"{where}, configuration")
    settings = read_settings({**raw, **ours}, f"{where}, configuration")
    if settings.provider is None or "data_provider_profile" in set(block.configuration) - set(raw):
        return
    _check_profile(Profiles(project, renderer), block, settings, f"{where}, configuration")
    _check_driver(settings, where)


def _needs_run(value: Any) -> bool:
    """Whether a template in it reads what only a run has."""
    if isinstance(value, Mapping):
        return any(map(_needs_run, value.values()))
    if isinstance(value, list):
        return any(map(_needs_run, value))
    return isinstance(value, str) and "{{" in value and ("block_output" in value or "execution_date" in value)


def _check_syntax(text: str, where: str) -> None:
    if "{{" not in text and "{%" not in text and "{#" not in text:
        return
    from jinja2 import Environment
    from jinja2.exceptions import TemplateSyntaxError

    try:
        Environment().parse(quote_lambdas(text))
    except TemplateSyntaxError as error:
        raise ConfigError(
            f"the template cannot be read: {error.message}",
            where=f"{where}:{error.lineno}",
            hint="check the quotes and brackets inside {{ … }}",
        ) from error


def _check_profile(profiles: Profiles, block: Block, settings: Settings, where: str) -> None:
    config = profiles.get(settings, where)
    kind = settings.kind
    if kind == "sqlalchemy" and settings.provider is not None and "://" in settings.provider:
        return
    for keys in _NEEDED[kind]:
        if settings.database and kind != "sqlalchemy":
            continue
        if any(key in config for key in keys):
            continue
        if kind == "duckdb" and block.type != "data_exporter" and not settings.table:
            continue  # the embedded one
        raise ConfigError(
            f"the profile '{settings.profile}' has no {keys[0]}",
            where=where,
            hint=f"set {' or '.join(keys)} in {profiles.origin(settings)}",
        )
    for key in config:
        if key.startswith(_READ[kind]):
            config[key]  # an unset environment variable in it is an error that can be told now


def _check_driver(settings: Settings, where: str) -> None:
    if settings.kind in _DRIVERS:
        module, title, packages = _DRIVERS[settings.kind]
        if importlib.util.find_spec(module) is None:
            raise ConfigError(
                f"the package {module} is not installed, which {title} need{'s' if title == 'PostgreSQL' else ''}",
                where=where,
                hint=f"pip install {packages}",
            )
