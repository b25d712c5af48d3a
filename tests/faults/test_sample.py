"""A sample of the kill matrices; the whole is `python -m tests.faults NAME --count N --seed S`.

Seeds are printed; STREAMLINE_FAULTS_SEED sets them. Those of kills are random.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.faults import kafka, kafka_state, outputs, resume, streams, syncs, tables
from tests.faults.matrix import ROWS, VICTIMS, faults, lives, suffer
from tests.services.kafka import KafkaCluster
from tests.services.require import ServiceMissingError, missing, services_required

COUNT = 3 if services_required() else 1
"""Faults for each victim in a plain pipeline, and for each other shape of pipeline; random cases of a test."""
KAFKA_FAULTS = 3
"""Faults of a streaming pipeline."""
CASES = 4 if services_required() else 1
"""Random cases of streams and of tables in each part of a test."""


def seed() -> int:
    return int(os.environ.get("STREAMLINE_FAULTS_SEED") or random.SystemRandom().randrange(10**6))


@pytest.fixture(scope="session")
def life(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """How long each victim runs without a fault."""
    return lives(tmp_path_factory.mktemp("lives") / "shop", ROWS)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("kill-streamline", "plain"),
        ("kill-tap", "plain"),
        ("kill-target", "plain"),
        ("kill-any", "parallel"),
    ],
)
def test_no_row_is_lost_by_a_kill(name: str, shape: str, life: dict[str, float], tmp_path: Path) -> None:
    chosen = seed()
    told = ",".join(f"{life[victim]:.3f}" for victim in VICTIMS)
    print(f"python -m tests.faults {name} --count {COUNT} --seed {chosen} --shape {shape} --lives {told}")
    for fault in faults(name, COUNT, chosen):
        print(suffer(tmp_path / str(fault.number), fault, life[fault.victim], ROWS, shape))


@pytest.mark.faults
def test_a_killed_batch_run_resumes_with_the_same_outputs(tmp_path: Path) -> None:
    chosen = seed()
    print(f"python -m tests.faults {resume.NAME} --count {COUNT} --seed {chosen}")
    whole, expected = resume.length(tmp_path / "measure")
    for moment in resume.moments(COUNT, chosen):
        print(resume.suffer(tmp_path / str(moment.number), moment, whole, expected))


@pytest.mark.faults
@pytest.mark.services
def test_a_streaming_pipeline_survives_faults_of_processes_and_brokers(tmp_path: Path) -> None:
    chosen = seed()
    lived = kafka.life(1 + chosen % 8, chosen, KAFKA_FAULTS)
    counting = kafka_state.life(1 + chosen // 8 % 8, chosen, KAFKA_FAULTS)
    for name, each in ((kafka.NAME, lived), (kafka_state.NAME, counting)):
        print(f"python -m tests.faults {name} --seed {chosen} --case {each.number}, its first faults: {each}")
    try:
        with KafkaCluster(kafka.BROKERS) as cluster:
            print(kafka.suffer(tmp_path / "lived", cluster, lived))
            print(kafka_state.suffer(tmp_path / "counting", cluster, counting))
    except ServiceMissingError as error:
        missing(str(error))


@pytest.mark.faults
@pytest.mark.parametrize(
    ("machine", "first", "last"),
    [
        *((streams, 4 * part + 1, 4 * part + 1 + COUNT) for part in range(4)),
        *((tables, 4 * part + 1, 4 * part + 1 + COUNT) for part in range(2)),
        *((outputs, 3 * part + 1, 3 * part + COUNT) for part in range(2)),
        (syncs, 1, COUNT),
    ],
    ids=lambda value: value.NAME if isinstance(value, ModuleType) else str(value),
)
def test_random_cases_leave_what_their_model_says(machine: Any, first: int, last: int, tmp_path: Path) -> None:
    """Cases of the machines in `tests/faults/__main__.py`; each module says what its cases are."""
    chosen = seed()
    for number in range(first, last + 1):
        made = machine.case(number, chosen)
        print(f"python -m tests.faults {machine.NAME} --seed {chosen} --case {number}: {made}")
        print(machine.suffer(tmp_path / str(number), made))
