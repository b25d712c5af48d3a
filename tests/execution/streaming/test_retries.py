"""Which failures are followed by another attempt, and when."""

from __future__ import annotations

import pytest

from streamline.connectors.kafka.client import KafkaError
from streamline.connectors.kafka.serialization.registry import RegistryRefusal, RegistryUnavailable
from streamline.connectors.python import isolation
from streamline.connectors.stream_connector import NothingWritten, PositionLost
from streamline.errors import ConfigError, PipelineFailed, StreamlineError
from streamline.execution.events import AttemptFailed
from streamline.execution.streaming import attempts
from streamline.execution.streaming.attempt import AttemptOutcome
from streamline.execution.streaming.attempts import FENCED_AGAIN_SECONDS, Retries
from streamline.execution.streaming.flows import MessageRefused
from streamline.pipeline.model import RetryConfig
from tests.execution.streaming.conftest import Stream

FAILED = PipelineFailed("the block failed")
OUTAGE = KafkaError("nobody answers", transient=True)
UNREACHABLE = StreamlineError("not within the startup timeout", code="kafka.unreachable")
FENCED = KafkaError("another has taken its place", fenced=True)
STARTUP = 60.0


def failed(
    error: Exception = FAILED, *, given: bool = True, saved: bool = False, seconds: float = 1.0
) -> AttemptOutcome:
    return AttemptOutcome(error=error, given=given, saved=saved, seconds=seconds)


def test_the_delay_doubles_until_an_attempt_gets_on() -> None:
    retries = Retries(None, STARTUP)
    assert [retries.delay_after(failed()) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert retries.delay_after(failed(saved=True)) == 1
    assert retries.delay_after(failed()) == 2


def test_retry_config_sets_the_limit_and_the_delays() -> None:
    retries = Retries(RetryConfig(retries=2, delay=3, exponential_backoff=False), STARTUP)
    assert [retries.delay_after(failed()) for _ in range(3)] == [3, 3, None]


@pytest.mark.parametrize("outage", [OUTAGE, RegistryUnavailable("the registry is away"), UNREACHABLE])
def test_an_outage_ends_no_run_that_had_started(outage: StreamlineError) -> None:
    retries = Retries(RetryConfig(retries=0, delay=1), STARTUP)
    assert retries.delay_after(failed(outage, saved=True)) == 1
    assert retries.delay_after(failed(outage)) == 2


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("wrong"),
        RegistryRefusal("not compatible"),
        MessageRefused("refused"),
        PositionLost("lost"),
        StreamlineError("another member has the same id", code="kafka.replaced"),
        PipelineFailed("all are dead letters", code="dead_letter.too_many"),
    ],
)
def test_what_no_attempt_can_mend(error: Exception) -> None:
    assert Retries(None, STARTUP).delay_after(failed(error, saved=True)) is None


def test_whose_transactional_id_is_taken_over_again_and_again_ends() -> None:
    now = 0.0
    retries = Retries(RetryConfig(retries=0, delay=1), STARTUP, clock=lambda: now)
    assert retries.delay_after(failed(FENCED, saved=True)) == 1
    now += FENCED_AGAIN_SECONDS
    assert retries.delay_after(failed(FENCED, saved=True)) == 1
    now += FENCED_AGAIN_SECONDS - 1
    assert retries.delay_after(failed(FENCED, saved=True)) is None


@pytest.mark.parametrize("error", [OUTAGE, StreamlineError("not allowed"), RuntimeError("a bug")])
def test_what_fails_before_anything_was_proven(error: Exception) -> None:
    assert Retries(None, STARTUP).delay_after(failed(error)) is None


@pytest.mark.parametrize("outage", [OUTAGE, UNREACHABLE])
def test_at_the_start_an_outage_is_one_more_failure(outage: StreamlineError) -> None:
    retries = Retries(RetryConfig(retries=1, delay=1), STARTUP)
    assert [retries.delay_after(failed(outage, given=False)) for _ in range(2)] == [1, None]


def test_an_idle_pipeline_has_started_too() -> None:
    assert Retries(None, STARTUP).delay_after(failed(OUTAGE, given=False, seconds=3600.0)) == 1


def test_a_block_that_cannot_be_loaded() -> None:
    assert Retries(None, STARTUP).delay_after(failed(given=False)) is None


def test_a_sink_that_writes_nothing_is_not_tried_without_end(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "PAUSES", ())
    monkeypatch.setattr(attempts, "BACKOFF", RetryConfig(delay=0, max_delay=0))
    many = 10 * isolation.MAX_IN_A_ROW
    source = f"@streaming_source\nclass Source:\n    def batch_read(self, handler):\n        handler([{{}}] * {many})\n"
    stream.files.block("load", source, type="data_loader", upstream=[])
    code = "@streaming_sink\nclass Sink:\n    def batch_write(self, messages):\n        raise RuntimeError('no')\n"
    stream.files.block("export", code, type="data_exporter")
    result = stream.run()
    assert (result.status, result.errors["export"].code) == ("failed", NothingWritten.code)
    assert len(stream.of(AttemptFailed)) == attempts.MOST_UNWRITTEN
    assert result.summary["quarantined"] == 0


def test_attempts_without_anything_written_are_counted_in_a_row() -> None:
    retries, nothing = Retries(None, STARTUP), NothingWritten("nothing")
    delays = [retries.delay_after(failed(nothing, saved=number == 3)) for number in range(8)]
    assert [number for number, delay in enumerate(delays) if delay is None] == [7]
