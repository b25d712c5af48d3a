"""Blocks called as the runner calls them, without the runner: inputs from values, a private folder, kept messages."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from streamline.blocks.call import BlockCall
from streamline.errors import ConfigError
from streamline.outputs.frames import Frames
from streamline.pipeline.model import Block
from streamline.project.project import Project
from streamline.project.render import Renderer


class Given:
    """An upstream output that is held in memory, or stands in a Parquet file."""

    def __init__(self, uuid: str, value: Any, *, type: str = "data_loader", file: Path | None = None) -> None:
        self.uuid = uuid
        self.type = type
        self._value = value
        self._file = file

    def value(self, frames: Frames | None = None) -> Any:
        return self._value

    def values(self) -> list[Any]:
        return [self._value]

    def count(self) -> int:
        return 1

    def table(self) -> pa.Table:
        value = self._value
        if isinstance(value, pa.Table):
            return value
        if type(value).__name__ == "DataFrame":
            try:
                return pa.Table.from_pandas(value, preserve_index=False)
            except pa.ArrowException as error:
                raise ConfigError(f"no table: {error}") from None
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            return pa.Table.from_pylist(value)
        raise ConfigError(f"the output of {self.uuid} is no table, but {type(value).__name__}")

    def streams(self) -> None:
        return None

    def parquet(self) -> list[Path] | None:
        return [self._file] if self._file is not None else None


class Calls:
    """Makes calls of blocks in one project, and keeps what they log and warn of."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        if not (root / "streamline.yaml").exists():
            (root / "streamline.yaml").write_text("name: shop\n")
        self.project = Project.open(root)
        self.logged: list[str] = []
        self.warned: list[str] = []
        self.scratches = root / ".streamline" / "scratch"
        self._count = 0

    def write(self, path: str, text: str) -> Path:
        """A file of the project's."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def block(
        self,
        type: str,
        language: str,
        file: Path | None,
        *,
        uuid: str = "",
        content: str | None = None,
        configuration: dict[str, Any] | None = None,
        downstream: list[str] | None = None,
    ) -> Block:
        return Block(
            uuid=uuid or (file.stem if file else "inline"),
            type=type,
            language=language,
            upstream=[],
            downstream=downstream or [],
            configuration=configuration or {},
            retry_config=None,
            timeout=None,
            file=file,
            content=content,
            name="",
            executor_type=None,
            extra={},
            path=("blocks", 0),
        )

    def call(self, block: Block, *inputs: Given, variables: dict[str, Any] | None = None, **kwargs: Any) -> BlockCall:
        self._count += 1
        self.scratches.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=self.scratches))
        return BlockCall(
            project=self.project,
            pipeline="p",
            block=block,
            inputs=inputs,
            kwargs={**(variables or {}), **kwargs},
            variables=variables or {},
            renderer=Renderer(self.project, variables or {}),
            make_scratch=lambda: scratch,
            run_id=f"test-{self._count}",
            attempt=1,
            log=self.logged.append,
            warn=self.warned.append,
        )
