"""Check SQL blocks before they run, and describe their database and table for `explain`."""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from streamline.blocks.call import block_text, shown_block
from streamline.blocks.sql import template
from streamline.blocks.sql.settings import KEYS, Profiles, SQLSettings, read_settings
from streamline.blocks.sql.statements import split
from streamline.errors import ConfigError, StreamlineError
from streamline.io.config_keys import ConfigKey
from streamline.pipeline.kinds import Connection, Explanation
from streamline.project.lambdas import parse_template
from streamline.project.render import Renderer
from streamline.project.suggest import almost

if TYPE_CHECKING:
    from streamline.pipeline.model import Block, PipelineModel
    from streamline.project.project import Project

_ALIKE = 0.85
"""An unknown key of a profile that is this similar to a known one counts as misspelled. It may be the user's own."""


def check(project: Project, block: Block, renderer: Renderer) -> None:
    """Check configuration, profile, driver and templates.

    Raises:
        ConfigError: one of them is wrong.
    """
    where = shown_block(project, block)
    text = block_text(block, where)
    if not split(text, "duckdb") and "{%" not in text:
        raise ConfigError("the block has no SQL", where=where, hint="write a SELECT", code="sql.empty")
    template.check_frames(text, block.upstream, where)
    if any(mark in text for mark in ("{{", "{%", "{#")):
        parse_template(text, lambda line: f"{where}:{line}")
    raw = {
        key: value
        for key, value in block.configuration.items()
        if not _needs_run(value, "block_output", "execution_date")
    }
    ours = renderer.render({key: raw[key] for key in raw if key in KEYS}, f"{where}, configuration")
    settings = read_settings({**raw, **ours}, f"{where}, configuration")
    if settings.provider is None or "data_provider_profile" in set(block.configuration) - set(raw):
        return
    _check_profile(Profiles(project, renderer), block, settings, f"{where}, configuration")
    _check_driver(settings, where)


def _needs_run(value: Any, *names: str) -> bool:
    """Return whether a template in a value uses one of these names, which are known only in a run."""
    if isinstance(value, Mapping | list):
        return any(_needs_run(item, *names) for item in (value.values() if isinstance(value, Mapping) else value))
    return isinstance(value, str) and "{{" in value and any(name in value for name in names)


def _check_profile(profiles: Profiles, block: Block, settings: SQLSettings, where: str) -> None:
    config = profiles.get(settings, where)
    kind = settings.kind
    if kind == "sqlalchemy" and settings.provider is not None and "://" in settings.provider:
        return
    keys = settings.entry.database_keys
    named = settings.database and kind != "sqlalchemy"
    embedded = kind == "duckdb" and block.type != "data_exporter" and not settings.table
    if keys and not (named or embedded or any(key in config for key in keys)):
        raise ConfigError(
            f"the profile '{settings.profile}' has no {keys[0]}",
            where=where,
            hint=f"set {' or '.join(keys)} in {profiles.origin(settings)}",
            code="profile.setting_missing",
        )
    if settings.entry.needs_schema and not (settings.raw or settings.schema or profiles.schema(settings, where)):
        raise ConfigError(
            f"{settings.entry.title} needs a schema for the table",
            where=where,
            hint="set data_provider_schema in the block's configuration",
            code="sql.setting_invalid",
        )
    for key in config:
        if key.startswith(settings.entry.prefix):
            config[key]  # fails if an environment variable in it is not set


def _check_driver(settings: SQLSettings, where: str) -> None:
    entry = settings.entry
    if entry.driver is not None and not _is_installed(entry.driver):
        raise ConfigError(
            f"{entry.title} needs the package {entry.driver}, which is not installed",
            where=where,
            hint=f"pip install {entry.install}",
            code="package.missing",
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # the package that it is in
        return False


def explain(project: Project, model: PipelineModel, block: Block) -> Explanation:
    """Return the block's database and table, without connecting to the database."""
    settings = _settings(project, model, block)
    if settings is None:
        return Explanation(engine="duckdb, embedded")
    engine = f"{settings.provider}, profile {settings.profile}"
    if settings.raw:
        return Explanation(engine=engine, writes="determined by its statements")
    table = settings.table or f"{model.uuid}_{block.uuid}"
    name = f"{settings.schema}.{table}" if settings.schema else table
    return Explanation(engine=engine, writes=f"{name} ({settings.policy})")


def _settings(project: Project, model: PipelineModel, block: Block) -> SQLSettings | None:
    """Return the block's settings; None: the embedded DuckDB runs it."""
    if not block.configuration.get("data_provider"):
        return None
    variables = {**project.variables, **model.variables}
    renderer = Renderer(project, variables, project.secrets, names={"execution_date": "{execution_date}"})
    # Values that are known only in a run are not rendered.
    configuration = {
        key: value if "block_output" in str(value) else renderer.render(value, model.where(block.uuid))
        for key, value in block.configuration.items()
        if key in KEYS
    }
    where = model.where(block.uuid, "configuration")
    settings = read_settings(configuration, where)
    return None if Profiles(project, renderer).in_memory(settings, where) else settings


def connection(project: Project, model: PipelineModel, block: Block, renderer: Renderer) -> Connection | None:
    """Return the block's database connection; None for the embedded DuckDB."""
    provider = block.configuration.get("data_provider")
    if not provider:
        return None
    where = model.where(block.uuid, "configuration", "data_provider")
    try:
        configuration = {
            key: renderer.render(value, lambda path: model.where(block.uuid, "configuration", *path))
            for key, value in block.configuration.items()
            if key in KEYS and not _needs_run(value, "block_output")
        }
        settings = read_settings(configuration, where)
        profiles = Profiles(project, renderer)
        # Different profiles may connect to the same database as different users.
        key = (settings.profile, *profiles.place(settings, where))
        if profiles.in_memory(settings, where):
            return None
    except ConfigError as error:
        return Connection(name=_without_password(str(provider)), error=error)
    return Connection(
        name=_without_password(settings.provider or "")
        if "://" in (settings.provider or "")
        else f"{settings.provider}, profile {settings.profile}",
        key=key,
        test=functools.partial(_test, project, profiles, settings, where, key[-1]),
    )


def _test(project: Project, profiles: Profiles, settings: SQLSettings, where: str, database_name: Any) -> str:
    misspelled = _misspelled(profiles.get(settings, where))
    file = str(database_name) if settings.entry.is_file else None
    if file is not None and "://" not in file and ":" not in file and not project.path(file).exists():
        return f"{file} does not exist yet; the first run creates it"
    try:
        with profiles.open(settings, where) as database:
            database.query("select 1")
    except ConfigError:
        raise
    except StreamlineError as error:
        error.hint = "; ".join(filter(None, (misspelled, error.hint))) or None
        raise
    return "; ".join(filter(None, ("connected", misspelled)))


def _misspelled(profile: Mapping[str, Any]) -> str:
    """Return a message about keys of a profile that look misspelled."""
    known = {str(key).casefold(): str(key) for key in ConfigKey}
    near = {key: almost(key, known, _ALIKE) for key in profile if key.casefold() not in known}
    return "; ".join(
        f"unknown key {key}: did you mean {known[match]}?" for key, match in near.items() if match is not None
    )


def _without_password(url: str) -> str:
    return re.sub(r"://([^:/@]*):[^/]*@", r"://\1:***@", url)
