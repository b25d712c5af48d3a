"""Runs of streaming pipelines, with sources and sinks in memory."""

from __future__ import annotations

import pytest

from streamline.execution.events import AttemptFailed, RunPlanned
from streamline.execution.streaming import attempts
from streamline.pipeline.model import RetryConfig
from streamline.state import project_store
from tests.execution.streaming.conftest import Stream


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""
    monkeypatch.setattr(attempts, "BACKOFF", RetryConfig(delay=0))


def test_messages_go_from_a_source_to_a_sink(stream: Stream) -> None:
    stream.source(messages=[1, 2, 3])
    stream.sink()
    result = stream.run()
    assert result.status == "completed"
    assert stream.world.written == {"export": [1, 2, 3]}
    assert result.summary["records"] == 3
    assert result.summary["tables"] == [{"block": "export", "table": "load", "sent": 3, "written": 3, "quarantined": 0}]
    (planned,) = stream.of(RunPlanned)
    assert planned.endless


def test_the_next_run_goes_on_where_the_last_one_ended(stream: Stream) -> None:
    stream.source(messages=[1, 2])
    stream.sink()
    stream.run()
    stream.files.write("data_loaders/load.yaml", "connector_type: memory\nmessages: [1, 2, 3]\n")
    stream.run()
    assert stream.world.written == {"export": [1, 2, 3]}
    assert stream.world.starts == {"load": [0, 2]}


def test_a_group_keeps_its_offsets_itself_and_the_store_shows_them(stream: Stream) -> None:
    stream.source(messages=[1, 2], group="g")
    stream.sink()
    stream.run()
    assert stream.world.committed == {"load": 2}
    assert stream.world.closed == ["load"]
    with project_store(stream.project) as store:
        bookmarks = store.bookmarks("p", "load")
    assert {key: (mark.value, mark.sinks) for key, mark in bookmarks.items()} == {
        "topic/0": ('{"offset":2}', ["export"])
    }


@pytest.mark.parametrize("group", [None, "g"])
def test_after_a_sink_failed_another_attempt_starts_from_the_last_proof(stream: Stream, group: str | None) -> None:
    stream.source(messages=[1, 2, 3], group=group)
    stream.sink(fail_at=2)
    result = stream.run()
    assert result.status == "completed"
    assert sorted(set(stream.world.written["export"])) == [1, 2, 3]
    assert stream.world.starts["load"] == [0, 1]
    (failed,) = stream.of(AttemptFailed)
    assert (failed.block, failed.delay) == ("export", 0)
    assert result.summary["records"] == 3


def test_after_a_source_failed_what_it_gave_before_is_delivered(stream: Stream) -> None:
    stream.source(messages=[1, 2, 3], fail_after=1)
    stream.sink()
    assert stream.run().status == "completed"
    assert stream.world.written == {"export": [1, 2, 3]}
    assert stream.world.starts["load"] == [0, 2]


def test_retry_config_limits_attempts_without_progress(stream: Stream) -> None:
    stream.keys(retry_config={"retries": 2, "delay": 0})
    stream.source(messages=[1])
    stream.sink(fail_at=1, fail_times=100)
    result = stream.run()
    assert result.status == "failed"
    assert stream.world.starts["load"] == [0, 0, 0]
    assert set(result.errors) == {"export"}
    assert {block.uuid: block.status for block in result.blocks} == {"load": "cancelled", "export": "failed"}


def test_a_system_that_cannot_be_reached_at_the_start_ends_the_run(stream: Stream) -> None:
    stream.source(messages=[1], unreachable=True)
    stream.sink()
    result = stream.run()
    assert result.status == "failed"
    assert set(result.errors) == {"load"}
    assert stream.world.starts["load"] == [0]


def test_a_message_that_the_sink_refuses_becomes_a_dead_letter(stream: Stream) -> None:
    stream.source(messages=[1, 2, 3, 2])
    stream.sink(refuse=2)
    result = stream.run()
    assert result.status == "completed"
    assert stream.world.written == {"export": [1, 3]}
    (warning,) = result.warnings  # of the first one
    assert warning.startswith("export: ")
    assert result.summary["quarantined"] == 2
    with project_store(stream.project) as store:
        letter, _ = store.dead_letters("p")
        assert (letter.block, letter.stage, letter.value, letter.offset) == ("load", "export", b"2", 1)
        assert store.bookmarks("p", "load")["topic/0"].value == '{"offset":4}'


def test_on_error_stop_ends_the_run_at_the_message(stream: Stream) -> None:
    stream.keys(on_error="stop")
    stream.source(messages=[1, 2, 3])
    stream.sink(refuse=2)
    result = stream.run()
    assert result.status == "failed"
    (failure,) = result.errors.values()
    assert failure.code == "message.refused"
    assert failure.where == "topic, partition 0, offset 1"
    assert stream.world.written == {"export": [1]}
    with project_store(stream.project) as store:
        assert store.dead_letters("p") == []
        assert store.bookmarks("p", "load")["topic/0"].value == '{"offset":1}'


def test_exactly_once_has_one_sink_for_all_blocks(stream: Stream) -> None:
    stream.keys(delivery="exactly-once", on_error="stop")
    stream.source(messages=[1, 2], group="g", cluster="c")
    stream.sink("a", ["load"], cluster="c")
    stream.sink("b", ["load"], cluster="c")
    assert stream.run().status == "completed"
    assert stream.world.written == {"a": [1, 2], "b": [1, 2]}
    assert stream.world.committed == {"load": 2}


def test_several_sources_and_sinks(stream: Stream) -> None:
    stream.source("one", messages=[1, 2])
    stream.source("two", messages=[3])
    stream.sink("a", ["one", "two"])
    stream.sink("b", ["two"])
    assert stream.run().status == "completed"
    assert sorted(stream.world.written["a"]) == [1, 2, 3]
    assert stream.world.written["b"] == [3]


def test_until_caught_up_ends_what_has_no_end(stream: Stream) -> None:
    stream.source(messages=[1], endless=True)
    stream.sink()
    assert stream.run(until_caught_up=True).status == "completed"
    assert stream.world.written == {"export": [1]}


def test_bytes_reach_a_sink_of_the_same_format_as_they_are(stream: Stream) -> None:
    stream.source(messages=[{"a": 1}], decodes=True)
    stream.sink("same", ["load"], format="json")
    stream.sink("other", ["load"])
    stream.run()
    assert stream.world.written == {"same": [b'{"a": 1}'], "other": [{"a": 1}]}


def test_a_branch_that_changes_messages_has_copies(stream: Stream) -> None:
    stream.source(messages=[{"id": 1}])
    stream.sink("changing", ["load"], changes_data=True)
    stream.sink("reading", ["load"])
    stream.run()
    assert stream.world.written == {"changing": [{"id": 1, "changed by": "changing"}], "reading": [{"id": 1}]}


@pytest.mark.parametrize("group", [None, "g"])
def test_a_flow_that_fails_is_run_again_though_another_has_no_end(stream: Stream, group: str | None) -> None:
    stream.keys(retry_config={"retries": 1, "delay": 0})
    stream.source("endless", messages=[4], endless=True, group=group)
    stream.sink("other", ["endless"])
    stream.source("failing", messages=[1, 2, 3], fail_after=1, group=group)
    stream.sink("export", ["failing"], fail_at=3, fail_times=100)
    result = stream.run()
    assert result.status == "failed"
    assert set(result.errors) == {"export"}
    assert stream.world.starts["failing"][:2] == [0, 2]
    assert stream.world.starts["endless"][:2] == [0, 1]


def test_on_error_stop_ends_the_run_though_another_source_has_no_end(stream: Stream) -> None:
    stream.keys(on_error="stop")
    stream.source("endless", messages=[4], endless=True)
    stream.sink("other", ["endless"])
    stream.source(messages=[1, 2, 3])
    stream.sink(upstream=["load"], refuse=2)
    result = stream.run()
    (failure,) = result.errors.values()
    assert failure.code == "message.refused"
