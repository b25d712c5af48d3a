"""The settings of a dbt block: dbt project, command, arguments, target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.blocks.call import block_text
from streamline.blocks.dbt.arguments import Arguments, command_words, read_arguments
from streamline.errors import ConfigError
from streamline.project.suggest import suggestion
from streamline.project.yamlfile import kind_of

if TYPE_CHECKING:
    from streamline.pipeline.model import Block
    from streamline.project.project import Project
    from streamline.project.render import Renderer

PROJECT_FILE = "dbt_project.yml"


class DbtSettings(msgspec.Struct, kw_only=True):
    """A dbt block's settings.

    Args:
        command: dbt's command and subcommand.
        target: the target of the profile; None: the profile's default.
        output: the models to pass downstream; True: all that ran; False: none; None: those that are needed.
    """

    folder: Path
    command: list[str]
    arguments: Arguments
    target: str | None
    output: list[str] | bool | None


def read_settings(project: Project, block: Block, where: str, renderer: Renderer | None) -> DbtSettings:
    """Read a block's settings.

    Args:
        block: the block, with its configuration rendered.
        renderer: renders templates in the arguments; None: do not render.

    Raises:
        ConfigError: the dbt project does not exist, or the command or an argument is invalid.
    """
    options = block.configuration.get("dbt") or {}
    if not isinstance(options, dict):
        raise ConfigError(
            f"configuration.dbt must be a mapping, not {kind_of(options)}",
            where=where,
            hint="for example `dbt: {command: build}`",
            code="dbt.command_invalid",
        )
    folder = dbt_folder(project, block, where)
    if block.language == "sql":
        arguments = Arguments(rest=["--select", _selector(block, folder, options, where)])
        default = "run" if options.get("disable_tests") else "build"
    elif block.language == "yaml":
        text = block_text(block, where)
        arguments, default = read_arguments(text, where, renderer), "run"
    else:
        raise ConfigError(
            f"a dbt block cannot be written in {block.language}",
            where=where,
            hint="set `language: yaml` (dbt's arguments) or `language: sql` (one model)",
            code="block.wrong_language",
        )
    command = command_words(options["command"], where) if options.get("command") else arguments.command
    target = arguments.target or block.configuration.get("dbt_profile_target")
    return DbtSettings(
        folder=folder,
        command=command or [default],
        arguments=arguments,
        target=str(target) if target else None,
        output=_output(options.get("output"), where),
    )


def dbt_folder(project: Project, block: Block, where: str) -> Path:
    """Return the folder of a block's dbt project.

    Raises:
        ConfigError: there is no dbt project, or there are several.
    """
    name = block.configuration.get("dbt_project_name")
    if name:
        return _named(project, str(name), where)
    if block.file is not None:
        for folder in block.file.parents:
            if (folder / PROJECT_FILE).is_file():
                return folder
            if folder in (project.root, project.root.parent):
                break
    if block.language == "sql":
        message = f"the model is not in a dbt project: there is no {PROJECT_FILE} in its folder or above"
        raise _not_found(where, message, "set `file_path:` to a model of a project under dbt/")
    known = dbt_projects(project)
    if len(known) == 1:
        return known[0]
    if not known:
        hint = "create one in dbt/NAME, or set `dbt_project_name:` to its path"
        raise _not_found(where, f"there is no dbt project: no {PROJECT_FILE} under dbt/", hint)
    names = ", ".join(str(folder.relative_to(project.root)) for folder in known)
    raise ConfigError(
        "there are several dbt projects",
        where=where,
        hint=f"set `dbt_project_name:` to one of {names}",
        code="dbt.project_ambiguous",
    )


def dbt_projects(project: Project) -> list[Path]:
    """Return the folders of the dbt projects under dbt/."""
    files = [*project.root.glob(f"dbt/{PROJECT_FILE}"), *project.root.glob(f"dbt/*/{PROJECT_FILE}")]
    return sorted(file.parent for file in files)


def _named(project: Project, name: str, where: str) -> Path:
    for candidate in (project.path("dbt", name), project.path(name), project.root.parent / name):
        if (candidate / PROJECT_FILE).is_file():
            return candidate
    known = [str(folder.relative_to(project.root)) for folder in dbt_projects(project)]
    message = f"there is no dbt project '{name}': neither dbt/{name} nor {name} has a {PROJECT_FILE}"
    raise _not_found(where, message, suggestion(name, known, what="dbt projects"))


def _not_found(where: str, message: str, hint: str) -> ConfigError:
    return ConfigError(message, where=where, hint=hint, code="dbt.project_not_found")


def _selector(block: Block, folder: Path, options: dict[str, Any], where: str) -> str:
    if block.file is None:
        raise ConfigError(
            "the block has no model",
            where=where,
            hint="set `file_path:` in its configuration",
            code="block.file_missing",
        )
    # A path is unique even if a package has a model of the same name, or the model has versions.
    path = block.file.relative_to(folder).as_posix()
    return f"{options.get('prefix') or ''}path:{path}{options.get('suffix') or ''}"


def _output(value: object, where: str) -> list[str] | bool | None:
    if value is None or isinstance(value, bool):
        return value
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            "configuration.dbt.output must be true, false or a list of models",
            where=where,
            code="dbt.arguments_invalid",
        )
    return names
