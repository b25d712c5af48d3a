"""A plugin's entry in streamline.yaml."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from streamline.project.yamlfile import YamlFile, kind_of

Proof = Literal["echo", "exit"]


class _WrongEntryError(Exception):
    """The problem with a value, as the rest of a sentence that starts with its key."""


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class PluginEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A validated plugin entry. Without `pip`, `command` and `executable`, it adds settings to a bundled or installed
    connector.

    Args:
        name: the plugin's name.
        pip: the requirements of its environment.
        executable: its program in that environment; by default the package's only program.
        command: the program and its first arguments, for a plugin without an environment.
        overrides: requirements that override those of the packages.
        python: the environment's interpreter: a version (`3.9`) or a path.
        env: environment variables to set.
        pass_env: globs of environment variables to pass on.
        proof: `echo`: the plugin prints a STATE once all earlier records are durable; `exit`: only exit code 0 proves
            that records are durable.
        max_processes: the maximum number of its processes in a pipeline.
        prestart: the next process may start before the previous one has exited.
    """

    name: str
    pip: list[str] = msgspec.field(default_factory=list)
    executable: str | None = None
    command: list[str] = msgspec.field(default_factory=list)
    overrides: list[str] = msgspec.field(default_factory=list)
    python: str | None = None
    env: dict[str, str] = msgspec.field(default_factory=dict)
    pass_env: list[str] = msgspec.field(default_factory=list)
    proof: Proof = "echo"
    max_processes: int | None = None
    prestart: bool = False


def read_entry(yaml: YamlFile, name: str, entry: object, *, rendered: bool) -> PluginEntry:
    """Validate the entry of a plugin.

    Args:
        yaml: the file with the entry.
        name: the plugin's name.
        entry: the entry's value.
        rendered: templates are rendered; before that, a value of any type may be a template.

    Raises:
        ConfigError: the entry has an unknown key or an invalid value.
    """
    path = ("plugins", name)
    if not _NAME.fullmatch(name):
        yaml.fail(
            f"'{name}' is not a valid plugin name",
            path,
            hint="use letters, digits, '-', '_' and '.'",
            code="plugin.invalid",
        )
    if not isinstance(entry, dict):
        yaml.fail(
            f"the plugin '{name}' must be a mapping, not {kind_of(entry)}",
            path,
            hint=f'for example `{name}: {{pip: "{name}==1.0"}}`',
            code="plugin.invalid",
        )
    yaml.refuse_unknown(PluginEntry.__struct_fields__[1:], path)
    values: dict[str, Any] = {}
    for key, value in entry.items():
        if value is None:
            continue
        if not rendered and isinstance(value, str) and "{{" in value and key in _PENDING:
            continue
        try:
            values[key] = _READERS[key](value)
        except _WrongEntryError as error:
            yaml.fail(f"plugins.{name}.{key} {error}", (*path, key), code="plugin.invalid")
    _refuse_idle(yaml, name, entry)
    return PluginEntry(name=name, **values)


def _refuse_idle(yaml: YamlFile, name: str, entry: dict[Any, Any]) -> None:
    """Check that every key has an effect in combination with the others.

    Raises:
        ConfigError: a key has no effect.
    """
    path = ("plugins", name)
    keys = {key for key, value in entry.items() if value is not None and value != []}
    if {"command", "executable"} <= keys:
        yaml.fail(
            f"the plugin '{name}' has both `command:` and `executable:`",
            (*path, "executable"),
            hint="keep one of them; `command:` may begin with a program of the environment",
            code="plugin.invalid",
        )
    if "pip" in keys:
        return
    if "overrides" in keys:
        yaml.fail(
            f"the plugin '{name}' has `overrides:`, but no `pip:`",
            (*path, "overrides"),
            hint="add `pip:`, or remove `overrides:`",
            code="plugin.invalid",
        )
    command = entry.get("command")
    words = command.split() if isinstance(command, str) else command
    first = words[0] if isinstance(words, list) and words else None
    if "python" in keys and first not in ("python", "python3") and not (isinstance(first, str) and "{{" in first):
        yaml.fail(
            f"the plugin '{name}' has `python:`, but no `pip:` and no Python command",
            (*path, "python"),
            hint="`python:` applies to a `pip:` environment, or to a command that begins with `python`",
            code="plugin.invalid",
        )


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _WrongEntryError(f"must be text, not {kind_of(value)}" if value != "" else "must not be empty")
    return value.strip()


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [_text(value)]
    if not isinstance(value, list) or not value:
        actual = "an empty list" if value == [] else kind_of(value)
        raise _WrongEntryError(f"must be text or a list of texts, not {actual}")
    return [_text(item) for item in value]


def _requirements(value: object) -> list[str]:
    requirements = _texts(value)
    for line in requirements:
        if line.startswith("-") and not line.startswith(("-e ", "--editable ")):
            option = re.split(r"[\s=]", line)[0]  # its value may be a URL with a password
            raise _WrongEntryError(f"contains an option of pip ({option}); set options in uv's or pip's configuration")
    return requirements


def _command(value: object) -> list[str]:
    if isinstance(value, str):
        try:
            words = shlex.split(value)
        except ValueError as error:
            raise _WrongEntryError(f"cannot be split into words: {error}") from None
        if not words:
            raise _WrongEntryError("must not be empty")
        return words
    if not isinstance(value, list) or not value:
        raise _WrongEntryError(f"must be a list: the program, then its arguments; not {kind_of(value)}")
    return [_text(value[0]), *(_scalar(argument) for argument in value[1:])]


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise _WrongEntryError(f"must contain texts, not {kind_of(value)}")


def _python(value: object) -> str:
    # YAML reads `python: 3.10` as the number 3.1.
    if isinstance(value, float | int) and not isinstance(value, bool):
        raise _WrongEntryError('must be text: write it in quotes, as in python: "3.10"')
    return _text(value)


def _environment(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _WrongEntryError(f"must be a mapping of variables to texts, not {kind_of(value)}")
    for key in value:
        if not isinstance(key, str) or not key or "=" in key or "\0" in key:
            raise _WrongEntryError(f"contains the invalid variable name {key!r}")
    return {key: "" if item is None else _scalar(item) for key, item in value.items()}


def _proof(value: object) -> Proof:
    if value == "echo":
        return "echo"
    if value == "exit":
        return "exit"
    raise _WrongEntryError("must be echo or exit")


def _count(value: object) -> int:
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _WrongEntryError("must be a whole number above 0")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise _WrongEntryError(f"must be true or false, not {kind_of(value)}")
    return value


_READERS: dict[str, Callable[[Any], Any]] = {
    "pip": _requirements,
    "executable": _text,
    "command": _command,
    "overrides": lambda value: [] if value == [] else _requirements(value),
    "python": _python,
    "env": _environment,
    "pass_env": lambda value: [] if value == [] else _texts(value),
    "proof": _proof,
    "max_processes": _count,
    "prestart": _flag,
}
# Keys whose values may be templates, which are checked after rendering.
_PENDING = frozenset(("proof", "max_processes", "prestart", "env", "command"))
