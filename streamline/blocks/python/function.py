"""A Python block's function: found in its file, called with what it asks for.

Which kind of data the function wants is read from the annotation of its first parameter, without running the
file: `explain` asks too.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from enum import Enum
from typing import Any

from streamline.blocks.python.file import BlockFile, PythonFile, UserError, imports_of, parsed, user_error
from streamline.errors import ConfigError

__all__ = ["BlockFile", "PythonFunction", "Shape", "UserError", "shape_of", "user_error"]


class Shape(Enum):
    """What a transformer is given."""

    PANDAS = "pandas"
    ROWS = "rows"
    POLARS = "polars"
    TABLE = "pyarrow.Table"
    RECORD_BATCH = "pyarrow.RecordBatch"

    @property
    def lane(self) -> str:
        """Return the lane that it is fed from: `rows` or `arrow`."""
        return "rows" if self is Shape.ROWS else "arrow"


def shape_of(block: BlockFile, default: Shape = Shape.PANDAS) -> Shape:
    """Return what the block's function takes, by the annotation of its first parameter.

    Args:
        default: what it takes if there is no annotation, or one such as `Any`.

    Raises:
        ConfigError: the file cannot be read, has a syntax error, or the annotation is of no kind that blocks get.
    """
    tree, _ = parsed(block, block.text())
    imports = imports_of(tree)
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if not any(decorator_name(each) == "transformer" for each in node.decorator_list):
            continue
        if any(decorator_name(each) == "window" for each in node.decorator_list):
            return default  # its first parameter is a key
        parameters = [*node.args.posonlyargs, *node.args.args]
        if not parameters or parameters[0].annotation is None:
            return default
        annotation = parameters[0].annotation
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            annotation = ast.parse(annotation.value.strip(), mode="eval").body
        shape = _shape(annotation, imports, default)
        if shape is None:
            raise ConfigError(
                f"a transformer cannot be given {ast.unparse(annotation)}",
                where=f"{block.name}:{parameters[0].lineno}",
                hint="annotate its first parameter as DataFrame (pandas or Polars), list[dict] or pyarrow.Table",
                code="block.unknown_annotation",
            )
        return shape
    return default


class PythonFunction:
    """The one function of a block file with a decorator.

    Args:
        decorator: the decorator's name: the kind of block.

    Raises:
        ConfigError: the file cannot be read, has a syntax error, or has no such function, or several.
        UserError: the file raised while it was loaded.
    """

    def __init__(self, block: BlockFile, decorator: str) -> None:
        self.block = block
        self._file = PythonFile(block)
        self.function = self._file.only(decorator)
        self._signature = inspect.signature(self.function)

    def keywords(self, offered: Mapping[str, Any], positionals: int) -> dict[str, Any]:
        """Return what of `offered` the function takes: all with `**kwargs`, else what its parameters name.

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
            raise self.error(error) from None

    def error(self, error: BaseException) -> UserError:
        """Return an exception in the block's code as the user sees it."""
        return self._file.error(error)

    @property
    def where(self) -> str:
        """Return `file:line` of the function."""
        return self._file.where(self.function)


def decorator_name(node: ast.expr) -> str:
    """Return the last part of a decorator's name, with or without parentheses (`@module.transformer()`)."""
    if isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _shape(node: ast.expr, imports: Mapping[str, str], default: Shape) -> Shape | None:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):  # X | None
        node = node.left
    if isinstance(node, ast.Subscript):
        outer = _full_name(node.value, imports)
        if outer.rpartition(".")[2] in ("Optional", "Annotated"):
            inner = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) else node.slice
            return _shape(inner, imports, default)
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
    return default if last in ("Any", "object", "None") else None


def _full_name(node: ast.expr, imports: Mapping[str, str]) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        parts.append(imports.get(node.id, node.id))
    return ".".join(reversed(parts))
