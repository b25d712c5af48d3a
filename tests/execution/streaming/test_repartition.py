"""`repartition_by`: blocks that get their messages with another key, on a Kafka cluster in memory."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import anyio
import pytest

from streamline.errors import ConfigError
from streamline.execution.checklist import Checklist
from streamline.execution.engine import engine_of
from streamline.execution.flow_runs import open_planning
from streamline.execution.run import RunOptions
from streamline.execution.streaming.explain import explain
from streamline.execution.streaming.instance import _run
from streamline.execution.streaming.planner import context_of, make_plan
from streamline.execution.streaming.repartitions import trim_now
from streamline.flow.codecs.message_data import dump_data
from streamline.project.secrets import Masker
from tests.execution.streaming.conftest import Stream
from tests.execution.streaming.shop import COUNT, DELIVERIES, Shop
from tests.execution.streaming.test_resend import retry

TOPIC = "p.count.repartition"


def build(shop: Shop, code: str = COUNT, by: Any = "user", **more: Any) -> None:
    shop.build(code, configuration={"repartition_by": by}, **more)


def order(shop: Shop, *users: str | None, first: int = 0, headers: Any = None) -> None:
    """Write messages whose keys are not the users."""
    for number, user in enumerate(users, first):
        value = json.dumps({"order": number} if user is None else {"user": user, "order": number}).encode()
        partition = number % len(shop.cluster.known["clicks"].logs)
        key, time = b"o%d" % number, 1_000 + number
        shop.cluster.write("clicks", value, partition=partition, key=key, headers=headers, time=time)


@pytest.mark.parametrize("keys", DELIVERIES, ids=["at-least-once", "exactly-once"])
def test_state_is_counted_by_the_other_key(shop: Shop, keys: dict[str, Any]) -> None:
    build(shop, partitions=3, **keys)
    order(shop, "ann", "bob", "ann", "ann", "bob")
    assert shop.run().status == "completed"
    order(shop, "ann", "cid", first=5)
    assert shop.run().status == "completed"
    assert shop.counts() == [("ann", 1), ("ann", 2), ("ann", 3), ("ann", 4), ("bob", 1), ("bob", 2), ("cid", 1)]
    assert {user: n for part in shop.state() for user, n in part.items()} == {"ann": 4, "bob": 2, "cid": 1}
    between = shop.cluster.known[TOPIC]
    assert (len(between.logs), between.config["retention.ms"]) == (3, "-1")
    assert [record.key for record in shop.cluster.records("counts") if record.key != b"ann"] == [b"bob", b"bob", b"cid"]
    assert not any(record.headers for record in shop.cluster.records("counts"))


class Others:
    """Other processes, which have not written all yet."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self.asked = 0
        self.told: list[str] = []

    def settled(self, block: str) -> None:
        self.told.append(block)

    def all_settled(self, block: str) -> bool:
        self.asked += 1
        assert self._shop.counts() == []
        if self.asked == 3:
            value = dump_data({"user": "cid"})[0]
            self._shop.cluster.write(TOPIC, value, partition=1, key=b"cid")
        return self.asked == 3


def test_until_caught_up_what_other_processes_write_last_is_read(shop: Shop) -> None:
    build(shop)
    order(shop, "ann", "bob")
    others = Others(shop)
    with open_planning(shop.stream.project, shop.stream.model(), RunOptions(slot=0, until_caught_up=True), "t") as run:
        run.others = others
        ended = anyio.run(_run, run)
    assert ended.failure is None
    assert others.told == ["count"]
    assert shop.counts() == [("ann", 1), ("bob", 1), ("cid", 1)]


def test_what_was_read_is_deleted_from_the_topic(shop: Shop) -> None:
    build(shop, partitions=1)
    order(shop, "ann", "bob")
    assert shop.run().status == "completed"
    model = shop.stream.model()
    with open_planning(shop.stream.project, model, RunOptions(), "test") as run:
        plan = make_plan(run, model)
        trim_now(run, plan, partial(context_of, run, "p", plan.settings))
    (log,) = shop.cluster.known[TOPIC].logs
    assert (log.first, log.end) == (2, 2)
    order(shop, "ann", first=2)
    assert shop.run().status == "completed"
    assert shop.counts() == [("ann", 1), ("ann", 2), ("bob", 1)]


def test_a_message_without_the_field_is_a_dead_letter(shop: Shop) -> None:
    build(shop, partitions=1)
    order(shop, "ann", None)
    shop.cluster.write("clicks", None, key=b"gone")
    assert shop.run().status == "completed"
    assert [(letter.topic, letter.offset, letter.stage) for letter in shop.letters()] == [
        ("clicks", 1, "count.repartition"),
        ("clicks", 2, "count.repartition"),
    ]
    assert shop.counts() == [("ann", 1)]


def test_a_dead_letter_behind_the_topic_says_where_the_message_was_read_first(shop: Shop) -> None:
    code = COUNT.replace('message["n"] =', 'message["fine"]\n        message["n"] =')
    build(shop, code, partitions=1)
    order(shop, "bob", "ann", headers=[("trace", b"1")])
    assert shop.run().status == "completed"
    letters = {letter.key: letter for letter in shop.letters()}
    letter = letters[b"ann"]
    assert (letter.topic, letter.block, letter.stage) == (TOPIC, "count.repartitioned", "count")
    assert letter.headers == [
        ("trace", b"1"),
        ("streamline.first", b"clicks/0/1"),
        ("streamline.first.key", b"o1"),
    ]
    shop.stream.files.write("transformers/count.py", COUNT)
    assert retry(shop.stream).arrived == 2
    assert shop.counts() == [("ann", 1), ("bob", 1)]
    assert {tuple(record.headers or ()) for record in shop.cluster.records("counts")} == {(("trace", b"1"),)}
    assert shop.letters() == []


def test_metadata_are_those_of_the_message_that_was_read_first(shop: Shop) -> None:
    code = """
    @transformer
    def count(messages, *args, **kwargs):
        for message in messages:
            kwargs["state"].set(message["data"]["user"], 1)
        return [{**message["metadata"], "headers": len(message["metadata"]["headers"])} for message in messages]
    """
    build(shop, code, partitions=2, include_metadata=True)
    order(shop, "bob", "ann", headers=[("trace", b"1")])
    assert shop.run().status == "completed"
    rows = [json.loads(record.value or b"") for record in shop.cluster.records("counts")]
    assert sorted(rows, key=lambda row: str(row["key"])) == [
        {"key": "ann", "topic": "clicks", "partition": 1, "offset": 0, "time": 1001, "headers": 1},
        {"key": "bob", "topic": "clicks", "partition": 0, "offset": 0, "time": 1000, "headers": 1},
    ]


def test_a_block_before_it_may_make_new_messages(shop: Shop) -> None:
    build(
        shop,
        COUNT.replace('message["n"] =', 'message["at"] = message["at"].hex()\n        message["n"] ='),
        partitions=2,
    )
    shop.stream.files.entries["blocks"][1]["upstream_blocks"] = ["split"]
    shop.stream.transformer(
        "split",
        """
        @transformer
        def split(messages, *args, **kwargs):
            return [{"user": user, "at": b"x"} for message in messages for user in message["users"]]
        """,
        upstream=["read"],
    )
    shop.stream.files.save()
    shop.cluster.write("clicks", b'{"users": ["ann", "bob", "ann"]}', key=b"o1")
    assert shop.run().status == "completed"
    assert shop.counts() == [("ann", 1), ("ann", 2), ("bob", 1)]


def test_partitions_may_be_said_and_must_then_fit(shop: Shop) -> None:
    build(shop, by={"field": "user", "partitions": 5}, retry_config={"retries": 0})
    order(shop, "ann")
    assert shop.run().status == "completed"
    assert len(shop.cluster.known[TOPIC].logs) == len(shop.cluster.known["p.count.state"].logs) == 5
    shop.stream.files.entries["blocks"][1]["configuration"]["repartition_by"]["partitions"] = 6
    shop.stream.files.save()
    assert [error.code for error in shop.run().errors.values()] == ["repartition.partitions_differ"]


def test_state_by_the_keys_from_before_is_not_used(shop: Shop) -> None:
    shop.build(retry_config={"retries": 0})
    shop.click("ann")
    shop.run()
    shop.stream.files.entries["blocks"][1]["configuration"] = {"repartition_by": "user"}
    shop.stream.files.save()
    assert [error.code for error in shop.run().errors.values()] == ["repartition.state_of_other_keys"]


@pytest.mark.parametrize("by", [5, "", {"field": "user", "partitions": 0}, {"field": "user", "topic": "t"}])
def test_wrong_settings(shop: Shop, by: Any) -> None:
    build(shop, by=by)
    with pytest.raises(ConfigError) as caught:
        shop.stream.plan()
    assert caught.value.code == "setting.invalid"


def test_only_kafka_sources_have_it(stream: Stream) -> None:
    stream.source(messages=[{"user": "ann"}])
    stream.transformer("count", COUNT, configuration={"repartition_by": "user"})
    stream.sink()
    with pytest.raises(ConfigError) as caught:
        stream.plan()
    assert caught.value.code == "repartition.source_unsupported"


def test_explain_and_check_show_it(shop: Shop) -> None:
    build(shop)
    explanation = explain(shop.stream.model(), shop.stream.plan())
    (block,) = explanation.transformers
    assert block.repartition is not None
    assert (block.repartition.field, block.repartition.topic) == ("user", TOPIC)
    assert [(edge.source, edge.destination) for edge in explanation.edges] == [
        ("read", "count.repartition"),
        ("count.repartitioned", "write"),
    ]
    model = shop.stream.model()
    checklist = Checklist(Masker(), lambda checked: None, lambda text: None, 5.0)
    engine_of(model).check(shop.stream.project, model, RunOptions(), checklist)
    assert [each for each in checklist.results if not each.ok] == []
    assert TOPIC in next(each.detail for each in checklist.results if each.what == "repartition")
