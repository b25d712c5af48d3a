"""Faults in a pipeline that counts by key, in three processes, and a comparison with a replay of the input.

The lives are those of `kafka`. With exactly-once delivery the counts of each key are 1, 2, 3 …, each once and in order,
and the state topic has the last of them. With at-least-once no count falls short. There no process is stopped for a
while (SIGSTOP): what it had on its way would replace what its successor has written into the state topic.

In half of the lives the key that is counted by is not the messages' own: `repartition_by`.
"""

from __future__ import annotations

import json
import random
import secrets
from dataclasses import dataclass
from pathlib import Path

from streamline.connectors.kafka.clients import CLIENTS
from tests.faults import kafka
from tests.faults.kafka import CHECKOUTS, FAULTS, KINDS, LONGEST_STOP, Fault, Life, Suffering
from tests.services.kafka import KafkaCluster
from tests.support.batch import BatchProject

NAME = "kafka-state"
CODE = """
@transformer
def count(messages: list[dict], *args, **kwargs):
    state = kwargs["state"]
    for message in messages:
        by = {by}
        message["by"], message["count"] = by, state.get(by, 0) + 1
        state.set(by, message["count"])
    return messages
"""


@dataclass(frozen=True)
class StateLife(Life):
    """A life of a pipeline that counts; `rekeyed`: by another key than the messages' own."""

    rekeyed: bool = False

    def __str__(self) -> str:
        return f"{super().__str__()}{', repartitioned' if self.rekeyed else ''}"


def life(number: int, seed: int, count: int = FAULTS) -> StateLife:
    """Return a life of a matrix: the same for the same number and seed."""
    dice = random.Random(f"{NAME} {seed} {number}")
    variant = (number + seed) % 8
    exactly_once = variant & 2 > 0
    kinds = [kind for kind in KINDS if exactly_once or not kind.startswith("stop")]
    faults = []
    for _ in range(count):
        (kind,) = dice.choices(kinds, [KINDS[each] for each in kinds])
        length = dice.uniform(1, LONGEST_STOP) if kind.startswith("stop") else dice.uniform(0, 3)
        faults.append(Fault(dice.uniform(1, 6), kind, dice.randrange(CHECKOUTS), length))
    return StateLife(number, CLIENTS[variant % 2], exactly_once, False, tuple(faults), variant & 4 > 0)


def suffer(root: Path, cluster: KafkaCluster, lived: StateLife) -> str:
    """See `kafka.suffer`."""
    return kafka.suffer(root, cluster, lived, _Counting)


class _Counting(Suffering):
    _life: StateLife

    def __init__(self, root: Path, cluster: KafkaCluster, lived: Life) -> None:
        # Lives share a cluster, and the state topic has the block's name.
        self._block = f"count_{secrets.token_hex(4)}"
        super().__init__(root, cluster, lived)

    def _add_block(self, project: BatchProject) -> None:
        code = CODE.format(by='str(message["group"])' if self._life.rekeyed else 'str(message["key"])')
        project.block(self._block, code, configuration={"repartition_by": "group"} if self._life.rekeyed else {})

    def _check(self) -> str:
        sent = [json.loads(record.value) for record in self._cluster.consume_all(self._read)]
        rows = [json.loads(record.value) for record in self._cluster.consume_all(self._written)]
        state = {
            record.key.decode(): json.loads(record.value)
            for record in self._cluster.consume_all(f"p.{self._block}.state")
        }
        field = "group" if self._life.rekeyed else "key"
        try:
            missing = {each["n"] for each in sent} - {each["n"] for each in rows}
            assert not missing, f"{len(missing)} messages are lost, from {min(missing)} on"
            for key in sorted({str(each[field]) for each in sent}):
                total = sum(str(each[field]) == key for each in sent)
                counts = [row["count"] for row in rows if row["by"] == key]
                if self._life.exactly_once:
                    assert counts == list(range(1, total + 1)), f"key {key}: the counts are not 1 to {total}: {counts}"
                    assert state[key] == total, f"key {key}: the state says {state[key]}, and there are {total}"
                else:
                    assert max(counts) >= total, f"key {key}: counted {max(counts)} of {total}"
                    assert state[key] >= total, f"key {key}: the state says {state[key]}, and there are {total}"
            lag = self._lag()
            assert not lag, f"the group is not at the end: {lag}"
        except AssertionError:
            (self._root / "messages.json").write_text(json.dumps({"sent": sent, "rows": rows, "state": state}))
            raise
        return f"{len(sent):,} messages, {len(rows) - len(sent):,} copies"
