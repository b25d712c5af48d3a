"""The rooms of ARCHITECTURE.md: which may import which, and that no modules import each other in a cycle.

Every import counts: at the top of a module, inside a function, and for type checkers.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "streamline"
USERS = (
    "streamline/demo/project/",
    "streamline/demo/streaming_project/",
    "streamline/project/starter/",
)  # files that are copied into users' projects

LOWEST = frozenset({"errors", "decorators", "version", "extensions"})
PROJECT = LOWEST | {"project"}
CONNECTORS = PROJECT | {"state", "processes", "flow", "telemetry", "outputs", "databases"}
BLOCKS = CONNECTORS | {"connectors", "pipeline", "io"}
EXECUTION = BLOCKS | {"blocks", "telemetry"}
API = EXECUTION | {"execution"}

ROOMS: Mapping[str, frozenset[str]] = {
    "__main__": frozenset({"cli"}),
    "__init__": API | {"api", "triggers", "compat"},
    "cli": API | {"api", "triggers", "demo"},
    "compat": API | {"api", "triggers"},
    "triggers": API | {"api"},
    "api": API,
    "execution": EXECUTION,
    "blocks": BLOCKS,
    "connectors": CONNECTORS,
    "flow": frozenset({"errors"}),
    "processes": frozenset({"errors"}),
    "io": PROJECT | {"databases"},
    "databases": PROJECT,
    "outputs": frozenset({"errors", "flow"}),
    "pipeline": PROJECT,
    "project": LOWEST,
    "demo": frozenset({"errors"}),
    "state": frozenset({"errors"}),
    "telemetry": LOWEST,
    "extensions": frozenset({"errors"}),
    "version": frozenset(),
    "decorators": frozenset(),
    "errors": frozenset(),
}
"""What each room may import besides itself; ARCHITECTURE.md draws the same picture."""

NOT_YET: frozenset[tuple[str, str]] = frozenset()
"""Imports between modules that break the rule and wait to be mended."""


def test_every_room_has_its_row() -> None:
    assert {_room(module) for module in _modules()} == set(ROOMS)


def test_the_picture_in_the_architecture_names_every_room() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    picture = text.partition("## Rooms")[2].split("```")[1]
    assert {room for room in ROOMS if not room.startswith("__") and room not in picture} == set()


def test_imports_between_rooms_point_down() -> None:
    wrong = {
        (module, imported)
        for module, imports in _graph().items()
        for imported in imports
        if _room(imported) != _room(module) and _room(imported) not in ROOMS[_room(module)]
    }
    assert wrong == NOT_YET


def test_the_rooms_have_an_order() -> None:
    """No two rooms may import each other."""
    assert list(_cycles({room: allowed - {room} for room, allowed in ROOMS.items()})) == []


@pytest.mark.parametrize("others", list(itertools.permutations(("integration", "batch", "streaming"), 2)))
def test_the_planners_do_not_know_each_other(others: tuple[str, str]) -> None:
    own, other = (f"streamline.execution.{name}" for name in others)
    assert [
        (module, imported)
        for module, imports in _graph().items()
        for imported in imports
        if module.startswith(own) and imported.startswith(other)
    ] == []


def test_no_modules_import_each_other_in_a_cycle() -> None:
    assert list(_cycles(_graph())) == []


def _modules() -> dict[str, Path]:
    files = [path for path in PACKAGE.rglob("*.py") if not path.relative_to(ROOT).as_posix().startswith(USERS)]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


@cache
def _graph() -> dict[str, frozenset[str]]:
    modules = _modules()
    return {module: frozenset(_imports(module, path, modules)) - {module} for module, path in modules.items()}


def _imports(module: str, path: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield from (name for name in ([inner] if inner in modules else [node.module]) if name in modules)


def _room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def _cycles(graph: Mapping[str, frozenset[str]]) -> Iterator[list[str]]:
    """The sets of nodes that reach each other (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(node: str) -> Iterator[list[str]]:
        index[node] = low[node] = len(index)
        stack.append(node)
        for after in graph[node]:
            if after not in index:
                yield from visit(after)
                low[node] = min(low[node], low[after])
            elif after in stack:
                low[node] = min(low[node], index[after])
        if low[node] == index[node]:
            group = [stack.pop()]
            while group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                yield sorted(group)

    for node in graph:
        if node not in index:
            yield from visit(node)
