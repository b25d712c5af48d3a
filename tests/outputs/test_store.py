"""What a block returned is what the block behind it gets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest

from streamline.outputs.store import OutputError, pack, read_manifest, unpack
from tests.outputs.conftest import Shelf


def test_a_tuple_is_several_outputs_and_comes_back_as_a_list(shelf: Shelf) -> None:
    output = shelf.write((pd.DataFrame({"a": [1]}), {"b": 2}))

    frame, other = output.value()

    assert output.count() == 2
    assert frame.equals(pd.DataFrame({"a": [1]}))
    assert other == {"b": 2}
    assert [type(value) for value in output.values()] == [pd.DataFrame, dict]
    assert "output_0.parquet" in shelf.names()


def test_none_is_none(shelf: Shelf) -> None:
    output = shelf.write(None)

    assert output.value() is None
    assert output.values() == [None]
    assert read_manifest(shelf.folder).form == "none"


def test_a_generator_is_a_list_of_chunks_each_stored_before_the_next(shelf: Shelf) -> None:
    alive: list[int] = []
    most = 0

    class Chunk(dict[str, Any]):
        def __init__(self, number: int) -> None:
            super().__init__(n=number)
            alive.append(number)

        def __del__(self) -> None:
            alive.pop()

    def chunks() -> Iterator[Any]:
        nonlocal most
        for number in range(5):
            most = max(most, len(alive))
            yield pd.DataFrame(Chunk(number), index=[0])

    output = shelf.write(chunks())

    assert [int(chunk["n"][0]) for chunk in output.value()] == [0, 1, 2, 3, 4]
    assert output.count() == 1
    assert most <= 1


def test_what_a_generator_raises_is_its_own_and_leaves_the_old_output(shelf: Shelf) -> None:
    shelf.write("old")

    def chunks() -> Iterator[int]:
        yield 1
        raise KeyError("total")

    with pytest.raises(KeyError, match="total"):
        shelf.write(chunks())

    assert shelf.write is not None
    assert [path.name for path in shelf.pipeline.iterdir()] == ["block"]


def test_what_cannot_be_stored_is_named(shelf: Shelf) -> None:
    with pytest.raises(OutputError, match=r"output 0: a dict; at \['lock'\]: cannot pickle '_thread.lock' object"):
        shelf.write({"a": 1, "lock": threading.Lock()})

    assert not shelf.folder.exists()


def test_a_packed_output_touches_no_disk() -> None:
    output = unpack(pack(({"password": "x"}, pd.DataFrame({"a": [1]}), {1, 2})))

    assert output.value()[0] == {"password": "x"}
    assert output.value()[2] == {1, 2}
    assert output.parquet() is None
