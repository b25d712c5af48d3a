"""Apache Kafka for tests: brokers started from the published jars on loopback, or one that STREAMLINE_TEST_KAFKA names.

Every broker has a listener for each security protocol. On SASL listeners there are the users `alice` and `bob`, whose
passwords are `alice-secret` and `bob-secret`, by PLAIN and SCRAM; OAUTHBEARER takes unsecured tokens. ACLs are checked
for them where there are any; clients of the PLAINTEXT listener may do everything.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil

from tests.services.kafka_jars import kafka_jars
from tests.services.process import guarded, quiet_port, server_folder
from tests.services.require import ServiceMissingError
from tests.services.tls import Certificates, make_certificates

if TYPE_CHECKING:
    from kafka import KafkaAdminClient, KafkaProducer
    from kafka.consumer.fetcher import ConsumerRecord

SERVERS_VARIABLE = "STREAMLINE_TEST_KAFKA"
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
PASSWORDS = {"alice": "alice-secret", "bob": "bob-secret"}

ANSWER_SECONDS = 120.0
"""After so long without an answer a cluster is taken for dead."""

Isolation = Literal["read_committed", "read_uncommitted"]


class Kafka:
    """What tests ask of a cluster, by a client that is not Streamline's.

    Args:
        bootstrap: `host:port` of its brokers, comma separated; no security.
    """

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._admin: KafkaAdminClient | None = None
        self._producer: KafkaProducer | None = None

    @property
    def servers(self) -> tuple[str, ...]:
        """The brokers' `host:port`."""
        return tuple(self.bootstrap.split(","))

    @property
    def admin(self) -> KafkaAdminClient:
        """kafka-python's admin client."""
        if self._admin is None:
            from kafka import KafkaAdminClient

            self._admin = KafkaAdminClient(bootstrap_servers=self.bootstrap, bootstrap_timeout_ms=60_000)
        return self._admin

    def create_topic(
        self, name: str | None = None, partitions: int = 1, config: Mapping[str, str] | None = None
    ) -> str:
        """Create a topic, by default with a name of its own; returns the name once the topic can be used."""
        name = name or f"t-{secrets.token_hex(6)}"
        settings = {"num_partitions": partitions, "configs": dict(config or {})}
        for attempt in range(50):  # a topic that was just deleted may still be there for a moment
            try:
                self.admin.create_topics({name: settings})
                break
            except Exception as error:
                if type(error).__name__ != "TopicAlreadyExistsError" or attempt == 49:
                    raise
                time.sleep(0.1)
        self.admin.wait_for_topics([name], timeout_ms=30_000)
        return name

    def delete_topic(self, name: str) -> None:
        """Delete a topic; returns once it is gone."""
        self.admin.delete_topics([name])
        while name in self.admin.list_topics():
            time.sleep(0.05)

    def delete_before(self, topic: str, offset: int, partition: int = 0) -> None:
        """Delete a partition's messages before an offset, as retention does."""
        from kafka import TopicPartition

        self.admin.delete_records({TopicPartition(topic, partition): offset})

    def produce(self, topic: str, messages: Sequence[Any], partition: int | None = None) -> None:
        """Write messages; each a value, or a mapping with `key, value, headers, time, partition`."""
        if self._producer is None:
            from kafka import KafkaProducer

            self._producer = KafkaProducer(
                bootstrap_servers=self.bootstrap, linger_ms=5, max_request_size=16 << 20, allow_auto_create_topics=False
            )
        sent = []
        for message in messages:
            fields = dict(message) if isinstance(message, Mapping) else {"value": message}
            sent.append(
                self._producer.send(
                    topic,
                    value=fields.get("value"),
                    key=fields.get("key"),
                    headers=fields.get("headers"),
                    partition=fields.get("partition", partition),
                    timestamp_ms=fields.get("time"),
                )
            )
        for future in sent:
            future.get(timeout=60)

    def consume_all(self, topic: str, isolation: Isolation = "read_committed") -> list[ConsumerRecord]:
        """Return all messages that a topic holds now, by partition and offset.

        With `read_committed`, transactions that are open now are waited for: those of a killed process are aborted when
        they time out, and hide what others have committed behind them until then.
        """
        from kafka import KafkaConsumer, TopicPartition
        from kafka.admin import OffsetSpec

        consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap,
            group_id=None,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            isolation_level=isolation,
            allow_auto_create_topics=False,
            max_partition_fetch_bytes=16 << 20,
        )
        try:
            partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
            consumer.assign(partitions)
            ends = {
                partition: found.offset
                for partition, found in self.admin.list_partition_offsets(
                    dict.fromkeys(partitions, OffsetSpec.LATEST)
                ).items()
            }
            consumer.seek_to_beginning()
            records: list[ConsumerRecord] = []
            deadline = time.monotonic() + 150
            while any((consumer.position(partition) or 0) < end for partition, end in ends.items()):
                assert time.monotonic() < deadline, f"{topic} was not read to its end {ends}"
                for batch in consumer.poll(timeout_ms=200, max_records=10_000).values():
                    records += batch
        finally:
            consumer.close()
        records = [record for record in records if record.offset < ends[TopicPartition(topic, record.partition)]]
        return sorted(records, key=lambda record: (record.partition, record.offset))

    def allow(
        self, user: str, name: str, operation: str, kind: Literal["TOPIC", "GROUP", "TRANSACTIONAL_ID"] = "TOPIC"
    ) -> None:
        """Allow a user something on a topic, group or transactional id; nobody else may do anything on it then."""
        from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

        rule = ACL(
            principal=f"User:{user}",
            host="*",
            operation=ACLOperation[operation],
            permission_type=ACLPermissionType.ALLOW,
            resource_pattern=ResourcePattern(ResourceType[kind], name),
        )
        self.admin.create_acls([rule])

    def committed(self, group: str) -> dict[tuple[str, int], int]:
        """Return a group's offsets. While a coordinator is elected or a broker is away, it waits."""
        from kafka.errors import KafkaError

        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                offsets = self.admin.list_group_offsets({group: None})[group]
                break
            except KafkaError as error:
                if not error.retriable or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        return {(place.topic, place.partition): value.offset for place, value in offsets.items() if value.offset >= 0}

    def evict_members(self, group: str) -> None:
        """Remove all members of a group, as the broker does with those that send no heartbeats."""
        from kafka.admin import MemberToRemove

        members = self.admin.describe_groups([group])[group]["members"]
        self.admin.remove_group_members(group, [MemberToRemove(member_id=each["member_id"]) for each in members])

    def close(self) -> None:
        """Close the clients."""
        if self._producer is not None:
            self._producer.close(timeout=0)
        if self._admin is not None:
            self._admin.close()


class KafkaCluster(Kafka):
    """Brokers of this test run's own; nodes are numbered from 1 on. Use it in a `with`.

    Args:
        brokers: their number; a topic has as many replicas, at most three.
        config: settings of the brokers beside those that suit tests.
        fast: compile fully, which makes a broker faster, and its start slower.
    """

    def __init__(self, brokers: int = 1, config: Mapping[str, str] | None = None, *, fast: bool = False) -> None:
        java = shutil.which("java")
        if java is None:
            raise ServiceMissingError(
                f"no Java: install the system's 'default-jre-headless', or set {SERVERS_VARIABLE}"
            )
        self._java = [java, "-cp", f"{kafka_jars()}/*"]
        self._heap = ["-Xmx1g"] if fast else ["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        self._heap.append("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
        self.nodes = tuple(range(1, brokers + 1))
        self._ports = {node: {name: quiet_port() for name in (*PROTOCOLS, "CONTROLLER")} for node in self.nodes}
        self._settings = dict(config or {})
        self._running: dict[int, tuple[contextlib.ExitStack, subprocess.Popen[bytes]]] = {}
        super().__init__(",".join(self.addresses("PLAINTEXT")))

    def addresses(self, protocol: str) -> tuple[str, ...]:
        """`host:port` of all brokers; the name `localhost` where it is in their certificate."""
        host = "localhost" if protocol.endswith("SSL") else "127.0.0.1"
        return tuple(f"{host}:{self._ports[node][protocol]}" for node in self.nodes)

    def __enter__(self) -> KafkaCluster:
        self._stack = contextlib.ExitStack()
        try:
            self.home = server_folder("kafka", "")
            self._stack.callback(shutil.rmtree, self.home, ignore_errors=True)
            # Removes the folder if this process is killed; each broker has a guard of its own.
            self._stack.enter_context(
                guarded(
                    ["sleep", "infinity"], folder=self.home, user="", ready=lambda: True, log=self.home / "guard.log"
                )
            )
            self.certificates: Certificates = make_certificates(self.home)
            self._format()
            self.start(*self.nodes)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        for node in tuple(self._running):
            self._running.pop(node)[0].close()
        self._stack.close()

    def start(self, *nodes: int) -> None:
        """Start nodes, again on the ports and the folder that they had; returns once they are part of the cluster."""
        for node in nodes:  # three brokers need each other: all are started before one is waited for
            scratch = self.home / f"node{node}" / "run"
            scratch.mkdir(exist_ok=True)
            command = [*self._java[:1], *self._heap, *self._java[1:], "kafka.Kafka", self._properties(node)]
            stack = contextlib.ExitStack()
            guard = guarded(
                command, folder=scratch, user="", ready=lambda: True, stop_signal="KILL", log=self._log(node)
            )
            self._running[node] = (stack, stack.enter_context(guard))
        deadline = time.monotonic() + 150
        for node in nodes:
            while not self._listens(node):
                if self._running[node][1].poll() is not None or time.monotonic() > deadline:
                    raise ServiceMissingError(f"Kafka did not come up: {self.log(node)[-2000:]}")
                time.sleep(0.1)
        while not set(nodes) <= self._members():
            assert time.monotonic() < deadline, f"a broker did not join: {self.log(nodes[0])[-2000:]}"
            time.sleep(0.1)

    def kill(self, node: int, number: int = signal.SIGKILL) -> None:
        """End a broker by a signal; returns once it is gone."""
        stack, guard = self._running.pop(node)
        os.kill(_server_of(guard), number)
        guard.wait(60)
        stack.close()

    def move_leaders(self, topic: str, partitions: int, node: int) -> None:
        """Make a broker the leader of a topic's partitions."""
        from kafka import TopicPartition

        replicas = [node, *(other for other in self.nodes if other != node)]
        places = [TopicPartition(topic, number) for number in range(partitions)]
        self.admin.alter_partition_reassignments(dict.fromkeys(places, replicas))
        self.admin.elect_leaders(0, {topic: list(range(partitions))}, raise_errors=False)

    def stop(self, node: int) -> None:
        """Suspend a broker: its connections stay, and it does not answer."""
        os.kill(_server_of(self._running[node][1]), signal.SIGSTOP)

    def cont(self, node: int) -> None:
        """Let a suspended broker go on."""
        os.kill(_server_of(self._running[node][1]), signal.SIGCONT)

    def _members(self) -> set[int]:
        """The brokers that the cluster lists; none while it is not reachable."""
        from kafka.errors import KafkaError

        try:
            return {broker["broker_id"] for broker in self.admin.describe_cluster()["brokers"]}
        except KafkaError:
            return set()

    def log(self, node: int = 1) -> str:
        """What a broker has logged (warnings and errors)."""
        return self._log(node).read_text(errors="replace") if self._log(node).exists() else ""

    def _log(self, node: int) -> Path:
        return self.home / f"node{node}.log"

    def _properties(self, node: int) -> Path:
        return self.home / f"node{node}" / "server.properties"

    def _listens(self, node: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._ports[node]["PLAINTEXT"])) == 0

    def _format(self) -> None:
        """Write each broker's settings and the first contents of its folder."""
        # The first letter must not be "-", which would make it an option.
        cluster_id = "s" + base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()[1:]
        users = [
            argument
            for user, password in PASSWORDS.items()
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for argument in ("--add-scram", f"{mechanism}=[name={user},password={password}]")
        ]
        tools = []
        for node in self.nodes:
            self._properties(node).parent.mkdir()
            lines = (f"{key}={value}\n" for key, value in self._node_settings(node).items())
            self._properties(node).write_text("".join(lines))
            command = [*self._java, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", self._properties(node)]
            tools.append(
                subprocess.Popen(
                    [*command, *users], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
                )
            )
        for tool in tools:
            output, _ = tool.communicate()
            if tool.returncode:
                raise ServiceMissingError(f"Kafka's folder could not be formatted: {output.decode()[-2000:]}")

    def _node_settings(self, node: int) -> dict[str, str]:
        ports = self._ports[node]
        replicas = str(min(3, len(self.nodes)))
        advertised = (f"{name}://{self.addresses(name)[node - 1]}" for name in PROTOCOLS)
        settings = {
            "process.roles": "broker,controller",
            "node.id": str(node),
            "controller.quorum.voters": ",".join(f"{n}@127.0.0.1:{self._ports[n]['CONTROLLER']}" for n in self.nodes),
            "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items()),
            "advertised.listeners": ",".join(advertised),
            "listener.security.protocol.map": ",".join(
                [*(f"{name}:{name}" for name in PROTOCOLS), "CONTROLLER:PLAINTEXT"]
            ),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(self.home / f"node{node}" / "data"),
            "num.partitions": "1",
            "default.replication.factor": replicas,
            "min.insync.replicas": "2" if len(self.nodes) > 1 else "1",
            "offsets.topic.replication.factor": replicas,
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": "2" if len(self.nodes) > 1 else "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.num.partitions": "1",
            "auto.create.topics.enable": "false",
            "log.retention.ms": "-1",  # messages with old timestamps are deleted otherwise
            "log.segment.delete.delay.ms": "1000",
            "log.cleaner.dedupe.buffer.size": "16777216",
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
            "super.users": "User:ANONYMOUS",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.certificates.server),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.certificates.authority),
            "ssl.client.auth": "requested",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
        }
        users = " ".join(f'user_{user}="{password}"' for user, password in PASSWORDS.items())
        security = "org.apache.kafka.common.security"
        modules = {
            "plain": f"{security}.plain.PlainLoginModule required {users};",
            "scram-sha-256": f"{security}.scram.ScramLoginModule required;",
            "scram-sha-512": f"{security}.scram.ScramLoginModule required;",
            "oauthbearer": f'{security}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="b";',
        }
        for listener in ("sasl_plaintext", "sasl_ssl"):
            for mechanism, module in modules.items():
                settings[f"listener.name.{listener}.{mechanism}.sasl.jaas.config"] = module
            # A connection ends with the token's life unless the client authenticates again (KIP-368).
            settings[f"listener.name.{listener}.oauthbearer.connections.max.reauth.ms"] = "3600000"
        return settings | self._settings


def unsecured_token(user: str, seconds: float) -> str:
    """An OAUTHBEARER token without a signature, which the brokers take for so long."""
    now = time.time()
    parts = ({"alg": "none"}, {"sub": user, "iat": now, "exp": now + seconds})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts) + "."


@contextlib.contextmanager
def running() -> Iterator[Kafka]:
    """One broker for the length of the `with`, or the one that STREAMLINE_TEST_KAFKA names.

    Raises:
        ServiceMissingError: none is named, and none can be started here; the text says why.
    """
    if servers := os.environ.get(SERVERS_VARIABLE):
        with contextlib.closing(Kafka(servers)) as kafka:
            yield kafka
        return
    with KafkaCluster() as cluster:
        yield cluster


def _server_of(guard: subprocess.Popen[bytes]) -> int:
    """The process id of the server that a guard runs."""
    deadline = time.monotonic() + 30
    while not (children := psutil.Process(guard.pid).children()):
        assert time.monotonic() < deadline, "the guard has started no server"
        time.sleep(0.05)
    return int(children[0].pid)
