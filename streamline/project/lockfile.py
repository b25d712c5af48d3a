"""streamline.lock.yaml: the locked package versions of plugins' environments. Commit it to version control."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from streamline.project.files import replace_file
from streamline.project.yamlfile import load_yaml

LOCK_FILE = "streamline.lock.yaml"
_HEAD = "# Versions that plugins were installed with. Written by Streamline; keep it under version control.\n"


class Locked(msgspec.Struct, frozen=True, kw_only=True):
    """The locked versions of a plugin. They apply while `pip`, `overrides` and `python` are unchanged.

    Args:
        pip: the requirements in streamline.yaml.
        overrides: the overrides in streamline.yaml.
        python: the interpreter in streamline.yaml.
        packages: versions by package name, without packages from paths and URLs.
    """

    pip: list[str] = msgspec.field(default_factory=list)
    overrides: list[str] = msgspec.field(default_factory=list)
    python: str | None = None
    packages: dict[str, str] = msgspec.field(default_factory=dict)

    def is_for(self, other: Locked) -> bool:
        """Return whether both have the same requirements."""
        return (self.pip, self.overrides, self.python) == (other.pip, other.overrides, other.python)


def lock_stamp(root: Path) -> list[int]:
    """Return a stamp that changes with the lock file: `[mtime in ns, size]`; empty if there is no lock file."""
    try:
        status = (root / LOCK_FILE).stat()
    except FileNotFoundError:
        return []
    return [status.st_mtime_ns, status.st_size]


def read_lock(root: Path) -> dict[str, Locked]:
    """Read the lock file: locked versions by plugin; empty if there is no lock file.

    Raises:
        ConfigError: the lock file is invalid.
    """
    path = root / LOCK_FILE
    if not path.exists():
        return {}
    file = load_yaml(path, rendered=True, shown=LOCK_FILE)
    locked = {}
    for name, entry in file.mapping(("plugins",)).items():
        try:
            locked[name] = msgspec.convert(entry, Locked)
        except msgspec.ValidationError as error:
            file.fail(
                f"not a lock file written by Streamline: {error}",
                ("plugins", name),
                hint=f"delete {LOCK_FILE}",
                code="lockfile.invalid",
            )
    return locked


def write_locked(root: Path, name: str, locked: Locked | None) -> None:
    """Write a plugin's locked versions to the lock file (None: remove them), atomically by rename.

    The caller must hold a `file_lock`, because other plugins' versions are read and written back.
    """
    plugins = read_lock(root)
    if plugins.get(name) == locked:
        return
    if locked is None:
        del plugins[name]
    else:
        plugins[name] = locked
    import yaml

    parts: dict[str, Any] = {}
    for plugin in sorted(plugins):
        part = msgspec.to_builtins(plugins[plugin])
        parts[plugin] = {key: part[key] for key in ("pip", "overrides", "python") if part[key]}
        parts[plugin]["packages"] = dict(sorted(part["packages"].items()))
    text = yaml.safe_dump({"plugins": parts}, sort_keys=False, allow_unicode=True, width=1000)
    replace_file(root / LOCK_FILE, _HEAD + text)


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[bool]:
    """Hold an exclusive lock on `path`, which is created if needed. Yield whether another process held it before.

    The lock ends with the process, and child processes do not inherit it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        waited = False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield waited
    finally:
        os.close(descriptor)
