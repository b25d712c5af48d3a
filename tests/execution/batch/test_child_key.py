"""What the positions of a dynamic block's child are kept under: never its number."""

from __future__ import annotations

from datetime import date
from typing import Any

import pandas as pd
import pytest

from streamline.execution.batch.fanout import Finished, Instance, items_of_call
from streamline.execution.batch.inputs import child_key
from streamline.execution.batch.task import InputRef
from streamline.outputs.store import pack


def keys(items: list[Any], metadata: list[dict[str, Any]] | None = None) -> list[str | None]:
    inline = pack([items, metadata] if metadata is not None else [items])
    return [
        child_key([InputRef(block="items", type="data_loader", inline=inline, item=number, run_id=f"{inline!r}")])
        for number in range(len(items))
    ]


def test_the_metadata_names_a_child_before_its_item_does() -> None:
    metadata = [{"block_uuid": "first"}, {"other": 1}, {}]
    assert keys([{"key": "a"}, {"key": "b"}, {"key": 3}], metadata) == ["first", "b", "3"]


@pytest.mark.parametrize("items", [["x", "y"], [{"id": 1}, {"id": 2}], [[1], [2]], [1, 2]])
def test_other_items_have_a_hash_that_does_not_change_with_their_place(items: list[Any]) -> None:
    first, second = keys(items)
    assert first != second
    assert keys([*reversed(items), items[0]]) == [second, first, first]


def test_the_order_of_an_items_fields_does_not_matter() -> None:
    assert keys([{"a": 1, "b": 2}]) == keys([{"b": 2, "a": 1}])


def test_a_child_of_several_dynamic_blocks_has_the_keys_of_all_items() -> None:
    inline = pack([[{"key": "a"}, {"key": "b"}]])
    refs = [InputRef(block=block, type="data_loader", inline=inline, item=1, run_id=block) for block in ("x", "y")]
    plain = InputRef(block="z", type="data_loader", inline=pack(1))
    assert child_key([*refs, plain]) == "b,b"
    assert child_key([plain]) is None


def test_items_that_look_alike_differ() -> None:
    frames = [pd.DataFrame({"n": range(1000)}) for _ in range(2)]
    frames[1].loc[500, "n"] = 0
    first, second = keys(frames)
    assert first != second
    assert keys([{(1, 2): "no text", 3: "keys"}]) == keys([{(1, 2): "no text", 3: "keys"}])
    assert keys([{"day": date(2026, 1, 1)}]) != keys([{"day": date(2026, 1, 2)}])
    assert keys([{"key": ""}]) != [""]


def test_a_call_knows_its_items_through_the_blocks_between() -> None:
    outer = Instance(number=0, items=2, ref=InputRef(block="outer", type="custom", folder="o"))
    inner = [
        Instance(number=n, key=(("outer", n),), items=1, ref=InputRef(block="inner", type="custom", folder=f"i{n}"))
        for n in range(2)
    ]
    finished = {
        "outer": Finished(uuid="outer", type="custom", dynamic=True, instances=[outer]),
        "inner": Finished(uuid="inner", type="custom", dynamic=True, child=True, instances=inner),
    }
    items = items_of_call((("outer", 1), ("inner", 0)), finished)
    assert [(item.folder, item.item) for item in items] == [("o", 1), ("i1", 0)]
    assert items_of_call((("unknown", 0),), finished) == ()
