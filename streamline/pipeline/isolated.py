"""Environments of isolated blocks: what a pipeline's requirements.txt asks for, on top of Streamline's own packages.

The environment holds only what differs: uv resolves the requirements together with what Streamline needs, preferring
the versions that are installed beside it; those that come out as installed are used from there (a .pth file leads to
them), the others are installed. So pandas, Arrow and Streamline are there, and the requirements' versions win.
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
    Requirements,
    ensure_environment,
    find_environment,
    requirement_name,
    uv_program,
)
from streamline.project.lockfile import file_lock
from streamline.project.yamlfile import read_text

if TYPE_CHECKING:
    from streamline.pipeline.model import PipelineModel
    from streamline.project.project import Project

REQUIREMENTS_FILE = "requirements.txt"

_FORMAT = 1
_PATH_FILE = "streamline_base.pth"
_SEEN_FILE = ".streamline-works"
_INCLUDES = re.compile(r"^(?:-r|--requirement|-c|--constraint)[ =]?\s*(\S+)")
_OPTIONS = re.compile(
    r"^(?:-i|-f|--(?:index-url|extra-index-url|find-links|no-index|no-binary|only-binary|pre|trusted-host))\b"
)
_INSTALLS_PATH = re.compile(r"^(?:-e|--editable)[ =]?\s*(\S+)|^(\.{0,2}/\S*)")


class _Resolved(msgspec.Struct, kw_only=True):
    """What the requirements came to.

    Args:
        key: hash of the requirements and of the packages below them.
        stamp: of the folders of these packages; where it is the same, so are they.
        pins: what has to be installed, as uv takes it; empty where all of it is there already.
    """

    format: int
    key: str
    stamp: list[list[int]]
    pins: list[str]


def isolated_python(project: Project, model: PipelineModel, notify: Callable[[str], None] | None = None) -> str:
    """The interpreter for the pipeline's isolated blocks; its environment is made or re-made if need be.

    Where the requirements are met by what is installed beside Streamline (an empty file, say), that is the running
    interpreter. Safe to call from several processes at once.

    Args:
        notify: is told, in a sentence, what takes long or is odd.

    Raises:
        ConfigError: there is no requirements.txt, or its environment cannot be made; the message ends with uv's words.
    """
    file = model.path / REQUIREMENTS_FILE
    shown = project.shown(file)
    text = read_text(file, shown=shown) if file.is_file() else None
    if text is None:
        isolated = next((one for one in model.blocks.values() if one.configuration.get("isolated")), None)
        raise ConfigError(
            "the pipeline has isolated blocks, and no requirements.txt for them",
            where=model.where(isolated.uuid, "configuration", "isolated") if isolated else model.yaml.shown,
            hint=f"write {shown}; an empty one will do",
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
    wanted = Requirements(name=name, pip=[f"-r {_pins_file(venvs, name, resolved)}", "--no-deps"])
    try:
        # A local path that changed comes to the same pins, and has to be installed anew all the same.
        environment = ensure_environment(
            project,
            wanted,
            notify=lambda _: say(f"installing what {shown} asks for"),
            upgrade=fresh and find_environment(project, wanted) is not None,
        )
    except ConfigError as error:
        said = error.message.partition("uv says:\n")[2] or error.message
        raise _refused(shown, said) from None
    _lead_to_base(environment)
    _see_that_it_works(project, environment, shown)
    return environment.python


def _see_that_it_works(project: Project, environment: Environment, shown: str) -> None:
    """See once that what hands data to blocks can be imported there: some packages do not say what they cannot bear.

    pyarrow names no NumPy at all among its requirements, and refuses one that is too old when it is imported.

    Raises:
        ConfigError: it cannot.
    """
    seen = Path(environment.path) / _SEEN_FILE
    if seen.exists():
        return
    command = [environment.python, "-c", "import numpy, pandas, pyarrow, pyarrow.parquet"]
    done = subprocess.run(command, cwd=project.root, capture_output=True, check=False)
    if done.returncode != 0:
        said = _tail(project, done.stderr.decode(errors="replace")).rpartition("\n")[2]
        raise ConfigError(
            f"its versions do not go with the packages that hand data to blocks: {said}",
            where=shown,
            hint="ask for other versions; or name those packages (pandas, pyarrow) too, in versions that go with them",
        )
    seen.touch()


def _refused(shown: str, said: str) -> ConfigError:
    return ConfigError(
        f"what it asks for cannot be installed; uv says:\n{said}",
        where=shown,
        hint="correct it; Streamline's own packages need no line",
    )


def _pins_file(venvs: Path, name: str, resolved: _Resolved) -> Path:
    """The pins in a file, not in arguments: an index's URL may hold a password."""
    text = "".join(f"{one}\n" for one in resolved.pins)
    path = venvs / f".{name}-{_digest(resolved.pins)[:16]}.txt"
    if not path.exists():
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        with open(temporary, "w", encoding="utf-8", opener=_private) as file:
            file.write(text)
        temporary.replace(path)
    for old in venvs.glob(f".{name}-{'?' * 16}.txt"):
        if old != path:
            old.unlink(missing_ok=True)
    return path


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _environment_name(pipeline: str) -> str:
    """The environment's, apart from those of plugins, and a plain file name whatever the pipeline's is."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", pipeline)
    mark = "" if plain == pipeline else f"-{hashlib.sha256(pipeline.encode()).hexdigest()[:8]}"
    return f"pipeline-{plain}{mark}"


def _resolved(project: Project, file: Path, record: Path, say: Callable[[str], None]) -> tuple[_Resolved, bool]:
    """What the requirements come to, and whether that had to be found out anew."""
    try:
        found = msgspec.json.decode(record.read_bytes(), type=_Resolved)
    except (OSError, msgspec.DecodeError):
        found = None
    asked = _asked(project, file)
    stamp = _stamp()
    installed: dict[str, str] | None = None
    if found is not None and found.format == _FORMAT:
        if found.stamp != stamp:
            installed = _installed()
        if found.key == _key(asked, installed, found):
            if installed is not None:
                found.stamp = stamp
                _write(record, found)
            return found, False
    installed = _installed()
    made = _Resolved(
        format=_FORMAT,
        key=_hash(asked, installed),
        stamp=stamp,
        pins=_resolve(project, file, installed, say),
    )
    _write(record, made)
    return made, True


def _key(asked: Sequence[object], installed: dict[str, str] | None, found: _Resolved) -> str:
    if installed is not None:
        return _hash(asked, installed)
    base = found.key.partition(":")[2]
    return f"{_digest(asked)}:{base}"


def _hash(asked: Sequence[object], installed: dict[str, str]) -> str:
    return f"{_digest(asked)}:{_digest([sorted(installed.items()), sys.version])}"


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()


def _write(path: Path, resolved: _Resolved) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with open(temporary, "wb", opener=_private) as file:
        file.write(msgspec.json.encode(resolved))
    temporary.replace(path)


def _lines(text: str) -> Iterator[str]:
    """The lines that say something, without their comments; a line that goes on in the next is one."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        said = re.sub(r"(^|\s)#.*", "", line).strip()
        if said:
            yield said


def _files(project: Project, file: Path) -> Iterator[tuple[Path, list[str]]]:
    """The requirements, and the files that they include."""
    waiting, seen = [file], set()
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        lines = list(_lines(read_text(one, shown=project.shown(one))))
        yield one, lines
        included = (_INCLUDES.match(line) for line in lines)
        waiting += [one.parent / found[1] for found in included if found and "://" not in found[1]]


def _asked(project: Project, file: Path) -> list[object]:
    """What the requirements depend on: their text; local paths by time and size."""
    parts: list[object] = []
    for one, lines in _files(project, file):
        parts.append([str(one), lines])
        for line in lines:
            if local := _INSTALLS_PATH.match(line):
                parts += _stats(project.path((local[1] or local[2]).partition("[")[0]))
    return parts


def _stats(path: Path) -> list[list[int]]:
    found = []
    for one in (path, path / "pyproject.toml", path / "setup.py"):
        try:
            status = one.stat()
        except OSError:
            continue
        if one.is_file():
            found.append([status.st_mtime_ns, status.st_size])
    return found


def _base_folders() -> list[str]:
    """Where the packages beside Streamline are, in the order of the search."""
    folders = site.getsitepackages()
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return [one for one in dict.fromkeys(folders) if Path(one).is_dir()]


def _stamp() -> list[list[int]]:
    return [[status.st_ino, status.st_mtime_ns] for status in map(os.stat, _base_folders())]


def _installed() -> dict[str, str]:
    """Versions of the packages beside Streamline, by normalized name."""
    from importlib.metadata import distributions

    versions: dict[str, str] = {}
    for found in distributions(path=_base_folders()):
        name = requirement_name(found.metadata["Name"] or "")
        if name is not None:
            versions.setdefault(name, found.version)
    return versions


def _own_needs() -> list[str]:
    """What Streamline itself needs; nothing where it runs without having been installed."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        return [one for one in requires("streamline") or () if not re.search(r"\bextra\s*==", one)]
    except PackageNotFoundError:
        return []


def _resolve(project: Project, file: Path, installed: dict[str, str], say: Callable[[str], None]) -> list[str]:
    """What has to be installed: versions that differ from the installed ones, paths and URLs, and options for uv."""
    shown = project.shown(file)
    say(f"resolving {shown}")
    code, text = _compile(project, file, installed, _own_needs())
    together = code == 0
    if not together:
        # Its versions win. (Or the index has not all that Streamline needs, which is here already.)
        complaint = text
        code, text = _compile(project, file, installed, [])
    if code != 0:
        raise _refused(shown, _tail(project, text))
    pins = []
    for line in _lines(text):
        name = requirement_name(line)
        if name != "streamline" and installed.get(name or "") != line.partition("==")[2].strip():
            pins.append(line)
    covered = [one for one in pins if requirement_name(one) in installed]
    if not together and covered:
        say(
            f"{shown} asks for versions that do not go with Streamline's own packages; they are installed as it says: "
            f"{', '.join(covered)}. uv says:\n{_tail(project, complaint)}"
        )
    options = [line for _, lines in _files(project, file) for line in lines if _OPTIONS.match(line)]
    return [*options, *pins] if pins else []


def _compile(project: Project, file: Path, installed: dict[str, str], needs: Sequence[str]) -> tuple[int, str]:
    """uv's exit code, and the resolved requirements, or what it complained of."""
    from streamline.project.pipconfig import uv_settings

    environ, options = uv_settings(os.environ, project.root)
    with tempfile.TemporaryDirectory(prefix="streamline-") as name:
        folder = Path(name)
        wanted = folder / "wanted.txt"
        wanted.write_text("".join(f"{one}\n" for one in needs), encoding="utf-8")
        # Versions in an output file that is there already are the ones that uv prefers.
        output = folder / "resolved.txt"
        output.write_text("".join(f"{one}=={version}\n" for one, version in installed.items()), encoding="utf-8")
        command = [uv_program(), "pip", "compile", "--quiet", "--python", sys.executable, *options]
        command += ["--no-annotate", "--no-header", "--output-file", str(output), str(file), str(wanted)]
        done = subprocess.run(command, env=environ, cwd=project.root, capture_output=True, check=False)
        if done.returncode != 0:
            return done.returncode, done.stderr.decode(errors="replace")
        return 0, output.read_text(encoding="utf-8")


def _tail(project: Project, said: str) -> str:
    text = re.sub(r"://[^/@\s]+@", "://", said).strip()
    return project.secrets.masker.mask("\n".join(text.splitlines()[-25:]))


def _lead_to_base(environment: Environment) -> None:
    """Make the packages beside Streamline, and Streamline, importable in the environment, behind its own."""
    # `addsitedir` reads the .pth files there too: an editable Streamline is one.
    lines = [f"import site; site.addsitedir({folder!r})" for folder in _base_folders()]
    lines.append(str(Path(__file__).resolve().parents[2]))
    text = "".join(f"{line}\n" for line in lines)
    for packages in Path(environment.path).glob("lib/python*/site-packages"):
        path = packages / _PATH_FILE
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)


__all__ = ["REQUIREMENTS_FILE", "isolated_python"]
