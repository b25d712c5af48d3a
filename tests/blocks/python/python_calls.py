"""Block files in a project, and calls of them with made-up inputs: what the tests of Python blocks start from."""

from __future__ import annotations

import copy
import textwrap
from pathlib import Path
from typing import Any

from streamline.blocks.call import BlockCall
from streamline.outputs.frames import Frames
from streamline.pipeline.model import FOLDERS, Block
from streamline.project.project import Project
from streamline.project.render import Renderer


class Given:
    """An upstream block's output. A tuple is several; every reading is counted and gives a new value."""

    def __init__(self, uuid: str, output: Any = None, type: str = "data_loader") -> None:
        self.uuid = uuid
        self.type = type
        self._output = output
        self.reads = 0

    def value(self, frames: Frames | None = None) -> Any:
        self.reads += 1
        output = copy.deepcopy(self._output)
        return list(output) if isinstance(output, tuple) else output

    def values(self) -> list[Any]:
        self.reads += 1
        output = copy.deepcopy(self._output)
        return list(output) if isinstance(output, tuple) else [output]

    def count(self) -> int:
        return len(self._output) if isinstance(self._output, tuple) else 1

    def table(self) -> Any:
        raise NotImplementedError

    def streams(self) -> None:
        return None

    def parquet(self) -> list[Path] | None:
        return None


class Workshop:
    """A project whose block files are written as they are needed."""

    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        (root / "streamline.yaml").write_text("name: workshop\n")
        self.project = Project.open(root)
        self.root = root
        self.warnings: list[str] = []
        self.lines: list[str] = []

    def block(
        self, text: str | bytes, type: str = "transformer", uuid: str = "clean", *, inline: bool = False
    ) -> Block:
        """A block with that code in its file, or in metadata.yaml."""
        file = self.root / FOLDERS[type] / f"{uuid}.py"
        if not inline:
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        return Block(
            uuid=uuid,
            type=type,
            language="python",
            upstream=[],
            downstream=[],
            configuration={},
            retry_config=None,
            timeout=None,
            file=None if inline else file,
            content=textwrap.dedent(str(text)) if inline else None,
            name=uuid,
            executor_type=None,
            extra={},
            path=(),
        )

    def call(self, block: Block, *inputs: Given, **kwargs: Any) -> BlockCall:
        """A call of it with these inputs and keyword arguments."""
        scratch = self.root / "scratch"
        scratch.mkdir(exist_ok=True)
        return BlockCall(
            project=self.project,
            pipeline="shop",
            block=block,
            inputs=inputs,
            kwargs={"env": "dev", "execution_date": "2026-01-01", **kwargs},
            variables=kwargs,
            renderer=Renderer(self.project, kwargs),
            make_scratch=lambda: scratch,
            run_id="r1",
            attempt=1,
            log=self.lines.append,
            warn=self.warnings.append,
        )
