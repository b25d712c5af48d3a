"""The keys at the top of a streaming pipeline's metadata.yaml."""

from __future__ import annotations

from typing import Any

import pytest

from streamline.errors import ConfigError
from tests.execution.streaming.conftest import Stream


@pytest.fixture
def pipeline(stream: Stream) -> Stream:
    """A source and a sink."""
    stream.source()
    stream.sink()
    return stream


def test_defaults(pipeline: Stream) -> None:
    settings = pipeline.plan().settings
    assert (settings.delivery, settings.checkpoint_interval, settings.on_error) == ("at-least-once", 1.0, "dead-letter")
    assert (settings.startup_timeout, settings.instances, settings.retry, settings.park) == (60.0, 1, None, False)
    assert settings.max_dead_letters == 1_000


def test_values_may_be_templates(pipeline: Stream) -> None:
    pipeline.files.write("data_loaders/load.yaml", "connector_type: memory\nmessages: []\nkeyed: true\n")
    pipeline.keys(variables={"pace": 5}, checkpoint_interval="{{ variables('pace') }}", park="key")
    pipeline.keys(max_dead_letters="unlimited")
    settings = pipeline.plan().settings
    assert (settings.checkpoint_interval, settings.park, settings.max_dead_letters) == (5.0, True, None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("delivery", "exactly_once"),
        ("checkpoint_interval", 0),
        ("checkpoint_interval", "soon"),
        ("checkpoint_interval", True),
        ("checkpoint_interval", 7200),
        ("on_error", "skip"),
        ("startup_timeout", -1),
        ("instances", 0),
        ("instances", 1.5),
        ("instances", 65),
        ("max_dead_letters", 0),
        ("max_dead_letters", "many"),
        ("park", True),
        ("metrics", 70_000),
        ("metrics", {"host": "127.0.0.1"}),
        ("metrics", {"port": 9100, "adress": "::1"}),
        ("metrics", {"port": 9100, "host": 1}),
        ("metrics", {"port": 9100, "stalled_after": 0}),
        ("dead_letter", "letters"),
        ("dead_letter", {"bootstrap_server": "localhost:9092"}),
        ("dead_letter", {"topic": "letters"}),
    ],
)
def test_a_wrong_value_is_refused_with_its_line(pipeline: Stream, key: str, value: Any) -> None:
    pipeline.keys(**{key: value})
    with pytest.raises(ConfigError) as caught:
        pipeline.plan()
    assert caught.value.code == "setting.invalid"
    assert caught.value.where == pipeline.model().yaml.where((key,))


@pytest.mark.parametrize("keys", [{"dead_letter": {"topic": "t"}}, {"park": "key"}])
def test_keys_without_effect_are_refused(pipeline: Stream, keys: dict[str, Any]) -> None:
    pipeline.keys(on_error="stop", **keys)
    with pytest.raises(ConfigError) as caught:
        pipeline.plan()
    assert caught.value.code == "setting.conflict"


def test_parking_needs_keys_with_offsets(pipeline: Stream) -> None:
    pipeline.keys(park="key")
    with pytest.raises(ConfigError) as caught:
        pipeline.plan()
    assert caught.value.code == "setting.conflict"


def test_several_instances_need_consumer_groups(pipeline: Stream) -> None:
    pipeline.keys(instances=2)
    with pytest.raises(ConfigError) as caught:
        pipeline.plan()
    assert caught.value.code == "setting.conflict"
