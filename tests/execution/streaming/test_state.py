"""Keyed state of transformers, by the real engine on a Kafka cluster in memory."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from typing import Any

import pytest
import yaml

from streamline.connectors.kafka.client import Partition
from streamline.errors import ConfigError
from streamline.execution.flow_runs import open_planning
from streamline.execution.run import RunOptions, Stop
from streamline.execution.streaming.explain import explain
from streamline.state import project_store
from tests.execution.streaming.conftest import Stream
from tests.execution.streaming.shop import COUNT, DELIVERIES, Shop
from tests.execution.streaming.test_resend import retry


@pytest.mark.parametrize("keys", DELIVERIES, ids=["at-least-once", "exactly-once"])
@pytest.mark.parametrize("cached", [True, False], ids=["from the cache", "from the changelog"])
def test_counts_go_on_after_a_restart(shop: Shop, keys: dict[str, Any], cached: bool) -> None:
    shop.build(**keys)
    users = ["ann", "bob", "ann", "cid", "ann"]
    shop.click(*users)
    assert shop.run().status == "completed"
    if not cached:
        shop.forget_copies()
    shop.click("ann", "bob")
    assert shop.run().status == "completed"
    assert shop.counts() == [("ann", 1), ("ann", 2), ("ann", 3), ("ann", 4), ("bob", 1), ("bob", 2), ("cid", 1)]
    whole = Counter([*users, "ann", "bob"])
    assert shop.state() == [
        {user: count for user, count in whole.items() if sum(user.encode()) % 2 == partition} for partition in (0, 1)
    ]
    assert shop.cluster.known["p.count.state"].config["cleanup.policy"] == "compact"


@pytest.mark.parametrize("keys", DELIVERIES, ids=["at-least-once", "exactly-once"])
def test_case_19_members_come_and_go_while_state_is_restored(shop: Shop, keys: dict[str, Any]) -> None:
    shop.build(partitions=3, **keys)
    shop.read(["clicks"], drain_seconds=0.1)
    shop.stream.keys(startup_timeout=60)
    everybody = ["ann", "bob", "cid", "dan", "eve"] * 4
    shop.click(*everybody)
    assert shop.run().status == "completed"
    shop.forget_copies()
    shop.click(*everybody)
    logs = shop.cluster.known["p.count.state"].logs
    for log in logs:
        log.stable = 0
    group = shop.cluster.group("g")

    def give(*numbers: int) -> None:
        """Let the pipeline's process have these partitions, and wait until it has."""
        wanted = {Partition("clicks", number) for number in numbers}
        group.assign({"streamline-p-read-0": wanted})
        while not any(member.owned == wanted for member in list(group.members)):
            time.sleep(0.01)

    def come_and_go() -> None:
        give(0)  # its state is not readable, and never has been
        for numbers in ((0, 1, 2), (1,), (0, 1), (2,), (0, 1, 2)):
            give(*numbers)
        for log in logs:
            log.stable = None
        while len(shop.counts()) < 2 * len(everybody):
            time.sleep(0.01)
        stop(signal.SIGTERM)

    stop = Stop()
    others = threading.Thread(target=come_and_go, daemon=True)
    group.assign({})
    others.start()
    shop.run_until(stop)
    others.join()
    group.assign(None)
    assert shop.run().status == "completed"
    whole = Counter([*everybody, *everybody])
    counts = shop.counts()
    if keys:
        assert counts == sorted((user, n + 1) for user, count in whole.items() for n in range(count))
    assert {user: max(n for each, n in counts if each == user) >= count for user, count in whole.items()} == (
        dict.fromkeys(whole, True)
    )
    assert {user: n >= whole[user] for part in shop.state() for user, n in part.items()} == dict.fromkeys(whole, True)


def test_a_deleted_key_has_no_value_and_is_a_tombstone(shop: Shop) -> None:
    shop.build(
        COUNT.replace(
            "    return messages", "        if message['n'] == 2:\n            state.delete('ann')\n    return messages"
        )
    )
    shop.click("ann", "ann")
    shop.run()
    shop.click("ann")
    shop.run()
    assert [n for _, n in shop.counts()] == [1, 1, 2]
    assert {"ann": 1} in shop.state()
    assert None in [record.value for record in shop.cluster.records("p.count.state")]


def test_a_call_that_raises_leaves_no_state(shop: Shop) -> None:
    code = COUNT.replace(
        "    return messages", "        if message['user'] == 'bad':\n            raise ValueError\n    return messages"
    )
    shop.build(code, partitions=1)
    shop.click("ann", "ann", "bad", "ann")
    assert shop.run().status == "completed"
    assert [n for _, n in shop.counts()] == [1, 2, 3]
    assert shop.state() == [{"ann": 3}]


def test_a_key_of_no_message_in_the_call_is_refused(shop: Shop) -> None:
    shop.build("@transformer\ndef count(messages, state, **kwargs):\n    state.set('total', 1)\n    return messages\n")
    shop.click("ann")
    shop.run()
    (letter,) = shop.letters()
    assert "'total' is the key of no message" in letter.error
    assert shop.counts() == []


def test_several_topics_have_a_changelog_each(shop: Shop) -> None:
    shop.build(topics=("clicks", "views"), partitions=1)
    shop.click("ann", "ann")
    shop.click("ann", topic="views")
    shop.run()
    assert shop.state("p.count.clicks.state") == [{"ann": 2}]
    assert shop.state("p.count.views.state") == [{"ann": 1}]


@pytest.mark.parametrize(("before", "after"), [(["clicks"], ["clicks", "views"]), (["clicks", "views"], ["clicks"])])
def test_a_state_topic_of_another_name_ends_the_run(shop: Shop, before: list[str], after: list[str]) -> None:
    shop.build(topics=("clicks", "views"), retry_config={"retries": 0})
    shop.read(before)
    shop.click("ann")
    shop.run()
    shop.read(after)
    shop.click("ann")
    assert [error.code for error in shop.run().errors.values()] == ["state.topic_renamed"]
    assert shop.counts() == [("ann", 1)]


@pytest.mark.parametrize("keys", DELIVERIES, ids=["at-least-once", "exactly-once"])
def test_positions_are_shown_as_the_group_has_them(shop: Shop, keys: dict[str, Any]) -> None:
    shop.build(partitions=1, **keys)
    shop.click("ann", "bob")
    shop.run()
    with open_planning(shop.stream.project, shop.stream.model(), RunOptions(), "test") as run:
        (mark,) = run.store.bookmarks("p", "read").values()
    assert json.loads(mark.value) == {"offset": 2, "topic_id": shop.cluster.known["clicks"].id, "group": "g"}


def test_partitions_that_were_added_to_the_source_end_the_run(shop: Shop) -> None:
    shop.build(retry_config={"retries": 0})
    shop.click("ann")
    shop.run()
    shop.cluster.add_partitions("clicks", 1)
    assert [error.code for error in shop.run().errors.values()] == ["state.partitions_differ"]


def test_a_value_that_its_topic_cannot_take_is_a_dead_letter(shop: Shop) -> None:
    shop.build("@transformer\ndef count(messages, state, **kwargs):\n    state.set('ann', 'x' * 2_000_000)\n")
    shop.click("ann")
    assert shop.run().status == "completed"
    assert len(shop.letters()) == 1


def test_a_change_that_the_broker_refuses_ends_the_attempt(shop: Shop) -> None:
    shop.build(retry_config={"retries": 0})
    shop.cluster.refuse = lambda message: "INVALID_RECORD" if message.topic == "p.count.state" else None
    shop.click("ann")
    assert [error.code for error in shop.run().errors.values()] == ["state.not_written"]
    assert shop.cluster.offset("g", "clicks", sum(b"ann") % 2) in (None, 0)


def test_explain_tells_the_state_topic(shop: Shop) -> None:
    shop.build()
    plan = shop.stream.plan()
    (block,) = explain(shop.stream.model(), plan).transformers
    assert block.state == "p.count.state"


def counted(stream: Stream) -> list[tuple[str, int]]:
    return [(row["user"], row["n"]) for row in stream.world.written["export"]]


def users(*names: str) -> list[dict[str, str]]:
    return [{"user": name} for name in names]


def test_state_of_sources_without_a_log_is_saved_with_their_positions(stream: Stream) -> None:
    code = COUNT.replace('message["n"] =', 'state.set("all", state.get("all", 0) + 1)\n        message["n"] =')
    stream.source(messages=users("ann", "bob", "ann"), fail_after=1)
    stream.transformer("count", code)
    stream.sink(fail_at={"user": "ann", "n": 2})
    stream.keys(checkpoint_interval=0.05, retry_config={"retries": 3, "delay": 0.01})
    assert stream.run().status == "completed"
    assert counted(stream) == [("ann", 1), ("bob", 1), ("ann", 2)]
    text = yaml.safe_dump({"connector_type": "memory", "messages": users("ann", "bob", "ann", "bob", "cid")})
    stream.files.write("data_loaders/load.yaml", text)
    assert stream.run().status == "completed"
    assert counted(stream)[3:] == [("bob", 2), ("cid", 1)]
    with project_store(stream.project) as store:
        values = dict(store.keyed_values("p", "count", "load"))
        assert values == {b"ann": b"2", b"bob": b"2", b"cid": b"1", b"all": b"5"}
        store.reset("p", "load", run_id="test")
        assert store.keyed_values("p", "count", "load") == []


def test_windows_of_sources_without_a_log(stream: Stream) -> None:
    events = [{"user": user, "id": number, "at": at} for number, (user, at) in enumerate([("ann", 1), ("bob", 70)])]
    stream.source(messages=events)
    stream.transformer("count", WINDOWS.format(arguments="tumbling=60, key='user', time='at'"))
    stream.sink()
    assert stream.run().status == "completed"
    assert stream.world.written["export"] == [{"key": "ann", "at": [0, 60], "ids": [0]}]


def test_a_letter_that_is_sent_again_changes_stored_state(stream: Stream) -> None:
    code = COUNT.replace('message["n"] =', 'message["fine"]\n        message["n"] =')
    stream.source(messages=users("ann", "ann"))
    stream.transformer("count", code)
    stream.sink()
    assert stream.run().status == "completed"
    stream.files.write("transformers/count.py", COUNT)
    assert retry(stream).arrived == 2
    with project_store(stream.project) as store:
        assert store.keyed_value("p", "count", "load", b"ann") == b"2"


def test_stored_state_is_of_one_instance(stream: Stream) -> None:
    stream.source(messages=users("ann"))
    stream.transformer("count", COUNT)
    stream.sink()
    stream.keys(instances=2)
    with pytest.raises(ConfigError) as caught:
        stream.plan()
    assert caught.value.code == "setting.conflict"


def test_sources_with_and_without_a_log_share_no_state(shop: Shop) -> None:
    shop.build()
    shop.stream.source(messages=users("ann"))
    shop.stream.files.entries["blocks"][1]["upstream_blocks"] = ["read", "load"]
    shop.stream.files.save()
    with pytest.raises(ConfigError) as caught:
        shop.stream.plan()
    assert caught.value.code == "state.source_unsupported"


WINDOWS = """
@window({arguments})
@transformer
def count(key, window, messages, *args, **kwargs):
    return {{"key": key, "at": [window.start.timestamp(), window.end.timestamp()], "ids": [m["id"] for m in messages]}}
"""


class Clock:
    """Events with a time, as messages of one partition."""

    def __init__(self, shop: Shop, arguments: str, **keys: Any) -> None:
        self._shop = shop
        self._next = 0
        shop.build(WINDOWS.format(arguments=arguments), partitions=1, **keys)

    def add(self, *times: float, user: str = "ann") -> None:
        for at in times:
            value = json.dumps({"user": user, "id": self._next, "at": at}).encode()
            self._shop.cluster.write("clicks", value, key=user.encode(), time=int(at * 1000))
            self._next += 1

    def closed(self) -> list[tuple[str, list[float], list[int]]]:
        """Run, and return all windows that were written."""
        assert self._shop.run().status == "completed"
        (values,) = self._shop.cluster.values("counts")
        return [(row["key"], row["at"], row["ids"]) for row in map(json.loads, filter(None, values))]


@pytest.mark.parametrize("keys", DELIVERIES, ids=["at-least-once", "exactly-once"])
def test_tumbling_windows_close_over_restarts(shop: Shop, keys: dict[str, Any]) -> None:
    clock = Clock(shop, "tumbling=60, key='user', time='at', lateness=5", **keys)
    clock.add(0, 59.5, 61)
    clock.add(10, user="bob")
    assert clock.closed() == []
    clock.add(58, 64.9)
    assert clock.closed() == []
    clock.add(65)
    assert sorted(clock.closed()) == [("ann", [0, 60], [0, 1, 4]), ("bob", [0, 60], [3])]
    clock.add(125)
    assert clock.closed()[-1] == ("ann", [60, 120], [2, 5, 6])
    assert len(clock.closed()) == 3


def test_late_messages_are_dead_letters(shop: Shop) -> None:
    clock = Clock(shop, "tumbling=60, time='at'")
    clock.add(10, 60, 59, 61)
    assert clock.closed() == [("ann", [0, 60], [0])]
    (letter,) = shop.letters()
    assert (letter.offset, letter.stage) == (2, "count")
    assert "late" in letter.error


def test_sliding_windows_overlap(shop: Shop) -> None:
    clock = Clock(shop, "sliding=(60, 30)")
    clock.add(10, 40, 125)
    assert clock.closed() == [("ann", [-30, 30], [0]), ("ann", [0, 60], [0, 1]), ("ann", [30, 90], [1])]


def test_sessions_grow_and_merge(shop: Shop) -> None:
    clock = Clock(shop, "session=10, lateness=25")
    clock.add(0, 15, 30, 8)
    assert clock.closed() == []
    clock.add(70)
    assert clock.closed() == [("ann", [0, 25], [0, 1, 3]), ("ann", [30, 40], [2])]


def test_a_window_key_is_the_key_of_the_message(shop: Shop) -> None:
    clock = Clock(shop, "tumbling=60, key='id'")
    clock.add(1, 70)
    assert clock.closed() == []
    assert len(shop.letters()) == 2


@pytest.mark.parametrize("arguments", ["tumbling=0", "tumbling=1, session=1", "sliding=5"])
def test_wrong_arguments_of_a_window(shop: Shop, arguments: str) -> None:
    Clock(shop, arguments)
    assert {error.code for error in shop.run().errors.values()} == {"window.invalid"}
