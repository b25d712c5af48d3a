"""A stream that no catalog declares comes from one process of its tap."""

from __future__ import annotations

from streamline.connectors.singer.stages.undeclared import UndeclaredStage
from streamline.flow.items import Item, Position
from tests.connectors.singer.stages import raw, run, schema
from tests.support.failures import fails


class Tap:
    """The stages of a tap's processes, whose catalog declares `orders` alone."""

    def __init__(self) -> None:
        self.senders: dict[str, set[str]] = {}
        self.shared: list[str] = []

    def send(self, process: str, *items: Item, start: dict[str, bytes] | None = None) -> None:
        stage = UndeclaredStage(
            process,
            declared=lambda stream: stream == "orders",
            senders=self.senders,
            start=start or {},
            on_shared=self.shared.append,
        )
        assert run(stage, items) == list(items)


def at(**parts: bytes) -> Position:
    return Position("tap", 1, parts)


def test_a_stream_without_key_comes_from_one_process() -> None:
    tap = Tap()
    keyless = schema("log", text="string")
    tap.send("one", keyless, raw("log", {"text": "a"}), keyless)
    tap.send("two", schema("orders", total="integer"), schema("users", "id", id="integer"))
    tap.send("one", schema("orders", total="integer"), schema("users", "id", id="integer"))
    with fails("stream.in_several_processes", "'log'"):
        tap.send("two", keyless)
    assert tap.shared == []


def test_a_stream_with_a_bookmark_that_moves_comes_from_one_process() -> None:
    tap = Tap()
    users = schema("users", "id", id="integer")
    tap.send("one", users, at(users=b"5", other=b"1"))
    # It has not moved, or there is none.
    tap.send("two", users, at(users=b"4"), at(orders=b"9"), start={"users": b"4"})
    assert tap.shared == []
    with fails("stream.in_several_processes", "'users'", "bookmark"):
        tap.send("two", users, at(users=b"5"), start={"users": b"4"})
    assert tap.shared == ["users"]
