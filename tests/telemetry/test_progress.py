"""Counts of a run, by block and stream, each record once."""

from __future__ import annotations

import json

from streamline.telemetry.progress import MAX_PLACES, Progress, SourceCounts, Tally


def every(stream: str) -> bool:
    return True


def same(sink: str, table: str) -> str:
    return table


def test_nothing_has_moved_at_the_start() -> None:
    progress = Progress()
    assert progress.summary() == {"records": 0, "quarantined": 0, "streams": [], "tables": []}
    assert progress.saved == {}


def test_counts_add_up_by_block_and_stream() -> None:
    progress = Progress()
    for process, stream, records in (("one", "users", 3), ("one.2", "users", 4), ("two", "users", 5), ("one", "a", 1)):
        progress.of(process, process.partition(".")[0]).read(stream, records)
    progress.of("one").refused("users", 2)
    progress.of("two").refused("users", 1, "export", "people")
    progress.of("one").sent("export", "people", 5)
    progress.of("one.2").sent("export", "people", 6)
    progress.of("one.2").written("export", "people", 4)

    assert progress.records_read("one", "users") == 7
    assert json.loads(json.dumps(progress.summary())) == {
        "records": 13,
        "quarantined": 3,
        "streams": [
            {"block": "one", "stream": "users", "read": 7, "quarantined": 2},
            {"block": "one", "stream": "a", "read": 1, "quarantined": 0},
            {"block": "two", "stream": "users", "read": 5, "quarantined": 1},
        ],
        "tables": [{"block": "export", "table": "people", "sent": 11, "written": 4, "quarantined": 1}],
    }


def test_names_of_tables_are_masked() -> None:
    progress = Progress(lambda text: text.replace("hunter22", "***"))
    progress.of("one").sent("export", "t_hunter22", 1)
    progress.of("one.2").sent("export", "t_hunter22", 2)
    assert [(table["table"], table["sent"]) for table in progress.summary()["tables"]] == [("t_***", 3)]


def test_what_is_read_again_counts_once() -> None:
    counts = SourceCounts("load")
    for number in (1, 2, 3):
        counts.read("users", 10)
        counts.position_read(number)
        counts.refused("users", 1)
        counts.sent("export", "users", 9)
        counts.position_sent("export", number)
    counts.written("export", "users", 27)
    counts.saved(2, every, same)
    counts.rewind()
    assert counts.streams() == [("users", 20, 2)]
    assert counts.tables() == [("export", "users", 18, 18, 0)]

    counts.read("users", 10)
    counts.sent("export", "users", 9)
    assert counts.streams() == [("users", 30, 2)]
    assert counts.tables() == [("export", "users", 27, 18, 0)]


def test_a_stream_whose_bookmark_did_not_move_is_counted_from_its_start_again() -> None:
    counts = SourceCounts("load")
    for stream in ("users", "orders"):
        counts.read(stream, 10)
        counts.sent("export", stream, 10)
    counts.position_read(1)
    counts.position_sent("export", 1)
    counts.saved(1, lambda stream: stream == "users", same)
    counts.rewind()
    assert counts.streams() == [("users", 10, 0), ("orders", 0, 0)]
    assert counts.tables() == [("export", "users", 10, 10, 0), ("export", "orders", 0, 0, 0)]


def test_a_destination_that_is_behind_changes_no_count_of_the_other() -> None:
    counts = SourceCounts("load")
    counts.sent("first", "users", 1)
    counts.position_sent("first", 1)
    counts.sent("first", "users", 1)
    counts.position_sent("first", 2)
    counts.sent("first", "users", 1)
    counts.sent("second", "users", 1)
    counts.position_sent("second", 1)
    counts.saved(1, every, same)
    counts.rewind()
    assert counts.tables() == [("first", "users", 1, 1, 0), ("second", "users", 1, 1, 0)]


def test_records_that_reach_a_destination_by_two_ways_count_with_the_position_after_both() -> None:
    counts = SourceCounts("load")
    for _ in range(2):
        counts.sent("export", "users", 1)
        counts.position_sent("export", 1)
    counts.saved(1, every, same)
    counts.rewind()
    assert counts.tables() == [("export", "users", 2, 2, 0)]


def test_the_positions_that_a_count_keeps_are_bounded() -> None:
    tally = Tally()
    for number in range(1, 5 * MAX_PLACES):
        tally.records += 1
        tally.mark(number)
    tally.save(MAX_PLACES)
    assert 0 <= MAX_PLACES - tally.saved <= 16
    tally.save(5 * MAX_PLACES)
    assert tally.saved == tally.records


def test_what_a_sink_refuses_is_not_written() -> None:
    counts = SourceCounts("load")

    def save(number: int) -> int:
        counts.saved(number, lambda stream: True, lambda sink, table: table)
        counts.saved_is_written()
        ((_, _, _, written, _),) = counts.tables()
        return written

    counts.sent("export", "t", 10)
    counts.position_sent("export", 1)
    counts.returned("export", "t", 2)
    assert save(1) == 8
    counts.sent("export", "t", 5)
    counts.returned("export", "t", 3)  # nothing proves the others yet
    assert counts.tables() == [("export", "t", 10, 8, 0)]
    counts.position_sent("export", 2)
    assert save(2) == 10


def test_it_knows_when_a_position_of_a_source_was_saved_last() -> None:
    progress = Progress()
    progress.position_saved("one")
    first = progress.saved["one"]
    progress.position_saved("one")
    assert first <= progress.saved["one"]
    assert progress.started <= first
    assert progress.seconds >= 0


def test_the_counts_of_several_processes_are_added() -> None:
    progress = Progress()
    progress.of("load").read("orders", 2)
    for _ in range(2):
        other = Progress()
        other.of("load").read("orders", 3)
        other.of("load").refused("users", 1)
        other.of("load").sent("export", "orders", 3)
        progress.add(other.summary())
    summary = progress.summary()
    assert (summary["records"], summary["quarantined"]) == (8, 2)
    assert summary["streams"] == [
        {"block": "load", "stream": "orders", "read": 8, "quarantined": 0},
        {"block": "load", "stream": "users", "read": 0, "quarantined": 2},
    ]
    assert summary["tables"] == [{"block": "export", "table": "orders", "sent": 6, "written": 0, "quarantined": 0}]
