"""What to do about common errors of user code."""

from __future__ import annotations

import inspect
import linecache
import re
import sys
from pathlib import Path
from types import FrameType, TracebackType

MAGE_NAME = "default_repo"
"""The name of the project's folder in Mage's own examples and images."""

_STREAM_KEYS = {"stream", "columns", "rows"}


def hint_for(error: BaseException, path: str) -> str | None:
    """Return a hint for an error; None if there is none for its kind.

    Args:
        path: the block's file: the name that its code was compiled under.
    """
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _missing_module(error, error.name.partition(".")[0])
    if isinstance(error, AttributeError | KeyError | TypeError) and (hint := _taken_for_a_table(error, path)):
        return hint
    if isinstance(error, KeyError) and len(error.args) == 1 and isinstance(error.args[0], str):
        return _missing_variable(error, error.args[0], path)
    return None


def _taken_for_a_table(error: BaseException, path: str) -> str | None:
    """Return a hint for code that uses a source's output, as it comes without an annotation, as if it were a table."""
    trace = _innermost(error)
    if trace is None or trace.tb_frame.f_code.co_filename != path:
        return None
    line = linecache.getline(path, trace.tb_lineno)
    for name, value in trace.tb_frame.f_locals.items():
        several = isinstance(value, list)
        streams = value if several else [value]
        is_output = bool(streams) and all(isinstance(each, dict) and each.keys() == _STREAM_KEYS for each in streams)
        if is_output and re.search(rf"\b{re.escape(name)}\b", line):
            shape = f"{'a list of dicts' if several else 'a dict'} of 'stream', 'columns' and 'rows'"
            table = "dict[str, pandas.DataFrame]" if several else "pandas.DataFrame"
            return f"'{name}' is {shape}, as sources give it: annotate the parameter with {table} to get tables"
    return None


def _missing_module(error: ModuleNotFoundError, package: str) -> str | None:
    if package in sys.modules or package == "mage_ai":  # it is there, and lacks a part; our alias says more itself
        return None
    if _may_be_project(error, package):
        folder = Path.cwd().name
        return f"'{package}' may be another name of this project's folder: import from '{folder}', or leave it out"
    return (
        f"pip install {package}, if that is its package's name; or put it into the pipeline's requirements.txt and "
        "run the block isolated; `streamline check` tells all that is missing"
    )


def _may_be_project(error: ModuleNotFoundError, package: str) -> bool:
    """Return whether the import names a folder or file of the project: a stranger's package may have such a name."""
    trace = _innermost(error)
    line = linecache.getline(trace.tb_frame.f_code.co_filename, trace.tb_lineno) if trace is not None else ""
    below = re.search(rf"\b{re.escape(package)}(?:\.|\s+import\s+)(\w+)", line)
    return package == MAGE_NAME or (below is not None and bool(list(Path.cwd().glob(f"{below[1]}*"))))


def _missing_variable(error: KeyError, name: str, path: str) -> str | None:
    """Return a hint for `kwargs['x']` if there is no variable x."""
    trace = _innermost(error)
    if trace is None or trace.tb_frame.f_code.co_filename != path:
        return None
    keywords = _keywords(trace.tb_frame)
    if keywords is None:
        return None
    asked = rf"""\b{re.escape(keywords)}(\[|\.pop\()\s*['"]{re.escape(name)}['"]"""
    if re.search(asked, linecache.getline(path, trace.tb_lineno)) is None:
        return None
    return f"set it for this run with --runtime-vars {name}=…, or for all under `variables:` in metadata.yaml"


def _innermost(error: BaseException) -> TracebackType | None:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace


def _keywords(frame: FrameType) -> str | None:
    """Return the name of the function's `**kwargs`."""
    code = frame.f_code
    if not code.co_flags & inspect.CO_VARKEYWORDS:
        return None
    at = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & inspect.CO_VARARGS)
    return code.co_varnames[at]
