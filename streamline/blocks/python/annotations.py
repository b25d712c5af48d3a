"""Which parameters of a block's function ask for tables, by their annotations and by `as_frame=True`."""

from __future__ import annotations

import builtins
import importlib
import inspect
import types
from collections import abc
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ForwardRef, Union, get_args, get_origin

from streamline.decorators import marks_of
from streamline.outputs.frames import Form, Frames, Library

_CLASSES: Mapping[tuple[str, str], Library] = {
    ("pandas", "DataFrame"): "pandas",
    ("polars", "DataFrame"): "polars",
    ("pyarrow", "Table"): "pyarrow",
}
_DICTS = (dict, abc.Mapping, abc.MutableMapping)
_LISTS = (list, abc.Sequence, abc.MutableSequence, abc.Iterable, abc.Collection)


def wanted_frames(
    function: Callable[..., Any], signature: inspect.Signature, imports: Callable[[], Mapping[str, str]]
) -> dict[str, Frames]:
    """Return the parameters that ask for tables.

    Args:
        signature: the function's.
        imports: the full names of what the file imports, by its names for them: text in annotations may name what is
            imported for type checkers only.
    """
    evaluate = _Evaluator(getattr(inspect.unwrap(function), "__globals__", {}), imports)
    wanted: dict[str, Frames] = {}
    for parameter in signature.parameters.values():
        frames = _frames(parameter.annotation, evaluate)
        if frames is not None:
            wanted[parameter.name] = frames
        elif any(mark.kwargs.get("as_frame") for mark in marks_of(function)):
            wanted[parameter.name] = Frames()
    return wanted


def _frames(annotation: Any, evaluate: _Evaluator) -> Frames | None:
    annotation = evaluate(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _frames(arguments[0], evaluate)
    if origin in (Union, types.UnionType):
        members = [frames for each in arguments if (frames := _frames(each, evaluate)) is not None]
        # `DataFrame | dict[str, DataFrame]` takes what there is.
        several = len({frames.form for frames in members}) > 1
        return Frames(library=members[0].library) if several else next(iter(members), None)
    form: Form = "single"
    if origin in _DICTS and len(arguments) == 2:
        form, annotation = "dict", evaluate(arguments[1])
    elif origin in _LISTS and len(arguments) == 1:
        form, annotation = "list", evaluate(arguments[0])
    if not isinstance(annotation, type):
        return None
    library = _CLASSES.get((annotation.__module__.partition(".")[0], annotation.__name__))
    return Frames(library=library, form=form) if library is not None else None


class _Evaluator(Mapping[str, Any]):
    """Gives annotations that are text their value. As a mapping: what the file imports for type checkers only."""

    def __init__(self, names: dict[str, Any], imports: Callable[[], Mapping[str, str]]) -> None:
        self._names = names
        self._imports = imports

    def __call__(self, annotation: Any) -> Any:
        if isinstance(annotation, ForwardRef):
            annotation = annotation.__forward_arg__
        if not isinstance(annotation, str):
            return annotation
        try:
            return self(eval(annotation, self._names, self))
        except Exception:  # an annotation may be anything
            return None

    def __getitem__(self, name: str) -> Any:
        if name in self._names or hasattr(builtins, name):
            raise KeyError(name)
        module, _, member = self._imports()[name].rpartition(".")
        return getattr(importlib.import_module(module), member) if module else importlib.import_module(member)

    def __iter__(self) -> abc.Iterator[str]:
        return iter(self._imports())

    def __len__(self) -> int:
        return len(self._imports())
