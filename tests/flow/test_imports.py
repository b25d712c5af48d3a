"""`flow` runs any source, sink and store: it knows none of them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import streamline.flow

FOLDER = Path(streamline.flow.__file__).parent
ALLOWED = ("streamline.flow", "streamline.errors")


@pytest.mark.parametrize("file", sorted(FOLDER.rglob("*.py")), ids=lambda file: str(file.relative_to(FOLDER)))
def test_it_imports_nothing_of_what_it_runs(file: Path) -> None:
    imported = {
        node.module
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module is not None
    }
    ours = {module for module in imported if module.split(".")[0] == "streamline"}
    assert [module for module in ours if not module.startswith(ALLOWED)] == []
