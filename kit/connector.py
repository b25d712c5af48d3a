"""Connector basics: documented settings, the command line, and errors in one line."""

from __future__ import annotations

import argparse
import difflib
import errno
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

VERSION = "0.1.0"

Config = Mapping[str, Any]
Kind = Literal["string", "integer", "number", "boolean", "array", "object"]

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


class ConnectorError(Exception):
    """A failure that the user can act on; printed as one line, exit code 1.

    Args:
        message: what happened, and where (file, line, stream, column).
        hint: what to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)


class ConfigError(ConnectorError):
    """Wrong settings or arguments, found before anything was read or written; exit code 2."""

    exit_code = 2


class Setting(NamedTuple):
    """One key of a connector's config file."""

    name: str
    kind: Kind
    description: str
    required: bool = False
    default: Any = None
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    exclusive: bool = False
    """It names a file that only one process at a time can have open."""
    items: Kind | None = None
    """The type of an array's items."""

    def schema(self) -> dict[str, Any]:
        """Return the setting as a JSON Schema, as `--about` prints it."""
        schema: dict[str, Any] = {"type": [self.kind] if self.required else [self.kind, "null"]}
        schema["description"] = self.description
        if self.default is not None:
            schema["default"] = self.default
        if self.choices:
            schema["enum"] = list(self.choices)
        if self.minimum is not None:
            schema["minimum"] = self.minimum
        if self.exclusive:
            schema["x-exclusive"] = True
        if self.items:
            schema["items"] = {"type": self.items}
        return schema

    def check(self, value: Any) -> None:
        """Check that the value has this setting's type and is one of its choices.

        Raises:
            ConfigError: it does not, or is not.
        """
        right = isinstance(value, _TYPES[self.kind]) and (self.kind == "boolean" or not isinstance(value, bool))
        if not right:
            raise ConfigError(f"setting {self.name!r} must be {self.kind}, not {value!r}", self.description)
        wrong = [item for item in value if not isinstance(item, _TYPES[self.items])] if self.items else []
        if wrong:
            raise ConfigError(f"setting {self.name!r} contains {wrong[0]!r}, not {self.items}", self.description)
        if self.choices and value not in self.choices:
            raise ConfigError(f"setting {self.name!r} is {value!r}", f"one of {', '.join(self.choices)}")
        if self.minimum is not None and value < self.minimum:
            raise ConfigError(f"setting {self.name!r} is {value!r}", f"at least {self.minimum:g}")


class Connector(NamedTuple):
    """A connector's specification: its config is checked against it, and `--about` prints it."""

    name: str
    description: str
    capabilities: tuple[str, ...]
    settings: tuple[Setting, ...]
    max_processes: int | None = None
    """How many processes may write at the same time; for targets only."""
    load_methods: tuple[str, ...] = ()
    """The load methods that a target supports: append, upsert, replace."""

    def about(self) -> dict[str, Any]:
        """Return the specification in the format of the Singer SDK, with `max_processes` added."""
        about: dict[str, Any] = {
            "name": self.name,
            "description": self.description,
            "version": VERSION,
            "capabilities": list(self.capabilities),
            "settings": {
                "type": "object",
                "properties": {setting.name: setting.schema() for setting in self.settings},
                "required": [setting.name for setting in self.settings if setting.required],
                "additionalProperties": False,
            },
        }
        if self.max_processes is not None:
            about["max_processes"] = self.max_processes
        if self.load_methods:
            about["load_methods"] = list(self.load_methods)
        return about

    def config(self, values: Any) -> dict[str, Any]:
        """Return the config, checked and with defaults.

        Raises:
            ConfigError: a key is unknown or missing, or its value is not allowed.
        """
        if not isinstance(values, dict):
            raise ConfigError("the config is not a JSON object")
        settings = {setting.name: setting for setting in self.settings}
        for name in values:
            if name not in settings:
                near = difflib.get_close_matches(name, settings, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(settings)}"
                raise ConfigError(f"unknown setting {name!r}", hint)
        config: dict[str, Any] = {}
        for name, setting in settings.items():
            value = values.get(name)
            if value is None:
                if setting.required:
                    raise ConfigError(f"setting {name!r} is missing", setting.description)
                config[name] = setting.default
            else:
                setting.check(value)
                config[name] = value
        return config


_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})


def disk_error(error: OSError, place: object) -> ConnectorError:
    """Describe an error of the operating system; where an open file is written, it names no file: `place` does."""
    hint = "make space there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return ConnectorError(f"{error.filename or place}: {error.strerror or error}", hint)


def log(level: str, message: str) -> None:
    """Print one line to standard error, in the format of singer-python's logger."""
    print(f"{level} {message}", file=sys.stderr, flush=True)


def read_json(path: str, what: str) -> Any:
    """Return the JSON value in a file; `what` is the argument that named it, for errors.

    Raises:
        ConfigError: the file cannot be read, or is not valid JSON.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
        return json.loads(text)
    except OSError as error:
        raise ConfigError(f"{what} {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{what} {path} is not valid JSON: {error}") from error


class Arguments(argparse.Namespace):
    """The parsed command line; `missing` is a target's, the four before it are a tap's."""

    config: str | None
    about: bool
    format: str
    discover: bool = False
    catalog: str | None = None
    properties: str | None = None
    state: str | None = None
    missing: str | None = None


def run(
    connector: Connector,
    argv: Sequence[str],
    work: Callable[[Config, Arguments], None],
    *,
    tap: bool,
    missing: Callable[[Config, Sequence[str]], list[str]] | None = None,
) -> int:
    """Parse the command line, check the config and call `work`; return the exit code.

    Used instead of singer-python's parser, which has no `--about` and always requires `--config`.

    Args:
        missing: returns those tables of a list that do not exist; for targets only.
    """
    parser = argparse.ArgumentParser(prog=connector.name, description=connector.description)
    parser.add_argument("-c", "--config", metavar="FILE", help="settings (JSON); see --about")
    if tap:
        parser.add_argument("-d", "--discover", action="store_true", help="print the catalog and exit")
        parser.add_argument("--catalog", metavar="FILE", help="the catalog that selects streams and columns")
        parser.add_argument("-p", "--properties", metavar="FILE", help="older name of --catalog")
        parser.add_argument("-s", "--state", metavar="FILE", help="the state that the last run printed (JSON)")
    if missing is not None:
        parser.add_argument(
            "--missing", metavar="FILE", help="print which of these tables (a JSON list) do not exist, and exit"
        )
    parser.add_argument("--about", action="store_true", help="print capabilities and settings and exit")
    parser.add_argument("--format", choices=["json", "text"], default="text", help="output format of --about")
    parser.add_argument("--version", action="version", version=f"{connector.name} {VERSION}")
    args = parser.parse_args(argv, namespace=Arguments())
    try:
        if args.about:
            print(json.dumps(connector.about(), indent=2) if args.format == "json" else _about_text(connector))
            return 0
        if not args.config:
            raise ConfigError("--config FILE is missing", "--about lists the settings")
        config = connector.config(read_json(args.config, "--config"))
        if missing is not None and args.missing is not None:
            print(json.dumps(missing(config, read_json(args.missing, "--missing"))))
        else:
            work(config, args)
        sys.stdout.flush()
    except ConnectorError as error:
        log("ERROR", f"{connector.name}: {error}".replace("\n", " "))
        return error.exit_code
    except BrokenPipeError:
        # Python flushes standard output at exit: send that to nowhere, without a second error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        log("ERROR", f"{connector.name}: standard output was closed by its reader")
        return 1
    except OSError as error:
        if error.errno not in _DISK:
            raise
        log("ERROR", f"{connector.name}: {disk_error(error, 'the disk')}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _about_text(connector: Connector) -> str:
    lines = [f"{connector.name} {VERSION}: {connector.description}", ""]
    lines += [f"capabilities: {', '.join(connector.capabilities)}", "settings:"]
    for setting in connector.settings:
        extra = "required" if setting.required else f"default {json.dumps(setting.default)}"
        lines.append(f"  {setting.name} ({setting.kind}, {extra}): {setting.description}")
    return "\n".join(lines)
