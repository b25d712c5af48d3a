"""What of a position may be saved after a stream was stopped."""

from __future__ import annotations

import pytest

from streamline.errors import PipelineFailed, StreamFailed, StreamlineError
from streamline.flow.items import Item, Position, RowBatch
from streamline.flow.stops import StoppedStreams, StopPolicy

ERROR = StreamlineError("a stage failed")


def stopped(told: list[str] | None = None) -> StoppedStreams:
    """No stream is stopped yet, and all have one bookmark `shared`."""
    policy = StopPolicy(
        lambda stream, position: ["shared"],
        lambda stream, error: told.append(stream) if told is not None else None,
    )
    streams = StoppedStreams(policy)
    streams.rewinds = True
    return streams


def at(number: int, **parts: bytes) -> Position:
    return Position("load", number, {"other": b"%d" % number, **(parts or {"shared": b"%d" % number})})


def of(stream: str) -> Item:
    return RowBatch(stream, [{}])


def test_a_key_of_two_streams_keeps_its_value_before_the_first_of_them_stopped() -> None:
    stem = stopped()
    branch = stem.branch()
    branch.rewinds = True
    assert branch.position(at(1)) == at(1)
    stem.add(of("orders"), ERROR)
    assert branch.position(at(2)).parts == {"other": b"2", "shared": b"1"}
    branch.add(of("users"), ERROR)
    assert branch.position(at(3)).parts == {"other": b"3", "shared": b"1"}

    later = stopped()
    for number, stream in enumerate(("users", "orders"), start=1):
        later.position(at(number))
        later.add(of(stream), ERROR)
    assert later.position(at(3)) == Position("load", 3, {"other": b"3", "shared": b"1"})


def test_a_key_without_a_value_before_the_stop_is_withheld() -> None:
    for before in ([], [at(1, more=b"1")]):
        streams = stopped()
        for position in before:
            streams.position(position)
        streams.add(of("users"), ERROR)
        saved = streams.position(at(2))
        assert (saved.parts, saved.withheld) == (at(2).parts, {"shared"})


def test_where_a_position_has_several_paths_the_key_is_withheld() -> None:
    streams = stopped()
    streams.rewinds = False
    streams.position(at(1))
    streams.add(of("users"), ERROR)
    saved = streams.position(at(2))
    assert (saved.parts, saved.withheld) == (at(2).parts, {"shared"})


def test_a_stream_is_told_once_and_what_it_gives_is_dropped() -> None:
    told: list[str] = []
    stem = stopped(told)
    branch = stem.branch()
    stem.add(None, StreamFailed("users", "a stage failed"))
    branch.add(of("users"), ERROR)
    assert told == ["users"]
    assert [branch.drops(item) for item in (of("users"), of("orders"), at(1))] == [True, False, False]


@pytest.mark.parametrize("item", [None, at(1), of("users")])
def test_an_error_that_is_not_of_one_stream_is_raised(item: Item | None) -> None:
    error = PipelineFailed("the worker is gone") if isinstance(item, RowBatch) else ERROR
    with pytest.raises(StreamlineError) as raised:
        stopped().add(item, error)
    assert raised.value is error
    with pytest.raises(StreamlineError):
        StoppedStreams(None).add(of("users"), ERROR)
