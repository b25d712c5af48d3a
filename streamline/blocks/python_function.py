"""A Python block's file: loaded once, its decorated function found, called with what it asks for.

The file is compiled under its own name, so that tracebacks show the user's lines. Which kind of data the
function wants is read from the annotation of its first parameter, without running the file: `explain` asks
too.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
import traceback
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from types import FunctionType, ModuleType, TracebackType
from typing import Any

import msgspec

from streamline.decorators import NAMES, marks_of
from streamline.errors import ConfigError


class Shape(Enum):
    """What a transformer is given."""

    PANDAS = "pandas"
    ROWS = "rows"
    POLARS = "polars"
    TABLE = "pyarrow.Table"
    RECORD_BATCH = "pyarrow.RecordBatch"

    @property
    def lane(self) -> str:
        """`rows` or `arrow`: the lane that it is fed from."""
        return "rows" if self is Shape.ROWS else "arrow"


class UserError(Exception):
    """User code raised. Made of text alone, so that it can come from another process.

    Args:
        summary: type and message, in one line (`KeyError: 'total'`).
        trace: the traceback from the user's own first line on.
        where: `file:line` of the innermost line in the block's file.
    """

    def __init__(self, summary: str, trace: str, where: str) -> None:
        super().__init__(summary, trace, where)
        self.summary = summary
        self.trace = trace
        self.where = where


class BlockFile(msgspec.Struct, frozen=True):
    """Where a block's code stands.

    Args:
        uuid: the block.
        path: its file, absolute; also the name of the code in tracebacks.
        source: its text where it stands elsewhere (in metadata.yaml); None: in the file.
    """

    uuid: str
    path: str
    source: str | None = None

    def text(self) -> str:
        """The code.

        Raises:
            ConfigError: the file cannot be read.
        """
        if self.source is not None:
            return self.source
        try:
            return Path(self.path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the block's file cannot be read: {error}", where=f"block {self.uuid}") from None


def shape_of(block: BlockFile, decorator: str = "transformer") -> Shape:
    """What the block's function wants, by the annotation of its first parameter; pandas without one.

    Raises:
        ConfigError: the file cannot be read, is no Python, or the annotation is of no kind that blocks get.
    """
    tree = _parsed(block, block.text())
    imports = _imports(tree)
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if not any(_decorator_name(each) == decorator for each in node.decorator_list):
            continue
        parameters = [*node.args.posonlyargs, *node.args.args]
        if not parameters or parameters[0].annotation is None:
            return Shape.PANDAS
        annotation = parameters[0].annotation
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            annotation = ast.parse(annotation.value.strip(), mode="eval").body
        shape = _shape(annotation, imports)
        if shape is None:
            raise ConfigError(
                f"a transformer cannot be given {ast.unparse(annotation)}",
                where=f"{block.path}:{parameters[0].lineno}",
                hint="Annotate its first parameter as DataFrame (pandas or Polars), list[dict] or pyarrow.Table.",
            )
        return shape
    return Shape.PANDAS


class PythonFunction:
    """The one function of a block file that bears a decorator.

    Args:
        block: the file.
        decorator: the decorator's name: the kind of block.

    Raises:
        ConfigError: the file cannot be read, is no Python, or has no such function, or several.
        UserError: the file raised while it was loaded.
    """

    def __init__(self, block: BlockFile, decorator: str) -> None:
        self.block = block
        text = block.text()
        tree = _parsed(block, text)
        if block.source is not None:  # so that tracebacks can show lines that are in no file of their own
            linecache.cache[block.path] = (len(text), None, text.splitlines(keepends=True), block.path)
        # A module of its own: dataclasses and pickle look their classes' module up by name.
        module = ModuleType(f"streamline_block_{block.uuid}")
        sys.modules[module.__name__] = module
        self.namespace = vars(module)
        self.namespace.update(NAMES, __file__=block.path)
        try:
            exec(compile(tree, block.path, "exec", dont_inherit=True), self.namespace)
        except (Exception, SystemExit) as error:
            raise user_error(error, block.path) from None
        self.function = self._find(decorator)
        self._signature = inspect.signature(self.function)

    def _find(self, decorator: str) -> Callable[..., Any]:
        found: list[Any] = []
        for value in self.namespace.values():
            if any(mark.kind == decorator for mark in marks_of(value)) and not any(value is each for each in found):
                found.append(value)
        # One that was imported from another block's file belongs to that file.
        own = [each for each in found if getattr(each, "__module__", None) == self.namespace["__name__"]] or found
        if not own:
            raise ConfigError(
                f"no function in this file is decorated with @{decorator}",
                where=f"{self.block.path} (block {self.block.uuid})",
                hint=f"Write @{decorator} above the function that is to run.",
            )
        if len(own) > 1:
            lines = " and ".join(f"{each.__name__} (line {_line_of(each)})" for each in own)
            raise ConfigError(
                f"more than one function in this file is decorated with @{decorator}: {lines}",
                where=f"{self.block.path} (block {self.block.uuid})",
                hint="Leave the decorator on one of them.",
            )
        function: Callable[..., Any] = own[0]
        return function

    def keywords(self, offered: Mapping[str, Any], positionals: int) -> dict[str, Any]:
        """What of `offered` the function takes: all with `**kwargs`, else what its parameters name.

        Args:
            offered: keyword arguments by name.
            positionals: how many parameters are filled by position; these are left out.
        """
        parameters = list(self._signature.parameters.values())
        by_place = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:positionals]
        taken = {parameter.name for parameter in by_place}
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return {name: value for name, value in offered.items() if name not in taken}
        named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)} - taken
        return {name: value for name, value in offered.items() if name in named}

    def call(self, *args: Any, keywords: Mapping[str, Any]) -> Any:
        """Call it.

        Raises:
            UserError: it raised.
        """
        try:
            return self.function(*args, **keywords)
        except (Exception, SystemExit) as error:
            raise user_error(error, self.block.path) from None


def user_error(error: BaseException, path: str) -> UserError:
    """What the user gets to see of an exception in the code of `path`: from its own first line on."""
    start: TracebackType | None = error.__traceback__
    while start is not None and start.tb_frame.f_code.co_filename != path:
        start = start.tb_next
    line = None
    frame = start
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == path:
            line = frame.tb_lineno
        frame = frame.tb_next
    text = "".join(traceback.format_exception(type(error), error, start)).rstrip()
    summary = traceback.format_exception_only(error)[-1].strip()
    return UserError(summary, text, f"{path}:{line}" if line else path)


def _parsed(block: BlockFile, text: str) -> ast.Module:
    try:
        return ast.parse(text, block.path)
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        shown = f"\n    {error.text.rstrip()}" if isinstance(error, SyntaxError) and error.text else ""
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ConfigError(f"this is no Python: {reason}{shown}", where=f"{block.path}{line}") from None


def _imports(tree: ast.Module) -> dict[str, str]:
    """What the file's imported names stand for, in full (`pd` → `pandas`)."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else (alias.name.partition(".")[0])
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module or ''}.{alias.name}"
    return found


def _decorator_name(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _shape(node: ast.expr, imports: Mapping[str, str]) -> Shape | None:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):  # X | None
        node = node.left
    if isinstance(node, ast.Subscript):
        outer = _full_name(node.value, imports)
        if outer.rpartition(".")[2] in ("Optional", "Annotated"):
            inner = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) else node.slice
            return _shape(inner, imports)
        node = node.value
    name = _full_name(node, imports)
    last = name.rpartition(".")[2]
    if last in ("list", "List", "Sequence", "Iterable", "MutableSequence"):
        return Shape.ROWS
    if last == "DataFrame":
        return Shape.POLARS if name.startswith("polars.") else Shape.PANDAS
    if last == "RecordBatch":
        return Shape.RECORD_BATCH
    if last == "Table":
        return Shape.TABLE
    return Shape.PANDAS if last in ("Any", "object", "None") else None


def _full_name(node: ast.expr, imports: Mapping[str, str]) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        parts.append(imports.get(node.id, node.id))
    return ".".join(reversed(parts))


def _line_of(function: Any) -> int | str:
    plain = inspect.unwrap(function) if callable(function) else function
    return plain.__code__.co_firstlineno if isinstance(plain, FunctionType) else "?"
