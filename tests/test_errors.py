"""docs/errors.md lists the codes of all failures, and no others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = re.compile(r"[a-z_]+\.[a-z_]+")


def names_of(assignment: ast.Assign | ast.AnnAssign) -> list[str | None]:
    targets = assignment.targets if isinstance(assignment, ast.Assign) else [assignment.target]
    return [getattr(target, "id", None) for target in targets]


def codes(node: ast.AST) -> Iterator[str]:
    """Literals given as `code=…`, or assigned to a name `code` in a class."""
    values: list[ast.expr] = []
    if isinstance(node, ast.keyword) and node.arg == "code":
        values = [node.value]
    elif isinstance(node, ast.ClassDef):
        assigned = [each for each in node.body if isinstance(each, ast.Assign | ast.AnnAssign)]
        values = [each.value for each in assigned if each.value is not None and "code" in names_of(each)]
    for value in values:
        yield from (
            leaf.value
            for leaf in ast.walk(value)
            if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str) and CODE.fullmatch(leaf.value)
        )


def lacks_code(node: ast.Call) -> bool:
    """Whether it makes an error for a user without a code."""
    return (
        isinstance(node.func, ast.Name)
        and node.func.id in ("StreamlineError", "ConfigError", "WrongOption")
        and not any(keyword.arg in ("code", None) for keyword in node.keywords)
    )


@cache
def used_and_lacking() -> tuple[set[str], list[str]]:
    """The codes in the source, and the places of errors without one. No tree is kept: garbage collection would slow."""
    used: set[str] = set()
    lacking: list[str] = []
    for file in (ROOT / "streamline").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            used.update(codes(node))
            if isinstance(node, ast.Call) and lacks_code(node):
                lacking.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    return used, lacking


def test_every_code_is_documented_once_and_nothing_else_is() -> None:
    used, _ = used_and_lacking()
    rows = [line for line in (ROOT / "docs" / "errors.md").read_text().splitlines() if line.startswith("| `")]
    documented = [line.split("`")[1] for line in rows]
    assert documented == sorted(set(documented)), "one row a code, in order"
    assert used == set(documented)
    assert all(len(cell.strip()) > 10 for line in rows for cell in line.split("|")[2:4])


def test_every_error_that_is_raised_for_a_user_has_a_code_of_its_own() -> None:
    _, lacking = used_and_lacking()
    assert lacking == []
