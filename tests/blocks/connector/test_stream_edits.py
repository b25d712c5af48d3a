"""Changing `streams:` in a block's file: text in, text out."""

from __future__ import annotations

from typing import Any

import pytest

from streamline.blocks.connector.stream_edits import edit_streams, select_streams, set_settings
from streamline.connectors.singer.settings import Side
from streamline.errors import ConfigError

HEAD = "source: tap-a   # ours\nconfig: {port: {{ env_var('P') }}}\n"
TAIL = "\n# how many\nmax_parallel: 2\n"


def change(streams: str, name: str, values: dict[str, Any], unset: tuple[str, ...] = (), side: Side = "source") -> str:
    """The text of `streams:` after `streams set`; everything around it is as it was."""
    text = HEAD + streams + TAIL
    changed = edit_streams(text, side, lambda entries: set_settings(entries, name, values, unset), shown="load.yaml")
    assert changed.startswith(HEAD)
    # A new `streams:` goes to the end of the file.
    assert TAIL in changed
    return changed.removeprefix(HEAD).replace(TAIL, "")


def select(streams: str, *names: str, selected: bool | str = True, only: bool = False) -> str:
    text = HEAD + streams + TAIL
    changed = edit_streams(
        text, "source", lambda entries: select_streams(entries, names, selected, only=only), shown="load.yaml"
    )
    return changed.removeprefix(HEAD).replace(TAIL, "")


def test_one_key_of_an_entry() -> None:
    streams = (
        "streams:\n  # the big one\n  orders:   # by id\n    columns: ['id', \"total\"]  # few\n    color: {{ x }}\n"
    )
    changed = change(streams, "orders", {"run_in_parallel": True})
    assert changed == streams + "    run_in_parallel: true\n"
    assert change(changed, "orders", {}, ("run_in_parallel",)) == streams
    assert change(streams, "orders", {"columns": ["id"]}) == streams.replace("['id', \"total\"]", "[id]           ")


@pytest.mark.parametrize("name", ["2024", "true"])
def test_a_stream_whose_name_is_a_number_or_a_boolean_to_yaml(name: str) -> None:
    streams = f"streams:\n  {name}:\n    columns: [id]\n  orders: {{}}\n"
    assert change(streams, name, {"run_in_parallel": True}) == streams.replace(
        "[id]\n", "[id]\n    run_in_parallel: true\n"
    )
    assert change(streams, name, {}, ("columns",)) == f"streams:\n  '{name}': {{}}\n  orders: {{}}\n"


def test_an_entry_on_one_line() -> None:
    streams = "streams:\n  orders: {columns: [id]}\n  users: false\n  more:\n"
    assert change(streams, "orders", {"selected": False}) == streams.replace("[id]}", "[id], selected: false}")
    assert change(streams, "users", {"columns": ["id"]}).splitlines()[2:5] == [
        "  users:",
        "    selected: false",
        "    columns: [id]",
    ]
    assert change(streams, "more", {"run_in_parallel": True}) == streams.replace(
        "more:", "more: {run_in_parallel: true}"
    )


def test_the_first_setting_leaves_the_other_streams_as_they_are() -> None:
    assert change("", "orders", {"run_in_parallel": True}) == (
        'streams:\n  "*": {selected: default}\n  orders: {run_in_parallel: true}\n'
    )
    assert change("", "orders", {"schema_change": "evolve"}, side="destination") == (
        'streams:\n  "*": {}\n  orders: {schema_change: evolve}\n'
    )
    assert change("", "*", {"run_in_parallel": True}) == (
        'streams:\n  "*": {run_in_parallel: true, selected: default}\n'
    )


def test_taking_the_last_setting_back_leaves_nothing_behind() -> None:
    for side in ("source", "destination"):
        changed = change("", "orders", {"run_in_parallel": True}, side=side)
        assert change(changed, "orders", {}, ("run_in_parallel",), side=side) == ""


def test_a_glob_counts_for_the_names_that_it_matches() -> None:
    streams = (
        "streams:\n  orders: {schema_change: pause}\n  or*: {schema_change: pause}\n  users: {schema_change: pause}\n"
    )
    assert change(streams, "o*", {"schema_change": "evolve"}, side="destination").splitlines() == [
        "streams:",
        "  orders: {schema_change: evolve}",
        "  or*: {schema_change: evolve}",
        "  users: {schema_change: pause}",
        "  o*: {schema_change: evolve}",
    ]


def test_another_method_makes_bookmark_properties_void() -> None:
    streams = "streams:\n  orders: {replication_method: INCREMENTAL, bookmark_properties: [id]}\n"
    assert change(streams, "orders", {"replication_method": "FULL_TABLE"}) == (
        "streams:\n  orders: {replication_method: FULL_TABLE}\n"
    )


def test_a_list_of_names_stays_one_as_long_as_it_can() -> None:
    streams = "streams: [orders, users]   # those\n"
    assert select(streams, "more") == "streams: [orders, users, more] # those\n"
    assert change("streams:\n- orders\n- users\n", "users", {"run_in_parallel": True}) == (
        "streams:\n  orders: {}\n  users: {run_in_parallel: true}\n"
    )


def test_a_deeper_indentation_is_kept() -> None:
    streams = "streams:\n    orders:\n        columns:\n        - id\n"
    assert change(streams, "orders", {"run_in_parallel": True}) == streams + "        run_in_parallel: true\n"


def test_selecting() -> None:
    streams = "streams:\n  orders: {columns: [id]}\n  users:\n"
    assert select(streams, "more") == streams + "  more: {}\n"
    assert select(streams, "users", selected=False) == streams.replace("users:", "users: {selected: false}")
    only = select(streams, "u*", only=True)
    assert only == 'streams:\n  "*": {selected: false}\n  orders: {columns: [id]}\n  users:\n  u*: {selected: true}\n'
    assert select("", "hidden") == 'streams:\n  "*": {selected: default}\n  hidden: {selected: true}\n'
    assert select("", "users", selected=False) == "streams:\n  users: {selected: false}\n"


def test_the_last_stream_that_is_deselected_selects_no_others() -> None:
    assert select("streams:\n  orders: {columns: [id]}\n", "orders", selected=False) == (
        'streams:\n  "*": {selected: false}\n  orders: {columns: [id], selected: false}\n'
    )


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("source: a\nstreams: '{{ variables(\"s\") }}'\n", "setting.not_editable"),
        ("source: a\nstreams: {orders: 3}\n", "setting.not_editable"),
        ("source: a\n{% if x %}\nstreams: {}\n{% endif %}\n", "yaml.invalid"),
        ("source: a # {% x %}\n", "setting.not_editable"),
        ("source: a\nstreams:\n  a: &x {columns: [id]}\n  b: *x\n", "setting.not_editable"),
    ],
)
def test_what_can_not_be_edited(text: str, code: str) -> None:
    with pytest.raises(ConfigError) as error:
        edit_streams(text, "source", lambda entries: set_settings(entries, "a", {"columns": ["x"]}), shown="load.yaml")
    assert error.value.code == code
    assert (error.value.where or "").startswith("load.yaml")
