"""Read the arguments of a dbt block: command line text, a YAML list or a YAML mapping, with templates."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from streamline.errors import ConfigError
from streamline.project.lambdas import quote_lambdas
from streamline.project.suggest import suggestion
from streamline.project.templates import template_end
from streamline.project.yamlfile import kind_of, load_yaml

if TYPE_CHECKING:
    from streamline.pipeline.model import Block
    from streamline.project.render import Renderer

COMMANDS = (
    *("build", "run", "test", "seed", "snapshot", "compile", "parse", "list", "ls", "show", "source", "docs", "deps"),
    *("run-operation", "clone", "retry", "debug"),
)
"""The commands that a dbt block can run."""

_FORBIDDEN = {
    "--project-dir": "set `dbt_project_name` in the block's configuration",
    "--target-path": "dbt's artifacts are kept under .streamline/dbt/",
    "--log-path": "dbt's logs are kept under .streamline/dbt/",
}
_TAKEN = {"--vars": "vars", "--target": "target", "-t": "target", "--profile": "profile"}
_TAKEN["--profiles-dir"] = "profiles_dir"
_VARS_EXAMPLE = "for example --vars '{start: 2026-03-04}'"
_MARK = re.compile("\ue010(\\d+)\ue011")


class Arguments(msgspec.Struct, kw_only=True):
    """The arguments for dbt.

    Args:
        command: the command and its subcommand, such as `docs generate`; empty: not given.
        rest: the other arguments, in order.
        vars: the value of `--vars`.
    """

    command: list[str] = msgspec.field(default_factory=list)
    rest: list[str] = msgspec.field(default_factory=list)
    vars: dict[str, Any] = msgspec.field(default_factory=dict)
    target: str | None = None
    profile: str | None = None
    profiles_dir: str | None = None


def jinja(block: Block, text: str) -> str:
    """Return the part of the text with our templates: dbt's arguments without comments. Models have dbt's own."""
    if block.language != "yaml":
        return ""
    return "\n".join("" if line.lstrip().startswith("#") else line for line in text.splitlines())


def read_arguments(text: str, where: str, renderer: Renderer | None) -> Arguments:
    """Read the arguments in a block's file.

    Args:
        renderer: renders the templates, each argument on its own, so that no value can add an argument; None: do not
            render.

    Raises:
        ConfigError: the arguments cannot be parsed, or contain an option that Streamline sets.
    """
    text = quote_lambdas(text)
    if renderer is not None and "{%" in text:
        text, renderer = renderer.render_text(text, where=where), None

    templates = _Templates(renderer, where)
    return _parsed(_raw_arguments(text, where, templates), where, templates)


class _Templates:
    """Replaces templates by placeholders, so that splitting and parsing cannot break them, and renders them later."""

    def __init__(self, renderer: Renderer | None, where: str) -> None:
        self._renderer = renderer
        self._where = where
        self._templates: list[str] = []

    def hide(self, text: str) -> str:
        """Return the text with placeholders instead of templates."""
        pieces, at = [], 0
        while (start := text.find("{{", at)) >= 0 and (end := template_end(text, start)) > 0:
            pieces += [text[at:start], f"\ue010{len(self._templates)}\ue011"]
            self._templates.append(text[start:end])
            at = end
        return "".join([*pieces, text[at:]])

    def shown(self, value: Any) -> Any:
        """Return the value with templates instead of placeholders."""
        if isinstance(value, str):
            return _MARK.sub(lambda match: self._templates[int(match[1])], value)
        if isinstance(value, dict):
            return {self.shown(key): self.shown(each) for key, each in value.items()}
        return [self.shown(each) for each in value] if isinstance(value, list) else value

    def render(self, value: Any) -> Any:
        """Return the value with its templates rendered separately; without a renderer, not rendered."""
        value = self.shown(value)
        return value if self._renderer is None else self._renderer.render(value, where=self._where)


def command_words(value: object, where: str) -> list[str]:
    """Return the words of a `command:` in a block's configuration.

    Raises:
        ConfigError: the command is unknown or cannot be used in a block.
    """
    if not isinstance(value, str) or not value.split():
        raise ConfigError("dbt's command must be text, such as build", where=where, code="dbt.command_invalid")
    words = value.split()
    if words[0] == "dbt" and len(words) > 1:
        words = words[1:]
    if words[0] not in COMMANDS:
        raise ConfigError(
            f"unknown dbt command '{words[0]}'",
            where=where,
            hint=suggestion(words[0], COMMANDS, what="commands"),
            code="dbt.command_invalid",
        )
    if words == ["docs"]:
        words = ["docs", "generate"]
    if words == ["source"]:
        words = ["source", "freshness"]
    if words[:2] == ["docs", "serve"]:
        raise ConfigError(
            "a block cannot run `dbt docs serve`: it never ends",
            where=where,
            hint="use `docs generate`",
            code="dbt.command_invalid",
        )
    return words


def _invalid(where: str, message: str, hint: str | None = None) -> ConfigError:
    return ConfigError(message, where=where, hint=hint, code="dbt.arguments_invalid")


def _raw_arguments(text: str, where: str, templates: _Templates) -> list[Any]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    plain = "\n".join(lines).strip()
    if not plain:
        return []
    looks_like_yaml = re.match(r"- |-$|\[|---\s|[A-Za-z_][\w-]*\s*:(\s|$)|\"|'|[|>]", plain, re.MULTILINE)
    if looks_like_yaml is None:
        return _words(plain, where, templates)

    value = load_yaml(Path(where), text=text, shown=where).data
    if isinstance(value, str):
        return _words(value, where, templates)
    if isinstance(value, dict):
        return list(_from_mapping(value))
    if isinstance(value, list):
        return list(_from_list(value, where, templates))
    raise _invalid(
        where,
        f"dbt's arguments must be text, a list or a mapping, not {kind_of(value)}",
        "for example `--select my_model+`",
    )


def _words(text: str, where: str, templates: _Templates) -> list[str]:
    """Split a text as a shell does. A template is never split, whatever spaces and quotes it contains."""
    try:
        return shlex.split(templates.hide(text.replace("\\\n", " ")))
    except ValueError as error:
        raise _invalid(where, f"dbt's arguments cannot be parsed: {error}", "check the quotes") from None


def _from_list(values: Sequence[Any], where: str, templates: _Templates) -> Iterator[Any]:
    for value in values:
        if isinstance(value, str) and re.match(r"-[\w-]+\s", value):
            yield from _words(value, where, templates)
        elif isinstance(value, dict):
            yield from _from_mapping(value)
        elif isinstance(value, list):
            yield from _from_list(value, where, templates)
        elif value is not None:
            yield value


def _from_mapping(value: Mapping[str, Any]) -> Iterator[Any]:
    for key, item in value.items():
        if key == "command":
            if isinstance(item, str):
                yield from item.split()
            continue
        option = key if key.startswith("-") else f"--{key.replace('_', '-')}"
        if item is None or item is False:
            continue
        yield option
        if isinstance(item, list):
            yield from item
        elif item is not True:
            yield item


def _parsed(raw: Sequence[Any], where: str, templates: _Templates) -> Arguments:
    arguments = Arguments()
    queue = list(raw)
    if queue and queue[0] == "dbt":
        del queue[0]
    if queue and isinstance(queue[0], str) and queue[0] in COMMANDS:
        arguments.command = [queue.pop(0)]
        if arguments.command[0] in ("docs", "source") and queue and not _is_option(queue[0]):
            arguments.command.append(templates.shown(str(queue.pop(0))))
        arguments.command = command_words(" ".join(arguments.command), where)
    while queue:
        word = queue.pop(0)
        option, equals, value = word.partition("=") if _is_option(word) else (word, "", "")
        if isinstance(option, str) and option in _FORBIDDEN:
            raise _invalid(where, f"a dbt block cannot set {option}", _FORBIDDEN[option])
        if not isinstance(option, str) or option not in _TAKEN:
            arguments.rest += _rendered(word, templates)
            continue
        if not equals:
            if not queue:
                raise _invalid(where, f"{option} needs a value")
            value = queue.pop(0)
        if option == "--vars":
            arguments.vars.update(_variables(value, where, templates))
        else:
            setattr(arguments, _TAKEN[option], str(templates.render(value)))
    return arguments


def _is_option(word: object) -> bool:
    return isinstance(word, str) and word.startswith("-") and len(word) > 1


def _rendered(word: Any, templates: _Templates) -> list[str]:
    value = templates.render(word)
    if isinstance(value, list):
        return [_text(item) for item in value]
    # A template that renders to nothing omits the option.
    return [] if value is None or (value == "" and value != word) else [_text(value)]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _variables(value: Any, where: str, templates: _Templates) -> dict[str, Any]:
    """Return the value of `--vars`. Parsed as YAML before templates are rendered: no value can break it."""
    if isinstance(value, str):
        try:
            value = yaml.safe_load(templates.hide(value))
        except yaml.YAMLError as error:
            raise _invalid(where, f"--vars is not valid YAML: {templates.shown(str(error))}", _VARS_EXAMPLE) from None
    value = templates.render(value)
    if not isinstance(value, dict):
        raise _invalid(where, "--vars must be a mapping", _VARS_EXAMPLE)
    return {str(key): each for key, each in value.items()}
