"""What failed is sent again until it is known which messages are refused for themselves; keys keep their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from streamline.connectors.kafka.client import KafkaError, Outgoing, Unavailable
from streamline.connectors.kafka.outbox import Outbox

Judge = Callable[[list[Outgoing]], dict[int, str]]
"""Says of a batch which of its messages fail, by their places in it, and with what code."""


class FakeLibrary:
    """Delivers in batches of so many messages; what a judge fails is not written."""

    def __init__(self, judge: Judge, batch: int = 10, *, transactional: bool = False) -> None:
        self.judge = judge
        self.batch = batch
        self.outbox = Outbox(self, transactional=transactional)
        self.written: list[Outgoing] = []
        self.waiting: list[tuple[int, Outgoing]] = []
        self.recoveries = 0
        self.stuck = False
        self.recovery_error: KafkaError | None = None

    def send(self, numbers: Sequence[int], messages: Sequence[Outgoing]) -> None:
        self.waiting += zip(numbers, messages, strict=True)

    def wait(self, timeout: float) -> bool:
        if self.stuck:
            return False
        waiting, self.waiting = self.waiting, []
        while waiting:
            batch, waiting = waiting[: self.batch], waiting[self.batch :]
            failures = self.judge([message for _, message in batch])
            for place, (number, message) in enumerate(batch):
                if place in failures:
                    self.outbox.failed(number, failures[place], failures[place])
                else:
                    self.written.append(message)
        return True

    def recover(self, timeout: float) -> None:
        self.recoveries += 1
        if self.recovery_error is not None:
            raise self.recovery_error


def messages(*values: bytes, key: bytes | None = b"k", topic: str = "t") -> list[Outgoing]:
    return [Outgoing(topic, key, value) for value in values]


def refuse_whole_batches(code: str, *bad: bytes) -> Judge:
    """As brokers do: for one bad message the whole batch fails with the same code."""

    def judge(batch: list[Outgoing]) -> dict[int, str]:
        fails = any(message.value in bad for message in batch)
        return dict.fromkeys(range(len(batch)), code) if fails else {}

    return judge


def flushed(library: FakeLibrary) -> list[tuple[int, str]]:
    undelivered = library.outbox.flush(5)
    assert undelivered is not None
    return [(each.number, each.code) for each in undelivered]


def last_values(written: list[Outgoing]) -> list[bytes | None]:
    """The values in the order of their last occurrences."""
    values = [message.value for message in written]
    return [value for index, value in enumerate(values) if value not in values[index + 1 :]]


@pytest.mark.parametrize("bad", [(0,), (9,), (4,), (2, 3), (0, 5, 9), tuple(range(10)), (12, 13, 27)])
def test_only_refused_messages_are_undelivered(bad: tuple[int, ...]) -> None:
    values = [b"%d" % number for number in range(30)]
    library = FakeLibrary(refuse_whole_batches("MSG_SIZE_TOO_LARGE", *(values[number] for number in bad)))
    library.outbox.add(messages(*values))
    assert flushed(library) == [(number, "MSG_SIZE_TOO_LARGE") for number in bad]
    assert last_values(library.written) == [value for number, value in enumerate(values) if number not in bad]
    library.outbox.add(messages(b"next"))
    assert flushed(library) == []


def test_keys_without_a_failure_are_not_written_twice() -> None:
    library = FakeLibrary(refuse_whole_batches("INVALID_RECORD", b"bad"), batch=2)
    library.outbox.add(
        [Outgoing("t", b"a", b"bad"), Outgoing("t", b"a", b"1"), Outgoing("t", b"b", b"2"), Outgoing("t", None, b"3")]
    )
    assert flushed(library) == [(0, "INVALID_RECORD")]
    assert sorted(message.value or b"" for message in library.written) == [b"1", b"2", b"3"]


def test_a_topic_s_failure_is_of_all_its_messages_and_of_no_others() -> None:
    def judge(batch: list[Outgoing]) -> dict[int, str]:
        fails = any(message.topic == "gone" for message in batch)
        return dict.fromkeys(range(len(batch)), "UNKNOWN_TOPIC_OR_PART") if fails else {}

    library = FakeLibrary(judge, batch=100)
    library.outbox.add([*messages(b"0", b"1", topic="gone"), *messages(b"2", b"3"), *messages(b"4", topic="gone")])
    assert flushed(library) == [(number, "UNKNOWN_TOPIC_OR_PART") for number in (0, 1, 4)]
    assert [message.value for message in library.written] == [b"2", b"3"]


def test_what_time_may_mend_is_sent_until_it_arrives() -> None:
    attempts = []

    def judge(batch: list[Outgoing]) -> dict[int, str]:
        attempts.append(len(batch))
        return dict.fromkeys(range(len(batch)), "UNKNOWN_PRODUCER_ID") if len(attempts) < 3 else {}

    library = FakeLibrary(judge)
    library.outbox.add(messages(b"0", b"1"))
    assert flushed(library) == []
    assert attempts == [2, 2, 2]
    assert [message.value for message in library.written] == [b"0", b"1"]


def test_a_flush_that_is_late_goes_on_with_the_next_one() -> None:
    library = FakeLibrary(refuse_whole_batches("INVALID_RECORD", b"1"))
    library.outbox.add(messages(b"0", b"1", b"2"))
    library.stuck = True
    assert library.outbox.flush(0) is None
    library.stuck, library.recovery_error = False, Unavailable("no broker")
    assert library.outbox.flush(1) is None
    library.recovery_error = None
    assert flushed(library) == [(1, "INVALID_RECORD")]
    assert last_values(library.written) == [b"0", b"2"]


def test_a_producer_that_cannot_recover_says_so() -> None:
    library = FakeLibrary(refuse_whole_batches("INVALID_RECORD", b"0"))
    library.outbox.add(messages(b"0", b"1"))
    library.recovery_error = KafkaError("fenced", fenced=True)
    with pytest.raises(KafkaError) as caught:
        library.outbox.flush(5)
    assert caught.value.fenced


def test_nothing_is_sent_again_in_a_transaction() -> None:
    library = FakeLibrary(refuse_whole_batches("INVALID_RECORD", b"1"), transactional=True)
    library.outbox.add(messages(b"0", b"1", b"2"))
    suspects = flushed(library)
    assert (1, "INVALID_RECORD") in suspects
    assert library.written == []
    assert library.recoveries == 0


def test_failures_of_a_dropped_round_are_forgotten() -> None:
    library = FakeLibrary(lambda batch: {}, transactional=True)
    library.outbox.add(messages(b"0"))
    old_round = library.outbox.round
    library.outbox.drop()
    library.waiting.clear()
    library.outbox.add(messages(b"1"))
    library.outbox.failed(0, "_PURGE_QUEUE", "late", of_round=old_round)
    assert flushed(library) == []


@pytest.mark.parametrize("topic", ["", "a b", "ä", ".", "..", "x" * 250])
def test_a_name_that_no_topic_can_have_is_refused_at_once(topic: str) -> None:
    library = FakeLibrary(lambda batch: {})
    library.outbox.add([Outgoing(topic, b"k", b"v"), *messages(b"0")])
    assert flushed(library) == [(0, "TOPIC_EXCEPTION")]
    assert [message.value for message in library.written] == [b"0"]
