"""Plugins' virtual environments: uv creates them on first use and again when their requirements change.

`.streamline/venvs/NAME` is a symbolic link to the environment in use. A new one is built beside it under a name of its
own (console scripts contain its path, so it is never moved), and the link is replaced at the end: readers see the old
or the new one, complete. A record inside says what it was made from, so that checking it costs a few stat calls.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from streamline.errors import ConfigError
from streamline.project.lockfile import Locked, file_lock, lock_stamp, read_lock, write_locked

if TYPE_CHECKING:
    from streamline.project.project import Project

Notify = Callable[[str], None]

_FORMAT = 1
_RECORD = "streamline-environment.json"
_BUILDS = ".builds"
_finding_uv = threading.Lock()
# The first that is installed tells how the plugin speaks Singer (the pipelinewise fork answers to singer-python too).
_LIBRARIES = ("singer-sdk", "pipelinewise-singer-python", "singer-python")


class Requirements(msgspec.Struct, frozen=True, kw_only=True):
    """The requirements of an environment.

    Args:
        name: the plugin's name.
        pip: requirements, rendered.
        overrides: requirements that beat what packages ask for.
        python: an interpreter's version or path; None for the one that runs Streamline.
        declared: the same as streamline.yaml has it, for the lock file; None where nothing is locked.
    """

    name: str
    pip: list[str]
    overrides: list[str] = msgspec.field(default_factory=list)
    python: str | None = None
    declared: Locked | None = None


class Environment(msgspec.Struct, kw_only=True):
    """An existing environment.

    Args:
        format: of this record.
        key: hash of what it was made from.
        path: its folder.
        scripts: programs that its packages bring, by package.
        main: the package of the first requirement.
        library: the Singer library inside, if one is.
        packages: version by package name.
        fingerprint: changes whenever a package in it does.
        lock: stamp of the lock file that it agrees with.
    """

    format: int
    key: str
    path: str
    scripts: dict[str, list[str]]
    main: str | None
    library: str | None
    packages: dict[str, str]
    fingerprint: str
    lock: list[int]

    @property
    def python(self) -> str:
        """Its interpreter."""
        return os.path.join(self.path, "bin", "python")  # noqa: PTH118

    def program(self, name: str) -> str:
        """Path of a program in it, whether it exists or not."""
        return os.path.join(self.path, "bin", name)  # noqa: PTH118


def find_environment(project: Project, wanted: Requirements) -> Environment | None:
    """The plugin's environment if it exists and is up to date, else None. Cheap; starts no process."""
    record = project.work_dir / "venvs" / wanted.name / _RECORD
    try:
        found = msgspec.json.decode(record.read_bytes(), type=Environment)
    except (OSError, msgspec.DecodeError):
        return None
    if found.format != _FORMAT or found.key != _key(project, wanted):
        return None
    try:
        # A project that was moved has environments whose programs name the old place.
        at_home = os.path.samefile(found.path, record.parent) and os.path.exists(found.python)  # noqa: PTH110, PTH121
    except OSError:
        return None
    return found if at_home and _agrees_with_lock(project, wanted, found, record) else None


def ensure_environment(
    project: Project, wanted: Requirements, *, notify: Notify | None = None, upgrade: bool = False
) -> Environment:
    """The plugin's environment, created if needed. Safe to call from several processes at once.

    Args:
        project: the project.
        wanted: its requirements.
        notify: called with a sentence before each slow step.
        upgrade: create it again without the locked versions.

    Raises:
        ConfigError: uv failed; the message ends with its output.
    """
    found = None if upgrade else find_environment(project, wanted)
    if found is not None:
        return found
    project.ensure_work_dir()
    venvs = project.work_dir / "venvs"
    venvs.mkdir(mode=0o700, exist_ok=True)
    with file_lock(venvs / f".{wanted.name}.lock") as waited:
        found = find_environment(project, wanted) if waited or not upgrade else None
        if found is not None:
            return found
        if notify is not None:
            notify(f"installing {wanted.name} ({', '.join(_shown(one) for one in wanted.pip)})")
        return _build(project, wanted, venvs, upgrade=upgrade)


def uv_program() -> str:
    """Path of uv.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import uv

        # Plugins are installed side by side, and sysconfig, which this asks, gives half-made answers while another
        # thread makes it read its settings for the first time (Python 3.11).
        with _finding_uv:
            return uv.find_uv_bin()
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
        if found is None:
            raise ConfigError(
                "uv is not installed, and plugins need it", hint="pip install uv", code="package.missing"
            ) from None
        return found


def _build(project: Project, wanted: Requirements, venvs: Path, *, upgrade: bool) -> Environment:
    import secrets

    link = venvs / wanted.name
    before = link.resolve() if link.is_symlink() else None
    builds = venvs / _BUILDS
    builds.mkdir(mode=0o700, exist_ok=True)
    # Leftovers of builds that were killed; the lock says that nobody builds now.
    _sweep(venvs, wanted.name, keep=[before] if before is not None else [])
    folder = builds / f"{wanted.name}-{secrets.token_hex(4)}"
    try:
        environment = _install(project, wanted, folder, upgrade=upgrade)
        if wanted.declared is not None:
            _lock(project, wanted.name, wanted.declared, environment)
            environment.lock = lock_stamp(project.root)
        _write_record(folder / _RECORD, environment)
        temporary = venvs / f".{folder.name}"
        temporary.symlink_to(folder.relative_to(venvs))
        if link.is_dir() and not link.is_symlink():
            shutil.rmtree(link)
        temporary.replace(link)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    # What a run that is going on may still load from stays until the next time.
    return environment


def _install(project: Project, wanted: Requirements, folder: Path, *, upgrade: bool) -> Environment:
    from streamline.project.pipconfig import uv_settings

    environ, options = uv_settings(os.environ, project.root)
    uv = uv_program()
    python = wanted.python or sys.executable
    if "/" in python:
        python = str(project.path(python))
    _uv(project, wanted, [uv, "venv", "--quiet", "--python", python, str(folder)], environ)
    command = [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *options]
    if upgrade:
        command.append("--refresh")  # else a path that changed is taken from uv's cache
    locked = None if upgrade or wanted.declared is None else read_lock(project.root).get(wanted.name)
    pinned = locked is not None and wanted.declared is not None and locked.is_for(wanted.declared)
    if locked is not None and pinned:
        lines = [f"{name}=={version}" for name, version in locked.packages.items()]
        command += ["--constraint", str(_lines(folder / "constraints.txt", lines))]
    if wanted.overrides:
        command += ["--override", str(_lines(folder / "overrides.txt", wanted.overrides))]
    for one in wanted.pip:
        command += one.split(maxsplit=1) if one.startswith("-") else [one]
    _uv(project, wanted, command, environ, pinned=pinned)
    return _describe(project, wanted, folder)


def _describe(project: Project, wanted: Requirements, folder: Path) -> Environment:
    """What was installed, read from the packages' own metadata."""
    from importlib.metadata import distributions

    packages: dict[str, str] = {}
    scripts: dict[str, list[str]] = {}
    direct: list[str] = []
    for found in distributions(path=[str(one) for one in (folder / "lib").glob("python*/site-packages")]):
        name = _normal(found.metadata["Name"])
        packages[name] = found.version
        names = [point.name for point in found.entry_points if point.group == "console_scripts"]
        if names:
            scripts[name] = sorted(names)
        if found.read_text("direct_url.json") is not None:
            direct.append(name)
    main = _main_package(wanted.pip[0], packages, direct)
    key = _key(project, wanted)
    content = msgspec.json.encode([key, sorted(packages.items()), _FORMAT])
    # Marked as not from an index, so that the lock file does not pin what a path or a URL decides.
    packages.update({name: f"{packages[name]} (direct)" for name in direct})
    return Environment(
        format=_FORMAT,
        key=key,
        path=str(folder),
        scripts=scripts,
        main=main,
        library=next((one for one in _LIBRARIES if one in packages), None),
        packages=dict(sorted(packages.items())),
        fingerprint=hashlib.sha256(content).hexdigest(),
        lock=[],
    )


def requirement_name(requirement: str) -> str | None:
    """The package that a requirement names, normalized; None for a bare path or URL."""
    match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*(?=\s*(\[|[<>=!~;@(]|$))", requirement)
    return None if match is None else _normal(match[0])


def _main_package(requirement: str, packages: dict[str, str], direct: Sequence[str]) -> str | None:
    name = requirement_name(requirement)
    if name in packages:
        return name
    return direct[0] if len(direct) == 1 else None


def _uv(
    project: Project, wanted: Requirements, command: list[str], environ: dict[str, str], *, pinned: bool = False
) -> None:
    done = subprocess.run(command, env=environ, cwd=project.root, capture_output=True, check=False)
    if done.returncode == 0:
        return
    said = re.sub(r"://[^/@\s]+@", "://", done.stderr.decode(errors="replace")).strip()
    said = project.secrets.masker.mask("\n".join(said.splitlines()[-25:]))
    if pinned:
        hint = f"if the locked versions are the reason: `streamline plugin install {wanted.name} --upgrade`"
    else:
        hint = f"check `pip:`, `overrides:` and `python:` of {wanted.name}"
    raise ConfigError(
        f"the environment of {wanted.name} cannot be made; uv says:\n{said}",
        where=f"plugin {wanted.name}",
        hint=hint,
        code="plugin.install_failed",
    )


def _key(project: Project, wanted: Requirements) -> str:
    """Hash of what the environment is made from; a local wheel counts by its time and size as well."""
    parts: list[object] = [_FORMAT, wanted.pip, wanted.overrides, wanted.python]
    if wanted.python is None:
        parts.append(f"{sys.implementation.cache_tag} {sys.base_prefix}")
    for one in wanted.pip:
        if "/" in one and "://" not in one:
            path = project.path(one.removeprefix("-e ").removeprefix("--editable ").split("[")[0].strip())
            for candidate in (path, path / "pyproject.toml", path / "setup.py"):
                try:
                    found = candidate.stat()
                except OSError:
                    continue
                if candidate.is_file():
                    parts.append([found.st_mtime_ns, found.st_size])
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def _agrees_with_lock(project: Project, wanted: Requirements, found: Environment, record: Path) -> bool:
    """Whether the lock file names the versions that are installed; where it names none, it does from now on."""
    if wanted.declared is None or (found.lock and found.lock == lock_stamp(project.root)):
        return True
    locked = read_lock(project.root).get(wanted.name)
    if locked is None or not locked.is_for(wanted.declared):
        _lock(project, wanted.name, wanted.declared, found)
    elif locked.packages != _lockable(found):
        return False
    found.lock = lock_stamp(project.root)
    _write_record(record, found)
    return True


def _lock(project: Project, name: str, declared: Locked, environment: Environment) -> None:
    with file_lock(project.work_dir / "venvs" / ".lockfile.lock"):
        write_locked(project.root, name, msgspec.structs.replace(declared, packages=_lockable(environment)))


def _lockable(environment: Environment) -> dict[str, str]:
    return {name: version for name, version in environment.packages.items() if not version.endswith(" (direct)")}


def _write_record(path: Path, environment: Environment) -> None:
    temporary = path.with_suffix(f".{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(environment))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _lines(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def _sweep(venvs: Path, name: str, keep: Sequence[Path]) -> None:
    pattern = re.compile(re.escape(name) + r"-[0-9a-f]{8}")
    builds = venvs / _BUILDS
    for folder in builds.iterdir() if builds.is_dir() else ():
        if pattern.fullmatch(folder.name) and folder not in keep:
            shutil.rmtree(folder, ignore_errors=True)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _shown(requirement: str) -> str:
    return re.sub(r"://[^/@\s]+@", "://", requirement)
