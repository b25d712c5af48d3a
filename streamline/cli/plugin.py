"""`streamline plugin`: manage taps, targets and mappers."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, cast

import click

from streamline.cli.app import App, pass_app
from streamline.cli.output import json_option, masked_values, print_json, print_table
from streamline.errors import ConfigError, StreamlineError

if TYPE_CHECKING:
    from streamline.connectors.plugins import Plugin
    from streamline.connectors.registry import Role
    from streamline.connectors.singer.capabilities import Capabilities
    from streamline.project.project import Project


role_option = click.option(
    "--role", type=click.Choice(["tap", "target", "mapper"]), help="The plugin's role, if not a prefix of NAME."
)


@click.group("plugin")
def command() -> None:
    """Manage the taps, targets and mappers of a project."""


@command.command("list")
@json_option
@pass_app
def list_(app: App, as_json: bool) -> None:
    """List the declared plugins, the bundled connectors and those of installed packages."""
    rows = [*_declared(app.project), *_builtin(app.project), *_installed(app.project)]
    if as_json:
        print_json(masked_values(rows))
        return
    print_table(
        ["NAME", "KIND", "SOURCE", "INSTALLED", "VERSION"],
        [[row["name"], row["kind"], row["source"], row["installed"], row["version"]] for row in rows],
    )


@command.command("add")
@click.argument("name")
@click.option("--pip", "pip", metavar="REQUIREMENT", multiple=True, help="Install this package; may be repeated.")
@click.option("--executable", metavar="PROGRAM", help="The package's program, if it is not named NAME.")
@click.option("--command", "command_line", metavar="COMMAND", help="Run this command instead of a package.")
@click.option("--override", "overrides", metavar="REQUIREMENT", multiple=True, help="Override a dependency's version.")
@click.option("--python", metavar="PYTHON", help="The environment's interpreter: a version or a path.")
@click.option("--env", "env", metavar="NAME=VALUE", multiple=True, help="Set an environment variable for the plugin.")
@click.option(
    "--pass-env",
    "pass_env",
    metavar="GLOB",
    multiple=True,
    help="Pass these environment variables to the plugin.",
)
@click.option("--install/--no-install", default=True, help="Create its environment now (default).")
@pass_app
def add(
    app: App,
    name: str,
    pip: tuple[str, ...],
    executable: str | None,
    command_line: str | None,
    overrides: tuple[str, ...],
    python: str | None,
    env: tuple[str, ...],
    pass_env: tuple[str, ...],
    install: bool,
) -> None:
    """Declare the plugin NAME in streamline.yaml. Without --pip and --command, the package is NAME."""
    from streamline.project.entries import read_entry
    from streamline.project.project import Project
    from streamline.project.yamledit import edit_file, edit_text, put
    from streamline.project.yamlfile import load_yaml

    project = app.project
    if name in project.plugins:
        raise ConfigError(
            f"the plugin '{name}' is already declared",
            where=project.yaml.where(("plugins", name)),
            hint="edit its entry there; it is reinstalled when it is next used",
            code="plugin.exists",
        )
    entry: dict[str, Any] = {}
    if pip or not command_line:
        requirements = list(pip) or [name]
        entry["pip"] = requirements[0] if len(requirements) == 1 else requirements
    if executable:
        entry["executable"] = executable
    if command_line:
        import shlex

        entry["command"] = shlex.split(command_line)
    if overrides:
        entry["overrides"] = list(overrides)
    if python:
        entry["python"] = python
    if env:
        entry["env"] = dict(_pair(assignment) for assignment in env)
    if pass_env:
        entry["pass_env"] = list(pass_env)
    path, shown = project.yaml.path, project.yaml.shown

    def declare(text: str) -> str:
        text = edit_text(text, lambda document: put(document, ("plugins", name), entry))
        read_entry(load_yaml(path, text=text, shown=shown), name, entry, rendered=False)  # validate before writing
        return text

    before, after = edit_file(path, declare, shown=shown)
    try:
        if install and "pip" in entry:
            _install(Project.open(project.root), name, upgrade=False)
    except ConfigError:
        edit_file(path, lambda text: before if text == after else text, shown=shown)
        raise
    click.echo(f"Declared {name} in {project.yaml.shown}")


@command.command("remove")
@click.argument("name")
@pass_app
def remove(app: App, name: str) -> None:
    """Remove the plugin NAME from streamline.yaml, with its environment and locked versions."""
    import shutil

    from streamline.project.lockfile import file_lock, write_locked
    from streamline.project.yamledit import edit_file, edit_text

    project = app.project
    _require_declared(project, name)
    users = _files_that_use(project, name)
    edit_file(
        project.yaml.path,
        lambda text: edit_text(text, lambda document: document["plugins"].pop(name)),
        shown=project.yaml.shown,
    )
    environment = project.ensure_work_dir() / "venvs" / name
    if environment.is_symlink():
        shutil.rmtree(environment.resolve(), ignore_errors=True)
        environment.unlink()
    with file_lock(project.work_dir / "venvs" / ".lockfile.lock"):
        write_locked(project.root, name, None)
    click.echo(f"Removed {name} from {project.yaml.shown}")
    if users:
        click.echo(f"Note: still used by {', '.join(users)}", err=True)


def _files_that_use(project: Project, name: str) -> list[str]:
    """Return the files of blocks whose connector the plugin NAME is; files that cannot be read are passed over."""
    from streamline.connectors.plugins import declared_name
    from streamline.pipeline.reader import load_pipeline
    from streamline.project.yamlfile import load_yaml

    roles: dict[str, Role] = {"source": "tap", "destination": "target", "mapper": "mapper"}
    files: set[str] = set()
    for pipeline in project.pipelines():
        with contextlib.suppress(StreamlineError):
            blocks = load_pipeline(project, pipeline).blocks.values()
            for path in [block.file for block in blocks if block.file is not None and block.language == "yaml"]:
                with contextlib.suppress(StreamlineError, OSError):
                    settings = load_yaml(path).mapping()
                    used = [declared_name(project, str(settings[key]), roles[key]) for key in roles if key in settings]
                    if name in used:
                        files.add(project.shown(path))
    return sorted(files)


def _require_declared(project: Project, name: str) -> None:
    """Refuse a plugin that streamline.yaml does not declare.

    Raises:
        ConfigError: the hint suggests a similar name.
    """
    if name not in project.plugins:
        from streamline.project.suggest import suggestion

        raise ConfigError(
            f"the plugin '{name}' is not declared",
            where=project.yaml.shown,
            hint=suggestion(name, project.plugins, what="declared plugins"),
            code="plugin.unknown",
        )


@command.command("install")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--upgrade", is_flag=True, help="Install the newest versions, not those of streamline.lock.yaml.")
@pass_app
def install(app: App, names: tuple[str, ...], upgrade: bool) -> None:
    """Create the environments of the plugins NAME, or of all plugins."""
    project = app.project
    with_environment = [name for name, entry in project.plugins.items() if entry.pip]
    for name in names:
        _require_declared(project, name)
        if name not in with_environment:
            click.echo(f"{name} has no environment: it runs {' '.join(project.plugins[name].command)}")
    chosen = [name for name in with_environment if not names or name in names]
    if not chosen and not names:
        click.echo("No plugin needs an environment.")
    failed: list[ConfigError] = []
    for name in chosen:
        try:
            _install(project, name, upgrade=upgrade)
        except ConfigError as error:
            failed.append(error)
            if error is not failed[0]:
                click.echo(f"Error: {app.mask(str(error))}", err=True)
    if failed:
        raise failed[0]


@command.command("test")
@click.argument("name")
@role_option
@json_option
@pass_app
def test(app: App, name: str, role: Role | None, as_json: bool) -> None:
    """Install the plugin NAME if needed, start it, and show its capabilities."""
    from streamline.connectors.singer.capabilities import library

    role = role or _role(name)
    plugin, probed = _probe(app, name, role)
    if not probed.known:
        raise StreamlineError(
            f"{plugin.name} starts, but neither --about nor --help describes a {role}",
            where=" ".join(plugin.argv),
            hint="run the command by hand; a plugin that ignores these options may still work",
            code="plugin.no_capabilities",
        )
    result = {
        "name": plugin.name,
        "role": role,
        "kind": plugin.kind,
        "command": plugin.argv,
        "library": library(plugin, probed),
        "version": probed.about.get("version"),
        "catalog": list(probed.catalog_flags),
        "state": probed.state,
        "discover": probed.discover,
        "capabilities": sorted(probed.names),
        "settings": sorted(probed.settings),
    }
    if as_json:
        print_json(masked_values(result))
    else:
        print_table(["PROPERTY", "VALUE"], list(result.items()))


@command.command("settings")
@click.argument("name")
@role_option
@json_option
@pass_app
def settings(app: App, name: str, role: Role | None, as_json: bool) -> None:
    """List the settings of the plugin NAME: what stands under `config:` in a block. Installs it if needed."""
    role = role or _role(name)
    plugin, probed = _probe(app, name, role)
    rows = [
        {
            "name": setting.name,
            "type": setting.type,
            "required": setting.required,
            "default": setting.default,
            "description": setting.description,
        }
        for setting in probed.described_settings()
    ]
    if not rows:
        raise StreamlineError(
            f"{plugin.name} lists no settings: its --about has none, or it has no --about",
            where=" ".join(plugin.argv),
            hint="see its documentation; Streamline passes it whatever stands under `config:`",
            code="plugin.no_settings",
        )
    if as_json:
        print_json(rows)
    else:
        print_table([key.upper() for key in rows[0]], [list(row.values()) for row in rows])


def _probe(app: App, name: str, role: Role) -> tuple[Plugin, Capabilities]:
    """Return a plugin, installed if need be, and what it says about itself."""
    import anyio

    from streamline.connectors.plugins import resolve_plugin
    from streamline.connectors.singer.capabilities import probe

    plugin = resolve_plugin(app.project, name, role, notify=_notify)

    async def run() -> Capabilities:
        return await probe(plugin, store=None, masker=app.project.secrets.masker)

    return plugin, anyio.run(run)


def _role(name: str) -> Role:
    role = name.partition("-")[0]
    if role in ("tap", "target", "mapper"):
        return cast("Role", role)
    raise ConfigError(
        f"the role of '{name}' is unknown", hint="add --role tap, --role target or --role mapper", code="option.missing"
    )


def _install(project: Project, name: str, *, upgrade: bool) -> None:
    from streamline.connectors.plugins import requirements_of
    from streamline.project.environments import ensure_environment

    entry = project.plugin(name)
    environment = ensure_environment(project, requirements_of(project, entry), notify=_notify, upgrade=upgrade)
    version = environment.packages.get(environment.main or "")
    click.echo(f"{name} is installed{f': {environment.main} {version}' if version else ''}")


def _notify(text: str) -> None:
    click.echo(f"{text[0].upper()}{text[1:]} …", err=True)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"--env takes NAME=VALUE, not '{text}'", code="option.invalid")
    return name, value


def _declared(project: Project) -> list[dict[str, Any]]:
    from streamline.project.environments import requirement_name
    from streamline.project.lockfile import read_lock

    locked = read_lock(project.root)
    rows = []
    for name, entry in project.plugins.items():
        record = project.work_dir / "venvs" / name / "bin" / "python"
        packages = locked[name].packages if name in locked else {}
        main = requirement_name(entry.pip[0]) if entry.pip else None
        rows.append(
            {
                "name": name,
                "kind": "pip" if entry.pip else "command" if entry.command or entry.executable else "builtin",
                "source": ", ".join(entry.pip)
                or " ".join(entry.command)
                or entry.executable
                or "comes with Streamline",
                "installed": record.exists() if entry.pip else True,
                "version": packages.get(main) if main is not None else None,
            }
        )
    return rows


def _builtin(project: Project) -> list[dict[str, Any]]:
    from streamline.connectors.registry import bundled_connectors
    from streamline.version import __version__

    return [
        {
            "name": connector.name,
            "kind": "builtin",
            "source": "comes with Streamline",
            "installed": connector.importable_here()
            or (project.work_dir / "venvs" / connector.name / "bin" / "python").exists(),
            "version": __version__,
        }
        for connector in bundled_connectors()
        if connector.name not in project.plugins
    ]


def _installed(project: Project) -> list[dict[str, Any]]:
    """Return the connectors that other packages register."""
    from importlib.metadata import version

    from streamline.connectors.registry import installed_connectors

    return [
        {"name": name, "kind": "installed", "source": package, "installed": True, "version": version(package)}
        for name, package in installed_connectors().items()
        if name not in project.plugins
    ]
