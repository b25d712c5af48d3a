"""From topic to topic on real brokers: rebalances, killed processes, dead and silent brokers."""

from __future__ import annotations

import secrets
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from streamline.connectors.kafka import confluent_producer_client, kafka_python_producer_client, transactions
from streamline.connectors.kafka.client import Connection, KafkaClient
from streamline.connectors.kafka.clients import CLIENTS, kafka_client
from streamline.connectors.kafka.outgoing import Destination
from streamline.connectors.kafka.serialization.json_text import JsonSerializer
from streamline.connectors.kafka.settings import KafkaSinkSettings, KafkaSourceSettings, StartOffset
from streamline.connectors.kafka.sink import KafkaSink, TransactionalKafkaSink
from streamline.connectors.kafka.sink_outages import REQUEST_SECONDS
from streamline.connectors.kafka.source import KafkaSource
from streamline.connectors.stream_connector import StreamContext
from streamline.flow.items import BadRecord
from streamline.flow.router import Route
from streamline.flow.runtime import Flow, Runtime
from tests.services.kafka import Kafka, KafkaCluster

pytestmark = pytest.mark.anyio

PATIENCE = 400.0
PARTITIONS = 4


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> KafkaClient:
    return kafka_client(request.param)


BOTH = pytest.mark.parametrize("exactly_once", [False, True], ids=["at-least-once", "exactly-once"])


class Offsets:
    """Where positions are kept: by the group, or in the sink's transactions."""

    def __init__(self, source: KafkaSource, exactly_once: bool) -> None:
        self._source = source
        self._exactly_once = exactly_once

    def save(
        self, source: str, parts: Mapping[str, bytes], refused: Sequence[BadRecord], number: int = 0
    ) -> Mapping[str, bytes]:
        assert not refused
        return parts if self._exactly_once else self._source.commit(parts)


class Copies:
    """Copies one topic to another by processes of one group."""

    def __init__(self, kafka: Kafka, client: KafkaClient, exactly_once: bool) -> None:
        self.kafka = kafka
        self.client = client
        self.exactly_once = exactly_once
        self.name = f"c-{secrets.token_hex(4)}"
        self.connection = Connection(servers=kafka.servers, client=client.name)
        self.read = kafka.create_topic(partitions=PARTITIONS)
        self.written = kafka.create_topic(partitions=PARTITIONS)
        self.count = 0
        self.notes: list[str] = []

    def produce(self, count: int) -> None:
        """Write so many messages more; message n has key n modulo 50, and n for a value."""
        numbers = range(self.count, self.count + count)
        self.kafka.produce(self.read, [{"key": b"%d" % (number % 50), "value": b"%d" % number} for number in numbers])
        self.count += count

    @asynccontextmanager
    async def process(self, slot: int = 0) -> AsyncIterator[Callable[[], None]]:
        """Run a process beside the body, with new attempts when one fails; yields what kills it."""
        async with anyio.create_task_group() as tasks:
            stopping = anyio.Event()
            runtimes: list[Runtime] = []

            async def run() -> None:
                while not stopping.is_set():
                    runtimes.append(self._runtime(slot))
                    outcomes = await runtimes[-1].run()
                    self.notes += [repr(outcome.error) for outcome in outcomes if outcome.error is not None]

            tasks.start_soon(run)
            yield tasks.cancel_scope.cancel
            stopping.set()
            if not tasks.cancel_scope.cancel_called:
                runtimes[-1].stop("the test ends", within=30)

    def _runtime(self, slot: int) -> Runtime:
        context = StreamContext(
            pipeline=self.name, block="copy", root=Path(), slot=slot, checkpoint_interval=0.2, startup_timeout=60.0
        )
        source = KafkaSource(
            KafkaSourceSettings(
                connection=self.connection,
                group=self.name,
                topics=(self.read,),
                offset=StartOffset(kind="earliest"),
                drain_seconds=5.0,
                session_seconds=10.0,
            ),
            self.client,
            context,
        )
        block = Destination(
            block="export",
            settings=KafkaSinkSettings(connection=self.connection, topic=self.written),
            values=JsonSerializer(),
        )
        kind = TransactionalKafkaSink if self.exactly_once else KafkaSink
        sink = kind("export", [block], self.client, context)
        if isinstance(sink, TransactionalKafkaSink):
            sink.offsets_from = {source.id: source}
            sink.letters_refused = lambda letters: None
        flow = Flow(source=source, route=Route(sinks=[sink]), prompt=self.exactly_once)
        return Runtime([flow], store=Offsets(source, self.exactly_once))

    async def finish(self, lag: int = 0) -> None:
        """Wait until the group has committed all but so many messages."""
        while await anyio.to_thread.run_sync(self._lag) > lag:
            await anyio.sleep(0.1)

    def _lag(self) -> int:
        return self.count - sum(self.kafka.committed(self.name).values())

    def check(self) -> None:
        """Everything has arrived, of each key in order; once, if that was promised."""
        by_key: dict[bytes, list[int]] = {}
        for record in self.kafka.consume_all(self.written):
            by_key.setdefault(record.key, []).append(int(record.value))
        wanted = {b"%d" % key: list(range(key, self.count, 50)) for key in range(min(50, self.count))}
        if not self.exactly_once:
            by_key = {key: sorted(set(values)) for key, values in by_key.items()}
        assert by_key == wanted


def in_thread(function: Callable[..., None], *arguments: object) -> object:
    return anyio.to_thread.run_sync(lambda: function(*arguments))


@BOTH
async def test_a_stopped_process_has_committed_all_that_it_wrote_and_the_next_goes_on(
    kafka_server: Kafka, client: KafkaClient, exactly_once: bool
) -> None:
    copies = Copies(kafka_server, client, exactly_once)
    with anyio.fail_after(PATIENCE):
        for count in (3000, 10, 3000):
            copies.produce(count)
            async with copies.process():
                await copies.finish()
    copies.check()
    assert copies.notes == []
    assert len(kafka_server.consume_all(copies.written)) == 6010


async def test_case_20_killed_processes_neither_lose_nor_repeat_anything(
    kafka_server: Kafka, client: KafkaClient
) -> None:
    copies = Copies(kafka_server, client, exactly_once=True)
    with anyio.fail_after(PATIENCE):
        for _ in range(4):
            copies.produce(4000)
            async with copies.process() as kill:
                await copies.finish(lag=3000)
                kill()
        async with copies.process():
            await copies.finish()
    copies.check()


@BOTH
async def test_case_22_rebalances_neither_lose_nor_repeat_anything(
    kafka_server: Kafka, client: KafkaClient, exactly_once: bool
) -> None:
    copies = Copies(kafka_server, client, exactly_once)
    copies.produce(1000)
    with anyio.fail_after(PATIENCE):
        async with copies.process(0):
            for _ in range(3):
                async with copies.process(1):
                    for _ in range(10):
                        await in_thread(copies.produce, 500)
                        await anyio.sleep(0.1)
            await copies.finish()
    copies.check()
    assert copies.notes == []


async def test_case_23_brokers_die_and_leaders_move_while_messages_flow(new_kafka: Callable[..., KafkaCluster]) -> None:
    cluster = new_kafka(3)
    all_copies = [Copies(cluster, kafka_client(name), exactly) for name in CLIENTS for exactly in (False, True)]

    async def produce(count: int) -> None:
        for copies in all_copies:
            await in_thread(copies.produce, count)

    await produce(1000)
    with anyio.fail_after(PATIENCE):
        async with AsyncExitStack() as processes:
            for copies in all_copies:
                await processes.enter_async_context(copies.process())
            for node in (3, 1):
                for copies in all_copies:
                    for topic in (copies.read, copies.written):
                        await in_thread(cluster.move_leaders, topic, PARTITIONS, node)
                await produce(300)
            await in_thread(cluster.kill, 1)
            await produce(1000)
            await in_thread(cluster.start, 1)
            await in_thread(cluster.kill, 2)
            await produce(1000)
            for copies in all_copies:
                await copies.finish()
    for copies in all_copies:
        copies.check()


async def test_send_offsets_that_hangs_has_its_producer_abandoned_and_another_started(
    kafka_server: Kafka, client: KafkaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed, hung = threading.Event(), list[bool]()

    def hang_once(of: type) -> type:
        class Hanging(of):  # type: ignore[misc]
            def send_offsets_to_transaction(self, *args: object) -> None:
                if not hung:
                    hung.append(True)
                    freed.wait(PATIENCE)
                super().send_offsets_to_transaction(*args)

        return Hanging

    module, name = {
        "kafka-python": (kafka_python_producer_client, "KafkaProducer"),
        "confluent": (confluent_producer_client, "Producer"),
    }[client.name]
    monkeypatch.setattr(module, name, hang_once(getattr(module, name)))
    monkeypatch.setattr(transactions, "REQUEST_SECONDS", 1.0)
    copies = Copies(kafka_server, client, exactly_once=True)
    copies.produce(100)
    with anyio.fail_after(PATIENCE):
        async with copies.process():
            await copies.finish()
    freed.set()
    assert hung
    assert copies.notes == []
    copies.check()


async def test_a_broker_that_is_silent_for_a_while_is_waited_for(new_kafka: Callable[..., KafkaCluster]) -> None:
    cluster = new_kafka()
    all_copies = [Copies(cluster, kafka_client(name), exactly_once=True) for name in CLIENTS]
    for copies in all_copies:
        copies.produce(20_000)
    with anyio.fail_after(PATIENCE):
        async with AsyncExitStack() as processes:
            for copies in all_copies:
                await processes.enter_async_context(copies.process())
            for copies in all_copies:
                await copies.finish(lag=15_000)
            cluster.stop(1)
            await anyio.sleep(REQUEST_SECONDS + 2)
            cluster.cont(1)
            for copies in all_copies:
                await copies.finish()
    for copies in all_copies:
        copies.check()
