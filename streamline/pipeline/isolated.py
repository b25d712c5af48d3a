"""Environments of isolated blocks: the packages of a pipeline's requirements.txt, layered over Streamline's own.

uv resolves requirements.txt together with Streamline's dependencies and prefers the versions that are installed beside
Streamline. Packages that resolve to the installed version are used from there, through a .pth file; only the others
are installed into the environment. So pandas, Arrow and Streamline are importable, and the pins of requirements.txt
take precedence.
"""

from __future__ import annotations

import hashlib
import os
import re
import site
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from streamline.errors import ConfigError
from streamline.project.environments import (
    Environment,
    InstallFailed,
    Requirements,
    ensure_environment,
    find_environment,
    requirement_name,
    uv_program,
)
from streamline.project.files import replace_file
from streamline.project.lockfile import file_lock
from streamline.project.yamlfile import read_text

if TYPE_CHECKING:
    from streamline.pipeline.model import PipelineModel
    from streamline.project.project import Project

REQUIREMENTS_FILE = "requirements.txt"

_FORMAT = 1
_PATH_FILE = "streamline_base.pth"
_CHECKED_FILE = ".streamline-works"
_INCLUDES = re.compile(r"^(?:-r|--requirement|-c|--constraint)[ =]?\s*(\S+)")
_OPTIONS = re.compile(
    r"^(?:-i|-f|--(?:index-url|extra-index-url|find-links|no-index|no-binary|only-binary|pre|trusted-host))\b"
)
_INSTALLS_PATH = re.compile(r"^(?:-e|--editable)[ =]?\s*(\S+)|^(\.{0,2}/\S*)")


class _Resolved(msgspec.Struct, kw_only=True):
    """The resolution of a requirements file.

    Args:
        key: a hash of the requirements and of the installed packages.
        stamp: inodes and times of the folders of installed packages; unchanged if the packages are.
        pins: the requirements to install; empty if all of them are installed already.
    """

    format: int
    key: str
    stamp: list[list[int]]
    pins: list[str]


def isolated_python(project: Project, model: PipelineModel, notify: Callable[[str], None] | None = None) -> str:
    """Return the interpreter for the pipeline's isolated blocks; create or update its environment if needed.

    If the installed packages satisfy the requirements (an empty file, for example), it is the running interpreter. Safe
    to call from several processes at once.

    Args:
        notify: called with messages about slow steps and version conflicts.

    Raises:
        ConfigError: requirements.txt is missing, or its environment cannot be created; the message ends with uv's
            output.
    """
    file = model.path / REQUIREMENTS_FILE
    shown = project.shown(file)
    text = read_text(file, shown=shown) if file.is_file() else None
    if text is None:
        isolated = next((block for block in model.blocks.values() if block.configuration.get("isolated")), None)
        raise ConfigError(
            "the pipeline has isolated blocks, but no requirements.txt",
            where=model.where(isolated.uuid, "configuration", "isolated") if isolated else model.yaml.shown,
            hint=f"create {shown}; it may be empty",
            code="requirements.missing",
        )
    if not any(_lines(text)):
        return sys.executable
    say = notify or (lambda _: None)
    name = _environment_name(model.uuid)
    project.ensure_work_dir()
    venvs = project.work_dir / "venvs"
    venvs.mkdir(mode=0o700, exist_ok=True)
    with file_lock(venvs / f".{name}.resolved.lock"):
        resolved, fresh = _resolved(project, file, venvs / f".{name}.resolved", say)
    if not resolved.pins:
        return sys.executable
    requirements = Requirements(name=name, pip=[f"-r {_pins_file(venvs, name, resolved)}", "--no-deps"])
    try:
        # A changed local path resolves to the same pins, but must be installed again.
        environment = ensure_environment(
            project,
            requirements,
            notify=lambda _: say(f"installing {shown}"),
            upgrade=fresh and find_environment(project, requirements) is not None,
        )
    except InstallFailed as error:
        raise _install_failed(shown, error.output) from None
    _link_base_packages(environment)
    _check_imports(project, environment, shown)
    return environment.python


def _check_imports(project: Project, environment: Environment, shown: str) -> None:
    """Check once that the packages that pass data to blocks can be imported in the environment.

    Not every conflict is declared: pyarrow does not require NumPy, but its import fails with an old NumPy.

    Raises:
        ConfigError: a package cannot be imported.
    """
    checked = Path(environment.path) / _CHECKED_FILE
    if checked.exists():
        return
    command = [environment.python, "-P", "-c", "import numpy, pandas, pyarrow, pyarrow.parquet"]
    done = subprocess.run(command, cwd=project.root, capture_output=True, check=False)
    if done.returncode != 0:
        reason = _tail(project, done.stderr.decode(errors="replace")).rpartition("\n")[2]
        raise ConfigError(
            f"the requirements conflict with the packages that pass data to blocks: {reason}",
            where=shown,
            hint="require other versions, or add compatible versions of pandas and pyarrow to the file",
            code="requirements.conflict",
        )
    checked.touch()


def _install_failed(shown: str, output: str) -> ConfigError:
    return ConfigError(
        f"the requirements cannot be installed; uv says:\n{output}",
        where=shown,
        hint="correct the file; Streamline's own packages need not be listed",
        code="requirements.install_failed",
    )


def _pins_file(venvs: Path, name: str, resolved: _Resolved) -> Path:
    """Write the pins to a private file and return its path. An index URL may contain a password, so no arguments."""
    text = "".join(f"{pin}\n" for pin in resolved.pins)
    path = venvs / f".{name}-{_digest(resolved.pins)[:16]}.txt"
    if not path.exists():
        replace_file(path, text, mode=0o600)
    for old in venvs.glob(f".{name}-{'?' * 16}.txt"):
        if old != path:
            old.unlink(missing_ok=True)
    return path


def _environment_name(pipeline: str) -> str:
    """Return the environment's name: a valid file name, distinct from the names of plugin environments."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", pipeline)
    suffix = "" if plain == pipeline else f"-{hashlib.sha256(pipeline.encode()).hexdigest()[:8]}"
    return f"pipeline-{plain}{suffix}"


def _resolved(project: Project, file: Path, record: Path, say: Callable[[str], None]) -> tuple[_Resolved, bool]:
    """Return the resolution of the requirements, and whether it is new."""
    try:
        cached = msgspec.json.decode(record.read_bytes(), type=_Resolved)
    except (OSError, msgspec.DecodeError):
        cached = None
    inputs = _digest(_inputs(project, file))
    stamp = _stamp()
    installed: dict[str, str] | None = None
    if cached is not None and cached.format == _FORMAT:
        if cached.stamp == stamp:
            base = cached.key.partition(":")[2]
        else:
            installed = _installed()
            base = _base_digest(installed)
        if cached.key == f"{inputs}:{base}":
            if installed is not None:
                cached.stamp = stamp
                _write(record, cached)
            return cached, False
    installed = _installed()
    resolved = _Resolved(
        format=_FORMAT,
        key=f"{inputs}:{_base_digest(installed)}",
        stamp=stamp,
        pins=_resolve(project, file, installed, say),
    )
    _write(record, resolved)
    return resolved, True


def _base_digest(installed: dict[str, str]) -> str:
    return _digest([sorted(installed.items()), sys.version])


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()


def _write(path: Path, resolved: _Resolved) -> None:
    replace_file(path, msgspec.json.encode(resolved), mode=0o600)


def _lines(text: str) -> Iterator[str]:
    """Yield the lines of a requirements file without comments and empty lines. Continuation lines are joined."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        requirement = re.sub(r"(^|\s)#.*", "", line).strip()
        if requirement:
            yield requirement


def _files(project: Project, file: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield the requirements file and the files that it includes, with their lines."""
    pending, seen = [file], set()
    while pending:
        path = pending.pop()
        if path in seen:
            continue
        seen.add(path)
        lines = list(_lines(read_text(path, shown=project.shown(path))))
        yield path, lines
        includes = (_INCLUDES.match(line) for line in lines)
        pending += [path.parent / include[1] for include in includes if include and "://" not in include[1]]


def _inputs(project: Project, file: Path) -> list[object]:
    """Return everything that the resolution depends on: the text of the files; times and sizes of local paths."""
    parts: list[object] = []
    for path, lines in _files(project, file):
        parts.append([str(path), lines])
        for line in lines:
            if local := _INSTALLS_PATH.match(line):
                parts += _stats(project.path((local[1] or local[2]).partition("[")[0]))
    return parts


def _stats(path: Path) -> list[list[int]]:
    stats = []
    for file in (path, path / "pyproject.toml", path / "setup.py"):
        if file.is_file():
            status = file.stat()
            stats.append([status.st_mtime_ns, status.st_size])
    return stats


def _base_folders() -> list[str]:
    """Return the folders of the packages installed beside Streamline, in search order."""
    folders = site.getsitepackages()
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return [folder for folder in dict.fromkeys(folders) if Path(folder).is_dir()]


def _stamp() -> list[list[int]]:
    return [[status.st_ino, status.st_mtime_ns] for status in map(os.stat, _base_folders())]


def _installed() -> dict[str, str]:
    """Return the versions of the packages installed beside Streamline, by normalized name."""
    from importlib.metadata import distributions

    versions: dict[str, str] = {}
    for distribution in distributions(path=_base_folders()):
        name = requirement_name(distribution.metadata["Name"] or "")
        if name is not None:
            versions.setdefault(name, distribution.version)
    return versions


def _own_requirements() -> list[str]:
    """Return Streamline's own requirements; nothing if it runs without being installed."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        return [line for line in requires("streamline") or () if not re.search(r"\bextra\s*==", line)]
    except PackageNotFoundError:
        return []


def _resolve(project: Project, file: Path, installed: dict[str, str], say: Callable[[str], None]) -> list[str]:
    """Return what to install: versions that differ from the installed ones, paths, URLs, and options for uv."""
    shown = project.shown(file)
    say(f"resolving {shown}")
    code, text = _compile(project, file, installed, _own_requirements())
    compatible = code == 0
    if not compatible:
        # The file's versions take precedence. (Or the index lacks a package of Streamline, which is installed already.)
        conflict = text
        code, text = _compile(project, file, installed, [])
    if code != 0:
        raise _install_failed(shown, _tail(project, text))
    pins = []
    for line in _lines(text):
        name = requirement_name(line)
        if name != "streamline" and installed.get(name or "") != line.partition("==")[2].strip():
            pins.append(line)
    overriding = [pin for pin in pins if requirement_name(pin) in installed]
    if not compatible and overriding:
        say(
            f"{shown} conflicts with Streamline's own requirements; its versions are installed anyway: "
            f"{', '.join(overriding)}. uv says:\n{_tail(project, conflict)}"
        )
    options = [line for _, lines in _files(project, file) for line in lines if _OPTIONS.match(line)]
    return [*options, *pins] if pins else []


def _compile(project: Project, file: Path, installed: dict[str, str], own: Sequence[str]) -> tuple[int, str]:
    """Run `uv pip compile`; return its exit code, and the resolved requirements or its error output."""
    from streamline.project.pipconfig import uv_settings

    environ, options = uv_settings(os.environ, project.root)
    with tempfile.TemporaryDirectory(prefix="streamline-") as temporary:
        folder = Path(temporary)
        own_file = folder / "own.txt"
        own_file.write_text("".join(f"{requirement}\n" for requirement in own), encoding="utf-8")
        # uv prefers the versions of an existing output file.
        output = folder / "resolved.txt"
        output.write_text("".join(f"{name}=={version}\n" for name, version in installed.items()), encoding="utf-8")
        command = [uv_program(), "pip", "compile", "--quiet", "--python", sys.executable, *options]
        command += ["--no-annotate", "--no-header", "--output-file", str(output), str(file), str(own_file)]
        done = subprocess.run(command, env=environ, cwd=project.root, capture_output=True, check=False)
        if done.returncode != 0:
            return done.returncode, done.stderr.decode(errors="replace")
        return 0, output.read_text(encoding="utf-8")


def _tail(project: Project, output: str) -> str:
    text = re.sub(r"://[^/@\s]+@", "://", output).strip()
    return project.secrets.masker.mask("\n".join(text.splitlines()[-25:]))


def _link_base_packages(environment: Environment) -> None:
    """Make Streamline and the packages beside it importable in the environment, after the environment's own."""
    # `addsitedir` also reads the .pth files there, which an editable installation of Streamline needs.
    lines = [f"import site; site.addsitedir({folder!r})" for folder in _base_folders()]
    lines.append(str(Path(__file__).resolve().parents[2]))
    text = "".join(f"{line}\n" for line in lines)
    for packages in Path(environment.path).glob("lib/python*/site-packages"):
        path = packages / _PATH_FILE
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        replace_file(path, text)
