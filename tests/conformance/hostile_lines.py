"""What `hostile/tap_sends_odd_values.py` sends, read from the fake itself, which is no importable module."""

from __future__ import annotations

import ast

from tests.support.project import HOSTILE


def odd_lines() -> list[str]:
    """Its RECORD lines, newlines aside."""
    tree = ast.parse((HOSTILE / "tap_sends_odd_values.py").read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "LINES":
            lines: list[str] = ast.literal_eval(node.value)
            return lines
    raise LookupError("the fake has no LINES")
