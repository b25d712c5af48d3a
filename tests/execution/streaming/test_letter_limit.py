"""A run whose messages all become dead letters ends; one that still delivers does not."""

from __future__ import annotations

import pytest

from streamline.errors import PipelineFailed
from streamline.execution.streaming.letter_limit import LOUD, LetterLimit
from streamline.flow.items import BadRecord
from streamline.flow.stages.park import PARKED_ERROR
from streamline.telemetry.progress import SourceCounts
from tests.execution.streaming.conftest import Stream


class Flowing:
    """A source of two sinks, `a` and `b`."""

    def __init__(self, limit: int | None = 1_000) -> None:
        self.counts = SourceCounts("load")
        self.told: list[str] = []
        self.limit = LetterLimit(self.counts, limit, lambda block, text: self.told.append(block))
        self._number = 0

    def refuse(self, count: int, sink: str | None = None, error: str = "odd") -> None:
        for _ in range(count):
            self.counts.refused("t", 1, sink, "t")
            if sink is not None:
                self.counts.returned(sink, "t", 1)
            self.limit.refused([BadRecord("t", b"1", error, sink or "change", sink)])

    def save(self, **sent: int) -> None:
        """Save a position; before it, so many messages were sent to each sink."""
        self._number += 1
        self.counts.position_read(self._number)
        for sink in ("a", "b"):
            if count := sent.get(sink, 0):
                self.counts.sent(sink, "t", count)
            self.counts.position_sent(sink, self._number)
        self.counts.saved(self._number, lambda stream: True, lambda sink, table: table)
        self.counts.saved_is_written()
        self.limit.saved()


def test_it_ends_at_the_limit_and_is_told_before() -> None:
    flowing = Flowing()
    flowing.refuse(LOUD)
    flowing.save()
    assert flowing.told == ["change"]
    flowing.refuse(900)
    flowing.save()
    with pytest.raises(PipelineFailed) as caught:
        flowing.refuse(1)
    assert caught.value.code == "dead_letter.too_many"
    assert caught.value.blocks == ["change"]
    assert flowing.told == ["change"]


def test_a_delivery_starts_the_count_again() -> None:
    flowing = Flowing()
    for _ in range(5):
        flowing.refuse(999)
        flowing.save(a=1)
    flowing.refuse(3_000)  # within one checkpoint nothing is known yet
    flowing.save(b=1)
    flowing.refuse(1)
    assert flowing.told == []


def test_a_sink_that_refuses_everything_beside_one_that_does_not() -> None:
    flowing = Flowing(limit=20)
    flowing.refuse(20, "a")
    flowing.save(a=20, b=20)
    with pytest.raises(PipelineFailed) as caught:
        flowing.refuse(1, "a")
    assert caught.value.blocks == ["a"]


def test_what_waits_for_others_does_not_count_and_a_limit_is_no_must() -> None:
    flowing = Flowing(limit=5)
    flowing.refuse(50, "a", PARKED_ERROR)
    flowing.save()
    unlimited = Flowing(limit=None)
    unlimited.refuse(5_000)
    unlimited.save()
    unlimited.refuse(1)
    assert unlimited.told == ["change"]


def test_a_run_of_a_broken_transformer(stream: Stream) -> None:
    stream.keys(max_dead_letters=10)
    stream.source(messages=list(range(30)))
    stream.transformer("change", "@transformer\ndef change(messages, *args, **kwargs):\n    raise OSError('down')\n")
    stream.sink()
    result = stream.run()
    assert result.status == "failed"
    assert result.errors["change"].code == "dead_letter.too_many"
    assert result.blocks[1].attempts == 1
    stream.keys(max_dead_letters="unlimited")
    assert stream.run().status == "completed"
