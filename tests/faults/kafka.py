"""Faults in streaming pipelines from topic to topic on three brokers, and a comparison with what was written.

A life has one pipeline in three checkouts of a project, which share the partitions of one consumer group, while
messages are written all along. Ten faults come a few seconds apart, and overlap: SIGKILL of a process, of all three, of
a broker (started again); SIGSTOP of a process or a broker for up to 20 s; members that leave and join. Then all go on,
`--until-caught-up` reads the rest, and the output must hold every message: with exactly-once each one once.

Of each key, the first occurrences are always in order, and so are the last ones where nothing was stopped: what a
process had on its way when it was stopped arrives when it goes on, behind what its successor has written.
"""

from __future__ import annotations

import contextlib
import json
import random
import secrets
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from streamline.connectors.kafka.clients import CLIENTS
from tests.faults.matrix import FaultError
from tests.services.kafka import KafkaCluster
from tests.services.require import ServiceMissingError
from tests.support.batch import BatchProject
from tests.support.project import Completed, Running

NAME = "kafka"
FAULTS = 10
"""Faults of a life."""
BROKERS = 3
CHECKOUTS = 3
PARTITIONS = 6
KEYS = 40
LONGEST_STOP = 20.0
PATIENCE = 180.0
"""Seconds that everything may take to go on after the last fault."""
KINDS = {"kill": 4, "leave": 4, "kill-broker": 3, "stop": 2, "stop-broker": 2, "kill-all": 1}
"""Kinds of faults, and how often each comes."""
CODE = """
@transformer
def see(messages: list[dict], *args, **kwargs):
    for message in messages:
        if message.get("bad"):
            raise ValueError("a bad one")
        message["seen"] = True
    return messages
"""


@dataclass(frozen=True)
class Fault:
    """After `pause` seconds something happens to a checkout's process or a broker, for `length` seconds."""

    pause: float
    kind: str
    victim: int
    length: float

    def __str__(self) -> str:
        return f"{self.pause:.1f} s, {self.kind} {self.victim} for {self.length:.1f} s"


@dataclass(frozen=True)
class Life:
    """A pipeline and its faults."""

    number: int
    client: str
    exactly_once: bool
    letters: bool
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        delivery = "exactly-once" if self.exactly_once else "at-least-once"
        letters = ", dead letters" if self.letters else ""
        return f"#{self.number} {self.client}, {delivery}{letters}: {'; '.join(map(str, self.faults))}"


def life(number: int, seed: int, count: int = FAULTS) -> Life:
    """Return a life of a matrix: the same for the same number and seed."""
    dice = random.Random(f"{NAME} {seed} {number}")
    kinds, weights = list(KINDS), list(KINDS.values())
    if number % 3 == 0:  # the order of last occurrences is promised where nothing is stopped
        kinds, weights = kinds[:3], weights[:3]
    faults = []
    for _ in range(count):
        kind = dice.choices(kinds, weights)[0]
        length = dice.uniform(1, LONGEST_STOP) if kind.startswith("stop") else dice.uniform(0, 3)
        faults.append(Fault(dice.uniform(1, 6), kind, dice.randrange(CHECKOUTS), length))
    variant = (number + seed) % 8
    return Life(number, CLIENTS[variant % 2], variant & 2 > 0, variant & 4 > 0, tuple(faults))


def suffer(root: Path, cluster: KafkaCluster, lived: Life, kind: type[Suffering] | None = None) -> str:
    """Run a life; return what it came to.

    Args:
        kind: of pipeline; the default only marks messages.

    Raises:
        FaultError: something was wrong; the message says what.
    """
    suffering = (kind or Suffering)(root, cluster, lived)
    try:
        return suffering.run()
    except AssertionError as error:
        raise FaultError(f"{lived}, in {root}: {error}") from error
    finally:
        suffering.close()


class Suffering:
    """A pipeline in three checkouts, and what happens to it."""

    def __init__(self, root: Path, cluster: KafkaCluster, lived: Life) -> None:
        self._cluster = cluster
        self._life = lived
        self._root = root
        self._read = cluster.create_topic(partitions=PARTITIONS)
        self._written = cluster.create_topic(partitions=PARTITIONS)
        self._letters = cluster.create_topic()
        self._group = f"g-{secrets.token_hex(4)}"
        self._checkouts = [_Checkout(self._project(root / f"checkout{n}")) for n in range(CHECKOUTS)]
        self._recoveries: list[threading.Thread] = []
        self._broken: list[AssertionError] = []
        self._busy_brokers: set[int] = set()

    def _project(self, root: Path) -> BatchProject:
        lived = self._life
        project = BatchProject(root)
        project.type = "streaming"
        project.env["STREAMLINE_INTERRUPT_SECONDS"] = "15"
        project.keys = {
            "delivery": "exactly-once" if lived.exactly_once else "at-least-once",
            "checkpoint_interval": 0.5,
            "startup_timeout": PATIENCE,
            **({"dead_letter": {"topic": self._letters}} if lived.letters else {"on_error": "stop"}),
        }
        common = {"connector_type": "kafka", "bootstrap_server": self._cluster.bootstrap, "client": lived.client}
        source = {
            "topic": self._read,
            "consumer_group": self._group,
            "auto_offset_reset": "earliest",
            "session_seconds": 6,
            "drain_seconds": 4,
        }
        project.block("read", yaml.safe_dump({**common, **source}), type="data_loader", language="yaml", upstream=[])
        self._add_block(project)
        sink = yaml.safe_dump({**common, "topic": self._written})
        project.block("write", sink, type="data_exporter", language="yaml")
        return project

    def _add_block(self, project: BatchProject) -> None:
        project.block("see", CODE)

    def run(self) -> str:
        began = time.monotonic()
        with self._writing():
            for checkout in self._checkouts:
                checkout.start()
            for fault in self._life.faults:
                time.sleep(fault.pause)
                self._look()
                self._strike(fault)
        for recovery in self._recoveries:
            recovery.join()
        self._look()
        for checkout in self._checkouts:
            checkout.end()
        project = self._checkouts[0].project
        project.run("--until-caught-up", seconds=PATIENCE).expect(0)
        counts = self._check()
        return f"{self._life}\n    {counts}; {time.monotonic() - began:.0f} s; all right"

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Write messages all along."""
        from kafka import KafkaProducer

        done = threading.Event()
        producer = KafkaProducer(
            bootstrap_servers=self._cluster.bootstrap, linger_ms=5, allow_auto_create_topics=False, max_block_ms=60_000
        )

        def write() -> None:
            dice = random.Random(self._life.number)
            number = 0
            while not done.wait(0.1):
                for _ in range(dice.randrange(60)):
                    key = dice.randrange(KEYS)
                    value: dict[str, Any] = {
                        "n": number,
                        "key": key,
                        "group": number % 17,
                        "text": "x" * dice.randrange(200),
                    }
                    if self._life.letters and dice.random() < 0.02:
                        value["bad"] = True
                    producer.send(self._read, key=b"%d" % key, value=json.dumps(value).encode())
                    number += 1
            producer.flush(PATIENCE)
            producer.close()

        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(PATIENCE)

    def _strike(self, fault: Fault) -> None:
        if fault.kind.endswith("-broker"):
            node = 1 + fault.victim
            if self._busy_brokers:
                node = next(iter(self._busy_brokers))  # a second one would only take the first one's quorum away
                fault = Fault(fault.pause, "leave", fault.victim, fault.length)
            else:
                self._busy_brokers.add(node)
                (self._cluster.kill if fault.kind == "kill-broker" else self._cluster.stop)(node)
                self._later(fault.length, self._mend_broker, fault.kind, node)
                return
        victims = self._checkouts if fault.kind == "kill-all" else [self._checkouts[fault.victim]]
        for victim in victims:
            if fault.kind == "stop":
                victim.stop()
                self._later(fault.length, victim.go_on)
            elif victim.free():
                if fault.kind == "leave":
                    victim.end()
                else:
                    victim.kill()
                self._later(fault.length, victim.start)

    def _mend_broker(self, kind: str, node: int) -> None:
        if kind == "stop-broker":
            self._cluster.cont(node)
        else:
            _start_broker(self._cluster, node)
        self._busy_brokers.discard(node)

    def _later(self, seconds: float, function: Any, *arguments: Any) -> None:
        def recover() -> None:
            time.sleep(seconds)
            try:
                function(*arguments)
            except (AssertionError, ServiceMissingError) as error:
                self._broken.append(AssertionError(str(error)))

        self._recoveries.append(threading.Thread(target=recover, daemon=True))
        self._recoveries[-1].start()

    def _look(self) -> None:
        """No process may end by itself."""
        if self._broken:
            raise self._broken[0]
        for checkout in self._checkouts:
            checkout.look()

    def _check(self) -> str:
        sent = self._by_key(self._read)
        arrived = self._by_key(self._written)
        wanted = {key: [each["n"] for each in values if "bad" not in each] for key, values in sent.items()}
        found = {key: [each["n"] for each in values] for key, values in arrived.items()}
        total, copies = sum(map(len, wanted.values())), sum(map(len, found.values()))
        try:
            assert all(each["seen"] for values in arrived.values() for each in values)
            assert set(found) <= set(wanted), "there are keys that were not written"
            stops = any(fault.kind.startswith("stop") for fault in self._life.faults)
            for key, numbers in wanted.items():
                _check_key(key, numbers, found.get(key, []), exact=self._life.exactly_once, last=not stops)
            self._check_letters(sent)
            lag = self._lag()
            assert not lag, f"the group is not at the end: {lag}"
        except AssertionError:
            hidden = self._cluster.consume_all(self._written, "read_uncommitted")
            seen = {
                "wanted": _text(wanted),
                "found": _text(found),
                "hidden or not": [
                    [record.partition, record.offset, json.loads(record.value)["n"]] for record in hidden
                ],
                "committed": [[*place, offset] for place, offset in self._cluster.committed(self._group).items()],
            }
            (self._root / "messages.json").write_text(json.dumps(seen))
            raise
        return f"{total:,} messages, {copies - total:,} copies"

    def _check_letters(self, sent: dict[bytes, list[dict[str, Any]]]) -> None:
        bad = sorted(each["n"] for values in sent.values() for each in values if "bad" in each)
        letters = [
            json.loads(record.value)["n"]
            for record in self._cluster.consume_all(self._letters)
            if record.value and "streamline.offset" in dict(record.headers)
        ]
        assert set(letters) == set(bad), f"dead letters: {set(bad) ^ set(letters)} are missing or too many"
        assert not self._life.exactly_once or sorted(letters) == bad, "dead letters are there twice"

    def _by_key(self, topic: str) -> dict[bytes, list[dict[str, Any]]]:
        values: dict[bytes, list[dict[str, Any]]] = {}
        for record in self._cluster.consume_all(topic):
            values.setdefault(record.key, []).append(json.loads(record.value))
        return values

    def _lag(self) -> dict[int, int]:
        ends: dict[int, int] = {}
        for record in self._cluster.consume_all(self._read):
            ends[record.partition] = record.offset + 1
        committed = self._cluster.committed(self._group)
        lags = {number: end - committed.get((self._read, number), 0) for number, end in ends.items()}
        return {number: lag for number, lag in lags.items() if lag}

    def close(self) -> None:
        for recovery in self._recoveries:
            recovery.join(LONGEST_STOP + 60)
        for checkout in self._checkouts:
            checkout.project.close()


def _start_broker(cluster: KafkaCluster, node: int) -> None:
    """Start a broker; on a busy machine it may take several attempts."""
    for number in range(3):
        try:
            cluster.start(node)
            return
        except ServiceMissingError:
            if number == 2:
                raise
            cluster.kill(node)


class _Checkout:
    """A checkout and its process."""

    def __init__(self, project: BatchProject) -> None:
        self.project = project
        self._running: Running | None = None
        self._stops = 0
        self._lock = threading.Lock()

    def start(self) -> None:
        self._running = self.project.start("run", "p")

    def free(self) -> bool:
        """Whether it runs, and nothing is the matter with it."""
        return self._running is not None and not self._stops

    def kill(self) -> None:
        running, self._running = self._running, None
        assert running is not None
        running.kill()

    def end(self) -> None:
        """End it in order."""
        running, self._running = self._running, None
        assert running is not None
        running.signal(signal.SIGTERM)
        completed = running.finish(PATIENCE)
        # One that has just been started has no handler for the signal yet.
        codes = (0, 128 + signal.SIGTERM, -signal.SIGTERM)
        assert completed.code in codes, f"a process that was to leave\n{completed}"

    def stop(self) -> None:
        if self._running is not None:
            with self._lock:
                self._stops += 1
                self._running.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        with self._lock:
            self._stops = max(0, self._stops - 1)
            if not self._stops and self._running is not None:
                self._running.signal(signal.SIGCONT)

    def look(self) -> None:
        running = self._running
        if running is not None and running.process.poll() is not None:
            self._running = None
            completed: Completed = running.finish()
            raise AssertionError(f"a process has ended by itself\n{completed}")


def _check_key(key: bytes, wanted: Sequence[int], found: Sequence[int], *, exact: bool, last: bool) -> None:
    missing = set(wanted) - set(found)
    assert not missing, f"key {key!r}: {len(missing)} messages are lost, from {min(missing)} on"
    assert set(found) <= set(wanted), f"key {key!r}: there are messages that were not written to it"
    if exact:
        assert len(found) == len(wanted), f"key {key!r}: {len(found) - len(wanted)} messages are there twice"
    firsts = list(dict.fromkeys(found))
    assert firsts == list(dict.fromkeys(wanted)), f"key {key!r}: the first occurrences are out of order"
    if last:
        lasts = list(dict.fromkeys(reversed(found)))[::-1]
        assert lasts == list(dict.fromkeys(wanted)), f"key {key!r}: the last occurrences are out of order"


def _text(numbers: dict[bytes, list[int]]) -> dict[str, list[int]]:
    return {key.decode(): values for key, values in numbers.items()}
