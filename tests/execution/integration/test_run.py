"""Which groups are tried again, how often, and how."""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import anyio
import pytest

from streamline.errors import ConfigError, LeaseHeld, StreamlineError
from streamline.execution.events import AttemptFailed
from streamline.execution.integration import attempts
from streamline.execution.integration import run as module
from streamline.execution.integration.attempt import GroupOutcome
from streamline.execution.integration.attempts import TABLE_VERSION, _retry_config, run_attempts
from streamline.execution.integration.plan import Plan
from streamline.execution.integration.run import _planned_event, _summary
from streamline.flow.stages.schema_change import SchemaPaused
from streamline.pipeline.model import RetryConfig
from streamline.project.secrets import Masker
from streamline.telemetry.progress import Progress
from tests.execution.integration.plans import block, bookmark, context, group, path, plan, sink, source, stream

USERS = stream("users", key="id")
BROKEN = StreamlineError("it broke", code="tap.failed")


def retrying(retries: int) -> RetryConfig:
    return RetryConfig(retries=retries, delay=0.001, exponential_backoff=False)


def planned(*, retries: int = 0, groups: int = 1, **values: Any) -> Plan:
    load = source(USERS, block=block("load", "data_loader", retry_config=retrying(retries)))
    load.groups = [group(USERS, id=f"load.{number}", users="1") for number in range(groups)]
    return plan(load, sinks=[sink(load, **values)])


class Attempts:
    """Stands for `Attempt`: each group ends as is written down for it, attempt by attempt."""

    scripts: ClassVar[dict[str, list[dict[str, Any]]]] = {}
    made: ClassVar[list[dict[str, Any]]] = []
    run_of_last: ClassVar[Any] = None

    def __init__(self, run: Any, plan: Any, groups: list[Any], **values: Any) -> None:
        Attempts.run_of_last = run
        self._groups = groups
        self.made.append({"groups": [group.id for group in groups], "rows": groups[0].rows, **values})

    async def run(self) -> list[GroupOutcome]:
        outcomes = []
        for tried in self._groups:
            script = self.scripts.get(tried.id, [])
            outcomes.append(GroupOutcome(group=tried, started=True, **(script.pop(0) if script else {})))
        return outcomes


class Outcome:
    """What became of a run: its attempts, the last outcome of each group, and its events."""

    def __init__(self, made: Plan, scripts: dict[str, list[dict[str, Any]]], monkeypatch: Any, **run: Any) -> None:
        monkeypatch.setattr(attempts, "Attempt", Attempts)
        Attempts.scripts, Attempts.made = scripts, []
        self.events: list[AttemptFailed] = []
        self.versions: list[int] = []
        self.cache = {(TABLE_VERSION, "p"): str(run.pop("version", 0))}
        store = SimpleNamespace(
            cache_get=lambda kind, key: self.cache.get((kind, key)),
            cache_put=lambda kind, key, value: self.cache.__setitem__((kind, key), value),
            bookmarks=lambda pipeline, name: {"users": bookmark("users", "7", run_id="r1")},
        )
        retries = run.pop("retries", True)
        bus = SimpleNamespace(publish=self.events.append)
        self.run = context(store=store, run={"bus": bus, "masker": Masker(), **run})
        self.every: list[GroupOutcome] = []
        outcomes = anyio.run(partial(run_attempts, retries=retries), self.run, made, self.every)
        self.errors = {outcome.group.id: outcome.error for outcome in outcomes}
        self.attempts = Attempts.made


def failing(times: int, error: Exception = BROKEN, **values: Any) -> list[dict[str, Any]]:
    return [{"error": error, **values} for _ in range(times)]


@pytest.mark.parametrize(("retries", "failures", "attempts"), [(0, 1, 1), (2, 1, 2), (2, 2, 3), (2, 9, 3)])
def test_a_group_is_tried_again_as_often_as_its_blocks_say(
    retries: int, failures: int, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = Outcome(planned(retries=retries), {"load.0": failing(failures)}, monkeypatch)
    assert len(outcome.attempts) == attempts
    assert outcome.errors == {"load.0": BROKEN if failures >= attempts else None}
    assert len(outcome.every) == attempts
    assert [attempt["number"] for attempt in outcome.attempts] == [*range(1, attempts + 1)]
    # What the last failure says of a retry is what happens.
    retried = [event.delay is not None for event in outcome.events]
    assert retried == [number < attempts for number in range(1, min(failures, attempts) + 1)]


def test_only_the_groups_that_failed_are_tried_again_from_the_saved_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = Outcome(planned(retries=1, groups=2), {"load.1": failing(1)}, monkeypatch)
    assert [attempt["groups"] for attempt in outcome.attempts] == [["load.0", "load.1"], ["load.1"]]
    assert [attempt["rows"] for attempt in outcome.attempts] == [{"users": b"1"}, {"users": b"7"}]
    assert outcome.errors == {"load.0": None, "load.1": None}


def test_every_attempt_has_a_higher_table_version_than_all_before(monkeypatch: pytest.MonkeyPatch) -> None:
    far = 10**15
    outcome = Outcome(planned(retries=1), {"load.0": failing(1)}, monkeypatch, version=far)
    versions = [attempt["version"] for attempt in outcome.attempts]
    assert far < versions[0] < versions[1] == int(outcome.cache[TABLE_VERSION, "p"])


@pytest.mark.parametrize(
    "error",
    [ConfigError("wrong", code="x.y"), LeaseHeld("held"), SchemaPaused("users", "paused", hint="")],
    ids=lambda error: type(error).__name__,
)
def test_what_another_attempt_cannot_mend_is_not_tried_again(error: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(Outcome(planned(retries=3), {"load.0": failing(1, error)}, monkeypatch).attempts) == 1


def test_a_target_that_drops_its_table_is_not_started_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    made = planned(retries=3, config={"load_method": "overwrite"})
    assert len(Outcome(made, {"load.0": failing(1)}, monkeypatch).attempts) == 1


def test_where_the_caller_retries_it_tells_of_the_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = Outcome(planned(retries=3), {"load.0": failing(1)}, monkeypatch, retries=False)
    assert (len(outcome.attempts), outcome.events) == (1, [])


def test_no_record_is_at_fault_for_a_sink_that_takes_every_record(monkeypatch: pytest.MonkeyPatch) -> None:
    made = planned()
    made.sinks["export"].open = lambda: cast(Any, None)
    outcome = Outcome(made, {"load.0": failing(1, sink_failed=True)}, monkeypatch)
    assert [attempt["validate"] for attempt in outcome.attempts] == [False]


def test_an_interrupted_run_tries_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = Outcome(planned(retries=3), {"load.0": failing(1)}, monkeypatch, interrupted=2)
    assert len(outcome.attempts) == 1
    assert [event.delay for event in outcome.events] == [None]


def test_a_signal_ends_the_wait_for_the_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    sleep = anyio.sleep

    async def waiting(seconds: float) -> None:
        waits.append(seconds)
        await sleep(seconds)

    monkeypatch.setattr(anyio, "sleep", waiting)
    outcome = Outcome(planned(retries=1), {"load.0": failing(1)}, monkeypatch)
    assert (len(outcome.attempts), len(waits)) == (2, 1), "the delay is waited for"

    async def interrupted(seconds: float) -> None:
        Attempts.run_of_last.interrupted = 2

    monkeypatch.setattr(anyio, "sleep", interrupted)
    assert len(Outcome(planned(retries=1), {"load.0": failing(1)}, monkeypatch).attempts) == 1


# -- one more, with every record looked at


def test_a_target_that_failed_gets_one_more_attempt_with_validated_records(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = Outcome(planned(), {"load.0": failing(9, sink_failed=True)}, monkeypatch)
    assert [attempt["validate"] for attempt in outcome.attempts] == [False, True]
    # It counts as none of the retries.
    outcome = Outcome(planned(retries=2), {"load.0": failing(9, sink_failed=True)}, monkeypatch)
    assert [attempt["validate"] for attempt in outcome.attempts] == [False, True, True, True]


@pytest.mark.parametrize(
    ("values", "failure"), [({}, {}), ({"on_bad_record": "quarantine"}, {"sink_failed": True})], ids=["tap", "policy"]
)
def test_no_record_is_looked_at_where_that_would_not_help(
    values: dict[str, Any], failure: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = Outcome(planned(**values), {"load.0": failing(9, **failure)}, monkeypatch)
    assert [attempt["validate"] for attempt in outcome.attempts] == [False]


def test_one_stream_whose_records_pass_unseen_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    made = planned(on_bad_record="quarantine", streams={"users": {"on_bad_record": "pass"}})
    assert len(Outcome(made, {"load.0": failing(9, sink_failed=True)}, monkeypatch).attempts) == 2


def test_a_target_that_failed_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = {f"load.{number}": failing(9, fault="export") for number in range(2)}
    assert [event.block for event in Outcome(planned(groups=2), scripts, monkeypatch).events] == ["export"]


# -- whose retry_config


def test_the_block_with_the_most_retries_decides() -> None:
    load = source(USERS, block=block("load", "data_loader", retry_config=retrying(1)))
    export = sink(load, blocks={"retry_config": retrying(2)})
    made = plan(load, sinks=[export], paths={"load": path("export", transforms=["clean"])})
    assert _retry_config(made, load.groups[0]).retries == 2
    made.paths["load"].transforms[0].block.retry_config = retrying(3)
    assert _retry_config(made, load.groups[0]).retries == 3
    assert _retry_config(plan(source(USERS), sinks=[sink(source(USERS))]), group(USERS)) == RetryConfig()


# -- what is told of a run


def test_the_plan_tells_each_sources_streams_and_destinations_without_secrets() -> None:
    masker = Masker()
    masker.add("geheim")
    load, more = source(USERS, notes=["geheim stays"]), source(USERS, uuid="more", catalog=None)
    event = _planned_event(
        context(run={"masker": masker}),
        plan(load, more, sinks=[sink(load, more, streams={"users": {"load_method": "append"}})]),
    )
    assert [(each.block, each.streams, each.destinations) for each in event.sources] == [
        ("load", 1, {"export": "target-x"}),
        ("more", None, {"export": "target-x"}),
    ]
    assert "geheim" not in event.sources[0].notes[0]


def test_streams_that_failed_alone_are_marked() -> None:
    progress = Progress()
    for name in ("users", "orders"):
        progress.of("load").read(name, 3)
    outcomes = [GroupOutcome(group=group(USERS), error=BROKEN, stopped=["users", "items"]), GroupOutcome(group=group())]
    made = planned()
    made.sources["load"].gone = {"old": ConfigError("gone", code="stream.unknown")}
    streams = _summary(context(run={"progress": progress}), made, outcomes)["streams"]
    assert [(each["stream"], each["read"], each.get("failed", False)) for each in streams] == [
        ("users", 3, True),
        ("orders", 3, False),
        ("items", 0, True),
        ("old", 0, True),
    ]


@pytest.mark.parametrize(
    ("failure", "gone", "interrupted", "status", "errors", "blocks"),
    [
        ({}, False, None, "completed", [], ["completed", "completed"]),
        ({"error": BROKEN}, False, None, "failed", ["load"], ["failed", "upstream_failed"]),
        ({"error": BROKEN, "fault": "export"}, False, None, "failed", ["export"], ["cancelled", "failed"]),
        ({}, True, None, "failed", ["load.old"], ["failed", "completed"]),
        ({}, False, 2, "cancelled", [], ["cancelled", "cancelled"]),
    ],
)
def test_the_result_of_a_run(
    failure: dict[str, Any],
    gone: bool,
    interrupted: int | None,
    status: str,
    errors: list[str],
    blocks: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = source(USERS)
    if gone:
        load.gone = {"old": ConfigError("gone", code="stream.unknown")}
    made = plan(load, sinks=[sink(load)])

    async def planning(run: Any, planned: Coroutine[Any, Any, Plan]) -> Plan:
        planned.close()
        return made

    async def attempting(run: Any, planned: Plan, every: list[GroupOutcome]) -> list[GroupOutcome]:
        every.append(GroupOutcome(group=load.groups[0], started=True, **failure))
        return every

    monkeypatch.setattr(module, "unless_interrupted", planning)
    monkeypatch.setattr(module, "run_attempts", attempting)
    monkeypatch.setattr(module, "keep_destinations", lambda run, planned: None)
    bus = SimpleNamespace(publish=lambda event: None)
    log = SimpleNamespace(path="run.log")
    run = {"bus": bus, "log": log, "masker": Masker(), "progress": Progress(), "interrupted": interrupted}
    opened = context(run={**run, "finish_block": lambda outcome: None})
    result = anyio.run(module._planned, opened, cast(Any, None))
    assert (result.status, list(result.errors)) == (status, errors)
    assert [outcome.status for outcome in result.blocks] == blocks
