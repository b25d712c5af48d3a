"""`python -m tests.mutations FILE…`: change one expression at a time and see whether a test fails.

    python -m tests.mutations streamline/flow/ledger.py --tests tests/flow tests/protocols

A mutant that no test notices has survived: its line and change are printed. By default the tests are the file's own
(`tests/flow/test_ledger.py`); those of `--tests` come after it. Only tests that run the code in their own process see
a mutant. Each mutant is a fork of one process that has the libraries imported, and is stopped at its first failure.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import importlib.abc
import importlib.machinery
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.preloaded import LIBRARIES, REPOSITORY

SWAPS: dict[type[ast.cmpop], list[type[ast.cmpop]]] = {
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.Lt: [ast.GtE, ast.LtE],
    ast.LtE: [ast.Gt, ast.Lt],
    ast.Gt: [ast.LtE, ast.GtE],
    ast.GtE: [ast.Lt, ast.Gt],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
}
"""Comparisons: turned round, or moved by one."""


TEST_LIBRARIES = ("anyio.pytest_plugin", "hypothesis", "hypothesis.strategies")
"""What pytest imports in each process."""


@dataclass(frozen=True)
class Mutant:
    """A module with one expression changed."""

    line: int
    change: str
    tree: ast.Module


def mutants(source: str, *, comparisons_only: bool = False) -> Iterator[Mutant]:
    """Return all mutants of a module's source."""
    kinds = (ast.Compare,) if comparisons_only else (ast.Compare, ast.BoolOp, ast.UnaryOp)
    for number, original in enumerate(ast.walk(ast.parse(source))):
        if not isinstance(original, kinds):
            continue
        choice = 0
        while True:
            tree = ast.parse(source)
            node = next(each for at, each in enumerate(ast.walk(tree)) if at == number)
            before = ast.unparse(node) if isinstance(node, ast.expr) else ""
            if not _mutate(node, choice, comparisons_only=comparisons_only):
                break
            yield Mutant(getattr(node, "lineno", 0), f"{before}  →  {ast.unparse(node)}", tree)
            choice += 1


def _mutate(node: ast.AST, choice: int, *, comparisons_only: bool) -> bool:
    """Change a node in place in one of the ways that there are; return whether there was one of that number."""
    if isinstance(node, ast.Compare):
        ways = [(at, swap) for at, op in enumerate(node.ops) for swap in SWAPS[type(op)]]
        if choice < len(ways):
            at, swap = ways[choice]
            node.ops[at] = swap()
            return True
        return False
    if comparisons_only or choice:
        return False
    if isinstance(node, ast.BoolOp):
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        return True
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        node.operand = ast.UnaryOp(ast.Not(), node.operand)
        return True
    return False


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a tree."""

    def __init__(self, name: str, file: Path, tree: ast.Module) -> None:
        self._name, self._file, self._tree = name, file, tree

    def find_spec(self, fullname: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        """See `MetaPathFinder`."""
        if fullname != self._name:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, origin=str(self._file))

    def exec_module(self, module: ModuleType) -> None:
        """See `Loader`."""
        module.__file__ = str(self._file)
        exec(compile(self._tree, str(self._file), "exec"), module.__dict__)


def outcome(name: str, file: Path, mutant: Mutant | None, tests: Sequence[str], seconds: float) -> str:
    """Return `killed`, `survived` or `timed out`; without a mutant `survived` means that the tests pass."""
    pid = os.fork()
    if not pid:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        if mutant is not None:
            sys.meta_path.insert(0, _Finder(name, file, mutant.tree))
        code = pytest.main(["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist", *tests])
        os._exit(int(code))
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return "killed" if os.waitstatus_to_exitcode(status) else "survived"
            time.sleep(0.02)
        return "timed out"
    finally:
        # Its group may be left though it was waited for.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def tests_of(file: Path) -> list[str]:
    """Return the file's own tests, if there are any."""
    path = Path("tests", *file.relative_to("streamline").parts[:-1], f"test_{file.name}")
    return [str(path)] if path.exists() else []


def main() -> int:
    """Print the survivors of each file; 1 if there are any."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description="Find lines that no test checks.")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--tests", nargs="*", default=[], help="more tests than the file's own")
    parser.add_argument("--comparisons", action="store_true", help="change comparisons only")
    parser.add_argument("--lines", help="only these lines: FIRST-LAST")
    parser.add_argument("--seconds", type=float, default=60.0, help="limit for a mutant (60)")
    parser.add_argument("--minutes", type=float, default=60.0, help="limit for all; the rest is left out (60)")
    args = parser.parse_args()
    for library in (*LIBRARIES, *TEST_LIBRARIES):
        importlib.import_module(library)
    first, _, last = (args.lines or "1-1000000").partition("-")
    end = time.monotonic() + 60 * args.minutes
    survived = 0
    for file in args.files:
        name = ".".join(file.with_suffix("").parts)
        tests = [*tests_of(file), *args.tests]
        if not tests or outcome(name, REPOSITORY / file, None, tests, 10 * args.seconds) != "survived":
            print(f"{file}: its tests fail without a mutant, or there are none: {' '.join(tests)}")
            return 1
        counts = {"killed": 0, "survived": 0, "timed out": 0, "left out": 0}
        for mutant in mutants(file.read_text("utf-8"), comparisons_only=args.comparisons):
            if not int(first) <= mutant.line <= int(last or first):
                continue
            if time.monotonic() > end:
                counts["left out"] += 1
                continue
            result = outcome(name, REPOSITORY / file, mutant, tests, args.seconds)
            counts[result] += 1
            if result == "survived":
                print(f"{file}:{mutant.line}: {mutant.change}", flush=True)
        survived += counts["survived"]
        print(f"{file}: {', '.join(f'{count} {what}' for what, count in counts.items() if count)}", flush=True)
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
