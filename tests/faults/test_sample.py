"""A sample of the kill matrices; the whole is `python -m tests.faults NAME --count N --seed S`.

Seeds are printed; STREAMLINE_FAULTS_SEED sets them. Those of kills are random.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.faults import outputs, resume, streams, syncs, tables
from tests.faults.matrix import ROWS, VICTIMS, faults, lives, suffer
from tests.services.require import services_required

COUNT = 3 if services_required() else 1
"""Faults for each victim in a plain pipeline, and for each other shape of pipeline; random cases of a test."""
CASES = 4 if services_required() else 1
"""Random cases of streams and of tables in each part of a test."""


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
    seed = int(os.environ.get("STREAMLINE_FAULTS_SEED") or random.SystemRandom().randrange(10**6))
    told = ",".join(f"{life[victim]:.3f}" for victim in VICTIMS)
    print(f"python -m tests.faults {name} --count {COUNT} --seed {seed} --shape {shape} --lives {told}")
    for fault in faults(name, COUNT, seed):
        print(suffer(tmp_path / str(fault.number), fault, life[fault.victim], ROWS, shape))


@pytest.mark.faults
def test_a_killed_batch_run_resumes_with_the_same_outputs(tmp_path: Path) -> None:
    seed = int(os.environ.get("STREAMLINE_FAULTS_SEED") or random.SystemRandom().randrange(10**6))
    print(f"python -m tests.faults {resume.NAME} --count {COUNT} --seed {seed}")
    whole, expected = resume.length(tmp_path / "measure")
    for moment in resume.moments(COUNT, seed):
        print(resume.suffer(tmp_path / str(moment.number), moment, whole, expected))


@pytest.mark.faults
@pytest.mark.parametrize("part", range(4))
def test_random_streams_arrive_as_they_were_sent(part: int, tmp_path: Path) -> None:
    seed = int(os.environ.get("STREAMLINE_FAULTS_SEED") or random.SystemRandom().randrange(10**6))
    for number in range(4 * part + 1, 4 * part + 1 + CASES):
        made = streams.case(number, seed)
        print(f"python -m tests.faults {streams.NAME} --seed {seed} --case {number}: {made}")
        print(streams.suffer(tmp_path / str(number), made))


@pytest.mark.faults
@pytest.mark.parametrize("part", range(2))
def test_tables_of_bundled_targets_hold_what_was_sent(part: int, tmp_path: Path) -> None:
    seed = int(os.environ.get("STREAMLINE_FAULTS_SEED") or random.SystemRandom().randrange(10**6))
    for number in range(4 * part + 1, 4 * part + 1 + CASES):
        made = tables.case(number, seed)
        print(f"python -m tests.faults {tables.NAME} --seed {seed} --case {number}: {made}")
        print(tables.suffer(tmp_path / str(number), made))


@pytest.mark.faults
@pytest.mark.parametrize("part", range(2))
def test_outputs_of_random_batch_pipelines_are_what_blocks_returned(part: int, tmp_path: Path) -> None:
    seed = int(os.environ.get("STREAMLINE_FAULTS_SEED") or random.SystemRandom().randrange(10**6))
    for number in range(3 * part + 1, 3 * part + 1 + COUNT):
        made = outputs.case(number, seed)
        print(f"python -m tests.faults {outputs.NAME} --seed {seed} --case {number}: {made}")
        print(outputs.suffer(tmp_path / str(number), made))


@pytest.mark.faults
def test_synced_sqlite_tables_equal_their_sources(tmp_path: Path) -> None:
    seed = int(os.environ.get("STREAMLINE_FAULTS_SEED") or random.SystemRandom().randrange(10**6))
    for number in range(1, COUNT + 1):
        made = syncs.case(number, seed)
        print(f"python -m tests.faults {syncs.NAME} --seed {seed} --case {number}: {made}")
        print(syncs.suffer(tmp_path / str(number), made))
