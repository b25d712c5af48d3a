"""What to do about common errors of user code."""

from __future__ import annotations

import inspect
import linecache
import re
import sys
from types import FrameType


def hint_for(error: BaseException, path: str) -> str | None:
    """Return a hint for an error; None if there is none for its kind.

    Args:
        path: the block's file: the name that its code was compiled under.
    """
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _missing_module(error.name)
    if isinstance(error, KeyError) and len(error.args) == 1 and isinstance(error.args[0], str):
        return _missing_variable(error, error.args[0], path)
    return None


def _missing_module(name: str) -> str | None:
    package = name.partition(".")[0]
    if package in sys.modules or package == "mage_ai":  # it is there, and lacks a part; our alias says more itself
        return None
    return (
        f"pip install {package}, if that is its package's name; or put it into the pipeline's requirements.txt and "
        "run the block isolated; `streamline check` tells all that is missing"
    )


def _missing_variable(error: KeyError, name: str, path: str) -> str | None:
    """Return a hint for `kwargs['x']` if there is no variable x."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or trace.tb_frame.f_code.co_filename != path:
        return None
    keywords = _keywords(trace.tb_frame)
    if keywords is None:
        return None
    asked = rf"""\b{re.escape(keywords)}(\[|\.pop\()\s*['"]{re.escape(name)}['"]"""
    if re.search(asked, linecache.getline(path, trace.tb_lineno)) is None:
        return None
    return f"set it for this run with --runtime-vars {name}=…, or for all under `variables:` in metadata.yaml"


def _keywords(frame: FrameType) -> str | None:
    """Return the name of the function's `**kwargs`."""
    code = frame.f_code
    if not code.co_flags & inspect.CO_VARKEYWORDS:
        return None
    at = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & inspect.CO_VARARGS)
    return code.co_varnames[at]
