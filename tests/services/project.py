"""A Streamline project for a test: files as a user would write them, run by the real command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RUN_SECONDS = 600

# Connectors of the package index from before Python 3.10 expect these names; see plugins.yaml.
SITECUSTOMIZE = """\
import collections
import collections.abc

vars(collections).update({name: value for name, value in vars(collections.abc).items() if name[0].isupper()})
"""

FOLDERS = {"data_loader": "data_loaders", "transformer": "transformers", "data_exporter": "data_exporters"}


@dataclass(frozen=True)
class Outcome:
    """What one command did."""

    code: int
    output: str
    errors: str

    def explain(self) -> str:
        """For an assertion's message."""
        return f"exit {self.code}\n{self.output[-4000:]}\n{self.errors[-8000:]}"


@dataclass(frozen=True)
class Running:
    """A command under way."""

    process: subprocess.Popen[str]
    output: Path
    errors: Path

    def end(self, timeout: float = RUN_SECONDS) -> Outcome:
        """Wait for its end; it is killed, and the test fails, after `timeout` seconds."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.stop()
            raise AssertionError(f"no end after {timeout} s: {self._outcome().explain()}") from None
        return self._outcome()

    def stop(self) -> None:
        """Kill it if it still runs."""
        self.process.kill()
        self.process.wait()

    def _outcome(self) -> Outcome:
        return Outcome(self.process.returncode, self.output.read_text(), self.errors.read_text())


class Project:
    """A project folder with integration pipelines.

    Args:
        root: an empty folder.
        plugins: names of entries of plugins.yaml that the project may use.
    """

    def __init__(self, root: Path, plugins: Sequence[str] = ()) -> None:
        self.root = root
        self._commands = 0
        entries = yaml.safe_load((HERE / "plugins.yaml").read_text(encoding="utf-8"))["plugins"]
        (root / "shims").mkdir(parents=True)
        (root / "shims" / "sitecustomize.py").write_text(SITECUSTOMIZE)
        self._write("streamline.yaml", {"name": "test", "plugins": {name: entries[name] for name in plugins}})

    def pipeline(
        self,
        name: str,
        *,
        source: Mapping[str, Any],
        destination: Mapping[str, Any],
        transform: str | Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        """Write a pipeline source → (transformer) → destination, replacing one of that name.

        Args:
            source, destination: the blocks' YAML.
            transform: a Python transformer's text, or a mapper block's YAML.
            settings: more top-level keys of metadata.yaml.
        """
        blocks: list[tuple[str, str, str | Mapping[str, Any]]] = [(f"load_{name}", "data_loader", source)]
        if transform is not None:
            blocks.append((f"change_{name}", "transformer", transform))
        blocks.append((f"export_{name}", "data_exporter", destination))
        entries = []
        for number, (uuid, kind, content) in enumerate(blocks):
            is_python = isinstance(content, str)
            entries.append(
                {
                    "uuid": uuid,
                    "type": kind,
                    "language": "python" if is_python else "yaml",
                    "upstream_blocks": [blocks[number - 1][0]] if number else [],
                }
            )
            self._write(f"{FOLDERS[kind]}/{uuid}.{'py' if is_python else 'yaml'}", content)
        metadata = {"name": name, "uuid": name, "type": "integration", "blocks": entries, **settings}
        self._write(f"pipelines/{name}/metadata.yaml", metadata)
        self._write(f"pipelines/{name}/__init__.py", "")

    def _write(self, path: str, content: str | Mapping[str, Any]) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else yaml.safe_dump(dict(content), sort_keys=False)
        file.write_text(text, encoding="utf-8")

    def start(self, *arguments: str) -> Running:
        """Start `streamline ARGUMENTS` in the project folder."""
        path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part)
        # Files, not pipes: nobody reads while the command runs, and a full pipe would stop it.
        self._commands += 1
        output, errors = (self.root / f"command-{self._commands}.{name}" for name in ("out", "err"))
        with output.open("w") as out, errors.open("w") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "streamline", *arguments],
                cwd=self.root,
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                text=True,
            )
        return Running(process, output, errors)

    def command(self, *arguments: str, timeout: float = RUN_SECONDS) -> Outcome:
        """Run `streamline ARGUMENTS` in the project folder to its end, whatever its exit code."""
        return self.start(*arguments).end(timeout)

    def run(self, pipeline: str, *options: str, expect: int = 0) -> Outcome:
        """`streamline run PIPELINE`; fails the test unless the exit code is `expect`."""
        outcome = self.command("run", pipeline, *options)
        assert outcome.code == expect, outcome.explain()
        return outcome

    def json(self, *arguments: str) -> Any:
        """What a listing command prints with `--json`."""
        outcome = self.command(*arguments, "--json")
        assert outcome.code == 0, outcome.explain()
        return json.loads(outcome.output)

    def moved(self, pipeline: str) -> dict[str, int]:
        """Records that the pipeline's newest run read, by stream."""
        newest = self.json("runs", "show")
        assert newest["pipeline"] == pipeline, newest
        return {name: stream["records"] for name, stream in newest["summary"]["streams"].items()}
