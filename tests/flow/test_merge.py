"""What a sink is sent of two paths of one source: list in, list out."""

from __future__ import annotations

import msgspec

from streamline.flow.items import ActivateVersion, Item, Position, RowBatch, Schema
from streamline.flow.merge import Merge

FIRST, SECOND = 0, 1


def at(number: int, *withheld: str) -> Position:
    return Position("load", number, {"users": b"%d" % number}, frozenset(withheld))


def row(value: int) -> RowBatch:
    return RowBatch("users", [{"id": value}])


def schema(*columns: str) -> Schema:
    return Schema("users", {"properties": {name: {} for name in columns}})


def test_a_position_passes_when_the_last_path_has_reached_it() -> None:
    merge = Merge(2)
    assert merge.take(FIRST, [row(1), at(1), row(2), at(2)]) == [row(1), row(2)]
    assert merge.take(SECOND, [row(1)]) == [row(1)]
    assert merge.take(SECOND, [at(1), row(2)]) == [at(1), row(2)]
    assert merge.take(FIRST, [at(3)]) == []
    assert merge.take(SECOND, [at(3)]) == [at(3)]


def test_paths_that_skip_positions_still_move_it() -> None:
    merge = Merge(2)
    assert merge.take(FIRST, [at(2)]) == []
    assert merge.take(SECOND, [at(1), at(3)]) == [at(1), at(2)]
    assert merge.take(FIRST, [at(4)]) == [at(3)]
    assert merge.take(FIRST, [at(5)]) == []


def test_what_one_path_withholds_is_withheld() -> None:
    merge = Merge(2)
    merge.take(FIRST, [at(1, "users")])
    assert merge.take(SECOND, [at(1, "orders")]) == [at(1, "users", "orders")]


def test_after_the_end_the_newest_position_passes_once() -> None:
    merge = Merge(2)
    merge.take(FIRST, [at(1, "users")])
    merge.take(SECOND, [at(1)])
    # A version stage sends its position again, under the next number, when it no longer withholds anything.
    released = msgspec.structs.replace(at(1), number=2)
    assert merge.take(FIRST, [released]) == []
    assert merge.finish() == [released]
    assert merge.finish() == []
    assert Merge(2).finish() == []


def test_each_path_has_its_own_schema() -> None:
    merge = Merge(2)
    one, two = schema("id", "one"), schema("id", "two")
    sent: list[Item] = merge.take(FIRST, [one, row(1)])
    sent += merge.take(SECOND, [two, row(1), row(2)])
    sent += merge.take(FIRST, [row(2), row(3)])
    assert sent == [one, row(1), two, row(1), row(2), one, row(2), row(3)]


def test_a_version_is_activated_when_the_last_path_has_reached_it() -> None:
    merge = Merge(2)
    activate = ActivateVersion("users", 7)
    for _ in range(2):
        assert merge.take(SECOND, [activate, row(1)]) == [row(1)]
        assert merge.take(FIRST, [activate, row(1)]) == [activate, row(1)]
