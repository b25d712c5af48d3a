"""Both client libraries reach a broker that wants TLS, a password or a token, and name what it refuses."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

from streamline.connectors.kafka.client import KafkaError, Outgoing, Partition, Unavailable
from tests.services.kafka import KafkaCluster, unsecured_token
from tests.services.kafka_bench import SECONDS, Bench, deliver, read, values

MakeBench = Callable[..., Bench]

ALICE = {"username": "alice", "password": "alice-secret"}


def passes_messages(bench: Bench, topic: str) -> None:
    """Messages can be written and read."""
    assert deliver(bench.producer(), Outgoing(topic, b"k", b"v")) == []
    consumer, _ = bench.consumer(topic)
    assert values(read(consumer, 1)) == [b"v"]
    assert bench.admin().topics(SECONDS, [topic]).keys() == {topic}


def test_tls_checks_the_broker_and_its_name(make_bench: MakeBench, secured_kafka: KafkaCluster) -> None:
    topic = secured_kafka.create_topic()
    servers = secured_kafka.addresses("SSL")
    authority = {"cafile": str(secured_kafka.certificates.authority)}
    passes_messages(make_bench(servers, protocol="SSL", ssl=authority), topic)
    by_address = tuple(server.replace("localhost", "127.0.0.1") for server in servers)
    with pytest.raises(Unavailable) as caught:
        make_bench(by_address, protocol="SSL", ssl=authority).admin().topics(5)
    assert "certificate" in caught.value.message
    unchecked = authority | {"check_hostname": False}
    passes_messages(make_bench(by_address, protocol="SSL", ssl=unchecked), secured_kafka.create_topic())
    with pytest.raises(Unavailable):
        make_bench(servers, protocol="SSL").admin().topics(5)


def test_tls_shows_the_client_s_certificate(make_bench: MakeBench, secured_kafka: KafkaCluster) -> None:
    certificates = secured_kafka.certificates
    files = {
        "cafile": str(certificates.authority),
        "certfile": str(certificates.client_certificate),
        "keyfile": str(certificates.client_key),
    }
    topic = secured_kafka.create_topic()
    allow(secured_kafka, "CN=client", ResourceType.TOPIC, topic, ACLOperation.ALL)
    servers = secured_kafka.addresses("SSL")
    undelivered = deliver(make_bench(servers, protocol="SSL", ssl=files).producer(), Outgoing(topic, b"k", b"v"))
    assert undelivered == []
    del files["certfile"], files["keyfile"]
    anonymous = make_bench(servers, protocol="SSL", ssl=files)
    assert deliver(anonymous.producer(), Outgoing(topic, b"k", b"v")) == []  # ANONYMOUS may do everything


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_password_lets_in(make_bench: MakeBench, secured_kafka: KafkaCluster, mechanism: str, protocol: str) -> None:
    tls = {"cafile": str(secured_kafka.certificates.authority)} if protocol == "SASL_SSL" else {}
    servers = secured_kafka.addresses(protocol)
    sasl = {"mechanism": mechanism, **ALICE}
    passes_messages(make_bench(servers, protocol=protocol, ssl=tls, sasl=sasl), secured_kafka.create_topic())


def test_a_wrong_password_is_named(make_bench: MakeBench, secured_kafka: KafkaCluster) -> None:
    servers = secured_kafka.addresses("SASL_PLAINTEXT")
    bench = make_bench(
        servers, protocol="SASL_PLAINTEXT", sasl={"mechanism": "PLAIN", "username": "alice", "password": "wrong"}
    )
    with pytest.raises(KafkaError) as caught:
        bench.admin().topics(10)
    assert caught.value.code == "kafka.authentication_failed"
    assert not caught.value.transient
    assert "wrong" not in str(caught.value)


def allow(kafka: KafkaCluster, user: str, kind: Any, name: str, operation: Any) -> None:
    """From now on only this user may do this (and those that ACLs do not concern)."""
    kafka.admin.create_acls([ACL(f"User:{user}", "*", operation, ACLPermissionType.ALLOW, ResourcePattern(kind, name))])


def test_what_an_acl_forbids_is_named(make_bench: MakeBench, secured_kafka: KafkaCluster) -> None:
    topic = secured_kafka.create_topic()
    allow(secured_kafka, "bob", ResourceType.TOPIC, topic, ACLOperation.READ)
    allow(secured_kafka, "alice", ResourceType.TOPIC, topic, ACLOperation.DESCRIBE)
    bench = make_bench(
        secured_kafka.addresses("SASL_PLAINTEXT"), protocol="SASL_PLAINTEXT", sasl={"mechanism": "PLAIN", **ALICE}
    )
    undelivered = deliver(bench.producer(), Outgoing(topic, b"k", b"v"))
    assert [each.code for each in undelivered] == ["TOPIC_AUTHORIZATION_FAILED"]
    consumer, _ = bench.consumer(topic)
    with pytest.raises(KafkaError) as caught:
        read(consumer, 1)
    assert caught.value.code == "kafka.not_authorized"
    assert caught.value.kafka_code == "TOPIC_AUTHORIZATION_FAILED"
    group = f"g-{topic}"
    allow(secured_kafka, "bob", ResourceType.GROUP, group, ACLOperation.READ)
    with pytest.raises(KafkaError) as caught:
        read(bench.consumer(secured_kafka.create_topic(), group=group)[0], 1)
    assert caught.value.kafka_code == "GROUP_AUTHORIZATION_FAILED"


class Tokens:
    """An endpoint that gives tokens by the client credentials grant, and counts them."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.given: list[str] = []

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        """Give its address inside the `with`."""
        tokens = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["Content-Length"])).decode()
                user = "Basic YXBwOnMzY3JldA=="  # app:s3cret
                granted = self.headers["Authorization"] == user and "grant_type=client_credentials" in form
                answer: dict[str, Any] = {"error": "invalid_client"}
                if granted:
                    tokens.given.append(form)
                    token = unsecured_token("app", tokens.seconds)
                    answer = {"access_token": token, "token_type": "bearer", "expires_in": tokens.seconds}
                body = json.dumps(answer).encode()
                self.send_response(200 if granted else 401)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/token"
        finally:
            server.shutdown()
            server.server_close()


def oauth(url: str, secret: str = "s3cret") -> dict[str, Any]:
    return {
        "mechanism": "OAUTHBEARER",
        "oauth_token_url": url,
        "oauth_client_id": "app",
        "oauth_client_secret": secret,
        "oauth_scope": "kafka",
    }


def test_case_31_a_token_is_renewed_while_nothing_happens(make_bench: MakeBench, secured_kafka: KafkaCluster) -> None:
    """The topic is idle for longer than a token lives; then both sides go on without an error."""
    topic, tokens = secured_kafka.create_topic(), Tokens(4.0)
    servers = secured_kafka.addresses("SASL_PLAINTEXT")
    with tokens.serving() as url:
        bench = make_bench(servers, protocol="SASL_PLAINTEXT", sasl=oauth(url))
        producer = bench.producer()
        assert deliver(producer, Outgoing(topic, b"k", b"0")) == []
        consumer, _ = bench.consumer(topic)
        assert values(read(consumer, 1)) == [b"0"]
        consumer.pause([Partition(topic, 0)])
        until = time.monotonic() + 2.5 * tokens.seconds
        while time.monotonic() < until:
            assert consumer.poll_batch(10, 0.2) == []
        consumer.resume([Partition(topic, 0)])
        assert deliver(producer, Outgoing(topic, b"k", b"1")) == []
        assert values(read(consumer, 1)) == [b"1"]
        assert len(tokens.given) >= 4
        assert "scope=kafka" in tokens.given[0]
        bench.close()


def test_a_token_that_is_not_given_is_named(make_bench: MakeBench, secured_kafka: KafkaCluster) -> None:
    with Tokens(60.0).serving() as url:
        servers = secured_kafka.addresses("SASL_PLAINTEXT")
        bench = make_bench(servers, protocol="SASL_PLAINTEXT", sasl=oauth(url, "another"))
        with pytest.raises(KafkaError) as caught:
            bench.admin().topics(5)
        assert caught.value.code == "kafka.authentication_failed"
        bench.close()


def test_case_35_the_name_is_sent_though_it_is_not_checked(make_bench: MakeBench, secured_kafka: KafkaCluster) -> None:
    """Proxies in front of many clusters go by it."""
    names: list[str | None] = []
    named = threading.Event()

    def note(_: ssl.SSLSocket, name: str | None, __: ssl.SSLContext) -> None:
        names.append(name)
        named.set()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(secured_kafka.certificates.server)
    context.sni_callback = note
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(SECONDS)

    def serve() -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as connection:
            context.wrap_socket(connection, server_side=True).close()

    thread = threading.Thread(target=serve)
    thread.start()
    tls = {"cafile": str(secured_kafka.certificates.authority), "check_hostname": False}
    bench = make_bench((f"localhost:{listener.getsockname()[1]}",), protocol="SSL", ssl=tls)
    with pytest.raises(Unavailable):
        bench.admin().topics(3)
    assert named.wait(SECONDS)
    assert names == ["localhost"]
    listener.close()
    thread.join()
