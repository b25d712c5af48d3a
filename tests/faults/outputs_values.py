"""What blocks of random batch pipelines do: they return a value of a kind, and note what they were given and return.

It is imported by the blocks, and by whoever checks the notes.
"""

from __future__ import annotations

import collections
import datetime as dt
import json
import os
import pickle
import random
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa


class Pair(NamedTuple):
    """A named tuple, which is several outputs."""

    left: Any
    right: Any


def _frame(token: int) -> pd.DataFrame:
    return pd.DataFrame({"token": [token, token + 1], "text": ["ü", None], "price": [0.1, float("nan")]})


def _odd_frame(token: int) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "token": pd.array([token, None], "Int64"),
            "kind": pd.Categorical(["a", "b"], ["b", "a", "c"], ordered=True),
            "at": pd.to_datetime(["2024-02-29 10:00", None]).tz_localize("Europe/Berlin"),
            "took": pd.to_timedelta([1, 2], unit="ns"),
            "period": pd.period_range("2024-01", periods=2, freq="M"),
            "mixed": [1, "1"],
            "nested": [{"k": [1, None]}, [token]],
            "flag": pd.array([True, None], "boolean"),
            "bytes": [b"\x00", b""],
            "decimal": [Decimal("1.10"), None],
            "big": [2**70, token],
            "unsigned": np.array([2**63, 1], "uint64"),
            "half": np.array([0.5, 1.5], "float16"),
            "complex": [1j, 2j],
            "text": pd.array(["x", None], "string"),
            "range": pd.interval_range(0, 2),
            "sparse": pd.arrays.SparseArray([0, 1]),
            "date": [dt.date(2024, 2, 29), dt.date(1, 1, 1)],
        }
    )
    frame.attrs["token"] = token
    return frame


def _odd_indexes(token: int) -> list[pd.DataFrame]:
    base = pd.DataFrame({"token": [token, token + 1, token + 2]})
    levels = pd.MultiIndex.from_tuples([(1, "a"), (1, "b"), (2, None)], names=["n", None])
    doubled = pd.DataFrame([[token, 2, 3]] * 3, columns=["a", "a", 0])
    wide = pd.DataFrame([[token, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)]))
    return [
        base.set_axis(pd.date_range("2024-01-01", periods=3, freq="D", name="day")),
        base.set_axis(pd.RangeIndex(10, 16, 2)),
        base.set_axis(levels),
        base.set_axis(pd.CategoricalIndex(["x", "y", "x"])),
        base.set_axis([1, "1", None]),
        doubled,
        wide,
        base.iloc[:0],
        pd.DataFrame(index=[token]),
        pd.DataFrame(),
    ]


def _polars(token: int) -> Any:
    import polars as pl

    return pl.DataFrame({"token": [token, None], "list": [[1], []], "cat": pl.Series(["a", "b"], dtype=pl.Categorical)})


def _chunks(token: int) -> Iterator[Any]:
    yield _frame(token)
    time.sleep(0.01)
    yield _frame(token + 10)


def _mixed_chunks(token: int) -> Iterator[Any]:
    yield {"token": token}
    yield None
    yield (token, [token])


KINDS: dict[str, Callable[[int], Any]] = {
    "frame": _frame,
    "odd frame": _odd_frame,
    "indexes": _odd_indexes,
    "one index": lambda token: _odd_indexes(token)[token % 10],
    "polars": _polars,
    "arrow": lambda token: pa.table({"token": [token], "s": [{"a": 1}]}, metadata={"k": "v"}),
    "series": lambda token: pd.Series([token, 1], index=["a", "b"], name="s"),
    "array": lambda token: np.array([[token, 1]], "int64"),
    "rows": lambda token: [{"token": token, "name": "ü", "price": 0.1, "none": None}, {"token": token}],
    "rows of odd values": lambda token: [{"token": token, 1: (token,), "at": dt.datetime(2024, 2, 29), "b": b"\xff"}],
    "integer": lambda token: token,
    "big integer": lambda token: 2**70 + token,
    "float": lambda token: token + 0.5,
    "odd floats": lambda token: [float("nan"), float("inf"), -0.0, token],
    "text": lambda token: f"{token} \ud800 \0",
    "bytes": lambda token: str(token).encode(),
    "decimal": lambda token: Decimal(token) / 1000,
    "moment": lambda token: dt.datetime.fromtimestamp(token % 10**9, dt.UTC),
    "true": lambda token: True,
    "nothing": lambda token: None,
    "empty list": lambda token: [],
    "empty dict": lambda token: {},
    "one in a list": lambda token: [token],
    "frame in a list": lambda token: [_frame(token)],
    "dict of frames": lambda token: {"a": _frame(token), "b": _odd_frame(token)},
    "nested": lambda token: {"a": {"b": [token, {"c": None, 2: {"d"}}]}, "t": (1, [2])},
    "ordered": lambda token: collections.OrderedDict(b=token, a=1),
    "default": lambda token: collections.defaultdict(list, {"token": [token]}),
    "pair": lambda token: (_frame(token), token),
    "tuple of none": lambda token: (None, token),
    "empty tuple": lambda token: (),
    "named pair": lambda token: Pair(token, [token]),
    "chunks": _chunks,
    "mixed chunks": _mixed_chunks,
    "no chunks": lambda token: iter(()),
    "map": lambda token: map(str, [token, 1]),
}
"""Kinds of outputs, made from a number that no other call has."""

ITEMS: dict[str, Callable[[int], Any]] = {
    "items": lambda token: [{"token": token + n} for n in range(3)],
    "numbers": lambda token: [token, token + 1],
    "items and metadata": lambda token: [[token, token + 1], [{"block_uuid": "a"}, {"block_uuid": "b"}]],
    "rows": _frame,
    "no items": lambda token: [],
    "chunks of items": lambda token: iter([token, token + 1, None]),
    "frames": lambda token: [_frame(token), _odd_frame(token)],
}
"""What dynamic blocks return."""


class Note(NamedTuple):
    """What one call noted: it is written before the value is returned."""

    block: str
    run: str
    child: int | None
    inputs: tuple[Any, ...]
    returned: Any
    is_iterator: bool
    failed: bool
    when: int


def call(name: str, inputs: tuple[Any, ...], settings: dict[str, Any]) -> Any:
    """Be a block: behave as the file `acts/<name>.json` says."""
    root = Path(settings["repo_path"])
    act = json.loads((root / "acts" / f"{name}.json").read_text())
    token = uuid.uuid4().int % 2**52
    child = settings.get("dynamic_block_index")
    folder = root / "notes" / name
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.iterdir()))
    time.sleep(random.random() * act["sleep"])
    make = (ITEMS if act["dynamic"] else KINDS)[act["kind"]]
    value = make(token)
    is_iterator = hasattr(type(value), "__next__")
    returned = list(value) if is_iterator else value
    trouble = act["troubles"][number] if number < len(act["troubles"]) else None
    note = Note(name, settings["run_id"], child, inputs, returned, is_iterator, trouble is not None, time.time_ns())
    path = folder / f".{token}"
    path.write_bytes(pickle.dumps(note))
    path.rename(folder / str(token))
    if trouble == "raises" and not is_iterator:
        raise ValueError("no")
    if trouble == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if trouble == "cannot be stored":
        return {"token": token, "lock": open(os.devnull)}
    return _iterator(returned, fails=trouble is not None) if is_iterator else returned


def _iterator(chunks: list[Any], *, fails: bool) -> Iterator[Any]:
    yield from chunks
    if fails:
        raise ValueError("no")
