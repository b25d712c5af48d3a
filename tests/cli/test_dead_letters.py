"""`streamline dead-letters`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from streamline.state.store import DeadLetter
from tests.cli.conftest import Shop

ODD = '{"id": 12345678901234567890,  "x": NaN}'


@pytest.fixture
def refused(shop: Shop) -> Shop:
    """Three dead letters of two streams."""
    store = shop.store()
    store.save(
        "shop",
        "load",
        "r1",
        [],
        [
            DeadLetter(
                pipeline="shop", block="load", stream=stream, run_id="r1", record=record, error=error, stage="validate"
            )
            for stream, record, error in [
                ("orders", ODD, '"x" is not a number'),
                ("orders", '{"id": null}', "id is null\nreally\x1b[2J"),
                ("users", "{}", "id is missing"),
            ]
        ],
    )
    store.close()
    return shop


def ids(shop: Shop) -> list[int]:
    return [row["id"] for row in shop.json("dead-letters", "list", "shop")]


def test_list(refused: Shop) -> None:
    rows = refused.json("dead-letters", "list", "shop")
    assert [(row["stream"], row["stage"], row["run_id"]) for row in rows] == [
        ("orders", "validate", "r1"),
        ("orders", "validate", "r1"),
        ("users", "validate", "r1"),
    ]
    assert rows[0]["error"] == '"x" is not a number'
    assert len(refused.json("dead-letters", "list", "shop", "--stream", "orders")) == 2
    assert len(refused.json("dead-letters", "list", "shop", "--limit", "1")) == 1
    text = refused("dead-letters", "list", "shop").stdout
    assert len(text.splitlines()) == 4, "a line for each, whatever its error holds"
    assert "\x1b" not in text


def test_list_of_nothing(shop: Shop) -> None:
    assert shop.json("dead-letters", "list", "shop") == []
    assert "no dead letters" in shop("dead-letters", "list", "shop").stderr
    assert "'shp'" in shop.refuses("pipeline.not_found", "dead-letters", "list", "shp")


def test_show_gives_the_record_byte_for_byte(refused: Shop) -> None:
    first = ids(refused)[0]
    assert f'"record":{ODD}' in refused("dead-letters", "show", "shop", str(first), "--json").stdout
    assert f"record: {ODD}" in refused("dead-letters", "show", "shop").stdout
    assert len(json.loads(refused("dead-letters", "show", "shop", "--json").stdout)) == 3
    assert "999" in refused.refuses("dead_letter.not_found", "dead-letters", "show", "shop", "999")


def test_discard_needs_to_be_told_which(refused: Shop) -> None:
    assert "--all" in refused.refuses("usage", "dead-letters", "discard", "shop")
    assert "999" in refused.refuses("dead_letter.not_found", "dead-letters", "discard", "shop", "999")
    first = ids(refused)[0]
    assert refused("dead-letters", "discard", "shop", str(first)).stdout == "Discarded 1 dead letter.\n"
    refused("dead-letters", "discard", "shop", "--stream", "users")
    assert len(ids(refused)) == 1
    assert "Discarded 1 " in refused("dead-letters", "discard", "shop", "--all").stdout
    assert ids(refused) == []


def test_retry_keeps_what_is_refused_again(refused: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[DeadLetter] = []

    def resend(*args: Any) -> dict[int, str]:
        letters: Sequence[DeadLetter] = args[4]
        sent.extend(letters)
        return {letter.id: "still bad" for letter in letters if letter.stream == "users"}

    monkeypatch.setattr("streamline.execution.integration.resend.resend", resend)
    last = ids(refused)[-1]
    result = refused("dead-letters", "retry", "shop", code=1)
    assert "Sent again: 2 records; refused again: 1" in result.stdout
    assert "1 record of 3 refused again" in result.stderr
    assert ids(refused) == [last]
    assert sent[0].record == ODD

    monkeypatch.setattr("streamline.execution.integration.resend.resend", lambda *args: {})
    refused("dead-letters", "retry", "shop", str(last))
    assert ids(refused) == []
    assert "Sent again" not in refused("dead-letters", "retry", "shop").stdout


def test_retry_needs_the_pipeline_stopped(refused: Shop) -> None:
    store = refused.store()
    with store.acquire_lease("shop", "run-99"):
        assert "run-99" in refused.refuses("run.lease_held", "dead-letters", "retry", "shop", code=1)
    store.close()
    assert len(ids(refused)) == 3
