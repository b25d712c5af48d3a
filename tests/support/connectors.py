"""Run the bundled connectors as a shell does: by path, with JSON files, through pipes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support import preloaded

ROOT = Path(__file__).resolve().parents[2]
JSONObject = dict[str, Any]


def command(connector: str, *arguments: object) -> list[str]:
    """The command line of `tap-sqlite` and the like."""
    role, _, name = connector.partition("-")
    return [sys.executable, str(ROOT / f"{role}s" / "run.py"), name, *map(str, arguments)]


class Outcome:
    """Exit code and output of a connector."""

    def __init__(self, code: int, stdout: bytes, stderr: bytes) -> None:
        self.code = code
        self.stdout = stdout
        self.stderr = stderr.decode()

    @property
    def errors(self) -> list[str]:
        """Lines of standard error that are errors."""
        return [line for line in self.stderr.splitlines() if line.startswith("ERROR ")]

    @property
    def warnings(self) -> str:
        """Lines of standard error that are warnings."""
        return "\n".join(line for line in self.stderr.splitlines() if line.startswith("WARNING "))

    @property
    def lines(self) -> list[Any]:
        """Standard output, one JSON value a line."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def messages(self) -> list[JSONObject]:
        """Standard output, which holds messages of Singer only."""
        messages = self.lines
        assert all("type" in message for message in messages), f"{self.stdout!r}\n{self.stderr}"
        return messages

    def records(self, stream: str | None = None) -> list[JSONObject]:
        """The records of its RECORD messages."""
        found = [message for message in self.messages if message["type"] == "RECORD"]
        return [message["record"] for message in found if stream in (None, message["stream"])]

    @property
    def state(self) -> JSONObject:
        """The value of its last STATE message."""
        states: list[JSONObject] = [each["value"] for each in self.messages if each["type"] == "STATE"]
        return states[-1]

    def kinds(self) -> list[str]:
        """Return the types of its messages, without repetitions."""
        kinds = [message["type"] for message in self.messages]
        return [kind for place, kind in enumerate(kinds) if not place or kinds[place - 1] != kind]


def clean_environment() -> dict[str, str]:
    """Return the environment without variables that make this checkout importable."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def run(
    connector: str, folder: Path, config: Mapping[str, Any] | None, *arguments: object, given: bytes = b""
) -> Outcome:
    """Run a connector in a folder, with its config in a file there."""
    words = list(arguments)
    if config is not None:
        path = folder / "config.json"
        path.write_text(json.dumps(config))
        words += ["--config", path]
    argv = command(connector, *words)
    return Outcome(*preloaded.run(argv, given=given, cwd=folder, env=clean_environment()))


def attempt(
    target: str, folder: Path, messages: Sequence[JSONObject] | bytes, *, path: str, **settings: Any
) -> Outcome:
    """Run a target in a folder with these messages as its input.

    Args:
        path: its setting of this name, as the others.
    """
    given = messages if isinstance(messages, bytes) else lines(messages)
    return run(target, folder, {"path": path, **settings}, given=given)


def load(target: str, folder: Path, messages: Sequence[JSONObject] | bytes, **settings: Any) -> Outcome:
    """Run a target as `attempt` does; it ends well."""
    outcome = attempt(target, folder, messages, **settings)
    assert outcome.code == 0, outcome.stderr
    return outcome


def written(folder: Path, name: str, value: Any) -> Path:
    """A file that holds a JSON value."""
    path = folder / name
    path.write_text(json.dumps(value))
    return path


def choose(catalog: JSONObject, **methods: Any) -> JSONObject:
    """A catalog that selects the named streams only, FULL_TABLE for None, else INCREMENTAL by the columns given."""
    for entry in catalog["streams"]:
        selected = entry["tap_stream_id"] in methods
        root = next(marks["metadata"] for marks in entry["metadata"] if not marks["breadcrumb"])
        root["selected"] = selected
        columns = methods.get(entry["tap_stream_id"])
        if columns is not None:
            entry["replication_method"] = "INCREMENTAL"
            entry["bookmark_properties"] = columns
    return catalog


def lines(messages: Iterable[JSONObject]) -> bytes:
    """Messages as a tap writes them."""
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


def schema(stream: str, properties: JSONObject, key: Iterable[str] = ()) -> JSONObject:
    """A SCHEMA message; a property may be the name of its JSON type."""
    found = {
        name: {"type": ["null", property_]} if isinstance(property_, str) else property_
        for name, property_ in properties.items()
    }
    message = {"type": "SCHEMA", "stream": stream, "schema": {"type": "object", "properties": found}}
    return {**message, "key_properties": list(key)}


def record(stream: str, record: JSONObject, version: int | None = None) -> JSONObject:
    """A RECORD message."""
    message = {"type": "RECORD", "stream": stream, "record": record}
    return message if version is None else {**message, "version": version}


def state(value: Any) -> JSONObject:
    """A STATE message."""
    return {"type": "STATE", "value": value}


def activate(stream: str, version: int) -> JSONObject:
    """An ACTIVATE_VERSION message."""
    return {"type": "ACTIVATE_VERSION", "stream": stream, "version": version}
