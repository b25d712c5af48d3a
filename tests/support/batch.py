"""Batch pipelines under test: block files written as users write them, the real command, outputs read back."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.support.project import Completed, Project

FOLDERS = {
    "data_loader": "data_loaders",
    "transformer": "transformers",
    "data_exporter": "data_exporters",
    "sensor": "sensors",
    "custom": "custom",
    "callback": "callbacks",
    "conditional": "conditionals",
    "dbt": "dbts",
}
SUFFIXES = {"python": "py", "sql": "sql", "r": "r", "yaml": "yaml"}
SEED = """\
blocks:
- uuid: load_data
  type: data_loader
  upstream_blocks: []
  downstream_blocks: [transform_data]
- uuid: transform_data
  type: transformer
  upstream_blocks: [load_data]
  downstream_blocks: [export_data]
- uuid: export_data
  type: data_exporter
  upstream_blocks: [transform_data]
  downstream_blocks: []
created_at: '2026-03-04 12:00:00.000000+00:00'
name: my_pipeline
type: python
uuid: my_pipeline
"""
"""The metadata.yaml of the document that describes the product."""


class BatchProject(Project):
    """A project whose pipelines are made of block files. `entries` of the pipeline `p` are written when it is run."""

    batch_commands = ("run", "test")

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.write("streamline.yaml", "name: shop\n")
        self.entries: dict[str, list[dict[str, Any]]] = {"blocks": [], "callbacks": [], "conditionals": []}
        self.keys: dict[str, Any] = {}
        self.type = "python"

    def block(
        self,
        uuid: str,
        code: str,
        *,
        type: str = "transformer",
        upstream: Sequence[str] | None = None,
        language: str = "python",
        **entry: Any,
    ) -> None:
        """Add a block: its file, and its entry. Code without an import of decorators gets the usual ones injected.

        Args:
            upstream: default: the previous block, except for data loaders, sensors and callbacks.
        """
        self.write(f"{FOLDERS[type]}/{uuid}.{SUFFIXES[language]}", textwrap.dedent(code))
        group = {"callback": "callbacks", "conditional": "conditionals"}.get(type, "blocks")
        if upstream is None:
            before = [one["uuid"] for one in self.entries["blocks"]][-1:]
            upstream = [] if type in ("data_loader", "sensor", "callback") else before
        found = {"uuid": uuid, "type": type, "language": language, "upstream_blocks": list(upstream), **entry}
        self.entries[group].append(found)
        self.save()

    def save(self, name: str = "p") -> None:
        """Write the pipeline's metadata.yaml."""
        groups = {key: value for key, value in self.entries.items() if value or key == "blocks"}
        metadata = {"name": name, "uuid": name, "type": self.type, **self.keys, **groups}
        self.write(f"pipelines/{name}/metadata.yaml", yaml.safe_dump(metadata, sort_keys=False))
        self.write(f"pipelines/{name}/__init__.py", "")

    def output(self, uuid: str, child: int | None = None) -> Any:
        """Return a block's stored output as its downstream blocks receive it."""
        from streamline.outputs.store import open_output

        folder = self.root / ".streamline" / "data" / "p" / uuid
        return open_output(folder if child is None else folder / str(child)).value()

    def children(self, uuid: str) -> list[Any]:
        """Return the outputs of a dynamic block's children, in order."""
        folder = self.root / ".streamline" / "data" / "p" / uuid
        numbers = sorted(int(one.name) for one in folder.iterdir() if one.name.isdecimal())
        return [self.output(uuid, number) for number in numbers]

    def statuses(self, run: str | None = None) -> dict[str, str]:
        """Return each block's status in a run (default: the latest), from `streamline runs show --json`."""
        completed = self.command("runs", "show", *([run] if run else []), "--json").expect(0)
        return {block["uuid"]: block["status"] for block in json.loads(completed.out)["blocks"]}

    def shown(self) -> dict[str, Any]:
        """`streamline runs show --json` of the latest run."""
        found: dict[str, Any] = json.loads(self.command("runs", "show", "--json").expect(0).out)
        return found

    def lines(self, path: str = "log.txt") -> list[str]:
        """Return the lines that blocks appended to a file of the project."""
        file = self.root / path
        return file.read_text("utf-8").splitlines() if file.exists() else []


def failed(completed: Completed, *patterns: str) -> Completed:
    """Assert exit code 1 and that the output matches each pattern; the user's own traceback is allowed."""
    import re

    assert completed.code == 1, completed
    for pattern in patterns:
        assert re.search(pattern, completed.text, re.DOTALL), f"nothing says {pattern!r}\n{completed}"
    assert "/streamline/execution/" not in completed.text, f"lines of ours in a traceback\n{completed}"
    return completed
