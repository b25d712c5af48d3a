"""The kinds of blocks: one entry each. What a kind does is imported when it is used.

Kinds are found by the language of a block, `dbt` by its type. Other packages add kinds by the entry point group
`streamline.blocks`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from streamline.errors import ConfigError
from streamline.extensions import extensions, load_extension, load_object

if TYPE_CHECKING:
    from streamline.pipeline.model import Block

GROUP = "streamline.blocks"
"""The entry point group: a name that is the language, and a `Kind`."""

Template: TypeAlias = Callable[[Sequence[str]], str]
"""Makes the text of a new block's file, given the uuids of its upstream blocks."""


class Explanation(msgspec.Struct, kw_only=True):
    """What `explain` prints of a block.

    Args:
        engine: what runs it, such as `postgres, profile default`.
        writes: the table that it writes and how; None: it writes none.
    """

    engine: str
    writes: str | None = None


class Connection(msgspec.Struct, kw_only=True):
    """A database that a block names, for `streamline check`.

    Args:
        name: its name in the results.
        key: equal for two blocks that connect to the same database in the same way.
        test: connects and returns the result in words; raises StreamlineError.
        error: the configuration is wrong; then there is nothing to test.
    """

    name: str
    key: tuple[object, ...] = ()
    test: Callable[[], str] | None = None
    error: ConfigError | None = None


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of block. Functions are written `package.module:function`.

    Args:
        name: the language in metadata.yaml; of a kind that goes by the block's type, that type.
        title: its name in messages.
        suffixes: endings of its files; new files get the first.
        types: the block types that can be written in it.
        run: `(call: BlockCall) -> Any`: run a block in a worker process and return its output. None: such blocks
            cannot run in batch pipelines.
        check: `(project, block, renderer) -> Collection[str] | None`: raise ConfigError where the block cannot run;
            runs no user code. Returns the modules that the block's file imports.
        checked: what `check` says of a good block.
        verify: `(project, block) -> None`: more checks by `streamline check`, which may start programs.
        imports: `(block) -> dict[str, int]`: modules that must be installed, with the line of the first import.
        connection: `(project, model, block, renderer) -> Connection | None`: the database that `streamline check`
            connects to.
        jinja: `(block, text) -> str`: the part of the block's text that is a Jinja template.
        engine: what runs it, as `explain` prints; None: the title.
        explain: `(project, model, block) -> Explanation`, where that depends on the block.
        template: `(block_type, pipeline_type) -> Template | None`: what `streamline add` writes.
        tests: `(call, output) -> list[TestOutcome]`: run the tests in the block's file.
        preload: modules that are imported once for all worker processes. They must be safe to have in a process that
            forks: no threads.
    """

    name: str
    title: str
    suffixes: tuple[str, ...] = ()
    types: tuple[str, ...] = ("data_loader", "transformer", "data_exporter", "custom")
    run: str | None = None
    check: str | None = None
    checked: str = "can be read"
    verify: str | None = None
    imports: str | None = None
    connection: str | None = None
    jinja: str | None = None
    engine: str | None = None
    explain: str | None = None
    template: str | None = None
    tests: str | None = None
    preload: tuple[str, ...] = ()


_BUILT_IN = {
    "python": "streamline.blocks.python.kind:KIND",
    "yaml": "streamline.blocks.connector.kind:KIND",
    "sql": "streamline.blocks.sql.kind:KIND",
    "r": "streamline.blocks.r.kind:KIND",
    "dbt": "streamline.blocks.dbt.kind:KIND",
}
_loaded: dict[str, Kind] = {}


def find_kind(name: str) -> Kind | None:
    """The kind of this name. The entry points of other packages are read only where it is not built in.

    Raises:
        ConfigError: another package registers it, and it cannot be imported.
    """
    if name not in _loaded:
        kind = load_object(_BUILT_IN[name]) if name in _BUILT_IN else load_extension(GROUP, name, Kind)
        if kind is None:
            return None
        _loaded[name] = kind
    return _loaded[name]


def kind_of(block: Block) -> Kind | None:
    """The kind of a block: by its type where a kind has that name (`dbt`), else by its language."""
    return find_kind(block.type if block.type in _BUILT_IN else block.language)


def languages(*others: str) -> dict[str, tuple[str, ...]]:
    """The suffixes of files by language: of the built-in kinds, and of these kinds of other packages if they exist."""
    kinds = {name: find_kind(name) for name in (*_BUILT_IN, *others)}
    return {name: kind.suffixes for name, kind in kinds.items() if kind is not None and kind.suffixes}


def known_languages() -> list[str]:
    """The languages of all kinds. Reads the metadata of every installed package, and loads nothing of them."""
    return [*languages(), *extensions(GROUP)]
