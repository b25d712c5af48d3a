"""What every kind of block is given when it runs, and what it gives back.

A kind is a function `run(call: BlockCall) -> Any` in a file of its own; what it returns is the block's output.
It runs in a worker process, one block at a time, with the project's folder as its working directory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from streamline.errors import ConfigError
from streamline.project.suggest import suggestion
from streamline.project.yamlfile import read_text

if TYPE_CHECKING:
    import pyarrow as pa

    from streamline.outputs.frames import Frames
    from streamline.outputs.streams import StoredStream
    from streamline.pipeline.model import Block
    from streamline.project.project import Project
    from streamline.project.render import ProjectFolder, Renderer

GATES = ("sensor", "conditional")
"""Types of blocks whose output says only whether to go on."""


class StoredOutput(Protocol):
    """An output, read on use. Every call reads anew: nothing is shared."""

    def value(self, frames: Frames | None = None) -> Any:
        """Read what the block returned; several outputs, or a generator's chunks, as a list.

        Args:
            frames: in which form a source block's streams are wanted; None: as dicts of columns and rows.

        Raises:
            ConfigError: one table is asked for, and there are several streams.
        """
        ...

    def values(self) -> list[Any]:
        """Read the elements of a returned tuple, or a list with the one value (chunks are one list)."""
        ...

    def count(self) -> int:
        """Return the number of elements of `values`, without reading them. More than one only for a returned tuple."""
        ...


class UpstreamOutput(StoredOutput, Protocol):
    """An output that fills a parameter of a block's function."""

    @property
    def uuid(self) -> str:
        """The upstream block."""
        ...

    @property
    def type(self) -> str:
        """Its type, such as `data_loader`."""
        ...


class Input(UpstreamOutput, Protocol):
    """The output of one upstream block."""

    def table(self) -> pa.Table:
        """Read the output as one Arrow table: a DataFrame, a list of dicts, a dict of lists, a Series, chunks of these.

        Raises:
            ConfigError: it is not a table; the message says what it is.
        """
        ...

    def streams(self) -> list[StoredStream] | None:
        """Return the streams of a source block's output, with their Parquet files; None: it is no such output."""
        ...

    def parquet(self) -> list[Path] | None:
        """Return the Parquet files with the whole output, if it is a table that needs no conversion; else None."""
        ...


class TestOutcome(msgspec.Struct, kw_only=True):
    """The result of one test function. `error` is None where it passed; `trace` is the user's traceback."""

    __test__ = False  # not a test of pytest's

    name: str
    error: str | None = None
    where: str | None = None
    trace: str | None = None


class BlockCall(msgspec.Struct, kw_only=True):
    """One run of one block.

    Args:
        block: the block; its `configuration` is rendered.
        inputs: one per upstream block, in the order of `upstream_blocks`.
        kwargs: what decorated functions get as keyword arguments: variables, `env`, `execution_date`, `logger`, ….
        variables: the pipeline's, trigger's and runtime variables alone, the later ones winning.
        renderer: renders templates over the inputs and variables.
        make_scratch: makes `scratch` where it was not made yet.
        run_id: the run's id, which child processes have in `STREAMLINE_RUN_ID`.
        attempt: 1 is the first.
        log: writes a line to the run's log.
        warn: the same for a warning, which is shown at the end of the run.
        refresh: catalogs of sources that are kept are not used; the sources are asked anew.
        results: what `runs show` lists (dbt's nodes); JSON values. The kind appends.
        gate: set by the kind where it decides whether the blocks behind it run.
    """

    project: Project
    pipeline: str
    block: Block
    inputs: Sequence[Input]
    kwargs: dict[str, Any]
    variables: dict[str, Any]
    renderer: Renderer
    make_scratch: Callable[[], Path]
    run_id: str
    attempt: int
    log: Callable[[str], None]
    warn: Callable[[str], None]
    refresh: bool = False
    results: list[Any] = msgspec.field(default_factory=list)
    gate: bool | None = None

    @property
    def scratch(self) -> Path:
        """An empty private folder that is made on its first use and deleted after the run."""
        return self.make_scratch()

    @property
    def where(self) -> str:
        """Return the name of the block in messages: its file, else its uuid."""
        return shown_block(self.project, self.block)


def shown_block(project: ProjectFolder, block: Block) -> str:
    """Return the name of a block in messages: its file, else its uuid."""
    return project.shown(block.file) if block.file is not None else f"block {block.uuid}"


def block_text(block: Block, shown: str | None = None) -> str:
    """Return the text of a block: its file, else its `content` in metadata.yaml.

    Raises:
        ConfigError: the file cannot be read.
    """
    return read_text(block.file, shown=shown) if block.file is not None else block.content or ""


def block_output(inputs: Sequence[Input], block: str) -> Callable[[str], Any]:
    """Return the function that templates call as `block_output(uuid)` in a block with these inputs."""
    by_uuid = {upstream.uuid: upstream for upstream in inputs}

    def output(uuid: str) -> Any:
        if uuid not in by_uuid:
            raise ConfigError(
                f"block_output('{uuid}'): '{uuid}' is not upstream of '{block}'",
                hint=suggestion(uuid, by_uuid, what="upstream blocks"),
                code="block.not_upstream",
            )
        return by_uuid[uuid].value()

    return output
