"""What can be said of an SQL block before anything runs."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from streamline.blocks.sql import template
from streamline.blocks.sql.lambdas import parse_template
from streamline.blocks.sql.settings import KEYS, Profiles, Settings, read_settings
from streamline.blocks.sql.statements import split
from streamline.errors import ConfigError

if TYPE_CHECKING:
    from streamline.pipeline.model import Block
    from streamline.project.project import Project
    from streamline.project.render import Renderer


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
    if any(mark in text for mark in ("{{", "{%", "{#")):
        parse_template(text, lambda line: f"{where}:{line}")
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


def _check_profile(profiles: Profiles, block: Block, settings: Settings, where: str) -> None:
    config = profiles.get(settings, where)
    kind = settings.kind
    if kind == "sqlalchemy" and settings.provider is not None and "://" in settings.provider:
        return
    keys = settings.entry.database_keys
    named = settings.database and kind != "sqlalchemy"
    embedded = kind == "duckdb" and block.type != "data_exporter" and not settings.table
    if not (named or embedded or any(key in config for key in keys)):
        raise ConfigError(
            f"the profile '{settings.profile}' has no {keys[0]}",
            where=where,
            hint=f"set {' or '.join(keys)} in {profiles.origin(settings)}",
            code="profile.setting_missing",
        )
    for key in config:
        if key.startswith(settings.entry.prefix):
            config[key]  # fails now if an environment variable in it is not set


def _check_driver(settings: Settings, where: str) -> None:
    entry = settings.entry
    if entry.driver is not None and importlib.util.find_spec(entry.driver) is None:
        raise ConfigError(
            f"{entry.title} needs the package {entry.driver}, which is not installed",
            where=where,
            hint=f"pip install {entry.install}",
            code="package.missing",
        )
