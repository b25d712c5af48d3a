"""Tells which blocks of a batch pipeline are sources and destinations."""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from typing import TYPE_CHECKING

from streamline.blocks.connector.functions import decorated_nodes
from streamline.blocks.connector.prepared import Role

if TYPE_CHECKING:
    from streamline.pipeline.model import Block

_ROLES: dict[str, Role] = {"data_loader": "source", "data_exporter": "destination"}


def connector_role(block: Block) -> Role | None:
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
    settings = block.configuration.get("data_integration")
    inputs = settings.get("inputs") if isinstance(settings, dict) else None
    only = (
        {uuid for uuid, each in inputs.items() if isinstance(each, dict) and each.get("input_only") is True}
        if isinstance(inputs, dict)
        else set()
    )
    return [uuid for uuid in block.upstream if uuid not in only]


def takes_no_data(block: Block) -> bool:
    """Return whether a destination uses no upstream output as a value: it is in YAML."""
    return block.language == "yaml"


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
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(True for _ in decorated_nodes(tree))
