"""What the taps and targets of this folder share: arguments, discovery, writing messages.

They run as `python -S -E -s FILE`, with nothing but the standard library and few modules of it, so that a run
in a test costs milliseconds. None of them knows anything about Streamline: they are what the engine meets in
the wild.

Every one of them takes, in its config:

- `spy`: a folder; the program writes there what it was given (`argv`, `environ`, `state`, `catalog`, the mode of
  its config file), one JSON file per process;
- `select_all` (taps): send streams that no catalog selects, to try it in a shell.
"""

from __future__ import annotations

import os
import sys
import time

from _text import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

USAGE = {
    "tap": ["--config", "--state", "--catalog", "--discover"],
    "legacy tap": ["--config", "--state", "--properties", "--discover"],
    "target": ["--config"],
    "mapper": ["--config"],
}


def arguments(role: str) -> dict[str, Any]:
    """Read the command line as argparse-made plugins do: `--help` answers, what is unknown is exit code 2.

    `--able=a,b` is no real plugin's option: a test's plugin entry gives it, to make the program answer `--about` as
    plugins made with the Singer SDK do, with `a` and `b` among its capabilities.
    """
    name = os.path.basename(sys.argv[0]).removesuffix(".py").replace("_", "-")  # noqa: PTH119 (pathlib is slow)
    known = USAGE[role]
    options: dict[str, Any] = {"name": name}
    able: list[str] | None = None
    rest = sys.argv[1:]
    while rest:
        option, _, value = rest.pop(0).partition("=")
        if option == "--able":
            able = [word for word in value.split(",") if word]
        elif option in ("--help", "-h"):
            print(f"usage: {name} " + " ".join(f"[{known_option}]" for known_option in known))
            sys.exit(0)
        elif option == "--about" and able is not None:
            about = {"name": name, "version": "1.0", "sdk_version": "0.54.9", "capabilities": able, "settings": {}}
            print(dumps(about))
            sys.exit(0)
        elif option == "--discover" and option in known:
            options["discover"] = True
        elif option in known:
            options[option[2:]] = value or rest.pop(0)
        else:
            print(f"usage: {name}\n{name}: error: unrecognized arguments: {option}", file=sys.stderr)
            sys.exit(2)
    if "config" not in options:
        print(f"{name}: error: the following arguments are required: --config", file=sys.stderr)
        sys.exit(2)
    return options


def read_json(path: str | None) -> Any:
    """The file's value; None without a path."""
    if not path:
        return None
    with open(path, encoding="utf-8") as file:
        return loads(file.read())


def wait_for(path: str, seconds: float = 20.0) -> bool:
    """Wait until a file is there: how a test says 'go on'. False when it never came."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.path.exists(path):  # noqa: PTH110
            return True
        time.sleep(0.005)
    return False


def once(path: str | None) -> bool:
    """Whether this is the first time that anyone asks about `path`; always true without a path."""
    if not path:
        return True
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return False
    return True


def spy(role: str, given: dict[str, Any], config: dict[str, Any], more: dict[str, Any]) -> None:
    """Write down what this process was given, if its config asks for it."""
    folder = config.get("spy")
    if not folder:
        return
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    report = {
        "role": role,
        "name": given["name"],
        "pid": os.getpid(),
        "at": time.time_ns(),
        "argv": [sys.executable, *sys.argv],
        "environ": dict(os.environ),
        "config_mode": os.stat(given["config"]).st_mode & 0o777,  # noqa: PTH116
        "config_path": given["config"],
        "discover": bool(given.get("discover")),
        **more,
    }
    path = f"{folder}/{report['at']}-{role}-{report['pid']}.json"
    with open(path + ".part", "w", encoding="utf-8") as file:
        file.write(dumps(report))
    os.rename(path + ".part", path)  # noqa: PTH104


def stream(
    name: str,
    properties: dict[str, Any],
    *,
    key: list[str] | None = None,
    replication_key: str | None = None,
    tap_stream_id: str | None = None,
    metadata: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A catalog entry with full metadata. A property is a JSON schema, or the name of a type (nullable but in keys)."""
    keys = ["id"] if key is None else key
    schemas = {
        column: kind if isinstance(kind, dict) else {"type": [kind] if column in keys else ["null", kind]}
        for column, kind in properties.items()
    }
    top: dict[str, Any] = {"inclusion": "available", "table-key-properties": keys, **(metadata or {})}
    if replication_key:
        top["valid-replication-keys"] = [replication_key]
    return {
        "tap_stream_id": tap_stream_id or name,
        "stream": name,
        "key_properties": keys,
        "schema": {"type": "object", "properties": schemas},
        "metadata": [
            {"breadcrumb": [], "metadata": top},
            *(
                {
                    "breadcrumb": ["properties", column],
                    "metadata": {"inclusion": "automatic" if column in keys else "available"},
                }
                for column in schemas
            ),
        ],
    }


class Tap:
    """A tap that has begun: arguments, config and state read, `--help` and `--about` answered."""

    def __init__(self, role: str = "tap") -> None:
        self.given = arguments(role)
        self.config: dict[str, Any] = read_json(self.given["config"])
        self.saved: dict[str, Any] = read_json(self.given.get("state")) or {}
        self.catalog: dict[str, Any] | None = read_json(self.given.get("catalog") or self.given.get("properties"))
        self.streams: dict[str, dict[str, Any]] = {}
        self.out = sys.stdout
        spy("tap", self.given, self.config, {"state": self.saved, "catalog": self.catalog})

    def offer(self, *streams: dict[str, Any]) -> None:
        """Answer `--discover`, else take the catalog that was given; `self.streams` are the selected ones, by name."""
        if self.given.get("discover"):
            if path := self.config.get("discovery_waits_for"):
                wait_for(path)
            if (path := self.config.get("discovery_fails_once")) and once(path):
                self.die("connection refused")
            print(dumps({"streams": streams}))
            sys.exit(0)
        for entry in self.catalog["streams"] if self.catalog else streams:
            top: dict[str, Any] = next((m["metadata"] for m in entry["metadata"] if not m["breadcrumb"]), {})
            # As singer-python does: nothing is selected by itself.
            if top.get("selected") or entry["schema"].get("selected") or self.config.get("select_all"):
                self.streams[entry["stream"]] = entry

    def selected(self, name: str) -> bool:
        """Whether the stream is to be sent."""
        return name in self.streams

    def setting(self, name: str, key: str) -> Any:
        """A replication setting (`replication-method`, `replication-key`) where a singer-python tap looks for it."""
        return next((m["metadata"].get(key) for m in self.streams[name]["metadata"] if not m["breadcrumb"]), None)

    def bookmark(self, stream_id: str) -> dict[str, Any]:
        """The saved bookmark of a stream, `{}` without one."""
        bookmark: dict[str, Any] = (self.saved.get("bookmarks") or {}).get(stream_id) or {}
        return bookmark

    def message(self, **fields: Any) -> None:
        """Write one message, as singer-python spells it."""
        self.out.write(dumps(fields) + "\n")

    def schema(self, name: str, **more: Any) -> None:
        """Write the stream's SCHEMA with its selected columns."""
        entry = self.streams[name]
        off = {
            m["breadcrumb"][1]
            for m in entry["metadata"]
            if len(m["breadcrumb"]) == 2
            and m["metadata"].get("inclusion") != "automatic"
            and m["metadata"].get("selected") is False
        }
        columns = {column: kind for column, kind in entry["schema"]["properties"].items() if column not in off}
        schema = {"type": "object", "properties": columns}
        key = entry.get("key_properties")
        self.message(type="SCHEMA", stream=name, **{"schema": schema, "key_properties": key, **more})

    def record(self, name: str, record: dict[str, Any], **more: Any) -> None:
        """Write a RECORD."""
        self.message(type="RECORD", stream=name, record=record, **more)

    def state(self, value: Any) -> None:
        """Write a STATE and flush: the target may prove it from now on."""
        self.message(type="STATE", value=value)
        self.out.flush()

    def raw(self, text: str) -> None:
        """Write text as it is, and flush."""
        self.out.write(text)
        self.out.flush()

    def log(self, text: str) -> None:
        """Write a line to stderr."""
        print(text, file=sys.stderr, flush=True)

    def die(self, text: str, code: int = 1) -> NoReturn:
        """Log a line and leave with an exit code, what was written before flushed."""
        self.out.flush()
        self.log(text)
        sys.exit(code)
