"""What a tap has dropped from its STATE is forgotten; what it only did not repeat stays."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
import pytest

from streamline.connectors.singer.dropped_keys import DroppedKeys, DroppedKeysSource
from streamline.connectors.singer.state import StateParts, state_of
from streamline.flow.items import FORGOTTEN, REST, Item, Position
from streamline.flow.protocols import Emit

pytestmark = pytest.mark.anyio

STREAMS = ("users", "orders", "items")


def parts(bookmarks: Mapping[str, Any], **rest: Any) -> StateParts:
    return StateParts(msgspec.json.encode({"bookmarks": bookmarks, **rest}))


def state(of: Mapping[str, bytes]) -> dict[str, Any]:
    """The bookmarks of a position."""
    return dict(msgspec.json.decode(state_of(of)))["bookmarks"]


def forgotten(of: Mapping[str, bytes] | None) -> set[str] | None:
    """The keys that a position forgets; None if there is no position."""
    return None if of is None else {key for key, value in of.items() if value == FORGOTTEN}


def keys(*given: str) -> DroppedKeys:
    return DroppedKeys(given, STREAMS.__contains__)


def test_a_stream_that_all_other_states_show_is_forgotten_at_the_end() -> None:
    dropped = keys()
    assert forgotten(dropped.next(parts({"users": 1, "orders": 1}))) == set()
    last = dropped.next(parts({"users": 2}))
    assert forgotten(last) == set()
    assert forgotten(dropped.at_end(last)) == {"orders"}


def test_a_tap_that_still_shows_everything_has_no_position_after_its_last() -> None:
    dropped = keys("users", "orders")
    dropped.next(parts({"users": 1, "orders": 1}))
    assert dropped.at_end(dropped.next(parts({"users": 2, "orders": 1}))) is None


def test_a_given_stream_that_is_never_shown_is_forgotten_if_states_show_several() -> None:
    dropped = keys("users", "orders", "items")
    last = dropped.next(parts({"users": 1, "orders": 1}))
    assert forgotten(dropped.at_end(last)) == {"items"}


def test_a_given_stream_is_kept_if_states_show_one_at_a_time() -> None:
    dropped = keys("users", "orders")
    assert dropped.at_end(dropped.next(parts({"users": 1}))) is None


def test_states_of_streams_that_take_turns_are_merged() -> None:
    dropped = keys()
    assert state(dropped.next(parts({"users": 1}))) == {"users": 1}
    assert state(dropped.next(parts({"orders": 1}))) == {"users": 1, "orders": 1}
    last = dropped.next(parts({"users": 2}))
    assert state(last) == {"users": 2, "orders": 1}
    assert forgotten(last) == set()
    assert dropped.at_end(last) is None


def test_a_stream_that_comes_back_was_only_not_repeated() -> None:
    dropped = keys()
    dropped.next(parts({"users": 1, "orders": 1}))
    dropped.next(parts({"users": 2}))
    assert state(dropped.next(parts({"users": 2, "orders": 2}))) == {"users": 2, "orders": 2}
    last = dropped.next(parts({"users": 3}))
    assert state(last) == {"users": 3, "orders": 2}
    assert dropped.at_end(last) is None


def test_a_stream_that_is_added_takes_no_turns() -> None:
    dropped = keys()
    dropped.next(parts({"users": 1}))
    dropped.next(parts({"users": 1, "orders": 1}))
    assert state(dropped.next(parts({"orders": 2}))) == {"orders": 2}


def test_a_key_of_no_stream_is_forgotten_as_soon_as_it_is_missing() -> None:
    dropped = keys("cursor")
    assert forgotten(dropped.next(parts({"users": 1}))) == {"cursor"}
    assert forgotten(dropped.next(parts({"users": 1, "cursor": 5}))) == set()
    assert forgotten(dropped.next(parts({"users": 2}))) == {"cursor"}


def test_what_stood_beside_the_bookmarks_is_forgotten_once_it_is_missing() -> None:
    dropped = keys()
    assert forgotten(dropped.next(parts({"users": 1}, page=5))) == set()
    assert forgotten(dropped.next(parts({"users": 2}))) == {REST}
    assert forgotten(dropped.next(parts({"users": 3}, page=6))) == set()
    assert forgotten(keys().next(parts({"users": 1}))) == set()
    assert forgotten(keys(REST).next(parts({"users": 1}))) == {REST}


def test_what_stands_beside_merged_bookmarks_stays() -> None:
    dropped = keys()
    dropped.next(parts({"users": 1}))
    merged = dropped.next(parts({"orders": 1}, page=5))
    assert msgspec.json.decode(state_of(merged)) == {"bookmarks": {"users": 1, "orders": 1}, "page": 5}


def test_a_state_of_another_shape_forgets_nothing() -> None:
    dropped = keys("users")
    last = dropped.next(StateParts(b'{"lsn": 7}'))
    assert state_of(last) == b'{"lsn": 7}'
    assert forgotten(last) == set()
    assert dropped.at_end(last) is None


class Tap:
    """Gives positions, and ends by itself or because it was stopped."""

    id = "load"

    def __init__(self, *given: StateParts, stopped: str | None = None) -> None:
        self.given = given
        self.stopped = stopped

    async def run(self, emit: Emit) -> None:
        for number, each in enumerate(self.given, start=1):
            await emit([Position(self.id, number, each)])

    def stop(self, reason: str) -> None:
        self.stopped = reason

    async def confirm(self, parts: Mapping[str, bytes]) -> None:
        pass

    async def release(self, keys: Collection[str]) -> None:
        pass


async def positions(tap: Tap) -> list[tuple[int, set[str] | None]]:
    """The numbers of the positions, and what each forgets."""
    out: list[tuple[int, set[str] | None]] = []

    async def emit(items: Sequence[Item]) -> None:
        out.extend((item.number, forgotten(item.parts)) for item in items if isinstance(item, Position))

    await DroppedKeysSource(tap, keys()).run(emit)
    return out


async def test_a_last_position_after_the_end_of_a_tap_forgets_what_it_dropped() -> None:
    given = parts({"users": 1, "orders": 1}), parts({"users": 2})
    assert await positions(Tap(*given)) == [(1, set()), (2, set()), (3, {"orders"})]
    # One that was stopped might have shown it again.
    assert await positions(Tap(*given, stopped="asked to")) == [(1, set()), (2, set())]
    assert await positions(Tap()) == []
