"""A Python block's file, run as a module of its own: its marked functions, and its errors as the user sees them.

The file is compiled under its own name, so that tracebacks show the user's lines.
"""

from __future__ import annotations

import ast
import dis
import inspect
import io
import linecache
import re
import sys
import tokenize
import traceback
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import CodeType, FunctionType, ModuleType, TracebackType
from typing import Any

import msgspec

from streamline.blocks.python.hints import hint_for
from streamline.decorators import LEGACY, NAMES, collecting, marks_of
from streamline.errors import ConfigError

_LONGEST_SUMMARY = 2_000  # characters: an exception may hold a whole table
_LONGEST_TRACE = 100_000
_TYPING = {name: getattr(typing, name) for name in ("Any", "Callable", "Dict", "List", "Optional", "Tuple", "Union")}
_OWN = str(Path(__file__).resolve().parents[2])  # the package's folder: frames in it are ours


class UserError(Exception):
    """User code raised. Made of text alone, so that it can come from another process.

    Args:
        summary: type and message, in one line (`KeyError: 'total'`).
        trace: the traceback from the user's own first line on.
        where: `file:line` of the innermost line in the block's file.
        hint: what to do about it, where that can be said.
    """

    def __init__(self, summary: str, trace: str, where: str, hint: str | None = None) -> None:
        super().__init__(summary, trace, where, hint)
        self.summary = summary
        self.trace = trace
        self.where = where
        self.hint = hint


class BlockFile(msgspec.Struct, frozen=True):
    """Where a block's code stands.

    Args:
        path: its file, absolute; also the name of the code in tracebacks.
        source: its text where it stands elsewhere (in metadata.yaml); None: in the file.
        shown: how messages name it; None: by its path.
        module: the name of the module that it is; None: one made of the uuid, which cannot be imported.
    """

    uuid: str
    path: str
    source: str | None = None
    shown: str | None = None
    module: str | None = None

    @property
    def name(self) -> str:
        """Return its name for messages."""
        return self.shown or self.path

    def text(self) -> str:
        """Read the code.

        Raises:
            ConfigError: the file cannot be read.
        """
        if self.source is not None:
            return self.source
        try:
            raw = Path(self.path).read_bytes()
            # Python's own rule for a file's encoding: UTF-8 unless its first lines say otherwise (PEP 263).
            encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
            return io.TextIOWrapper(io.BytesIO(raw), encoding).read()
        except (UnicodeDecodeError, SyntaxError, LookupError) as error:
            raise self._not_decoded(raw, error) from None
        except OSError as error:
            raise ConfigError(
                f"the block's file cannot be read: {error}", where=self.name, code="file.not_readable"
            ) from None

    def _not_decoded(self, raw: bytes, error: Exception) -> ConfigError:
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError as wrong:
            line, byte = raw.count(b"\n", 0, wrong.start) + 1, raw[wrong.start]
            reason = f"the byte 0x{byte:02x} is not UTF-8"
        else:  # it is UTF-8, and names another encoding
            line, reason = 1, str(error)
        return ConfigError(
            f"the block's file cannot be read: {reason}",
            where=f"{self.name}:{line}",
            hint="save it as UTF-8, or name its encoding on the first line: # -*- coding: latin-1 -*-",
            code="file.wrong_encoding",
        )


class PythonFile:
    """The module that a block's file makes, with its decorated functions.

    Args:
        values: gives values for names that the code reads and does not define; asked once, before the code runs.

    Raises:
        ConfigError: the file cannot be read, or has a syntax error.
        UserError: the file raised while it was loaded.
    """

    def __init__(
        self,
        block: BlockFile,
        values: Callable[[Callable[[Collection[str]], set[str]]], Mapping[str, Any]] | None = None,
    ) -> None:
        self.block = block
        code = compiled(block)
        # A module of its own: dataclasses and pickle look their classes' module up by name.
        module = ModuleType(block.module or f"streamline_block_{block.uuid}")
        module.__package__ = module.__name__.rpartition(".")[0]
        self.module = module.__name__
        self.namespace = vars(module)
        if values is not None:
            self.namespace.update(values(lambda wanted: _names_read(code, wanted)))
        self.namespace.update(injected(block))
        sys.modules[module.__name__] = module
        with collecting() as marked:
            try:
                exec(code, self.namespace)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                raise self.error(error) from None
        self._marked = marked

    def marked(self, *decorators: str) -> list[Callable[..., Any]]:
        """Return the functions with one of the decorators, in the file's order; imported ones only if it has no own."""
        wanted = set(decorators)
        own: list[Any] = []
        others: list[Any] = []
        values = [value for value in self.namespace.values() if _is_marked(value, wanted)]
        # A wrapper around a marked function stands for it; one whose name was given away stands for itself.
        wrapped = {id(inner) for value in values for inner in _unwrapped(value)}
        alone = [each for each in self._marked if _is_marked(each, wanted) and id(each) not in wrapped]
        for value in [*values, *alone]:
            if not any(value is each for each in (*own, *others)):
                ours = getattr(value, "__module__", None) == self.namespace["__name__"]
                (own if ours else others).append(value)
        order = {id(each): number for number, each in enumerate(self._marked)}

        def place(value: Any) -> int:
            return min((order[id(each)] for each in _unwrapped(value) if id(each) in order), default=len(order))

        # Imported ones that this file did not name are none of its own in any case.
        return sorted(own, key=place) or [each for each in others if any(each is value for value in values)]

    def only(self, decorator: str, warn: Callable[[str], None] | None = None) -> Callable[..., Any]:
        """Return the one function with the decorator.

        Args:
            warn: if given, the first of several is taken, with a warning.

        Raises:
            ConfigError: there is none, or several.
        """
        functions = self.marked(decorator)
        where = f"{self.block.name} (block {self.block.uuid})"
        if not functions:
            raise ConfigError(
                f"no function in this file is decorated with @{decorator}",
                where=where,
                hint=f"write @{decorator} above the function to run",
                code="block.function_missing",
            )
        if len(functions) > 1:
            lines = " and ".join(f"{name_of(each)} (line {line_of(each) or '?'})" for each in functions)
            message = f"more than one function in this file is decorated with @{decorator}: {lines}"
            if warn is not None:
                warn(f"{where}: {message}; the first runs")
                return functions[0]
            raise ConfigError(
                message,
                where=where,
                hint="leave the decorator on one of them",
                code="block.function_ambiguous",
            )
        return functions[0]

    def imports(self) -> dict[str, str]:
        """Return the full names of what the file imports, by its names for them (`pd` → `pandas`)."""
        return imports_of(parsed(self.block, self.block.text())[0])

    def where(self, function: Callable[..., Any]) -> str:
        """Return `file:line` of a function of this file, or of one that it imports."""
        line = line_of(function)
        code = getattr(inspect.unwrap(function), "__code__", None)
        if code is not None and code.co_filename != self.block.path:
            return f"{code.co_filename}:{line}"
        return f"{self.block.name}:{line}" if line else self.block.name

    def error(self, error: BaseException) -> UserError:
        """Return an exception in this file's code as the user sees it."""
        return user_error(error, self.block.path, self.block.name)


def user_error(error: BaseException, path: str, shown: str | None = None) -> UserError:
    """Return an exception in the code of `path` as the user sees it: the traceback starts at its own first line.

    Args:
        error: the exception; a `UserError` is handed back as it is.
        shown: how messages name it, if otherwise.
    """
    if isinstance(error, UserError):
        return error
    start: TracebackType | None = error.__traceback__
    while start is not None and start.tb_frame.f_code.co_filename != path:
        start = start.tb_next
    line = None
    frame = start
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == path:
            line = frame.tb_lineno
        frame = frame.tb_next
    # Without a line of its own (a function that was imported): from wherever the error comes.
    report = traceback.TracebackException(type(error), error, start or error.__traceback__, compact=True)
    summary = _summary(error, report)
    if isinstance(error, AssertionError) and not error.args and report.stack:
        statement = _statement(report.stack[-1])
        summary = f"{summary}: {statement}" if statement else summary
    _leave_out_ours(report, path)
    where = f"{shown or path}:{line}" if line else shown or path
    trace = _cut("".join(report.format()).rstrip(), _LONGEST_TRACE)
    return UserError(_cut(summary, _LONGEST_SUMMARY), trace, where, hint_for(error, path))


def _cut(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]} … {len(text) - 2 * half} characters left out … {text[-half:]}"


def name_of(function: Any) -> str:
    """Return a function's name for messages."""
    return str(getattr(function, "__name__", None) or type(function).__name__)


def line_of(function: Any) -> int | None:
    """Return the line of a function's `def`, or of its first decorator."""
    plain = inspect.unwrap(function) if callable(function) else function
    if not isinstance(plain, FunctionType):
        return None
    return plain.__code__.co_firstlineno


def parsed(block: BlockFile, text: str) -> tuple[ast.Module, CodeType]:
    """Parse and compile the file.

    Raises:
        ConfigError: it has a syntax error.
    """
    try:
        tree = ast.parse(text, block.path)
        return tree, compile(tree, block.path, "exec", dont_inherit=True)  # which finds `return` outside of a function
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        shown = f"\n    {error.text.rstrip()}" if isinstance(error, SyntaxError) and error.text else ""
        reason = error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__
        annotated = re.search(r"^\s*@\w+\(.*?(\w+)\s*:\s*\w+\s*=", shown, re.MULTILINE)
        raise ConfigError(
            f"Python syntax error: {reason}{shown}",
            where=f"{block.name}{line}",
            # Mage's documentation shows the arguments of decorators so.
            hint=f"a decorator's argument has no type: write {annotated[1]}=…" if annotated else None,
            code="block.syntax",
        ) from None


def imports_of(tree: ast.AST) -> dict[str, str]:
    """Return the full names of what the file imports, by its names for them (`pd` → `pandas`)."""
    imports: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                imports[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else (alias.name.partition(".")[0])
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                imports[alias.asname or alias.name] = f"{node.module or ''}.{alias.name}"
    return imports


_codes: dict[str, tuple[object, CodeType]] = {}


def injected(block: BlockFile) -> dict[str, Any]:
    """Return the names that a block's file finds in its namespace: the decorators, `__file__` and those of `typing`.

    The functions in Mage's documentation are annotated with `Dict`, `List` and `Callable`, and no file imports them.
    """
    return {**LEGACY, **NAMES, **_TYPING, "__file__": block.path}


def compiled(block: BlockFile) -> CodeType:
    """Return the file's code, compiled once as long as the file stays the same.

    Raises:
        ConfigError: it cannot be read, or has a syntax error.
    """
    stamp: object
    if block.source is None:
        try:
            status = Path(block.path).stat()
        except OSError as error:
            raise ConfigError(
                f"the block's file cannot be read: {error}", where=f"block {block.uuid}", code="file.not_readable"
            ) from None
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
    else:
        stamp = block.source
    known = _codes.get(block.path)
    if known is not None and known[0] == stamp:
        return known[1]
    text = block.text()
    if block.source is not None:  # so that tracebacks can show lines that are in no file of their own
        linecache.cache[block.path] = (len(text), None, text.splitlines(keepends=True), block.path)
    code = parsed(block, text)[1]
    _codes[block.path] = (stamp, code)
    return code


def _names_read(code: CodeType, wanted: Collection[str]) -> set[str]:
    """Return which of the names the code reads as globals without defining them."""
    every = [code]
    for each in every:
        every.extend(inner for inner in each.co_consts if isinstance(inner, CodeType))
    candidates = set(wanted).intersection(*[{name for each in every for name in each.co_names}])
    if not candidates:
        return set()
    read: set[str] = set()
    stored: set[str] = set()
    for each in every:
        for instruction in dis.get_instructions(each):
            if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                read.add(instruction.argval)
            elif instruction.opname == "STORE_GLOBAL" or (instruction.opname == "STORE_NAME" and each is code):
                stored.add(instruction.argval)
    return (candidates & read) - stored


def _is_marked(value: Any, decorators: Collection[str]) -> bool:
    marks = marks_of(value)
    return bool(marks) and any(mark.kind in decorators for mark in marks)


def _unwrapped(value: Any) -> list[Any]:
    """Return the function, and what it wraps."""
    functions = [value]
    while (inner := getattr(functions[-1], "__wrapped__", None)) is not None and len(functions) < 100:
        functions.append(inner)
    return functions


def _summary(error: BaseException, report: traceback.TracebackException) -> str:
    if isinstance(error, SyntaxError):
        return list(report.format_exception_only())[-1].strip()
    lines = next(iter(report.format_exception_only()), "").strip().splitlines()
    # `ParserException: \n  what it is about`: the message may begin on a line of its own.
    if len(lines) > 1 and lines[0].rstrip().endswith(":"):
        return f"{lines[0].rstrip()} {next((line.strip() for line in lines[1:] if line.strip()), '')}".rstrip()
    return lines[0].rstrip() if lines else type(error).__name__


def _statement(frame: traceback.FrameSummary) -> str:
    """Return the statement of an `assert` without a message, in one line."""
    first = frame.lineno or 0
    last = min(frame.end_lineno or first, first + 20)
    lines = (linecache.getline(frame.filename, number).strip() for number in range(first, last + 1))
    text = " ".join(line for line in lines if line)
    # What stands before it on its line is something else; of one in several lines only the expression is known.
    return text[text.find("assert ") :] if "assert " in text else f"assert {text}"


def _leave_out_ours(report: traceback.TracebackException, path: str) -> None:
    """Remove the lines of this package and of the import machinery, also from the exception's causes."""
    seen: list[traceback.TracebackException] = []
    rest = [report]
    while rest:
        exception = rest.pop()
        if any(exception is each for each in seen):
            continue
        seen.append(exception)
        kept = [
            frame
            for frame in exception.stack
            if frame.filename == path
            or not (frame.filename.startswith(_OWN + "/") or frame.filename.startswith("<frozen importlib"))
        ]
        exception.stack = traceback.StackSummary.from_list(kept)
        rest.extend(
            each
            for each in (exception.__cause__, exception.__context__, *(exception.exceptions or ()))
            if each is not None
        )
