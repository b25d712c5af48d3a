"""Tells which blocks of a batch pipeline are sources and destinations."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING

from streamline.pipeline.kinds import ConnectorRole

# The rest is imported on use: every batch pipeline asks for the roles of its blocks, and most have none.
if TYPE_CHECKING:
    from streamline.blocks.connector.inputs import Inputs
    from streamline.pipeline.model import Block

_NAMED_OUTPUT = re.compile(r"""block_output\(\s*\\?['"]([^'"\\]+)\\?['"]""")
_ROLES: dict[str, ConnectorRole] = {"data_loader": "source", "data_exporter": "destination"}


def connector_role(block: Block) -> ConnectorRole | None:
    """Return whether a block is a source or a destination; None: it is neither.

    A block in YAML is one by its type, a block in Python by its decorators, and which of the two by its type. The file
    is read, not run.
    """
    if block.language == "yaml":
        return _ROLES.get(block.type)
    if block.language != "python" or block.type not in _ROLES:
        return None
    if block.file is None:
        decorated = _is_decorated(block.content or "")
    else:
        try:
            status = block.file.stat()
        except OSError:
            return None  # reported where the file is read
        decorated = _file_is_decorated(block.file, (status.st_mtime_ns, status.st_size))
    return _ROLES[block.type] if decorated else None


def exported_upstream(block: Block) -> list[str]:
    """Return the upstream blocks whose output a destination exports: all but those that are input only."""
    inputs = _inputs(block)
    return [uuid for uuid in block.upstream if not inputs.of(uuid).input_only]


def takes_no_data(block: Block, source: str) -> bool:
    """Return whether a destination does not use the output of a source as a value, as far as its file shows that.

    In YAML no template asks for it; in Python it is no argument of the functions, or none of them reads its arguments.
    """
    from streamline.blocks.call import block_text
    from streamline.blocks.connector.functions import reads_arguments

    text = block_text(block)
    if block.language == "yaml":
        named = _NAMED_OUTPUT.findall(text)
        return len(named) == text.count("block_output") and source not in named
    return not _inputs(block).passes(source) or not reads_arguments(ast.parse(text), source, "destination")


def _inputs(block: Block) -> Inputs:
    from streamline.blocks.connector.inputs import read_inputs

    return read_inputs(block, lambda path: block.uuid, mage=True)


def kind_name(block: Block) -> str | None:
    """Return the name of the kind of sources and destinations in Python, if the block is one."""
    return "connector" if connector_role(block) is not None else None


@functools.lru_cache(maxsize=256)
def _file_is_decorated(path: Path, _: tuple[int, int]) -> bool:
    try:
        return _is_decorated(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        return False


def _is_decorated(text: str) -> bool:
    if "data_integration_" not in text:
        return False
    from streamline.blocks.connector.functions import decorated_nodes

    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(True for _ in decorated_nodes(tree))
