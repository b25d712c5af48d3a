"""Plugins' virtual environments: created with uv on first use, and again when their requirements change.

`.streamline/venvs/NAME` is a symbolic link to the current environment. A new environment is built in another folder
(and never moved, because console scripts contain its path); then the link is replaced, so that readers see the old or
the new environment, complete. A record in the environment tells what it was built from, so a check takes a few stat
calls.
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
from streamline.project.files import replace_file
from streamline.project.git_credentials import GitCredentials
from streamline.project.lockfile import Locked, file_lock, lock_stamp, read_lock, write_locked

if TYPE_CHECKING:
    from streamline.project.project import Project

Notify = Callable[[str], None]

_FORMAT = 1
_RECORD = "streamline-environment.json"
_BUILDS = ".builds"
_finding_uv = threading.Lock()
# The first installed one determines the plugin's command line (the pipelinewise fork also provides singer-python).
_LIBRARIES = ("singer-sdk", "pipelinewise-singer-python", "singer-python")


class Requirements(msgspec.Struct, frozen=True, kw_only=True):
    """The requirements of an environment.

    Args:
        name: the plugin's name.
        pip: the requirements, rendered.
        overrides: requirements that override those of packages.
        python: the interpreter's version or path; None: the interpreter of Streamline.
        declared: the unrendered entry in streamline.yaml, for the lock file; None: do not lock.
    """

    name: str
    pip: list[str]
    overrides: list[str] = msgspec.field(default_factory=list)
    python: str | None = None
    declared: Locked | None = None


class InstallFailed(ConfigError):
    """uv failed. `output` is what it printed, masked."""

    code = "plugin.install_failed"

    def __init__(self, name: str, output: str, hint: str) -> None:
        super().__init__(
            f"the environment of {name} cannot be created; uv says:\n{output}", where=f"plugin {name}", hint=hint
        )
        self.output = output


class Environment(msgspec.Struct, kw_only=True):
    """An existing environment.

    Args:
        format: the format of this record.
        key: a hash of what it was built from.
        path: its folder.
        scripts: the programs of its packages, by package.
        main: the package of the first requirement.
        library: the installed Singer library, if any.
        packages: versions by package name.
        fingerprint: changes whenever an installed package changes.
        lock: the stamp of the lock file that it agrees with.
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
        """The path of its interpreter."""
        return os.path.join(self.path, "bin", "python")  # noqa: PTH118

    def program(self, name: str) -> str:
        """Return the path of a program in it, which need not exist."""
        return os.path.join(self.path, "bin", name)  # noqa: PTH118


def find_environment(project: Project, wanted: Requirements) -> Environment | None:
    """Return the plugin's environment if it exists and is up to date, else None. Fast; starts no process."""
    record = project.work_dir / "venvs" / wanted.name / _RECORD
    try:
        environment = msgspec.json.decode(record.read_bytes(), type=Environment)
    except (OSError, msgspec.DecodeError):
        return None
    if environment.format != _FORMAT or environment.key != _key(project, wanted):
        return None
    try:
        # After a project was moved, the programs of its environments contain the old path.
        if not os.path.samefile(environment.path, record.parent) or not os.path.exists(environment.python):  # noqa: PTH110, PTH121
            return None
    except OSError:
        return None
    return environment if _agrees_with_lock(project, wanted, environment, record) else None


def ensure_environment(
    project: Project, wanted: Requirements, *, notify: Notify | None = None, upgrade: bool = False
) -> Environment:
    """Return the plugin's environment, created if needed. Safe to call from several processes at once.

    Args:
        project: the project.
        wanted: the requirements.
        notify: called with a message before each slow step.
        upgrade: create it again, without the locked versions.

    Raises:
        InstallFailed: uv failed; the message ends with its output.
    """
    environment = None if upgrade else find_environment(project, wanted)
    if environment is not None:
        return environment
    project.ensure_work_dir()
    venvs = project.work_dir / "venvs"
    venvs.mkdir(mode=0o700, exist_ok=True)
    with file_lock(venvs / f".{wanted.name}.lock") as waited:
        environment = find_environment(project, wanted) if waited or not upgrade else None
        if environment is not None:
            return environment
        if notify is not None:
            notify(f"installing {wanted.name} ({', '.join(map(_shown, wanted.pip))})")
        return _build(project, wanted, venvs, upgrade=upgrade)


def uv_program() -> str:
    """Return the path of uv.

    Raises:
        ConfigError: uv is not installed.
    """
    try:
        import uv

        # Threads install plugins at once, and sysconfig, which uv uses, is not thread-safe on first use (Python 3.11).
        with _finding_uv:
            return uv.find_uv_bin()
    except (ImportError, FileNotFoundError):
        program = shutil.which("uv")
        if program is None:
            raise ConfigError(
                "uv is not installed, but plugins need it", hint="pip install uv", code="package.missing"
            ) from None
        return program


def _build(project: Project, wanted: Requirements, venvs: Path, *, upgrade: bool) -> Environment:
    import secrets

    link = venvs / wanted.name
    before = link.resolve() if link.is_symlink() else None
    builds = venvs / _BUILDS
    builds.mkdir(mode=0o700, exist_ok=True)
    # Remove the folders of killed builds; the lock guarantees that no build is in progress.
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
    # The previous environment is removed by the next build: active runs may still import from it.
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
        command.append("--refresh")  # otherwise uv uses its cache for a changed path
    locked = None if upgrade or wanted.declared is None else read_lock(project.root).get(wanted.name)
    pinned = locked is not None and wanted.declared is not None and locked.is_for(wanted.declared)
    if locked is not None and pinned:
        lines = [f"{name}=={version}" for name, version in locked.packages.items()]
        command += ["--constraint", str(_lines(folder / "constraints.txt", lines))]
    # A URL may hold a credential, which arguments would show to every user of the machine.
    credentials = GitCredentials(folder / "git-credentials")
    urls = [credentials.take(requirement) for requirement in wanted.pip if "://" in requirement]
    overrides = [credentials.take(requirement) for requirement in wanted.overrides]
    if overrides:
        command += ["--override", str(_lines(folder / "overrides.txt", overrides, mode=0o600))]
    for requirement in wanted.pip:
        if "://" not in requirement:
            command += requirement.split(maxsplit=1) if requirement.startswith("-") else [requirement]
    private = _lines(folder / "requirements.txt", urls, mode=0o600)
    try:
        with credentials.environment(environ) as environ:
            _uv(project, wanted, [*command, "--requirement", str(private)] if urls else command, environ, pinned=pinned)
    finally:
        private.unlink()
    return _describe(project, wanted, folder)


def _describe(project: Project, wanted: Requirements, folder: Path) -> Environment:
    """Return the record of an environment, from the metadata of its packages."""
    from importlib.metadata import distributions

    packages: dict[str, str] = {}
    scripts: dict[str, list[str]] = {}
    direct: list[str] = []
    for distribution in distributions(path=[str(path) for path in (folder / "lib").glob("python*/site-packages")]):
        name = _normal(distribution.metadata["Name"])
        packages[name] = distribution.version
        names = [point.name for point in distribution.entry_points if point.group == "console_scripts"]
        if names:
            scripts[name] = sorted(names)
        if distribution.read_text("direct_url.json") is not None:
            direct.append(name)
    main = _main_package(wanted.pip[0], packages, direct)
    key = _key(project, wanted)
    content = msgspec.json.encode([key, sorted(packages.items()), _FORMAT])
    # Packages from paths and URLs are marked, so that the lock file does not pin them.
    packages.update({name: f"{packages[name]} (direct)" for name in direct})
    return Environment(
        format=_FORMAT,
        key=key,
        path=str(folder),
        scripts=scripts,
        main=main,
        library=next((library for library in _LIBRARIES if library in packages), None),
        packages=dict(sorted(packages.items())),
        fingerprint=hashlib.sha256(content).hexdigest(),
        lock=[],
    )


def requirement_name(requirement: str) -> str | None:
    """Return the normalized package name of a requirement; None for a bare path or URL."""
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
    output = _shown(done.stderr.decode(errors="replace")).strip()
    output = project.secrets.masker.mask("\n".join(output.splitlines()[-25:]))
    if pinned:
        hint = f"if the locked versions are the cause: streamline plugin install {wanted.name} --upgrade"
    else:
        hint = f"check `pip:`, `overrides:` and `python:` of {wanted.name}"
    raise InstallFailed(wanted.name, output, hint)


def _key(project: Project, wanted: Requirements) -> str:
    """Return a hash of what the environment is built from, with times and sizes of local paths."""
    parts: list[object] = [_FORMAT, wanted.pip, wanted.overrides, wanted.python]
    if wanted.python is None:
        parts.append(f"{sys.implementation.cache_tag} {sys.base_prefix}")
    for requirement in wanted.pip:
        if "/" in requirement and "://" not in requirement:
            path = project.path(requirement.removeprefix("-e ").removeprefix("--editable ").split("[")[0].strip())
            for candidate in (path, path / "pyproject.toml", path / "setup.py"):
                if candidate.is_file():
                    status = candidate.stat()
                    parts.append([status.st_mtime_ns, status.st_size])
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def _agrees_with_lock(project: Project, wanted: Requirements, environment: Environment, record: Path) -> bool:
    """Return whether the installed versions match the lock file. Lock them if it has none."""
    if wanted.declared is None or (environment.lock and environment.lock == lock_stamp(project.root)):
        return True
    locked = read_lock(project.root).get(wanted.name)
    if locked is None or not locked.is_for(wanted.declared):
        _lock(project, wanted.name, wanted.declared, environment)
    elif locked.packages != _lockable(environment):
        return False
    environment.lock = lock_stamp(project.root)
    _write_record(record, environment)
    return True


def _lock(project: Project, name: str, declared: Locked, environment: Environment) -> None:
    with file_lock(project.work_dir / "venvs" / ".lockfile.lock"):
        write_locked(project.root, name, msgspec.structs.replace(declared, packages=_lockable(environment)))


def _lockable(environment: Environment) -> dict[str, str]:
    return {name: version for name, version in environment.packages.items() if not version.endswith(" (direct)")}


def _write_record(path: Path, environment: Environment) -> None:
    replace_file(path, msgspec.json.encode(environment), durable=True)


def _lines(path: Path, lines: Sequence[str], *, mode: int = 0o666) -> Path:
    path.touch(mode)
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
