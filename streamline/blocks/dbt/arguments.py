"""The arguments of a dbt block: text as on a command line, a YAML list or a YAML mapping; templates inside each."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.errors import ConfigError
from streamline.project.suggest import suggestion

if TYPE_CHECKING:
    from streamline.pipeline.model import Block
    from streamline.project.render import Renderer

COMMANDS = (
    *("build", "run", "test", "seed", "snapshot", "compile", "parse", "list", "ls", "show", "source", "docs", "deps"),
    *("run-operation", "clone", "retry", "debug"),
)
"""What a dbt block may do."""

_FORBIDDEN = {
    "--project-dir": "the project is named by `dbt_project_name` in the block's configuration",
    "--target-path": "dbt's artifacts are kept under .streamline/dbt/",
    "--log-path": "dbt's logs are kept under .streamline/dbt/",
}
_TAKEN = {"--vars": "vars", "--target": "target", "-t": "target", "--profile": "profile"}
_TAKEN["--profiles-dir"] = "profiles_dir"
_MARK = re.compile("\ue010(\\d+)\ue011")


class Arguments(msgspec.Struct, kw_only=True):
    """What a block says to dbt.

    Args:
        command: the command and its own words, such as `docs generate`; empty: not said here.
        rest: the other arguments, in order.
        vars: what `--vars` says.
        target: what `--target` says.
        profile: what `--profile` says.
        profiles_dir: what `--profiles-dir` says.
    """

    command: list[str] = msgspec.field(default_factory=list)
    rest: list[str] = msgspec.field(default_factory=list)
    vars: dict[str, Any] = msgspec.field(default_factory=dict)
    target: str | None = None
    profile: str | None = None
    profiles_dir: str | None = None


def jinja(block: Block, text: str) -> str:
    """The part of the block's text that is a template of ours: dbt's arguments without their comments. A model's
    templates are dbt's own."""
    if block.language != "yaml":
        return ""
    return "\n".join("" if line.lstrip().startswith("#") else line for line in text.splitlines())


def read_arguments(text: str, where: str, renderer: Renderer | None) -> Arguments:
    """Read the content of a block's file.

    Args:
        text: what stands in it.
        where: how errors name it.
        renderer: renders its templates, each argument on its own, so that no value can become a second argument;
            None: templates stay as they are.

    Raises:
        ConfigError: it is none of the forms, a quote is not closed, an option is Streamline's own to set.
    """
    from streamline.blocks.sql.lambdas import quote_lambdas

    text = quote_lambdas(text)
    if renderer is not None and "{%" in text:
        text, renderer = renderer.render_text(text, where=where), None

    templates = _Templates(renderer, where)
    return _arranged(_raw_arguments(text, where, templates), where, templates)


class _Templates:
    """Takes templates out of a text, so that the rules of a shell or of YAML cannot split them; renders them later."""

    def __init__(self, renderer: Renderer | None, where: str) -> None:
        self._renderer = renderer
        self._where = where
        self._templates: list[str] = []

    def hide(self, text: str) -> str:
        """The text with a mark in place of each template."""
        from streamline.project.templates import template_end

        pieces, at = [], 0
        while (start := text.find("{{", at)) >= 0 and (end := template_end(text, start)) > 0:
            pieces += [text[at:start], f"\ue010{len(self._templates)}\ue011"]
            self._templates.append(text[start:end])
            at = end
        return "".join([*pieces, text[at:]])

    def shown(self, value: Any) -> Any:
        """The value with the templates in it again."""
        if isinstance(value, str):
            return _MARK.sub(lambda match: self._templates[int(match[1])], value)
        if isinstance(value, dict):
            return {self.shown(key): self.shown(each) for key, each in value.items()}
        return [self.shown(each) for each in value] if isinstance(value, list) else value

    def render(self, value: Any) -> Any:
        """The value with its templates rendered, each on its own; without a renderer, as they are."""
        value = self.shown(value)
        return value if self._renderer is None else self._renderer.render(value, where=self._where)


def command_words(value: object, where: str) -> list[str]:
    """The words of a `command:` in a block's configuration.

    Raises:
        ConfigError: dbt has no such command.
    """
    if not isinstance(value, str) or not value.split():
        raise ConfigError("the command must be text, such as build", where=where)
    words = value.split()
    if words[0] == "dbt" and len(words) > 1:
        words = words[1:]
    if words[0] not in COMMANDS:
        raise ConfigError(
            f"a dbt block has no command '{words[0]}'",
            where=where,
            hint=suggestion(words[0], COMMANDS, what="commands"),
        )
    if words == ["docs"]:
        words = ["docs", "generate"]
    if words == ["source"]:
        words = ["source", "freshness"]
    if words[:2] == ["docs", "serve"]:
        raise ConfigError("`dbt docs serve` never ends", where=where, hint="use `docs generate`")
    return words


def _raw_arguments(text: str, where: str, templates: _Templates) -> list[Any]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    plain = "\n".join(lines).strip()
    if not plain:
        return []
    looks_like_yaml = re.match(r"- |-$|\[|---\s|[A-Za-z_][\w-]*\s*:(\s|$)|\"|'|[|>]", plain, re.MULTILINE)
    if looks_like_yaml is None:
        return _words(plain, where, templates)
    from pathlib import Path

    from streamline.project.yamlfile import kind_of, load_yaml

    value = load_yaml(Path(where), text=text, shown=where).data
    if isinstance(value, str):
        return _words(value, where, templates)
    if isinstance(value, dict):
        return list(_from_mapping(value))
    if isinstance(value, list):
        return list(_from_list(value, where, templates))
    raise ConfigError(
        f"dbt's arguments must be text, a list or a mapping, not {kind_of(value)}",
        where=where,
        hint="for example `--select my_model+`",
    )


def _words(text: str, where: str, templates: _Templates) -> list[str]:
    """Split as a shell does; a template is one piece, whatever spaces and quotes it holds."""
    try:
        return shlex.split(templates.hide(text.replace("\\\n", " ")))
    except ValueError as error:
        raise ConfigError(f"dbt's arguments cannot be read: {error}", where=where, hint="close the quote") from None


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
    for key, one in value.items():
        if key == "command":
            if isinstance(one, str):
                yield from one.split()
            continue
        option = key if key.startswith("-") else f"--{key.replace('_', '-')}"
        if one is None or one is False:
            continue
        yield option
        if isinstance(one, list):
            yield from one
        elif one is not True:
            yield one


def _arranged(raw: Sequence[Any], where: str, templates: _Templates) -> Arguments:
    found = Arguments()
    queue = list(raw)
    if queue and queue[0] == "dbt":
        del queue[0]
    if queue and isinstance(queue[0], str) and queue[0] in COMMANDS:
        found.command = [queue.pop(0)]
        if found.command[0] in ("docs", "source") and queue and not _is_option(queue[0]):
            found.command.append(templates.shown(str(queue.pop(0))))
        found.command = command_words(" ".join(found.command), where)
    while queue:
        word = queue.pop(0)
        option, equals, value = word.partition("=") if _is_option(word) else (word, "", "")
        if isinstance(option, str) and option in _FORBIDDEN:
            raise ConfigError(f"{option} cannot be set here", where=where, hint=_FORBIDDEN[option])
        if not isinstance(option, str) or option not in _TAKEN:
            found.rest += _rendered(word, templates)
            continue
        if not equals:
            if not queue:
                raise ConfigError(f"{option} needs a value", where=where)
            value = queue.pop(0)
        if option == "--vars":
            found.vars.update(_variables(value, where, templates))
        else:
            setattr(found, _TAKEN[option], str(templates.render(value)))
    return found


def _is_option(word: object) -> bool:
    return isinstance(word, str) and word.startswith("-") and len(word) > 1


def _rendered(word: Any, templates: _Templates) -> list[str]:
    value = templates.render(word)
    if isinstance(value, list):
        return [_text(one) for one in value]
    # A template alone that comes to nothing is an option left out.
    return [] if value is None or (value == "" and value != word) else [_text(value)]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _variables(value: Any, where: str, templates: _Templates) -> dict[str, Any]:
    """What `--vars` says. Its YAML is read before its templates are rendered: no value can break it."""
    if isinstance(value, str):
        import yaml

        try:
            value = yaml.safe_load(templates.hide(value))
        except yaml.YAMLError as error:
            raise ConfigError(
                f"--vars is not YAML: {templates.shown(str(error))}",
                where=where,
                hint="for example --vars '{start: 2026-03-04}'",
            ) from None
    value = templates.render(value)
    if not isinstance(value, dict):
        raise ConfigError("--vars must be a mapping", where=where, hint="for example --vars '{start: 2026-03-04}'")
    return {str(key): each for key, each in value.items()}
