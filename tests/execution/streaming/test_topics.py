"""Pipelines whose topics would feed themselves, or whose sources would share messages by mistake."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from streamline.errors import ConfigError
from streamline.execution.flow_runs import open_planning
from streamline.execution.run import RunOptions
from streamline.execution.streaming.shared_groups import check_groups
from tests.execution.streaming.conftest import Stream


def kafka(stream: Stream, uuid: str, type: str, upstream: list[str] | None = None, **config: Any) -> None:
    text = yaml.safe_dump({"connector_type": "kafka", "bootstrap_server": "h:1", **config})
    stream.files.block(uuid, text, type=type, language="yaml", upstream=upstream)


@pytest.mark.parametrize(
    ("read", "written", "letters"),
    [
        ("orders", "orders", None),
        ("orders", "{stream}", None),
        ("^orders.*", "orders-checked", None),
        ("^orders.*", "orders-{stream}", None),
        ("^orders.*", "done", "orders.dead"),
        ("^.*", "copy-of-{stream}", None),
        (r"^crm\.(eu|us)-.+", "{stream}-copy", None),
        ("^[a-z]+_events", "more{stream}", None),
    ],
)
def test_a_pipeline_that_would_read_what_it_writes(
    stream: Stream, read: str, written: str, letters: str | None
) -> None:
    kafka(stream, "load", "data_loader", topics=read)
    kafka(stream, "export", "data_exporter", topic=written)
    if letters is not None:
        stream.keys(dead_letter={"topic": letters})
    with pytest.raises(ConfigError) as caught:
        stream.plan()
    assert caught.value.code == "kafka.endless_loop"
    assert (caught.value.where or "").split(":")[0].endswith("export.yaml" if letters is None else "metadata.yaml")


@pytest.mark.parametrize("read", ["^p.*", "^.*\\.state"])
def test_a_pipeline_that_would_read_its_own_state(stream: Stream, read: str) -> None:
    kafka(stream, "load", "data_loader", topics=read)
    stream.transformer("count", "@transformer\ndef count(messages, state, **kwargs):\n    return messages\n", ["load"])
    kafka(stream, "export", "data_exporter", ["count"], topic="out")
    with pytest.raises(ConfigError) as caught:
        stream.plan()
    assert caught.value.code == "kafka.endless_loop"


@pytest.mark.parametrize(
    ("read", "written", "server"),
    [
        ("orders", "{stream}-checked", "h:1"),
        ("^orders", "{stream}-checked", "h:1"),
        ("^orders", "orders-checked", "h:1"),
        ("orders", "orders", "other:1"),
        ("^crm-.*", "copy-of-{stream}", "h:1"),
        ("^(?!copy-).*", "copy-of-{stream}", "h:1"),
        ("^.*", "copy-of-{stream}", "other:1"),
    ],
)
def test_a_pipeline_that_does_not(stream: Stream, read: str, written: str, server: str) -> None:
    kafka(stream, "load", "data_loader", topics=read)
    kafka(stream, "export", "data_exporter", topic=written, bootstrap_server=server)
    assert stream.plan()


@pytest.mark.parametrize(("last", "loop"), [("c", False), ("a", True), ("{stream}-again", False)])
def test_a_loop_through_several_sources(stream: Stream, last: str, loop: bool) -> None:
    kafka(stream, "read_a", "data_loader", topics="a")
    kafka(stream, "write_b", "data_exporter", ["read_a"], topic="b")
    kafka(stream, "read_b", "data_loader", topics="b", consumer_group="g")
    kafka(stream, "write_again", "data_exporter", ["read_b"], topic=last)
    if not loop:
        assert stream.plan()
        return
    with pytest.raises(ConfigError) as caught:
        stream.plan()
    assert caught.value.code == "kafka.endless_loop"
    assert "read_a → b → read_b → a → read_a" in caught.value.message


@pytest.mark.parametrize(
    ("topics", "group", "shared"), [("a", None, True), ("^.", None, True), ("b", None, False), ("a", "g", False)]
)
def test_two_sources_in_one_group(stream: Stream, topics: str, group: str | None, shared: bool) -> None:
    kafka(stream, "load", "data_loader", topics="a")
    kafka(stream, "load_more", "data_loader", topics=topics, **({} if group is None else {"consumer_group": group}))
    kafka(stream, "export", "data_exporter", ["load", "load_more"], topic="out")
    if not shared:
        assert stream.plan()
        return
    with pytest.raises(ConfigError) as caught:
        stream.plan()
    assert caught.value.code == "setting.conflict"


def other_pipeline(stream: Stream, **config: Any) -> None:
    """A second pipeline in the project, with a source of its own."""
    text = {"connector_type": "kafka", "bootstrap_server": "h:1", **config}
    stream.files.write("data_loaders/other.yaml", yaml.safe_dump(text))
    entry = {"uuid": "other", "name": "other", "type": "data_loader", "language": "yaml"}
    stream.files.write("pipelines/q/metadata.yaml", yaml.safe_dump({"type": "streaming", "blocks": [entry]}))


def test_two_pipelines_that_share_a_group_and_a_topic(stream: Stream) -> None:
    kafka(stream, "load", "data_loader", topics=["orders", "users"], consumer_group="g")
    kafka(stream, "export", "data_exporter", topic="out")
    other_pipeline(stream, topics=["users"], consumer_group="g")
    with pytest.raises(ConfigError) as caught:
        stream.run()
    assert caught.value.code == "kafka.group_shared"
    assert "load.yaml:" in (caught.value.where or "")
    assert "data_loaders/other.yaml:" in caught.value.message
    checked = json.loads(stream.files.command("check", "p", "--json").expect(2).out)["checks"]
    assert [each["code"] for each in checked if not each["ok"]] == ["kafka.group_shared"]


@pytest.mark.parametrize(
    "config",
    [
        {"topics": ["users"], "consumer_group": "g"},
        {"topics": ["orders"], "consumer_group": "other"},
        {"topics": ["orders"], "consumer_group": "g", "bootstrap_server": "other:1"},
        {"topics": ["orders"]},
    ],
)
def test_two_pipelines_that_do_not(stream: Stream, config: dict[str, Any]) -> None:
    kafka(stream, "load", "data_loader", topics=["orders"], consumer_group="g")
    stream.sink()
    other_pipeline(stream, **config)
    plan, model = stream.plan(), stream.model()
    with open_planning(stream.project, model, RunOptions(), "test") as run:
        check_groups(run, plan)
