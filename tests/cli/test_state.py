"""`streamline state`, as an operator uses it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cli.conftest import Shop

ODD = '{"replication_key_value":  12345678901234567890.10, "b": 1, "a": NaN}'


def values(shop: Shop, *args: str) -> dict[str, object]:
    return {row["stream"]: row["value"] for row in shop.json("state", "list", "shop", *args)}


def test_list_shows_each_streams_value_as_the_tap_wrote_it(shop: Shop) -> None:
    shop.save("r1", orders=ODD, users='{"id": 7}')
    out = shop("state", "list", "shop", "--json").stdout
    assert f'"value":{ODD}' in out
    rows = json.loads(out)
    assert [row["stream"] for row in rows] == ["orders", "users"]
    assert rows[1] | {"saved_at": ""} == {
        "pipeline": "shop",
        "block": "load",
        "stream": "users",
        "value": {"id": 7},
        "run_id": "r1",
        "saved_at": "",
        "epoch": 0,
        "sinks": ["export"],
        "replication_method": None,
        "replication_key": None,
        "gap": False,
    }
    lines = shop("state", "list", "shop").stdout.splitlines()
    assert lines[0].split() == ["STREAM", "BOOKMARK", "SAVED", "RUN", "PROVEN", "BY"]
    assert ODD in lines[1]
    assert values(shop, "users") == {"users": {"id": 7}}


def test_list_of_nothing(shop: Shop) -> None:
    assert shop.json("state", "list", "shop") == []
    assert "no saved positions" in shop("state", "list", "shop").stderr


def test_an_unknown_pipeline_and_stream_name_the_nearest(shop: Shop) -> None:
    shop.save("r1", orders="{}")
    assert "'shop'" in shop.refuses("pipeline.not_found", "state", "list", "shopp")
    assert "'orders'" in shop.refuses("state.no_bookmark", "state", "get", "shop", "order")
    assert "'load'" in shop.refuses("block.not_found", "state", "list", "shop", "--block", "lod")
    assert "'orders'" in shop.refuses("state.no_bookmark", "state", "reset", "shop", "order")


def test_get_prints_a_bookmark_exactly_or_the_whole_state(shop: Shop) -> None:
    assert shop("state", "get", "shop").stdout == '{"bookmarks":{}}\n'
    shop.save("r1", orders=ODD, **{"*": '{"currently_syncing": null}'})
    assert shop("state", "get", "shop", "orders").stdout == ODD + "\n"
    assert shop.json("state", "get", "shop", "orders")["run_id"] == "r1"
    assert shop("state", "get", "shop").stdout == f'{{"bookmarks":{{"orders":{ODD}}},"currently_syncing":null}}\n'


def test_set_replaces_or_makes_a_bookmark(shop: Shop) -> None:
    shop.save("r1", orders='{"id": 7}')
    out = shop("state", "set", "shop", "orders", ' {"id":  8}\n').stdout
    assert out == 'orders: {"id":  8} (was: {"id": 7})\n'
    assert shop("state", "get", "shop", "orders").stdout == '{"id":  8}\n'
    shop("state", "set", "shop", "users", "-", stdin='{"id": 1}\n')
    rows = {row["stream"]: row for row in shop.json("state", "list", "shop")}
    assert rows["users"]["value"] == {"id": 1}
    assert rows["users"]["sinks"] == []
    assert rows["orders"]["epoch"] == 1


def test_set_wonders_about_a_name_that_is_almost_another(shop: Shop) -> None:
    shop.save("r1", orders='{"id": 7}')
    assert shop("state", "set", "shop", "users", '{"id": 1}').stderr == ""
    assert "'orders'" in shop("state", "set", "shop", "ordres", '{"id": 1}').stderr
    assert shop("state", "set", "shop", "ordres", '{"id": 2}').stderr == ""


@pytest.mark.parametrize("value", ["2026-01-01", "5", '{"id": '])
def test_set_refuses_what_no_tap_would_take(shop: Shop, value: str) -> None:
    shop.save("r1", orders='{"id": 7}')
    shop.refuses("state.invalid_value", "state", "set", "shop", "orders", value)
    assert values(shop) == {"orders": {"id": 7}}


@pytest.mark.parametrize("value", ['{"at": "banana"}', '{"at": 5}', '{"id": "7"}'])
def test_set_and_import_refuse_a_value_of_another_kind(shop: Shop, value: str) -> None:
    shop.save("r1", orders='{"id": 7, "at": "2026-01-01"}')
    shop.refuses("state.invalid_value", "state", "set", "shop", "orders", value)
    document = f'{{"bookmarks": {{"orders": {value}}}}}'
    shop.refuses("state.invalid_value", "state", "import", "shop", stdin=document)
    shop("state", "set", "shop", "orders", '{"id": null, "at": "2026-02-01T00:00:00Z"}')
    shop("state", "import", "shop", "--replace", stdin=document)


def test_a_state_without_bookmarks_does_not_stand_beside_those_of_streams(shop: Shop) -> None:
    shop.save("r1", orders='{"id": 7}')
    shop("state", "import", "shop", stdin='{"x": 1}', code=2)
    assert values(shop) == {"orders": {"id": 7}}
    shop("state", "import", "shop", "--replace", stdin='{"x": 1}')
    assert values(shop) == {"*": {"x": 1}}


def test_set_takes_a_plain_value_where_there_is_one(shop: Shop) -> None:
    shop.save("r1", orders='"2026-01-01"')
    shop("state", "set", "shop", "orders", '"2026-02-01"')
    assert values(shop) == {"orders": "2026-02-01"}


def test_changes_need_the_lease(shop: Shop) -> None:
    shop.save("r1", orders='{"id": 7}')
    store = shop.store()
    with store.acquire_lease("shop", "run-99"):
        for args in (
            ["set", "shop", "orders", "{}"],
            ["edit", "shop", "orders"],
            ["reset", "shop"],
            ["rollback", "shop"],
            ["import", "shop"],
        ):
            error = shop("state", *args, code=1, stdin='{"bookmarks": {"orders": {}}}').stderr
            assert "run-99" in error
            assert str(os.getpid()) in error
        assert values(shop) == {"orders": {"id": 7}}
    store.close()


def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """An editor that runs a shell script on the file, and keeps what it was given."""
    path = tmp_path / "editor.sh"
    path.write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/given\n{script}\n')
    path.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(path))
    return tmp_path / "given"


def test_edit_shows_it_indented_and_stores_it_compact(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.save("r1", orders='{"id": 1.10, "when": "now"}')
    given = editor(tmp_path, monkeypatch, 'sed -i s/1.10/2.20/ "$1"')
    shop("state", "edit", "shop")
    assert given.read_text() == '{\n  "id": 1.10,\n  "when": "now"\n}\n'
    assert shop("state", "get", "shop", "orders").stdout == '{"id":2.20,"when":"now"}\n'
    assert shop.json("state", "history", "shop")[0]["cause"] == "edit"


def test_edit_that_changes_nothing_or_breaks_it(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.save("r1", orders='{"id": 1}', users='{"id": 2}')
    editor(tmp_path, monkeypatch, 'echo >> "$1"')
    assert "nothing changed" in shop("state", "edit", "shop", "orders").stdout
    assert "2 bookmarks" in shop.refuses("stream.ambiguous", "state", "edit", "shop")
    editor(tmp_path, monkeypatch, 'echo "{" > "$1"')
    shop.refuses("state.invalid_value", "state", "edit", "shop", "orders")
    assert values(shop) == {"orders": {"id": 1}, "users": {"id": 2}}
    assert len(shop.json("state", "history", "shop")) == 2


def test_reset_and_rollback(shop: Shop) -> None:
    shop.save("r1", orders='{"id": 1}', users='{"id": 1}')
    assert "Reset 1 bookmark: orders" in shop("state", "reset", "shop", "orders").stdout
    assert values(shop) == {"users": {"id": 1}}
    assert shop("state", "rollback", "shop").stdout == 'orders: {"id": 1}\n'
    assert "Reset 2 bookmarks: orders, users" in shop("state", "reset", "shop").stdout
    assert values(shop) == {}
    changes = len(shop.json("state", "history", "shop"))
    shop("state", "reset", "shop")
    assert len(shop.json("state", "history", "shop")) == changes, "there was nothing to reset"
    shop("state", "rollback", "shop")
    assert values(shop) == {"orders": {"id": 1}, "users": {"id": 1}}


def test_history_and_rollback_to_points(shop: Shop) -> None:
    for number in range(1, 4):
        shop.save(f"r{number}", orders=f'{{"id": {number}}}', users=f'{{"id": {number}}}')
    entries = shop.json("state", "history", "shop", "orders")
    assert [(entry["value"]["id"], entry["run_id"]) for entry in entries] == [(3, "r3"), (2, "r2"), (1, "r1")]
    assert len(shop.json("state", "history", "shop", "--limit", "4")) == 4
    assert "r2" in shop("state", "history", "shop").stdout
    shop("state", "rollback", "shop", "orders", "--to", str(entries[2]["id"]))
    assert values(shop) == {"orders": {"id": 1}, "users": {"id": 3}}
    shop("state", "rollback", "shop", "--run", "r2")
    assert values(shop) == {"orders": {"id": 1}, "users": {"id": 1}}
    changes = len(shop.json("state", "history", "shop"))
    shop("state", "rollback", "shop", "--run", "r2")
    assert len(shop.json("state", "history", "shop")) == changes
    assert "'r9'" in shop.refuses("state.no_such_change", "state", "rollback", "shop", "--run", "r9")
    assert "999" in shop.refuses("state.no_such_change", "state", "rollback", "shop", "--to", "999")
    assert shop("state", "rollback", "shop", "--to", "1", "--run", "r1", code=2)


def test_rollback_without_history(shop: Shop) -> None:
    assert "no history" in shop.refuses("state.no_history", "state", "rollback", "shop")
    assert "No changes." in shop("state", "history", "shop").stderr


def test_several_source_blocks_need_the_option_where_it_matters(shop: Shop) -> None:
    shop.pipeline("two", "load_a", "load_b")
    assert "--block load_a|load_b" in shop.refuses("block.ambiguous", "state", "get", "two")
    shop("state", "set", "two", "orders", "{}", "--block", "load_a")
    shop.save("r1", "load_b", "two", users="{}")
    assert "BLOCK" in shop("state", "list", "two").stdout
    shop("state", "set", "two", "users", '{"id": 2}')
    rows = shop.json("state", "list", "two")
    assert [(row["block"], row["stream"], row["value"]) for row in rows] == [
        ("load_a", "orders", {}),
        ("load_b", "users", {"id": 2}),
    ]
    shop("state", "reset", "two")
    assert shop.json("state", "list", "two") == []
    shop("state", "rollback", "two")
    assert len(shop.json("state", "list", "two")) == 2, "one command's changes go back together"
    shop("state", "reset", "two", "--block", "load_a")
    assert [row["block"] for row in shop.json("state", "list", "two")] == ["load_b"]


def test_export_and_import_keep_everything(shop: Shop) -> None:
    shop.save("r1", orders=ODD, users='{"id": 7}')
    store = shop.store()
    store.mark_gap("shop", "load", ["users"])
    store.close()
    document = shop("state", "export", "shop").stdout
    assert ODD in document
    assert json.loads(document)["blocks"]["load"]["users"]["sinks"] == ["export"]
    before = shop.json("state", "list", "shop")
    shop("state", "reset", "shop")
    assert "Imported 2 bookmarks; changed: orders, users" in shop("state", "import", "shop", stdin=document).stdout
    assert f'"value":{ODD}' in shop("state", "list", "shop", "--json").stdout
    for old, new in zip(before, shop.json("state", "list", "shop"), strict=True):
        assert {key: new[key] for key in ("stream", "sinks", "gap")} == {
            key: old[key] for key in ("stream", "sinks", "gap")
        }


def test_export_to_a_file_for_a_block_of_another_name(shop: Shop, tmp_path: Path) -> None:
    shop.save("r1", orders='{"id": 1}', users='{"id": 2}')
    shop.pipeline("copy", "read")
    shop("state", "export", "shop", "orders", "--output", str(tmp_path / "s.json"))
    shop("state", "import", "copy", str(tmp_path / "s.json"))
    assert [(row["block"], row["stream"]) for row in shop.json("state", "list", "copy")] == [("read", "orders")]


def test_import_merges_unless_told_to_replace(shop: Shop) -> None:
    shop.save("r1", orders='{"id": 1}', users='{"id": 2}')
    shop("state", "import", "shop", stdin='{"bookmarks": {"orders": {"id": 5}}}')
    assert values(shop) == {"orders": {"id": 5}, "users": {"id": 2}}
    shop("state", "import", "shop", "--replace", stdin='{"bookmarks": {"orders": {"id": 6}}}')
    assert values(shop) == {"orders": {"id": 6}}


@pytest.mark.parametrize(
    "wrapped",
    ['{"bookmarks": %s}', '{"type": "STATE", "value": {"bookmarks": %s}}', '{"singer_state": {"bookmarks": %s}}'],
)
def test_singer_states_are_taken_in_any_wrapping(shop: Shop, wrapped: str) -> None:
    shop("state", "import", "shop", "-", stdin=wrapped % f'{{"orders": {ODD}}}')
    assert shop("state", "get", "shop", "orders").stdout == ODD + "\n"
    assert shop("state", "export", "shop", "--singer").stdout == f'{{"bookmarks":{{"orders":{ODD}}}}}\n'


def test_a_flat_state_is_one_row(shop: Shop) -> None:
    shop("state", "import", "shop", stdin='{"orders": "2026-01-01"}')
    assert values(shop) == {"*": {"orders": "2026-01-01"}}
    assert json.loads(shop("state", "get", "shop").stdout) == {"orders": "2026-01-01"}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("nonsense", "invalid document"),
        ("[1]", "invalid document"),
        ('{"streamline_state": 7, "blocks": {}}', "has format 7"),
        ('{"streamline_state": 1}', "'blocks'"),
        ('{"streamline_state": 1, "blocks": {"load": {"orders": {}}}}', "has no 'value'"),
        ('{"streamline_state": 1, "blocks": {"a": {}, "b": {}}}', "no block 'a'"),
    ],
)
def test_documents_that_are_none_are_refused(shop: Shop, document: str, words: str) -> None:
    shop.save("r1", orders='{"id": 1}')
    assert words in shop("state", "import", "shop", stdin=document, code=2).stderr
    assert values(shop) == {"orders": {"id": 1}}


def test_a_pipeline_that_is_gone_keeps_its_positions_in_sight(shop: Shop) -> None:
    shop.save("r1", "old_block", "gone", orders='{"id": 1}')
    assert [row["stream"] for row in shop.json("state", "list", "gone")] == ["orders"]
    shop("state", "reset", "gone")
