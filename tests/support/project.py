"""A project of fakes in a temporary folder, and the real command run inside it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner

from streamline.cli.main import main
from tests.support import answers, preloaded
from tests.support.processes import Process, children_of_runs, kill_all, wait_until

REPOSITORY = Path(__file__).parents[2]
HOSTILE = REPOSITORY / "tests" / "conformance" / "hostile"
PYTHON = [sys.executable, "-S", "-E", "-s"]
"""How fakes are started: no site-packages, no environment, hence in milliseconds."""

CONNECTOR_COMMANDS = ("check", "dead-letters", "explain", "run", "streams")
"""Commands that start connectors."""

RUN_SECONDS = 60.0
"""A command that takes longer has timed out: its process group is killed and its output shown."""


class Completed:
    """The result of a command: `code`, `out`, `err`, and `text`, both outputs."""

    def __init__(self, argv: Sequence[str], code: int, out: str, err: str) -> None:
        self.argv = argv
        self.code = code
        self.out = out
        self.err = err

    @property
    def text(self) -> str:
        """Standard output, then standard error."""
        return f"{self.out}\n{self.err}"

    @property
    def last_line(self) -> str:
        """The last non-empty line of standard output or, if that is empty, of standard error."""
        lines = [line for line in (self.out.strip() or self.err.strip()).splitlines() if line.strip()]
        return lines[-1] if lines else ""

    def expect(self, code: int, *patterns: str) -> Completed:
        """Assert the exit code, no traceback, and that each pattern is found in the outputs (case aside)."""
        assert self.code == code, f"exit code {self.code}, not {code}\n{self}"
        assert "Traceback (most recent call last)" not in self.err, f"a traceback of our own\n{self}"
        for pattern in patterns:
            assert re.search(pattern, self.text, re.IGNORECASE | re.DOTALL), f"nothing says {pattern!r}\n{self}"
        return self

    def __repr__(self) -> str:
        return f"$ {' '.join(self.argv)}\n[{self.code}]\n--- stdout\n{self.out[-6000:]}\n--- stderr\n{self.err[-6000:]}"


class Running:
    """A command that was started and not waited for yet.

    Args:
        batch: the command may run a batch pipeline.
        connectors: it may start bundled connectors or fakes.
        lean: it needs no tables of data.
    """

    def __init__(
        self,
        argv: list[str],
        cwd: Path,
        env: Mapping[str, str],
        *,
        batch: bool = False,
        connectors: bool = False,
        lean: bool = False,
    ) -> None:
        self.argv = argv
        self._out = (cwd / f".out-{time.monotonic_ns()}").open("w+b")
        self._err = (cwd / f".err-{time.monotonic_ns()}").open("w+b")
        with open(os.devnull, "rb") as null:
            self.process = preloaded.start(
                argv,
                cwd=cwd,
                env=env,
                stdin=null.fileno(),
                stdout=self._out,
                stderr=self._err,
                spare=batch,
                connectors=connectors,
                lean=lean,
            )
        Path(self._out.name).unlink()
        Path(self._err.name).unlink()

    def finish(self, seconds: float = RUN_SECONDS) -> Completed:
        """Wait for its end.

        Raises:
            AssertionError: it did not end; its group has been killed, the message holds its output.
        """
        hung = False
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            hung = True
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        texts = []
        for file in (self._out, self._err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
            file.close()
        completed = Completed(self.argv[2:], self.process.returncode, *texts)
        assert not hung, f"did not end within {seconds} s\n{completed}"
        return completed

    def kill(self) -> Completed:
        """SIGKILL to the process itself, nothing else of its group, and what it had printed."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        return self.finish()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, as an operator's Ctrl-C or `kill` would."""
        self.process.send_signal(number)


class Block:
    """A block of a pipeline under test; made by `tap`, `target`, `transformer`, `mapper`."""

    def __init__(
        self,
        uuid: str,
        kind: str,
        text: str,
        *,
        language: str = "yaml",
        plugin: tuple[str, dict[str, Any]] | None = None,
        entry: dict[str, Any] | None = None,
    ) -> None:
        self.uuid = uuid
        self.kind = kind
        self.text = text
        self.language = language
        self.plugin = plugin
        self.entry = entry or {}


def fake(file: str, **keys: Any) -> dict[str, Any]:
    """A plugin entry for a fake of `tests/conformance/hostile`; `args` are appended to its command."""
    args = keys.pop("args", [])
    return {"command": [*PYTHON, str(HOSTILE / f"{file}.py"), *args], **keys}


def tap(
    name: str,
    config: dict[str, Any] | None = None,
    *,
    uuid: str = "load",
    plugin: dict[str, Any] | None = None,
    builtin: bool = False,
    entry: dict[str, Any] | None = None,
    **keys: Any,
) -> Block:
    """A source block on the fake `tap_<name>.py` (or on a bundled connector, `builtin`).

    Args:
        name: the fake's file name without `tap_`.
        config: what stands at `config:` in the block's file.
        plugin: more keys of the plugin's entry in streamline.yaml; `args` go to its command.
        entry: more keys of the block's entry in metadata.yaml.
        keys: more keys of the block's file (`streams`, `max_parallel`, `max_duration` …).
    """
    called = "tap-" + name.replace("_", "-")
    text = yaml.safe_dump({"source": called, "config": config or {}, **keys}, sort_keys=False)
    own = None if builtin else (called, fake("tap_" + name, **(plugin or {})))
    return Block(uuid, "data_loader", text, plugin=own, entry=entry)


def target(
    name: str = "keyed",
    config: dict[str, Any] | None = None,
    *,
    uuid: str = "export",
    plugin: dict[str, Any] | None = None,
    builtin: bool = False,
    entry: dict[str, Any] | None = None,
    **keys: Any,
) -> Block:
    """A destination block on the fake `target_<name>.py`, writing to out.db if the config says no other path."""
    called = "target-" + name.replace("_", "-")
    settings = (config or {}) if builtin else {"path": "out.db", **(config or {})}
    text = yaml.safe_dump({"destination": called, "config": settings, **keys}, sort_keys=False)
    own = None if builtin else (called, fake("target_" + name, **(plugin or {})))
    return Block(uuid, "data_exporter", text, plugin=own, entry=entry)


def transformer(code: str, *, uuid: str = "change", entry: dict[str, Any] | None = None) -> Block:
    """A Python transformer block with this source text."""
    return Block(uuid, "transformer", code, language="python", entry=entry)


def mapper(name: str, config: dict[str, Any] | None = None, *, uuid: str = "map") -> Block:
    """A mapper block on the fake `mapper_<name>.py`."""
    called = "mapper-" + name.replace("_", "-")
    text = yaml.safe_dump({"mapper": called, "config": config or {}})
    return Block(uuid, "transformer", text, plugin=(called, fake("mapper_" + name)))


FOLDERS = {"data_loader": "data_loaders", "transformer": "transformers", "data_exporter": "data_exporters"}


class Project:
    """A project folder. Blocks are chained: all sources → each transformer → all destinations."""

    batch_commands: Sequence[str] = ()
    """Commands that start workers for blocks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings: dict[str, Any] = {"name": "shop", "plugins": {}}
        self.bundled = False
        """Whether a pipeline has bundled connectors."""
        self.python = False
        """Whether a pipeline of type integration has blocks in Python."""
        self.env = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(root / "home"),
            "TMPDIR": str(root / "tmp"),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(REPOSITORY),
            # What ignores TERM is killed soon: tests have no time to be patient.
            "STREAMLINE_TERM_SECONDS": "0.5",
            "STREAMLINE_INTERRUPT_SECONDS": "1",
        }
        for folder in ("home", "tmp"):
            (root / folder).mkdir(parents=True)

    # Making.

    def pipeline(self, name: str, *blocks: Block, **keys: Any) -> None:
        """Write (or rewrite) a pipeline of type integration with these blocks; `keys` go to its metadata.yaml."""
        sources = [block.uuid for block in blocks if block.kind == "data_loader"]
        upstream = sources
        entries = []
        for block in sorted(blocks, key=lambda block: list(FOLDERS).index(block.kind)):
            above = [] if block.kind == "data_loader" else upstream
            entries.append(
                {
                    "uuid": block.uuid,
                    "type": block.kind,
                    "language": block.language,
                    "upstream_blocks": above,
                    **block.entry,
                }
            )
            if block.kind == "transformer":
                upstream = [block.uuid]
            self.bundled |= block.plugin is None and block.kind != "transformer"
            self.python |= block.language == "python"
            if block.plugin:
                self.settings["plugins"][block.plugin[0]] = block.plugin[1]
            self.write(
                f"{FOLDERS[block.kind]}/{block.uuid}.{'py' if block.language == 'python' else 'yaml'}", block.text
            )
        metadata = {"name": name, "uuid": name, "type": "integration", **keys, "blocks": entries}
        self.write(f"pipelines/{name}/metadata.yaml", yaml.safe_dump(metadata, sort_keys=False))
        self.write(f"pipelines/{name}/__init__.py", "")
        self.write("streamline.yaml", yaml.safe_dump(self.settings, sort_keys=False))

    def write(self, path: str, text: str) -> Path:
        """Write a file of the project."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def write_json(self, path: str, value: Any) -> Path:
        """Write a JSON file of the project."""
        return self.write(path, json.dumps(value))

    # Running.

    def start(self, *args: str, env: Mapping[str, str] | None = None) -> Running:
        """Start a command inside the project."""
        argv = [sys.executable, "-m", "streamline", *args]
        if args[0] == "run" and self.settings.get("plugins") and "state" not in self.settings and not preloaded.real:
            answers.recall(self.root)
        batch = args[0] in self.batch_commands or (args[0] == "run" and self.python)
        fakes = bool(self.settings.get("plugins")) and args[0] in CONNECTOR_COMMANDS
        return Running(
            argv,
            self.root,
            {**self.env, **(env or {})},
            batch=batch,
            connectors=self.bundled or fakes,
            lean=not (batch or self.bundled),
        )

    def command(self, *args: str, env: Mapping[str, str] | None = None, seconds: float = RUN_SECONDS) -> Completed:
        """Run a command inside the project to its end."""
        return self.start(*args, env=env).finish(seconds)

    def run(
        self, *args: str, pipeline: str = "p", env: Mapping[str, str] | None = None, seconds: float = RUN_SECONDS
    ) -> Completed:
        """`streamline run p …`, and whatever its end: nothing that it started is left."""
        completed = self.command("run", pipeline, *args, env=env, seconds=seconds)
        self.assert_nothing_left(completed)
        return completed

    # Reading back.

    def rows(self, stream: str = "numbers", path: str = "out.db") -> list[dict[str, Any]]:
        """The records of a stream in a keyed target, in the order of their keys; none if it has made no table yet."""
        if not (self.root / path).exists():
            return []
        with contextlib.closing(sqlite3.connect(self.root / path, timeout=30)) as db:
            try:
                found = db.execute("SELECT key, line FROM rows WHERE stream = ?", (stream,)).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" not in str(error):
                    raise
                return []
        found.sort(key=lambda row: json.loads(row[0]) if row[0].startswith("[") else [int(row[0][1:])])
        return [json.loads(line)["record"] for _, line in found]

    def ids(self, stream: str = "numbers", path: str = "out.db") -> list[int]:
        """The `id`s of a stream in a keyed target, ascending."""
        return sorted(row["id"] for row in self.rows(stream, path))

    def lines(self, path: str = "log.jsonl") -> list[str]:
        """What a target with `log: log.jsonl` was sent, line by line."""
        file = self.root / path
        return file.read_bytes().decode("utf-8", "surrogatepass").split("\n")[:-1] if file.exists() else []

    def messages(self, path: str = "log.jsonl") -> list[dict[str, Any]]:
        """The same, decoded."""
        return [json.loads(line) for line in self.lines(path)]

    def state_rows(self, *args: str, pipeline: str = "p") -> list[dict[str, Any]]:
        """`streamline state list p --json`."""
        return self._list("state", "list", pipeline, *args)

    def state(self, pipeline: str = "p") -> dict[str, Any]:
        """Each stream's saved bookmark, as the tap wrote it."""
        return {row["stream"]: row["value"] for row in self.state_rows(pipeline=pipeline)}

    def position(self, stream: str = "numbers", pipeline: str = "p") -> Any:
        """The saved `replication_key_value` of a stream; None where nothing is saved."""
        value = self.state(pipeline).get(stream)
        return value.get("replication_key_value") if isinstance(value, dict) else value

    def runs(self) -> list[dict[str, Any]]:
        """`streamline runs list --json`."""
        return self._list("runs", "list")

    def dead_letters(self, pipeline: str = "p") -> list[dict[str, Any]]:
        """`streamline dead-letters list p --json`."""
        return self._list("dead-letters", "list", pipeline)

    def _list(self, *args: str) -> list[dict[str, Any]]:
        """What a command prints with `--json`; run in this process, which takes a fraction of the time."""
        result = CliRunner(env=self.env).invoke(main, ["--project", str(self.root), *args, "--json"])
        assert result.exit_code == 0, result.output
        rows: list[dict[str, Any]] = json.loads(result.stdout)
        return rows

    def spied(self, role: str = "tap", folder: str = "spy", *, discover: bool = False) -> list[dict[str, Any]]:
        """What each fake with `spy: spy` was given, in the order of their starts."""
        reports = [json.loads(path.read_text()) for path in sorted((self.root / folder).glob("*.json"))]
        return [r for r in reports if r["role"] == role and (discover or not r["discover"])]

    def logs(self) -> str:
        """Everything below .streamline/runs, as text."""
        folder = self.root / ".streamline" / "runs"
        return "\n".join(path.read_text("utf-8", "replace") for path in sorted(folder.rglob("*")) if path.is_file())

    # Looking for leftovers.

    def assert_nothing_left(self, context: object = "") -> None:
        """No process with a run's id is alive, and no private config file is there."""
        left: list[Process] = []

        def gone() -> bool:
            left[:] = children_of_runs(self.root)
            return not left

        try:
            wait_until(gone, "no process is left over", 3)
        except AssertionError:
            raise AssertionError(f"processes still running: {left}\n{context}") from None

    def close(self) -> None:
        """Kill processes that a failed test left running."""
        kill_all(self.root)
        answers.learn(self.root)
