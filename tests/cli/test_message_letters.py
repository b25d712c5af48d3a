"""`streamline dead-letters` of a streaming pipeline."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from streamline.errors import StreamlineError
from streamline.execution.streaming.resend import Outcome
from streamline.state.store import DeadLetter, LetterKey
from tests.cli.conftest import Shop

RESEND = "streamline.execution.streaming.resend.resend"


@pytest.fixture
def letters(shop: Shop) -> Shop:
    """Three letters of the streaming pipeline `shop`: of a message's value, of data, and of a new message."""
    metadata = shop.root / "pipelines/shop/metadata.yaml"
    metadata.write_text(metadata.read_text().replace("integration", "streaming"))
    common: dict[str, Any] = {"pipeline": "shop", "block": "load", "stream": "orders", "run_id": "r1", "error": "odd"}
    place: dict[str, Any] = {"topic": "orders", "partition": 3, "message_time": 1_700_000_000_123}
    store = shop.store()
    store.save(
        "shop",
        "load",
        "r1",
        [],
        [
            DeadLetter(
                **common, **place, offset=7, key=b"k", value=b"\xff", record="", form="value", stage="decode",
                headers=[("a", b"1"), ("b", b"\xff"), ("c", None)],
            ),
            DeadLetter(
                **common, **place, offset=9, key=b"\xff", value=None, record='{"n": 1e0}', stage="clean",
                trace="Traceback:\n  clean.py:3\x1b[2J\n",
            ),
            DeadLetter(**common, record="/w==", form="base64", stage="export", destination="export"),
        ],
    )  # fmt: skip
    store.note_key_written("shop", LetterKey(block="load", topic="orders", partition=3, key=b"k", written=8))
    store.close()
    return shop


def test_list_names_the_message(letters: Shop) -> None:
    rows = letters.json("dead-letters", "list", "shop")
    names = ("topic", "partition", "offset", "key", "stage", "error", "code", "written_since")
    assert [[row[name] for name in names] for row in rows] == [
        ["orders", 3, 7, "k", "decode", "odd", "message.undecodable", 8],
        ["orders", 3, 9, {"base64": "/w=="}, "clean", "odd", "record.refused", None],
        [None, None, None, None, "export", "odd", "record.refused", None],
    ]
    assert all(row["id"] and row["time"] for row in rows)
    heads = letters("dead-letters", "list", "shop").stdout.splitlines()[0].split()
    assert heads == ["ID", "TOPIC", "PARTITION", "OFFSET", "KEY", "STAGE", "DESTINATION", "ERROR", "TIMES", "LAST"]
    assert letters.json("dead-letters", "list", "shop", "--stream", "users") == []


def test_show_gives_the_whole_message(letters: Shop) -> None:
    names = ("value", "headers", "message_time", "form", "data", "traceback")
    shown = [[row[name] for name in names] for row in letters.json("dead-letters", "show", "shop")]
    time, unprintable = "2023-11-14T22:13:20.123Z", {"base64": "/w=="}
    assert shown == [
        [unprintable, [["a", "1"], ["b", unprintable], ["c", None]], time, "value", None, None],
        [None, [], time, "json", {"n": 1.0}, "Traceback:\n  clean.py:3\x1b[2J\n"],
        [None, [], None, "base64", unprintable, None],
    ]
    assert '"data":{"n": 1e0}' in letters("dead-letters", "show", "shop", "--json").stdout
    text = letters("dead-letters", "show", "shop").stdout
    assert "orders, partition 3, offset 7" in text
    assert "clean.py:3" in text
    assert "\x1b" not in text


def test_discard_takes_their_ids(letters: Shop) -> None:
    first = letters.json("dead-letters", "list", "shop")[0]["id"]
    letters("dead-letters", "discard", "shop", str(first))
    assert len(letters.json("dead-letters", "list", "shop")) == 2


@pytest.mark.parametrize(
    ("outcome", "failure"),
    [
        (Outcome(arrived=3), None),
        (Outcome(arrived=2, refused=1), "dead_letter.refused_again"),
        (Outcome(arrived=2, held=1), "dead_letter.refused_again"),
        (Outcome(arrived=2, unsendable={2: "the block is gone"}), "dead_letter.refused_again"),
        (Outcome(failure=StreamlineError("no", code="kafka.request_failed")), "kafka.request_failed"),
    ],
)
def test_retry_says_what_became_of_them(
    letters: Shop, monkeypatch: pytest.MonkeyPatch, outcome: Outcome, failure: str | None
) -> None:
    options: dict[str, Any] = {}

    def resend(*args: Any, **given: Any) -> Outcome:
        given["notify"]("sinks replace")
        options.update(overwrite=given["overwrite"])
        assert len(args[4]) == 3
        return outcome

    monkeypatch.setattr(RESEND, resend)
    if failure is None:
        letters("dead-letters", "retry", "shop", "--overwrite")
        assert options == {"overwrite": True}
    else:
        output = letters.refuses(failure, "dead-letters", "retry", "shop", code=1)
        assert all(reason in output for reason in outcome.unsendable.values())
        assert options == {"overwrite": False}


def test_a_retry_that_was_interrupted_ends_with_the_signal(letters: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RESEND, lambda *args, **given: Outcome(arrived=1, interrupted=signal.SIGTERM))
    letters.refuses("run.interrupted", "dead-letters", "retry", "shop", code=128 + signal.SIGTERM)


def test_a_run_that_parks_has_to_be_stopped_before_letters_are_discarded(letters: Shop) -> None:
    metadata = letters.root / "pipelines/shop/metadata.yaml"
    source = "connector_type: kafka\nbootstrap_server: h:1\ntopic: t\n"
    (letters.root / "data_loaders/load.yaml").write_text(source)
    store = letters.store()
    with store.acquire_lease("shop", "r2"):
        letters("dead-letters", "discard", "shop", "--stream", "nothing")
        entries = json.loads(metadata.read_text())
        metadata.write_text(json.dumps({**entries, "park": "key"}))
        letters.refuses("run.lease_held", "dead-letters", "discard", "shop", "--all", code=1)
    store.close()
    letters("dead-letters", "discard", "shop", "--all")
    assert letters.json("dead-letters", "list", "shop") == []


def test_overwriting_is_for_messages(shop: Shop) -> None:
    letter = DeadLetter(
        pipeline="shop", block="load", stream="s", run_id="r1", record="{}", error="odd", stage="validate"
    )
    store = shop.store()
    store.save("shop", "load", "r1", [], [letter])
    store.close()
    shop.refuses("usage", "dead-letters", "retry", "shop", "--overwrite")
