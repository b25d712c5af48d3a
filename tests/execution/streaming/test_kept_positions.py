"""`streamline state` changes the positions that sources keep themselves."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Shop
from tests.execution.streaming.conftest import Stream


@pytest.fixture
def shop(stream: Stream) -> Shop:
    """A consumer group that has read two messages."""
    stream.source(messages=[1, 2], group="g")
    stream.sink()
    stream.run()
    return Shop(stream.files.root)


def shown(shop: Shop) -> dict[str, int]:
    return {mark["stream"]: mark["value"]["offset"] for mark in shop.json("state", "list", "p")}


def test_set_moves_the_group(stream: Stream, shop: Shop) -> None:
    shop("state", "set", "p", "topic/0", '{"offset": 1}')
    assert stream.world.committed == {"load": 1}
    stream.run()
    assert stream.world.written == {"export": [1, 2, 2]}


def test_reset_makes_it_read_everything_again(stream: Stream, shop: Shop) -> None:
    shop("state", "reset", "p")
    assert stream.world.committed == {}
    shop("state", "rollback", "p")
    assert stream.world.committed == {"load": 2}


def test_while_the_group_is_in_use_nothing_changes(stream: Stream, shop: Shop) -> None:
    file = stream.files.root / "data_loaders/load.yaml"
    file.write_text(file.read_text() + "busy: true\n")
    shop.refuses("kafka.request_failed", "state", "set", "p", "topic/0", json.dumps({"offset": 1}), code=1)
    assert shown(shop) == {"topic/0": 2}
    assert stream.world.committed == {"load": 2}
