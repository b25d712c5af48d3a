"""The arguments of a dbt block: text as on a command line, a YAML list or a YAML mapping; templates inside each."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.errors import ConfigError
from streamline.project.nearest import suggestion

if TYPE_CHECKING:
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
_TEMPLATE = re.compile(r"\{\{.*?\}\}", re.DOTALL)
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
    text = quote_lambdas(text)
    if renderer is not None and "{%" in text:
        text, renderer = renderer.render_text(text, where=where), None

    def render(value: Any) -> Any:
        return value if renderer is None else renderer.render(value, where)

    return _arranged(_raw_arguments(text, where), where, render)


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


def quote_lambdas(text: str) -> str:
    """`parse=lambda data: …` inside templates as `parse='lambda data: …'`, which is what Jinja can read.

    The reference product writes it bare. What is in quotes already is left alone.
    """
    if "lambda" not in text:
        return text
    return _TEMPLATE.sub(lambda found: _with_quoted_lambdas(found[0]), text)


def _with_quoted_lambdas(text: str) -> str:
    match = re.search(r"parse\s*=\s*(?=lambda\b)", text)
    if match is None:
        return text
    end = _end_of_argument(text, match.end())
    body = text[match.end() : end].strip()
    quoted = json.dumps(body, ensure_ascii=False)
    return text[: match.end()] + quoted + _with_quoted_lambdas(text[end:])


def _end_of_argument(text: str, start: int) -> int:
    """Where an argument that begins at `start` ends: at a bracket that closes the call, or a comma behind the colon."""
    depth, quote, body = 0, "", False
    at = start
    while at < len(text):
        sign = text[at]
        if quote:
            if sign == "\\":
                at += 1
            elif sign == quote:
                quote = ""
        elif sign in "\"'":
            quote = sign
        elif sign in "([{":
            depth += 1
        elif sign in ")]}":
            if depth == 0:
                return at
            depth -= 1
        elif sign == ":" and depth == 0:
            body = True
        elif sign == "," and depth == 0 and body:
            return at
        at += 1
    return at


def _raw_arguments(text: str, where: str) -> list[Any]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    plain = "\n".join(lines).strip()
    if not plain:
        return []
    looks_like_yaml = re.match(r"- |-$|\[|---\s|[A-Za-z_][\w-]*\s*:(\s|$)|\"|'|[|>]", plain, re.MULTILINE)
    if looks_like_yaml is None:
        return _words(plain, where)
    from pathlib import Path

    from streamline.project.yamlfile import kind_of, load_yaml

    value = load_yaml(Path(where), text=text, shown=where).data
    if isinstance(value, str):
        return _words(value, where)
    if isinstance(value, dict):
        return list(_from_mapping(value))
    if isinstance(value, list):
        return list(_from_list(value, where))
    raise ConfigError(
        f"dbt's arguments must be text, a list or a mapping, not {kind_of(value)}",
        where=where,
        hint="for example `--select my_model+`",
    )


def _words(text: str, where: str) -> list[str]:
    """Split as a shell does; a template is one piece, whatever spaces and quotes it holds."""
    templates: list[str] = []

    def hide(found: re.Match[str]) -> str:
        templates.append(found[0])
        return f"\ue010{len(templates) - 1}\ue011"

    hidden = _TEMPLATE.sub(hide, text.replace("\\\n", " "))
    try:
        words = shlex.split(hidden)
    except ValueError as error:
        raise ConfigError(f"dbt's arguments cannot be read: {error}", where=where, hint="close the quote") from None
    return [_MARK.sub(lambda found: templates[int(found[1])], word) for word in words]


def _from_list(values: Sequence[Any], where: str) -> Iterator[Any]:
    for value in values:
        if isinstance(value, str) and re.match(r"-[\w-]+\s", value):
            yield from _words(value, where)
        elif isinstance(value, dict):
            yield from _from_mapping(value)
        elif isinstance(value, list):
            yield from _from_list(value, where)
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


def _arranged(raw: Sequence[Any], where: str, render: Callable[[Any], Any]) -> Arguments:
    found = Arguments()
    queue = list(raw)
    if queue and queue[0] == "dbt":
        del queue[0]
    if queue and isinstance(queue[0], str) and queue[0] in COMMANDS:
        found.command = [queue.pop(0)]
        if found.command[0] in ("docs", "source") and queue and not _is_option(queue[0]):
            found.command.append(str(queue.pop(0)))
        found.command = command_words(" ".join(found.command), where)
    while queue:
        word = queue.pop(0)
        option, equals, value = word.partition("=") if _is_option(word) else (word, "", "")
        if isinstance(option, str) and option in _FORBIDDEN:
            raise ConfigError(f"{option} cannot be set here", where=where, hint=_FORBIDDEN[option])
        if not isinstance(option, str) or option not in _TAKEN:
            found.rest += _rendered(word, render)
            continue
        if not equals:
            if not queue:
                raise ConfigError(f"{option} needs a value", where=where)
            value = queue.pop(0)
        if option == "--vars":
            found.vars.update(_variables(value, where, render))
        else:
            setattr(found, _TAKEN[option], str(render(value)))
    return found


def _is_option(word: object) -> bool:
    return isinstance(word, str) and word.startswith("-") and len(word) > 1


def _rendered(word: Any, render: Callable[[Any], Any]) -> list[str]:
    value = render(word)
    if isinstance(value, list):
        return [_text(one) for one in value]
    # A template alone that comes to nothing is an option left out.
    return [] if value is None or (value == "" and value != word) else [_text(value)]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _variables(value: Any, where: str, render: Callable[[Any], Any]) -> dict[str, Any]:
    """What `--vars` says. Its YAML is read before its templates are rendered: no value can break it."""
    if isinstance(value, str):
        import yaml

        if _TEMPLATE.fullmatch(value.strip()):
            value = render(value)
        if isinstance(value, str):
            from streamline.project.quoting import quote_templates

            try:
                value = yaml.safe_load(_protected(value, quote_templates))
            except yaml.YAMLError as error:
                raise ConfigError(
                    f"--vars is not YAML: {error}", where=where, hint="for example --vars '{start: 2026-03-04}'"
                ) from None
    if not isinstance(value, dict):
        raise ConfigError("--vars must be a mapping", where=where, hint="for example --vars '{start: 2026-03-04}'")
    return {str(key): render(one) for key, one in value.items()}


def _protected(text: str, quote_templates: Callable[[str], str]) -> str:
    """Flow mappings with bare templates, such as `{n: {{ variables('n') }}}`: the template in quotes."""
    if not _TEMPLATE.search(text):
        return text
    parts: list[str] = []
    at, quote = 0, ""
    while at < len(text):
        if not quote and text.startswith("{{", at) and (end := text.find("}}", at)) > 0:
            template = text[at : end + 2]
            parts.append("'" + template.replace("'", "''") + "'")
            at = end + 2
            continue
        sign = text[at]
        if quote and text.startswith("{{", at) and (end := text.find("}}", at)) > 0:
            template = text[at : end + 2]
            escaped = template.replace("'", "''") if quote == "'" else template.replace('"', '\\"')
            parts.append(escaped)
            at = end + 2
            continue
        if sign in "\"'":
            quote = "" if quote == sign else quote or sign
        parts.append(sign)
        at += 1
    return "".join(parts) if "\n" not in text else quote_templates("".join(parts))
