"""streamline.lock.yaml: the versions that plugins' environments were resolved to. It belongs under version control."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from streamline.project.yamlfile import load_yaml

LOCK_FILE = "streamline.lock.yaml"
_HEAD = "# Versions that plugins were installed with. Written by Streamline; keep it under version control.\n"


class Locked(msgspec.Struct, frozen=True, kw_only=True):
    """One plugin's part.

    Args:
        pip: the requirements as streamline.yaml has them; the versions hold only as long as these are the same.
        overrides: likewise.
        python: likewise.
        packages: version by package name; what came from a path or a URL is not among them.
    """

    pip: list[str] = msgspec.field(default_factory=list)
    overrides: list[str] = msgspec.field(default_factory=list)
    python: str | None = None
    packages: dict[str, str] = msgspec.field(default_factory=dict)

    def is_for(self, other: Locked) -> bool:
        """Whether it was made from the same requirements."""
        return (self.pip, self.overrides, self.python) == (other.pip, other.overrides, other.python)


def lock_stamp(root: Path) -> list[int]:
    """What changes when the lock file does: `[mtime in ns, size]`, empty where there is none."""
    try:
        found = (root / LOCK_FILE).stat()
    except FileNotFoundError:
        return []
    return [found.st_mtime_ns, found.st_size]


def read_lock(root: Path) -> dict[str, Locked]:
    """The lock file's plugins by name; empty where there is none.

    Raises:
        ConfigError: it is not what Streamline writes.
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
    """Put one plugin's part into the lock file (None takes it out), by rename; the others' parts stay.

    Call it under `file_lock`: reading and writing are two steps.
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
    for one in sorted(plugins):
        part = msgspec.to_builtins(plugins[one])
        parts[one] = {key: part[key] for key in ("pip", "overrides", "python") if part[key]}
        parts[one]["packages"] = dict(sorted(part["packages"].items()))
    text = yaml.safe_dump({"plugins": parts}, sort_keys=False, allow_unicode=True, width=1000)
    temporary = root / f".{LOCK_FILE}.{os.getpid()}"
    temporary.write_text(_HEAD + text, encoding="utf-8")
    temporary.replace(root / LOCK_FILE)


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[bool]:
    """Hold an exclusive lock on `path` (made if need be); yields whether it had to be waited for.

    It ends with the process that holds it, and no child inherits it.
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
