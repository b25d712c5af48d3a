"""What every store of positions keeps to, as far as a flow needs it."""

from __future__ import annotations

from streamline.flow.items import FORGOTTEN, BadRecord
from streamline.flow.protocols import PositionStore


def test_what_changed_is_returned_and_a_key_that_is_missing_deletes_nothing(position_store: PositionStore) -> None:
    assert position_store.save("load", {"a": b"1", "b": b"1"}, []) == {"a": b"1", "b": b"1"}
    assert position_store.save("load", {"b": b"2"}, []) == {"b": b"2"}
    assert position_store.save("load", {"a": b"1", "b": b"3"}, []) == {"b": b"3"}


def test_a_key_that_is_forgotten_loses_its_value_once(position_store: PositionStore) -> None:
    position_store.save("load", {"a": b"1", "b": b"1"}, [])
    assert position_store.save("load", {"a": b"2", "b": FORGOTTEN}, []) == {"a": b"2", "b": FORGOTTEN}
    assert position_store.save("load", {"a": b"2", "b": FORGOTTEN, "c": FORGOTTEN}, []) == {}
    assert position_store.save("load", {"b": b"1"}, []) == {"b": b"1"}


def test_refused_records_may_come_without_a_position(position_store: PositionStore) -> None:
    bad = BadRecord("a", b'{"id": 1}', "odd", "validate")
    assert position_store.save("load", {}, [bad]) == {}
    assert position_store.save("load", {"a": b"1"}, [bad]) == {"a": b"1"}
