"""A private view of a dbt project: links to all that it holds, its settings changed, and sources of our own in it.

dbt writes into the folder that it runs a project from, and reads sources only from there; the user's own folder is
left as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from streamline.blocks.dbt.settings import PROJECT_FILE
from streamline.errors import ConfigError
from streamline.outputs.folders import write_file
from streamline.project.yamlfile import load_yaml, read_text

if TYPE_CHECKING:
    from streamline.project.project import Project

SOURCES, SEEDS, MACROS = "streamline_sources", "streamline_seeds", "streamline_macros"
_VARIABLE = re.compile(r"\bvar\(\s*['\"]([^'\"]+)['\"]")
_SOURCE = re.compile(r"\bsource\(\s*['\"]streamline['\"]\s*,\s*['\"]([^'\"]+)['\"]")
_PACKAGE_FILES = ("packages.yml", "dependencies.yml")
_LOCK = "package-lock.yml"
_STAMP = ".streamline-deps"
_NOT_SEARCHED = ("target", "logs", "dbt_packages")
_LEFT_OUT = frozenset((PROJECT_FILE, "profiles.yml", "target", "logs", ".git", ".user.yml", *_PACKAGE_FILES, _LOCK))
# Calls DuckDB's COPY: one statement a model, the rows never pass through Python.
_COPY = """\
{% macro streamline__copy(relations) %}
  {% for entry in relations %}
    {% set file = "'" ~ entry.path.replace("'", "''") ~ "'" %}
    {% do run_query("copy (select * from " ~ entry.relation ~ ") to " ~ file ~ " (format parquet)") %}
  {% endfor %}
{% endmacro %}
"""


class Overlay(msgspec.Struct, kw_only=True):
    """A private view.

    Args:
        folder: where dbt runs the project from.
        target: where dbt puts its artifacts, and keeps what it has parsed.
        name: the project's name for dbt.
        needs_deps: whether `dbt deps` has to run.
    """

    folder: Path
    target: Path
    logs: Path
    name: str
    needs_deps: bool

    def installed(self) -> None:
        """Record that the packages are installed."""
        write_file(self.folder / _STAMP, _stamp(self.folder).encode())


def make_overlay(project: Project, source: Path, home: Path, *, profile: str) -> Overlay:
    """Create the view, or update it.

    Args:
        home: a folder for this block alone; what dbt keeps from run to run lies there too.

    Raises:
        ConfigError: dbt_project.yml is not what it should be.
    """
    folder = home / "project"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    written = _read_yaml(project, source / PROJECT_FILE)
    packages = str(written.get("packages-install-path") or "dbt_packages")
    for entry in os.scandir(folder):
        if entry.is_symlink():
            Path(entry.path).unlink()
    installed = (source / packages).is_dir()
    for entry in os.scandir(source):
        if entry.name in _LEFT_OUT or (entry.name == packages and not installed):
            continue
        link = folder / entry.name
        if link.is_dir():  # packages that dbt installed here, before the project had them itself
            shutil.rmtree(link)
        link.symlink_to(entry.path)
    settings = _changed(project, source, written)
    settings["profile"] = profile
    _write_yaml(folder / PROJECT_FILE, settings)
    for name in (SOURCES, SEEDS, MACROS):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(mode=0o700)
    write_file(folder / MACROS / "streamline.sql", _COPY.encode())
    wants = _copy_package_files(project, source, folder)
    return Overlay(
        folder=folder,
        target=home / "target",
        logs=home / "logs",
        name=str(written.get("name") or source.name),
        needs_deps=wants and not installed and _read(folder / _STAMP) != _stamp(folder),
    )


def mentions(source: Path) -> tuple[set[str], set[str]]:
    """Return the names in `var('…')` and in `source('streamline', '…')` in a dbt project's files, packages excepted."""
    variables: set[str] = set()
    sources: set[str] = set()
    for path, folders, files in os.walk(source):
        folders[:] = [folder for folder in folders if folder not in _NOT_SEARCHED and not folder.startswith(".")]
        for name in files:
            if name.endswith((".sql", ".yml", ".yaml", ".py", ".md")):
                with contextlib.suppress(OSError):
                    text = Path(path, name).read_text(encoding="utf-8", errors="replace")
                    variables.update(_VARIABLE.findall(text))
                    sources.update(_SOURCE.findall(text))
    return variables, sources


def _changed(project: Project, source: Path, written: dict[str, Any]) -> dict[str, Any]:
    settings = {key: value for key, value in written.items() if key not in ("target-path", "log-path")}
    for key, default, own in (
        ("model-paths", "models", SOURCES),
        ("seed-paths", "seeds", SEEDS),
        ("macro-paths", "macros", MACROS),
    ):
        paths = settings.get(key, [default])
        if not isinstance(paths, list) or any(str(path) in (".", "", "./") for path in paths):
            raise ConfigError(
                f"{key} must be a list of folders inside the project",
                where=project.shown(source / PROJECT_FILE),
                code="dbt.project_invalid",
            )
        settings[key] = [*paths, own]
    return settings


def _copy_package_files(project: Project, source: Path, folder: Path) -> bool:
    """Copy what `dbt deps` reads; it writes its lock file beside them. Returns whether any package is asked for."""
    wants = False
    for name in (*_PACKAGE_FILES, _LOCK):
        if not (source / name).is_file():
            if name != _LOCK:  # that one may be dbt's own, of the last time
                (folder / name).unlink(missing_ok=True)
            continue
        content = _read_yaml(project, source / name)
        entries = content.get("packages")
        for entry in entries if isinstance(entries, list) else []:
            wants = wants or name != _LOCK
            if isinstance(entry, dict) and isinstance(entry.get("local"), str):
                entry["local"] = os.path.normpath(source / entry["local"])
        wants = wants or bool(content.get("projects"))
        _write_yaml(folder / name, content)
    return wants


def _stamp(folder: Path) -> str:
    content = [_read(folder / name) for name in _PACKAGE_FILES]
    return hashlib.sha256("\0".join(content).encode()).hexdigest()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _read_yaml(project: Project, path: Path) -> dict[str, Any]:
    """Read a YAML file as dbt does."""
    shown = project.shown(path)
    text = read_text(path, shown=shown)
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError:
        load_yaml(path, text=text, shown=shown)  # says what is wrong, and where
        raise
    if not isinstance(data, dict):
        raise ConfigError("must be a mapping", where=shown, code="dbt.project_invalid")
    return data


def _write_yaml(path: Path, data: dict[str, Any]) -> None:
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    # dbt parses anew whatever is newer than what it has parsed.
    if _read(path) != text:
        write_file(path, text.encode())
