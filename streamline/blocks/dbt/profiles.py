"""profiles.yml: render the target that a dbt block uses.

dbt gets a private copy with only this target, so that secrets of other targets need not be set, and `secret()` and
`variables()` work in addition to dbt's `env_var()` and `var()`.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from streamline.blocks.dbt.settings import PROJECT_FILE, DbtSettings
from streamline.errors import ConfigError
from streamline.project.render import Renderer
from streamline.project.suggest import suggestion
from streamline.project.yamlfile import load_yaml

if TYPE_CHECKING:
    from streamline.project.project import Project

PROFILES_FILE = "profiles.yml"
_WHOLE_NUMBERS = ("port", "threads", "retries", "connect_timeout", "keepalives_idle")
_TYPE = re.compile(r"[a-z][a-z0-9_]*")


class DbtProfile(msgspec.Struct, kw_only=True):
    """The profile and target of a block.

    Args:
        type: the adapter, such as `duckdb`.
        output: the target's keys, rendered.
        file: profiles.yml.
    """

    name: str
    target: str
    type: str
    output: dict[str, Any]
    file: Path

    def text(self) -> str:
        """Return the text of a profiles.yml with only this target."""
        outputs = {self.target: _literal(self.output)}
        return yaml.safe_dump({self.name: {"target": self.target, "outputs": outputs}}, allow_unicode=True)


def load_profile(
    project: Project, settings: DbtSettings, where: str, variables: Mapping[str, Any], *, complete: bool = True
) -> DbtProfile:
    """Find and render the target that a block uses.

    Args:
        variables: the values of `var()` and `variables()`.
        complete: render all keys; otherwise only the adapter's type.

    Raises:
        ConfigError: profiles.yml, the profile or the target does not exist, or a template cannot be rendered.
    """
    render = _renderer(project, variables).render
    project_file = settings.folder / PROJECT_FILE
    shown = project.shown(project_file)
    written = load_yaml(project_file, shown=shown)
    name = settings.arguments.profile or written.mapping().get("profile")
    if not isinstance(name, str):
        raise ConfigError(
            f"{PROJECT_FILE} has no profile", where=shown, hint="add `profile: NAME`", code="dbt.profile_not_found"
        )
    name = str(render(name, shown))
    path = _find(project, settings, where)
    file = load_yaml(path, shown=project.shown(path))
    profiles = {key: value for key, value in file.mapping().items() if key != "config"}
    if name not in profiles:
        file.fail(
            f"there is no profile '{name}', which {shown} uses",
            hint=suggestion(name, profiles, what="profiles"),
            code="dbt.profile_not_found",
        )
    outputs = file.mapping((name, "outputs"))
    target = settings.target or str(render(file.mapping((name,)).get("target") or "default", file.where((name,))))
    if target not in outputs:
        file.fail(
            f"the profile '{name}' has no target '{target}'",
            (name, "outputs"),
            hint=suggestion(target, outputs, what="targets"),
            code="dbt.target_not_found",
        )
    at = (name, "outputs", target)
    raw = file.mapping(at)
    kind = str(render(raw.get("type"), file.where(at)))
    if not _TYPE.fullmatch(kind):
        file.fail(
            f"the target '{target}' has no type",
            at,
            hint="add the adapter's name, such as `type: duckdb`",
            code="dbt.target_not_found",
        )
    output = {}
    if complete:
        output = {key: _rendered(value, key, render, file.where((*at, key))) for key, value in raw.items()}
    project.secrets.masker.add_config(output)
    return DbtProfile(name=name, target=target, type=kind, output=output, file=path)


def _find(project: Project, settings: DbtSettings, where: str) -> Path:
    given = settings.arguments.profiles_dir or os.environ.get("DBT_PROFILES_DIR")
    folders = (
        [settings.folder / given, project.path(given)]
        if given
        else [settings.folder, project.root, Path.home() / ".dbt"]
    )
    for folder in folders:
        if (folder / PROFILES_FILE).is_file():
            return folder / PROFILES_FILE
    searched = ", ".join(map(project.shown, folders))
    raise ConfigError(
        f"there is no {PROFILES_FILE} in {searched}",
        where=where,
        hint=f"create {project.shown(settings.folder / PROFILES_FILE)}",
        code="dbt.profile_not_found",
    )


def _rendered(value: Any, key: str, render: Callable[[Any, str], Any], where: str) -> Any:
    if isinstance(value, dict):
        return {name: _rendered(item, name, render, where) for name, item in value.items()}
    if isinstance(value, list):
        return [_rendered(item, key, render, where) for item in value]
    result = render(value, where)
    # dbt requires numbers, but environment variables are text.
    return int(result) if key in _WHOLE_NUMBERS and isinstance(result, str) and result.isdecimal() else result


def _literal(value: Any) -> Any:
    """Escape a rendered value, because dbt renders it again."""
    if isinstance(value, dict):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    if isinstance(value, str) and any(mark in value for mark in ("{{", "{%", "{#")):
        return "{{ " + repr(value) + " }}"
    return value


def _renderer(project: Project, variables: Mapping[str, Any]) -> Renderer:
    """Return a renderer with dbt's and Streamline's functions and filters."""

    def variable(name: str, default: Any = None) -> Any:
        value = variables.get(name, default)
        if value is None:
            raise ConfigError(
                f"variable '{name}' not found",
                hint=suggestion(name, variables, what="variables"),
                code="variable.not_found",
            )
        return value

    return Renderer(
        project,
        secrets=project.secrets,
        runtime=variables,
        names={"var": variable},
        filters={"as_text": str, "as_bool": _as_boolean, "as_number": _as_number, "as_native": _as_native},
    )


def _as_boolean(value: Any) -> bool:
    return value if isinstance(value, bool) else str(value).strip().lower() in ("true", "1", "yes", "on")


def _as_number(value: Any) -> int | float:
    text = str(value)
    return int(text) if text.lstrip("+-").isdecimal() else float(text)


def _as_native(value: Any) -> Any:
    try:
        return ast.literal_eval(str(value))
    except (ValueError, SyntaxError):
        return value
