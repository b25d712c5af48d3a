"""The items of a dynamic block's output: each child block gets one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from streamline.errors import ConfigError
from streamline.outputs.manifest import StoredValue
from streamline.outputs.output import Output
from streamline.outputs.values import kind_of


class Items:
    """The items of a dynamic block's output.

    Args:
        count: how many there are.
        get: one of them, new each time.
        metadata: what the output says about each, for the keyword arguments of its child.
    """

    def __init__(self, count: int, get: Callable[[int], Any], metadata: list[dict[str, Any]]) -> None:
        self._count = count
        self._get = get
        self._metadata = metadata

    def __len__(self) -> int:
        return self._count

    def get(self, index: int) -> Any:
        """Return the item number `index`, from 0.

        Raises:
            IndexError: there are not so many.
        """
        if not 0 <= index < self._count:
            raise IndexError(f"there are {self._count} items, no number {index}")
        return self._get(index)

    def metadata(self, index: int) -> dict[str, Any]:
        """Return the metadata of an item; empty if it has none."""
        return self._metadata[index] if index < len(self._metadata) else {}


def items_of(value: Any) -> Items:
    """Return the items of what a dynamic block returned.

    Args:
        value: an `Output`, or the value: a flat list; `[[items…], [metadata…]]` (an outer list of at most two lists,
            the second of dicts) or `[[items…]]`; a tuple `(items, metadata)`; a DataFrame, whose rows are the items (a
            pandas Series, a dict of Polars or Arrow); or a generator, whose chunks are the items.

    Raises:
        ConfigError: it is nothing of the kind; the message says what it is.
    """
    if isinstance(value, Output):
        manifest = value.manifest
        if manifest.form == "chunks":
            return _parts(value, manifest.outputs)
        if manifest.form == "single":
            lazy = _lazy(value, manifest.outputs[0])
            if lazy is not None:
                return lazy
        whole = value.value()
        return _of_pair(whole) if manifest.form == "tuple" else _of(whole)
    if isinstance(value, tuple):
        return _of_pair(list(value))
    return _of(value)


def _lazy(output: Output, stored: StoredValue) -> Items | None:
    """Return the items of a table or of a list of tables, counted without reading them; None for anything else."""
    if stored.codec == "list":
        return _parts(output, stored.parts)
    if stored.codec not in ("pandas", "polars", "arrow", "arrow_batch") or stored.rows is None:
        return None
    rows: list[Items] = []

    def get(index: int) -> Any:
        if not rows:
            rows.append(_rows(output.read(stored)))
        return rows[0].get(index)

    return Items(stored.rows, get, [])


def _parts(output: Output, stored: list[StoredValue]) -> Items:
    return Items(len(stored), lambda index: output.read(stored[index]), [])


def _of_pair(parts: list[Any]) -> Items:
    if len(parts) in (1, 2):
        items = _of_items(parts[0])
        metadata = parts[1] if len(parts) == 2 else []
        if items is not None and _is_metadata(metadata):
            return Items(len(items), items.get, metadata)
    raise _wrong("a tuple of " + ", ".join(map(kind_of, parts)) if parts else "an empty tuple")


def _of(value: Any) -> Items:
    if type(value) is list and 1 <= len(value) <= 2 and all(type(part) is list for part in value):
        # Two lists of anything else are two items.
        if len(value) == 1 or _is_metadata(value[1]):
            return _flat(*value)
    elif type(value) is list and len(value) == 2 and _is_frame(value[0]) and _is_metadata(value[1]):
        return _of_pair(value)
    items = _of_items(value)
    if items is None:
        raise _wrong("None" if value is None else kind_of(value))
    return items


def _of_items(value: Any) -> Items | None:
    if isinstance(value, list):
        return _flat(value)
    if _is_frame(value):
        return _rows(value)
    return None


def _flat(items: list[Any], metadata: list[dict[str, Any]] | None = None) -> Items:
    return Items(len(items), lambda index: copy.deepcopy(items[index]), metadata or [])


def _rows(frame: Any) -> Items:
    library = type(frame).__module__.partition(".")[0]
    if library == "pandas":
        return Items(len(frame), lambda index: _pandas_row(frame, index), [])
    if library == "polars":
        return Items(frame.height, lambda index: frame.row(index, named=True), [])
    return Items(frame.num_rows, lambda index: frame.slice(index, 1).to_pylist()[0], [])


def _pandas_row(frame: Any, index: int) -> Any:
    row = frame.iloc[index].copy()
    if row.dtype != object:
        return row
    import numpy as np
    import pandas as pd

    # pandas copies a row's lists and dicts by reference.
    values = np.fromiter((copy.deepcopy(value) for value in row), object, len(row))
    return pd.Series(values, index=row.index, name=row.name, dtype=object)


def _is_frame(value: Any) -> bool:
    kind = type(value)
    return (kind.__module__.partition(".")[0], kind.__name__) in {
        ("pandas", "DataFrame"),
        ("polars", "DataFrame"),
        ("pyarrow", "Table"),
        ("pyarrow", "RecordBatch"),
    }


def _is_metadata(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def _wrong(what: str) -> ConfigError:
    return ConfigError(
        f"a dynamic block returned {what}, which cannot be split into items",
        hint="return a list of items, [[items], [metadata]], or a DataFrame",
        code="output.not_items",
    )
