"""Counts of a run, by block and stream."""

from __future__ import annotations

import json

from streamline.telemetry.progress import Progress


def test_nothing_has_moved_at_the_start() -> None:
    progress = Progress()
    assert progress.summary() == {"records": 0, "quarantined": 0, "streams": [], "tables": []}
    assert progress.saved == {}


def test_counts_add_up_by_block_and_stream() -> None:
    progress = Progress()
    for block, stream, records in (("one", "users", 3), ("one", "users", 4), ("two", "users", 5), ("one", "orders", 1)):
        progress.read(block, stream, records)
    progress.refused("one", "users", 2)
    progress.written("export", "people", 5)
    progress.written("export", "people", 6)

    assert progress.total_read == 13
    assert progress.total_bad == 2
    assert json.loads(json.dumps(progress.summary())) == {
        "records": 13,
        "quarantined": 2,
        "streams": [
            {"block": "one", "stream": "users", "read": 7, "quarantined": 2},
            {"block": "two", "stream": "users", "read": 5, "quarantined": 0},
            {"block": "one", "stream": "orders", "read": 1, "quarantined": 0},
        ],
        "tables": [{"block": "export", "table": "people", "written": 11}],
    }


def test_it_knows_when_a_position_of_a_source_was_saved_last() -> None:
    progress = Progress()
    progress.position_saved("one")
    first = progress.saved["one"]
    progress.position_saved("one")
    assert first <= progress.saved["one"]
    assert progress.started <= first
    assert progress.seconds >= 0
