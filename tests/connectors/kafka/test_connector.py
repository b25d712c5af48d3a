"""Kafka as a connector: what it promises, what it finds before a start, and what it needs to be imported for that."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamline.connectors.kafka.connector import CONNECTOR
from streamline.connectors.stream_connector import StreamContext
from streamline.errors import ConfigError
from streamline.flow.items import Origin

CONFIG = {"bootstrap_server": "b:2,a:1", "topic": "orders"}


def where(*path: str) -> str:
    return "kafka.yaml:" + ".".join(path)


def context(root: Path = Path("/")) -> StreamContext:
    return StreamContext(pipeline="clicks", block="load", root=root)


def source(**more: Any) -> Any:
    return CONNECTOR.describe_source({**CONFIG, **more}, context(), where)


def test_what_it_promises() -> None:
    traits = source(consumer_group="shop", include_metadata=True, batch_size=7)
    assert (traits.replays, traits.keeps_positions, traits.ends) == (True, True, False)
    assert (traits.positions, traits.cluster) == ("consumer group shop", "a:1,b:2")
    assert (traits.include_metadata, traits.batch_size) == (True, 7)
    assert traits.decoder().decode(b'{"a":1}', Origin("orders", 0, 0, None, b"")) == {"a": 1}
    assert traits.key_decoder is None
    sink = CONNECTOR.describe_sink(CONFIG, context(), where)
    assert (sink.cluster, sink.format, sink.keeps_data) == (traits.cluster, traits.format, True)


def test_keys_have_a_format_of_their_own() -> None:
    traits = source(serde_config={"key_serialization_method": "JSON"})
    assert traits.key_decoder().decode(b"[1]", Origin("orders", 0, 0, b"[1]", b"")) == [1]


def test_values_that_have_to_fit_a_schema_are_always_decoded(tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text("{}")
    config = {**CONFIG, "serde_config": {"schema": "order.json"}}
    assert CONNECTOR.describe_source(config, context(tmp_path), where).format is None


def test_a_schema_that_is_no_schema_is_found_before_the_start(tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text('{"type": "integr"}')
    config = {**CONFIG, "serde_config": {"schema": "order.json"}}
    for describe in (CONNECTOR.describe_source, CONNECTOR.describe_sink):
        with pytest.raises(ConfigError) as caught:
            describe(config, context(tmp_path), where)
        assert caught.value.code == "schema.invalid"


@pytest.mark.parametrize("side", ["source", "destination"])
def test_the_template_is_a_config(side: Any) -> None:
    text = CONNECTOR.template(side, "clicks", "orders").replace(
        "\"{{ env_var('KAFKA_BOOTSTRAP_SERVER', 'localhost:9092') }}\"", "a:1"
    )
    config = yaml.safe_load(text)
    describe = CONNECTOR.describe_source if side == "source" else CONNECTOR.describe_sink
    describe(config, context(), where)
    assert config["topic"] == "orders"


@pytest.mark.parametrize("describe", [CONNECTOR.describe_source, CONNECTOR.describe_sink])
def test_a_client_that_is_not_installed_is_found_before_the_start(describe: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(ConfigError) as caught:
        describe({**CONFIG, "client": "confluent"}, context(), where)
    assert (caught.value.code, caught.value.where) == ("kafka.client_missing", "kafka.yaml:client")


def test_no_client_is_imported_to_describe_it() -> None:
    code = (
        "import sys\n"
        "from tests.connectors.kafka.test_connector import source\n"
        "source()\n"
        "clients = {'kafka', 'confluent_kafka', 'fastavro', 'google'}\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & clients))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_tells_its_client_library() -> None:
    config = {**CONFIG, "client": "kafka-python"}
    assert CONNECTOR.describe_sink(config, context(), where).client == "kafka-python"
    assert source(client="kafka-python").client == "kafka-python"


def test_blocks_of_one_transaction_connect_alike() -> None:
    configs = {"a": CONFIG, "b": {**CONFIG, "bootstrap_server": "c:3"}}
    with pytest.raises(ConfigError) as caught:
        CONNECTOR.open_sink(configs, context(), dict.fromkeys(configs, where))
    assert caught.value.code == "kafka.connections_differ"
