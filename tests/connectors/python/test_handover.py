"""The buffer between a source's thread and the event loop."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest

from streamline.connectors.inbox import Inbox
from streamline.connectors.python.handover import Handover, Stop
from streamline.flow.codecs.sizes import WAITING_BYTES
from streamline.flow.items import MessageBatch


def handover(limit: int = 10, start: Mapping[str, bytes] | None = None) -> Handover:
    return Handover(limit, start or {}, waits=True)


def blocked(put: threading.Thread) -> bool:
    put.join(0.05)
    return put.is_alive()


@pytest.mark.parametrize("messages", [[1] * 10, ["x" * WAITING_BYTES]])
def test_it_is_full_of_many_messages_or_of_large_ones(messages: list[object]) -> None:
    full = handover()
    full.put(messages, position=1)
    put = threading.Thread(target=full.put, args=([2], 2))
    put.start()
    assert blocked(put)
    taken = full.take()
    assert taken is not None
    assert (taken.data, taken.parts) == (messages, {"position": b"1"})
    put.join()
    taken = full.take()
    assert taken is not None
    assert (taken.data, taken.parts) == ([2], {"position": b"2"})


def test_what_is_larger_than_all_the_room_passes_alone() -> None:
    empty = handover(limit=2)
    empty.put([1, 2, 3], position=1)
    taken = empty.take()
    assert taken is not None
    assert taken.data == [1, 2, 3]


def test_a_position_may_come_without_messages() -> None:
    some = handover()
    some.put([], position="later")
    taken = some.take()
    assert taken is not None
    assert (taken.data, taken.parts) == ([], {"position": b'"later"'})
    assert some.take() is None


def test_counts_and_positions_go_on_from_where_they_were() -> None:
    some = handover(start={"position": b"5", "delivered": b"7"})
    put = threading.Thread(target=some.put, args=([1, 2],))
    put.start()
    while (taken := some.take()) is None:
        pass
    assert (taken.parts, taken.awaited) == ({"position": b"5", "delivered": b"9"}, True)
    assert blocked(put)
    some.confirm({"delivered": b"9"})
    put.join()


def test_a_call_whose_proof_does_not_come_does_not_return() -> None:
    some = handover()
    raised: list[BaseException] = []

    def put() -> None:
        try:
            some.put([1])
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=put)
    thread.start()
    while some.take() is None:
        pass
    some.stop()
    assert blocked(thread)
    some.close()
    thread.join()
    assert [type(error) for error in raised] == [Stop]


def test_stopped_it_takes_nothing_more() -> None:
    some = handover()
    some.stop()
    with pytest.raises(Stop):
        some.put([1], position=1)
    assert some.take() is None


def test_an_inbox_is_full_of_many_messages_or_of_large_ones() -> None:
    for data in ([1] * 10, [b"x" * WAITING_BYTES]):
        inbox = Inbox(10)
        assert inbox.put("s", [MessageBatch("s", list(data))])
        assert inbox.full
        assert not inbox.put("s", [MessageBatch("s", [1])])
        assert inbox.take(None) == ([("s", [MessageBatch("s", list(data))])], False)
        assert not inbox.full
