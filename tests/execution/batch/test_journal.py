"""What a killed run has left of its journal is what counts."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamline.execution.batch.journal import Begun, Called, Ended, Journal, Undone, keep_only, read_journal
from streamline.execution.batch.run_variables import note

GIVEN = note({"env": "prod"}, {}, tests=True, key=lambda: b"k" * 32)
BEGUN = Begun(run_id="r1", execution_date=datetime(2026, 3, 4, tzinfo=UTC), given=GIVEN)


def write(path: Path) -> None:
    journal = Journal(path)
    journal.add(BEGUN)
    journal.add(Called(block="a", number=0, items=2, described=True))
    journal.add(Ended(block="a", child=False, calls=1))
    journal.add(Called(block="b", number=0, key=(("a", 0),), gate=False))
    journal.close()


def test_it_gives_back_what_was_added(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "r1.jsonl"
    write(path)
    past = read_journal(path)
    assert past is not None
    assert past.begun == BEGUN
    assert list(past.ended) == ["a"]
    assert past.calls["a"][0].described
    assert past.calls["b"][0].key == (("a", 0),)
    assert past.calls["b"][0].gate is False


def test_others_cannot_read_it(tmp_path: Path) -> None:
    write(tmp_path / "r1.jsonl")
    assert (tmp_path / "r1.jsonl").stat().st_mode & 0o777 == 0o600


def test_there_may_be_none(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "none.jsonl") is None


@settings(max_examples=60)
@given(cut=st.integers(0, 600))
def test_a_torn_line_never_happened_and_harms_no_later_one(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("torn") / "r1.jsonl"
    write(path)
    data = path.read_bytes()[:cut]
    path.write_bytes(data)
    whole = data.count(b"\n")
    journal = Journal(path)
    journal.add(Ended(block="z", child=False, calls=1))
    journal.close()
    past = read_journal(path)
    if whole == 0:
        # Without its beginning nothing in it counts; a line that lacks only its newline is whole all the same.
        assert past is None or past.begun == BEGUN
        return
    assert past is not None
    assert "z" in past.ended
    assert len(past.calls) + len(past.ended) - 1 in (whole - 1, whole)


def test_what_is_made_anew_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "r1.jsonl"
    write(path)
    journal = Journal(path)
    journal.add(Undone(block="a"))
    journal.close()
    past = read_journal(path)
    assert past is not None
    assert "a" not in past.ended
    assert "a" not in past.calls


def test_only_the_newest_is_kept(tmp_path: Path) -> None:
    for name in ("r1", "r2"):
        write(tmp_path / f"{name}.jsonl")
    keep_only(tmp_path, ["r2.jsonl"])
    assert [one.name for one in tmp_path.iterdir()] == ["r2.jsonl"]
