"""Dead-letter topics on a real broker."""

from __future__ import annotations

import pytest

from streamline.connectors.kafka.client import KafkaClient, Outgoing
from streamline.connectors.kafka.dead_letter_topic import DeadLetterTopic
from streamline.errors import StreamlineError
from streamline.state.store import DeadLetter
from tests.services.kafka import Kafka
from tests.services.kafka_bench import SECONDS, Bench

LETTER = DeadLetter(
    pipeline="p",
    block="read",
    stream="t",
    run_id="r",
    record="",
    form="value",
    error="odd",
    stage="decode",
    topic="t",
    partition=0,
    offset=7,
    key=b"k",
    value=b"1",
)


def test_case_21_letters_that_a_foreign_transaction_hides_are_waited_for(
    bench: Bench, kafka_library: KafkaClient, kafka_server: Kafka
) -> None:
    name = kafka_server.create_topic()
    letters = DeadLetterTopic(kafka_library, bench.connection, name, "p", timeout=3.0)
    try:
        letters.open()
        producer = bench.producer(transactional_id=f"x-{name}")
        producer.init_transactions(SECONDS)
        producer.begin()
        producer.produce_batch([Outgoing(name, b"k", b"foreign")])
        assert producer.flush(SECONDS) == []
        assert letters.write([LETTER]) == []
        with pytest.raises(StreamlineError) as failure:
            letters.read()
        assert failure.value.code == "dead_letter.topic_blocked"
        producer.abort(SECONDS)
        assert [each.offset for each in letters.read().letters.values()] == [7]
    finally:
        letters.close()
