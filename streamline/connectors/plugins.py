"""Resolves the name in a block to a program that can be started: its command, environment and properties."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from streamline.connectors.registry import (
    GROUP,
    Connector,
    Role,
    System,
    bundled_connectors,
    connector_name,
    find_connector,
    installed_connectors,
    system_names,
    system_of,
)
from streamline.errors import ConfigError
from streamline.extensions import extensions
from streamline.processes.orphans import RUN_ID_VARIABLE
from streamline.project.entries import PluginEntry, Proof
from streamline.project.suggest import nearest
from streamline.version import __version__

if TYPE_CHECKING:
    from streamline.project.environments import Environment, Notify, Requirements
    from streamline.project.project import Project

_ALWAYS = frozenset(("PATH", "HOME", "LANG", "TZ", "TMPDIR"))
_PROXIES = frozenset(("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"))
_SECRET_CALL = re.compile(r"\{\{.*\b(?:secret|mage_secret_var)\s*\(", re.DOTALL)
_CERTIFICATES = frozenset(
    (
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE"),
        *("NODE_EXTRA_CA_CERTS", "HTTPLIB2_CA_CERTS", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "NIX_SSL_CERT_FILE"),
    )
)


class Plugin(msgspec.Struct, kw_only=True):
    """A tap, target or mapper that can be started.

    Args:
        name: as declared, or of the connector that comes along.
        role: what it is used as.
        argv: the command, without any option of the protocol.
        env: its whole environment.
        cwd: where it runs: the project's folder.
        fingerprint: changes when its version, its requirements or its entry do.
        kind: where it comes from.
        library: the Singer library that it uses; None where that is not known.
        proof: `echo`, or `exit`: only its exit proves anything.
        max_processes: how many may run at once in a pipeline; None if not declared.
        prestart: its next process may start before the one before has ended.
        cheap_discovery: every run asks it for its catalog.
        place: the setting of a target that names the file or folder which it writes.
    """

    name: str
    role: Role
    argv: list[str]
    env: dict[str, str]
    cwd: Path
    fingerprint: str
    kind: Literal["builtin", "installed", "pip", "command"]
    library: str | None = None
    proof: Proof = "echo"
    max_processes: int | None = None
    prestart: bool = False
    cheap_discovery: bool = False
    place: str | None = None

    def for_run(self, run_id: str) -> Plugin:
        """Return the plugin with a run's id in its environment, by which a later run finds orphan processes."""
        return msgspec.structs.replace(self, env={**self.env, RUN_ID_VARIABLE: run_id})


def resolve_plugin(
    project: Project, name: str, role: Role, *, notify: Notify | None = None, where: str | None = None
) -> Plugin:
    """Return the plugin that a block means by `name`.

    Plugins declared in streamline.yaml win, by exact name or by system (`shop` is a declared `tap-shop`); then the
    bundled connectors and those of installed packages. Creates the plugin's environment on first use, which may take
    a minute.

    Args:
        project: the project.
        name: of a plugin or of a system.
        role: what it is to be.
        notify: called with a sentence before each slow step.
        where: the file that names it, for the error if it is unknown; else streamline.yaml.

    Raises:
        ConfigError: it is unknown, its entry is wrong, its program is missing, or its environment cannot be created.
    """
    declared = declared_name(project, name, role)
    if declared is not None:
        return _declared(project, declared, role, notify)
    connector = _along(name, role)
    if connector is None:
        raise _unknown(project, name, role, where)
    return _builtin(project, connector, None, notify)


def unavailable(project: Project, name: str, role: Role) -> ConfigError | None:
    """Return the error for an unknown plugin; None if `resolve_plugin` can resolve `name`."""
    if declared_name(project, name, role) is not None or _along(name, role) is not None:
        return None
    return _unknown(project, name, role)


def declared_name(project: Project, name: str, role: Role) -> str | None:
    """Return the name under which streamline.yaml declares what a block calls `name`; None if it does not."""
    dashed = f"{role}-{name.replace('_', '-')}"  # Mage's `google_ads` is the usual `tap-google-ads`
    candidates = (name, f"{role}-{name}", connector_name(name, role), dashed)
    return next(
        (candidate for candidate in candidates if candidate in project.plugins and _fits(candidate, role)), None
    )


def child_environment(entry: PluginEntry | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Return a tap's or target's whole environment.

    Of `environ`: PATH, HOME, LANG, LC_*, TZ, TMPDIR, proxies, certificates, and what `pass_env` names; over it `env`.
    """
    patterns = entry.pass_env if entry is not None else []
    result = {
        key: value
        for key, value in environ.items()
        if key in _ALWAYS
        or key in _CERTIFICATES
        or key.startswith("LC_")
        or key.lower() in _PROXIES
        or any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)
    }
    return result | (entry.env if entry is not None else {})


def requirements_of(project: Project, entry: PluginEntry) -> Requirements:
    """Return the requirements of a declared plugin's environment."""
    from streamline.project.environments import Requirements
    from streamline.project.lockfile import Locked

    written = project.plugins[entry.name]
    return Requirements(
        name=entry.name,
        pip=entry.pip,
        overrides=entry.overrides,
        python=entry.python,
        # The lock file is committed: it names requirements as written, where a template may stand for a token.
        declared=Locked(pip=written.pip, overrides=written.overrides, python=written.python),
    )


def _along(name: str, role: Role) -> Connector | None:
    """Return the bundled or installed connector that a block means by `name`."""
    return find_connector(connector_name(name, role))


def _declared(project: Project, name: str, role: Role, notify: Notify | None) -> Plugin:
    entry = project.plugin(name)
    env = child_environment(entry, os.environ)
    _refuse_secrets(project, name)
    # Also what `pass_env` passes, where its name or a URL in it says so.
    project.secrets.masker.add_config(env)
    if not (entry.pip or entry.command or entry.executable):
        connector = find_connector(name)
        if connector is None:
            raise project.yaml.error(
                f"the plugin '{name}' has neither `pip:` nor `command:`",
                ("plugins", name),
                hint=f"add `pip: {name}` (a package), or `command: [python, connectors/{name}.py]` (a program)",
                code="plugin.nothing_to_run",
            )
        return _builtin(project, connector, entry, notify)
    library = None
    content: list[object]
    if entry.pip:
        # Imported here: plugins with a command of their own have no environment.
        from streamline.project.environments import ensure_environment

        environment = ensure_environment(project, requirements_of(project, entry), notify=notify)
        argv = _pip_argv(project, entry, environment, role)
        library = environment.library
        content = [environment.fingerprint, argv]
    else:
        argv = _command_argv(project, entry, env)
        content = ["command", argv, _stamps(project, argv)]
    # The entry as written: a rotated secret is no other version.
    raw = project.yaml.mapping(("plugins",))[name]
    return Plugin(
        name=name,
        role=role,
        argv=argv,
        env=env,
        cwd=project.root,
        fingerprint=_digest([*content, raw]),
        kind="pip" if entry.pip else "command",
        library=library,
        proof=entry.proof,
        max_processes=entry.max_processes,
        prestart=entry.prestart,
    )


def _builtin(project: Project, connector: Connector, entry: PluginEntry | None, notify: Notify | None) -> Plugin:
    kind: Literal["builtin", "installed"] = "installed" if connector.module else "builtin"
    content: list[object]
    if connector.module is not None:
        # -P: the project's folder is no place for its imports.
        argv, content = [sys.executable, "-P", "-m", connector.module], [connector.module, _version_of(connector.name)]
        return _plugin_of(project, connector, entry, kind, argv, content)
    if connector.importable_here():
        python, content = sys.executable, ["here", sys.version]
    else:
        from streamline.project.environments import Requirements, ensure_environment

        wanted = Requirements(name=connector.name, pip=[*connector.requirements])
        environment = ensure_environment(project, wanted, notify=notify)
        python, content = environment.python, [environment.fingerprint]
    stamps = [_code_stamps(folder) for folder in connector.code_folders]
    argv = [python, str(connector.run_file), connector.system]
    return _plugin_of(project, connector, entry, kind, argv, [*content, stamps])


def _plugin_of(
    project: Project,
    connector: Connector,
    entry: PluginEntry | None,
    kind: Literal["builtin", "installed"],
    argv: list[str],
    content: list[object],
) -> Plugin:
    return Plugin(
        name=connector.name,
        role=connector.role,
        argv=argv,
        env=child_environment(entry, os.environ),
        cwd=project.root,
        fingerprint=_digest([connector.name, __version__, *content]),
        kind=kind,
        library="singer-python" if kind == "builtin" else None,
        proof=entry.proof if entry is not None else "echo",
        max_processes=(entry.max_processes if entry is not None else None) or connector.max_processes,
        prestart=entry.prestart if entry is not None else False,
        cheap_discovery=connector.cheap_discovery,
        place=connector.place,
    )


def _refuse_secrets(project: Project, name: str) -> None:
    """Refuse an entry whose `command:` asks for a secret.

    Raises:
        ConfigError: it does.
    """
    words = project.yaml.mapping(("plugins", name)).get("command")
    for number, word in enumerate([words] if isinstance(words, str) else words or ()):
        if _SECRET_CALL.search(str(word)):
            path = ("plugins", name, "command", *(() if isinstance(words, str) else (number,)))
            project.yaml.fail(
                "a secret in `command:` can be read by every user of this machine, in the list of processes",
                path,
                hint="pass it in `env:`, or in the block's `config:`",
                code="plugin.secret_in_command",
            )


def _version_of(name: str) -> str | None:
    """Return the version of the package that registers a connector."""
    point = extensions(GROUP).get(name)
    return point.dist.version if point is not None and point.dist is not None else None


def _pip_argv(project: Project, entry: PluginEntry, environment: Environment, role: Role) -> list[str]:
    if entry.command:
        first = entry.command[0]
        if first in ("python", "python3"):
            return [environment.python, *entry.command[1:]]
        inside = environment.program(first)
        program = inside if os.access(inside, os.X_OK) else _program(project, first, os.environ.get("PATH"))
        if program is None:
            raise _no_program(project, entry, "command", first)
        return [program, *entry.command[1:]]
    name = entry.executable or _default_program(entry.name, environment, role)
    if name is not None and os.access(environment.program(name), os.X_OK):
        return [environment.program(name)]
    brought = environment.scripts.get(environment.main or "", []) or sorted(
        {script for names in environment.scripts.values() for script in names}
    )
    raise project.yaml.error(
        f"the environment of {entry.name} has no program '{name or entry.name}'",
        ("plugins", entry.name, *(["executable"] if entry.executable else [])),
        hint=f"set `executable:` to one of: {', '.join(brought)}" if brought else "its packages install no programs",
        code="plugin.program_missing",
    )


def _default_program(name: str, environment: Environment, role: Role) -> str | None:
    """Return the plugin's own name if there is such a program, else the only one of its package that can be meant."""
    if os.access(environment.program(name), os.X_OK):
        return name
    scripts = environment.scripts.get(environment.main or "", [])
    fitting = [script for script in scripts if script.startswith(f"{role}-")] or scripts
    return fitting[0] if len(fitting) == 1 else None


def _command_argv(project: Project, entry: PluginEntry, env: Mapping[str, str]) -> list[str]:
    key = "command" if entry.command else "executable"
    command = entry.command or [entry.executable or ""]
    program = None
    if command[0] in ("python", "python3"):
        if entry.python is not None:
            python = entry.python if "/" in entry.python else f"python{entry.python.removeprefix('python')}"
            program = _program(project, python, env.get("PATH"))
        else:
            paths = (
                _program(project, program_name, env.get("PATH")) for program_name in (command[0], "python3", "python")
            )
            program = next((program_name for program_name in paths if program_name is not None), sys.executable)
    else:
        program = _program(project, command[0], env.get("PATH"))
    if program is None:
        raise _no_program(project, entry, key, command[0])
    return [program, *command[1:]]


def _program(project: Project, name: str, path: str | None) -> str | None:
    """Return where a program is: with a slash from the project's folder, else on PATH, else in the project's folder."""
    if "/" not in name:
        path_on_disk = shutil.which(name, path=path)
        if path_on_disk is not None:
            return str(Path(path_on_disk).absolute())
    local = project.path(name)
    return str(local) if local.is_file() and os.access(local, os.X_OK) else None


def _no_program(project: Project, entry: PluginEntry, key: str, program: str) -> ConfigError:
    local = project.path(program)
    if local.is_file():
        hint = f"it is not executable: chmod +x {project.shown(local)}"
        if local.suffix == ".py":
            hint += f", or write `command: [python, {program}]`"
    elif "/" in program:
        hint = "relative paths start at the project's folder"
    else:
        hint = "it is neither on PATH nor in the project's folder"
    return project.yaml.error(
        f"the program '{program}' of the plugin {entry.name} was not found",
        ("plugins", entry.name, key),
        hint=hint,
        code="plugin.program_missing",
    )


def _stamps(project: Project, argv: list[str]) -> list[list[int]]:
    """Return times and sizes of the files that a command names, which change while a connector is written."""
    stamps = []
    for argument in argv:
        path = project.root / argument
        if path.is_file():
            status = path.stat()
            stamps.append([status.st_mtime_ns, status.st_size])
    return stamps


def _code_stamps(folder: Path) -> list[tuple[str, int]]:
    """Return names and modification times of the modules in a folder; empty if the folder does not exist."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.name, entry.stat().st_mtime_ns) for entry in entries if entry.name.endswith(".py"))
    except FileNotFoundError:
        return []


def _unknown(project: Project, name: str, role: Role, where: str | None = None) -> ConfigError:
    where = where or project.yaml.shown
    other = {"tap": "target", "target": "tap"}.get(role)
    if other is not None and name.startswith(f"{other}-"):
        return ConfigError(f"'{name}' is a {other}, but a {role} is needed here", where=where, code="plugin.wrong_role")
    connector = connector_name(name, role)
    system = system_of(connector) if role != "mapper" else None
    if system is None and project.mage and role != "mapper":
        connector = f"{role}-{name.removeprefix(f'{role}-').replace('_', '-')}"
        system = connector, System()
    if system is not None:
        package = system[1].tap if role == "tap" else system[1].target
        return ConfigError(
            f"no {role} for '{name}' is bundled with Streamline or declared in the project",
            where=where,
            code="plugin.unknown",
            hint=f"declare one under `plugins:` in {project.yaml.shown}: "
            f"streamline plugin add {connector} --pip {package or 'PACKAGE==VERSION'}",
        )
    plugins = [plugin for plugin in project.plugins if _fits(plugin, role)]
    names = [*(one.name for one in bundled_connectors()), *installed_connectors()]
    names = [one for one in names if one.startswith(f"{role}-")]
    near = nearest(name, [*plugins, *names, *(one.removeprefix(f"{role}-") for one in names), *system_names()])
    meant = f"did you mean {' or '.join(repr(one) for one in near)}? Else declare it" if near else "declare it"
    return ConfigError(
        f"the {role} '{name}' is not declared",
        where=where,
        code="plugin.unknown",
        hint=f'{meant} under `plugins:` in {project.yaml.shown}, for example `{name}: {{pip: "{name}==1.0"}}`'
        f" or `{name}: {{command: [python, connectors/{name}.py]}}`",
    )


def _fits(plugin: str, role: Role) -> bool:
    other = {"tap": "target-", "target": "tap-"}.get(role)
    return other is None or not plugin.startswith(other)


def _digest(content: object) -> str:
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()
