"""`streamline check` connects once to each database that SQL blocks name."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from streamline.blocks.sql.settings import KEYS, Profiles, Settings, read_settings
from streamline.errors import ConfigError, StreamlineError
from streamline.pipeline.kinds import Connection
from streamline.project.suggest import almost

if TYPE_CHECKING:
    from streamline.pipeline.model import Block, PipelineModel
    from streamline.project.project import Project
    from streamline.project.render import Renderer

_ALIKE = 0.85
"""How similar to a known key an unknown one of a profile must be to count as misspelled: it may be the user's own."""


def connection(project: Project, model: PipelineModel, block: Block, renderer: Renderer) -> Connection | None:
    """The database that the block names; None for the embedded DuckDB."""
    provider = block.configuration.get("data_provider")
    if not provider:
        return None
    where = model.where(block.uuid, "configuration", "data_provider")
    try:
        configuration = {
            key: renderer.render(value, lambda path: model.where(block.uuid, "configuration", *path))
            for key, value in block.configuration.items()
            if key in KEYS and not _needs_run(value)
        }
        settings = read_settings(configuration, where)
        profiles = Profiles(project, renderer)
        # Two profiles may connect to one database as different users.
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


def _test(project: Project, profiles: Profiles, settings: Settings, where: str, database_name: Any) -> str:
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
    return "; ".join(filter(None, ("it answers", misspelled)))


def _misspelled(profile: Mapping[str, Any]) -> str:
    """The keys of a profile that are nearly keys that are read."""
    from streamline.io.config_keys import ConfigKey

    known = {str(key).casefold(): str(key) for key in ConfigKey}
    near = {key: almost(key, known, _ALIKE) for key in profile if key.casefold() not in known}
    return "; ".join(
        f"{key} means nothing: did you mean {known[match]}?" for key, match in near.items() if match is not None
    )


def _without_password(url: str) -> str:
    return re.sub(r"://([^:/@]*):[^/]*@", r"://\1:***@", url)


def _needs_run(value: object) -> bool:
    return isinstance(value, str) and "{{" in value and "block_output" in value
