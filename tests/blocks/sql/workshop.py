"""SQL blocks run one by one: a project, outputs of upstream blocks as files, and what a block gives back."""

from __future__ import annotations

import itertools
import json
import textwrap
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import yaml

from streamline.blocks.call import BlockCall
from streamline.blocks.sql import block as sql
from streamline.blocks.sql.check import check
from streamline.execution.batch.inputs import open_input
from streamline.execution.batch.task import InputRef
from streamline.outputs.store import open_output, project_key, write_output
from streamline.pipeline.model import Block
from streamline.pipeline.reader import load_pipeline
from streamline.project.project import Project
from streamline.project.render import Renderer

DATE = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


class SqlProject:
    """A project with the pipeline `p`. Blocks are added, and run in the order of the calls."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blocks: dict[str, dict[str, Any]] = {}
        self.logged: list[str] = []
        self.warned: list[str] = []
        self._numbers = itertools.count()
        (root / "pipelines" / "p").mkdir(parents=True)
        for folder in ("data_loaders", "transformers", "data_exporters"):
            (root / folder).mkdir()
        (root / "streamline.yaml").write_text("name: shop\n")

    def profiles(self, **profiles: Mapping[str, Any]) -> None:
        """Write io_config.yaml."""
        (self.root / "io_config.yaml").write_text(yaml.safe_dump(dict(profiles)))

    def output(self, uuid: str, value: Any) -> None:
        """An upstream Python block that has returned `value`."""
        path = self.root / "data_loaders" / f"{uuid}.py"
        path.write_text("@data_loader\ndef load(*args, **kwargs):\n    pass\n")
        self.blocks[uuid] = {"uuid": uuid, "type": "data_loader", "language": "python"}
        self._store(uuid, value)

    def add(
        self,
        uuid: str,
        text: str,
        *upstream: str,
        type: str = "transformer",
        **configuration: Any,
    ) -> None:
        """An SQL block."""
        path = self.root / f"{type}s" / f"{uuid}.sql"
        path.write_text(textwrap.dedent(text))
        self.blocks[uuid] = {
            "uuid": uuid,
            "type": type,
            "language": "sql",
            "upstream_blocks": list(upstream),
            "configuration": configuration,
        }

    def run(self, uuid: str, **variables: Any) -> Any:
        """Run an SQL block, store what it returns, and give it as a Python block behind it would get it."""
        self._store(uuid, sql.run(self.call(uuid, **variables)))
        return self.value(uuid)

    def rows(self, uuid: str, text: str, *upstream: str, **configuration: Any) -> list[dict[str, Any]]:
        """Add a block and run it; its rows, with Arrow's own values."""
        self.add(uuid, text, *upstream, **configuration)
        if self.run(uuid) is None:
            return []
        rows: list[dict[str, Any]] = self.stored(uuid).table().to_pylist()
        return rows

    def call(self, uuid: str, **variables: Any) -> BlockCall:
        """What the block is called with."""
        project, block = self._block(uuid)
        block = msgspec.structs.replace(block, configuration=Renderer(project, {}).render(block.configuration))
        scratch = self.root / f"scratch{next(self._numbers)}"
        scratch.mkdir()
        return BlockCall(
            project=project,
            pipeline="p",
            block=block,
            inputs=[
                open_input(InputRef(block=uuid, type="data_loader", folder=str(self._folder(uuid))))
                for uuid in block.upstream
            ],
            kwargs={"env": "dev", "execution_date": DATE, "ds": "2026-03-04", **variables},
            variables=variables,
            renderer=Renderer(project, variables),
            make_scratch=lambda: scratch,
            run_id="r1",
            attempt=1,
            log=self.logged.append,
            warn=self.warned.append,
        )

    def check(self, uuid: str) -> None:
        """What the planner asks before a run."""
        project, block = self._block(uuid)
        check(project, block, Renderer(project, {}))

    def value(self, uuid: str) -> Any:
        """A stored output, as a block behind it gets it."""
        return self.stored(uuid).value()

    def stored(self, uuid: str) -> Any:
        """A stored output."""
        return open_output(self._folder(uuid), self._key)

    def _store(self, uuid: str, value: Any) -> None:
        write_output(self._folder(uuid), value, run_id="r1", secrets_key=self._key, durable=False)

    def _key(self) -> bytes:
        return project_key(self.root / ".streamline")

    def _folder(self, uuid: str) -> Path:
        return self.root / ".streamline" / "data" / "p" / uuid

    def _block(self, uuid: str) -> tuple[Project, Block]:
        # JSON is YAML, and keeps every value as it is.
        text = json.dumps({"type": "python", "blocks": list(self.blocks.values())})
        (self.root / "pipelines" / "p" / "metadata.yaml").write_text(text)
        project = Project.open(self.root)
        return project, load_pipeline(project, "p").block(uuid)
