"""What a block returned is what the block behind it gets."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from streamline.outputs.store import OutputError, open_output, pack, read_manifest, unpack
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


class Chunk:
    def __init__(self, number: int) -> None:
        self.number = number


def test_a_generator_is_a_list_of_chunks_each_stored_before_the_next(shelf: Shelf) -> None:
    made: weakref.WeakSet[Chunk] = weakref.WeakSet()
    alive: list[int] = []

    def chunks() -> Iterator[Chunk]:
        for number in range(5):
            alive.append(len(made))
            made.add(chunk := Chunk(number))
            yield chunk
            del chunk

    output = shelf.write(chunks())

    assert [chunk.number for chunk in output.value()] == [0, 1, 2, 3, 4]
    assert [chunk.number for chunk in output.chunks()] == [0, 1, 2, 3, 4]
    assert output.count() == len(output.values()) == 1
    assert alive == [0, 0, 0, 0, 0]


def test_iterators_of_libraries_are_chunks(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a\n1\n2\n3\n")

    assert shelf.write(map(str, [1, 2])).value() == ["1", "2"]
    assert shelf.write(iter(())).value() == []
    frames = shelf.write(pd.read_csv(tmp_path / "x.csv", chunksize=2)).value()
    assert [frame["a"].tolist() for frame in frames] == [[1, 2], [3]]


def test_what_a_generator_raises_is_its_own_and_leaves_the_old_output(shelf: Shelf) -> None:
    shelf.write("old")

    def chunks() -> Iterator[int]:
        yield 1
        raise KeyError("total")

    with pytest.raises(KeyError, match="total"):
        shelf.write(chunks())

    assert open_output(shelf.folder).value() == "old"
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


BIG = {
    "json": ["x" * 10_000],
    "pickle": {1, 2},
    "pandas": pd.DataFrame({"a": range(1000)}),
    "polars": pl.DataFrame({"a": range(1000)}),
    "arrow": pa.table({"a": range(1000)}),
    "ipc": pa.table({"a": pa.array(["x"]).dictionary_encode()}),
}


@pytest.mark.parametrize("value", BIG.values(), ids=BIG)
@pytest.mark.parametrize("damage", ["cut", "garbled", "gone"])
def test_a_damaged_file_is_named(shelf: Shelf, value: Any, damage: str) -> None:
    output = shelf.write(value)
    file = shelf.folder / output.manifest.outputs[0].file
    data = file.read_bytes()
    file.write_bytes({"cut": data[: len(data) // 2], "garbled": b"\xff" * len(data), "gone": b""}[damage])
    if damage == "gone":
        file.unlink()

    with pytest.raises(OutputError) as caught:
        output.value()

    assert str(file) in str(caught.value)


def test_a_form_of_a_later_version_is_named(shelf: Shelf) -> None:
    shelf.write(1)
    manifest = shelf.folder / "manifest.json"
    text = manifest.read_text() if manifest.exists() else shelf.folder.read_text()
    shelf.folder.write_text(text.replace('"codec":"json"', '"codec":"zarr"'))

    with pytest.raises(OutputError, match="an unknown form 'zarr'"):
        open_output(shelf.folder).value()
