"""The registry of block kinds. The code of a kind is imported when it is used.

A block's language selects its kind; `dbt` is selected by the block's type. Other packages register kinds in the entry
point group `streamline.blocks`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from streamline.errors import ConfigError
from streamline.extensions import extensions, load_extension, load_object

if TYPE_CHECKING:
    from streamline.pipeline.model import Block

GROUP = "streamline.blocks"
"""The entry point group: entry points are named by language and refer to a `Kind`."""

ConnectorRole: TypeAlias = Literal["source", "destination"]

Template: TypeAlias = Callable[[Sequence[str]], str]
"""Returns the text of a new block's file, given the uuids of its upstream blocks."""


class Explanation(msgspec.Struct, kw_only=True):
    """What `streamline explain` prints about a block.

    Args:
        engine: the system that runs the block, such as `postgres, profile default`.
        writes: the table that the block writes, and how; None: it writes no table.
        reads: the streams that a source reads.
    """

    engine: str
    writes: str | None = None
    reads: str | None = None


class Connection(msgspec.Struct, kw_only=True):
    """A block's database connection, as tested by `streamline check`.

    Args:
        name: the connection's name in the results.
        key: equal for blocks that connect to the same database with the same settings; tested once per key.
        test: connects and returns a description of the result; raises StreamlineError.
        error: an error in the configuration; then there is no connection to test.
    """

    name: str
    key: tuple[object, ...] = ()
    test: Callable[[], str] | None = None
    error: ConfigError | None = None


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of block. Functions are written `package.module:function`.

    Args:
        name: the language in metadata.yaml; for a kind that is selected by block type, the type.
        title: the kind's name in messages.
        suffixes: file name suffixes; new files get the first.
        types: the block types that this kind supports.
        run: `(call: BlockCall) -> Any`: run a block in a worker process and return its output. None: the blocks
            cannot run in batch pipelines.
        prepare: `(call: BlockCall) -> Prepared`: of sources and destinations, in place of `run`: work out in a worker
            process what the block reads or writes; the runner then moves the records.
        check: `(project, block, renderer) -> Collection[str] | None`: raise ConfigError if the block cannot run,
            without running user code. Return the modules that the block's file imports.
        check_entry: `(project, model, block) -> None`: raise ConfigError if the block's entry in metadata.yaml, or what
            else belongs to it in the pipeline's folder, is wrong.
        checked: the result that `streamline check` prints for a valid block.
        verify: `(project, block) -> None`: more checks for `streamline check`, which may start programs.
        imports: `(project, block) -> dict[str, int]`: modules that must be installed, with the line of their first
            import.
        connection: `(project, model, block, renderer) -> Connection | None`: the database that `streamline check`
            connects to.
        jinja: `(block, text) -> str`: the part of the block's text that is a Jinja template.
        engine: the system that runs the blocks, for `streamline explain`; None: the title.
        explain: `(project, model, block) -> Explanation`, if `engine` depends on the block.
        template: `(block_type, pipeline_type) -> Template | None`: the file that `streamline add` writes.
        tests: `(call, output) -> list[TestOutcome]`: run the tests in the block's file.
        variant: `(block) -> str | None`: the name of the kind that the block is of instead, by what its file says.
        preload: modules to import once for all worker processes. They must be fork-safe (start no threads).
    """

    name: str
    title: str
    suffixes: tuple[str, ...] = ()
    types: tuple[str, ...] = ("data_loader", "transformer", "data_exporter", "custom")
    run: str | None = None
    prepare: str | None = None
    check: str | None = None
    check_entry: str | None = None
    checked: str = "can be read"
    verify: str | None = None
    imports: str | None = None
    connection: str | None = None
    jinja: str | None = None
    engine: str | None = None
    explain: str | None = None
    template: str | None = None
    tests: str | None = None
    variant: str | None = None
    preload: tuple[str, ...] = ()


_BUILT_IN = {
    "python": "streamline.blocks.python.kind:KIND",
    "yaml": "streamline.blocks.connector.kind:KIND",
    "connector": "streamline.blocks.connector.kind:PYTHON",
    "sql": "streamline.blocks.sql.kind:KIND",
    "r": "streamline.blocks.r.kind:KIND",
    "dbt": "streamline.blocks.dbt.kind:KIND",
}
_loaded: dict[str, Kind] = {}


def find_kind(name: str) -> Kind | None:
    """Return the kind of this name. Entry points of other packages are read only if the kind is not built in.

    Raises:
        ConfigError: another package registers the kind, and it cannot be imported.
    """
    if name not in _loaded:
        kind = load_object(_BUILT_IN[name]) if name in _BUILT_IN else load_extension(GROUP, name, Kind)
        if kind is None:
            return None
        _loaded[name] = kind
    return _loaded[name]


def kind_of(block: Block) -> Kind | None:
    """Return the kind of a block: by its type if a kind has that name (`dbt`), else by its language and its file."""
    kind = find_kind(block.type if block.type in _BUILT_IN else block.language)
    variant = load_object(kind.variant)(block) if kind is not None and kind.variant is not None else None
    return find_kind(variant) if variant is not None else kind


def languages(*installed: str) -> dict[str, tuple[str, ...]]:
    """Return file suffixes by language: of the built-in kinds, and of the `installed` kinds that exist."""
    kinds = {name: find_kind(name) for name in (*_BUILT_IN, *installed)}
    return {name: kind.suffixes for name, kind in kinds.items() if kind is not None and kind.suffixes}


def known_languages() -> list[str]:
    """Return the languages of all kinds. Reads the metadata of installed packages, but imports none of them."""
    return [*languages(), *extensions(GROUP)]
