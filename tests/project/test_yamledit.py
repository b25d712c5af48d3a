"""Changing YAML that people wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from streamline.project import yamledit
from streamline.project.yamledit import edit_file, edit_text, to_yaml
from streamline.project.yamlfile import load_yaml
from tests.support.failures import refuses


def put(text: str, path: tuple[str | int, ...], value: Any) -> str:
    return edit_text(text, lambda document: yamledit.put(document, path, value))


def append(text: str, path: tuple[str | int, ...], item: Any) -> str:
    return edit_text(text, lambda document: yamledit.append(document, path, item))


TEXT = """\
# the shop
name: shop   # its name
blocks:
- uuid: a   # first
  type: data_loader
  downstream_blocks: []

# between
- uuid: b
  upstream_blocks:   # in order
  - a
  configuration: {x: 1}
# after
variables:
  x: 1
"""


def test_append_to_a_list_of_blocks() -> None:
    item = {"uuid": "c", "type": "transformer", "upstream_blocks": ["b"]}
    assert append(TEXT, ("blocks",), item) == TEXT.replace(
        "  configuration: {x: 1}\n",
        "  configuration: {x: 1}\n- uuid: c\n  type: transformer\n  upstream_blocks: [b]\n",
    )


def test_put_a_list() -> None:
    assert put(TEXT, ("blocks", 0, "downstream_blocks"), ["b", "c"]) == TEXT.replace(
        "downstream_blocks: []", "downstream_blocks: [b, c]"
    )
    changed = put(TEXT, ("blocks", 1, "upstream_blocks"), ["a", "c"])
    assert changed == TEXT.replace("  - a\n", "  - a\n  - c\n"), "a list in lines stays one"


def test_put_what_is_not_there() -> None:
    assert put(TEXT, ("variables", "y"), "2") == TEXT + "  y: '2'\n"
    assert put(TEXT, ("tags",), ["t"]) == TEXT + "tags: [t]\n"
    assert put("", ("plugins", "tap-a"), {"pip": "x==1"}) == "plugins:\n  tap-a: {pip: x==1}\n"
    assert put("plugins: {a: {b: c}}\n", ("plugins", "d"), {"e": 1}) == "plugins: {a: {b: c}, d: {e: 1}}\n"
    assert put("plugins:\nname: x\n", ("plugins", "d"), {"e": 1}) == "plugins:\n  d: {e: 1}\nname: x\n"


@pytest.mark.parametrize("empty", ["blocks: []\n", "blocks:\n", "blocks: null\n", "", "# only words\n"])
def test_the_first_of_a_list(empty: str) -> None:
    changed = append(empty, ("blocks",), {"uuid": "a", "upstream_blocks": []})
    assert changed.endswith("blocks:\n  - uuid: a\n    upstream_blocks: []\n")
    assert changed.startswith("# only words\n" if "#" in empty else "blocks:")


def test_flow_lists_and_missing_newlines() -> None:
    assert append("a: [1, 2]", ("a",), 3) == "a: [1, 2, 3]\n"
    assert append("a:\n- 1", ("a",), 2) == "a:\n- 1\n- 2\n"
    assert append("a:\n  - |\n    text\nb: 1\n", ("a",), 2) == "a:\n  - |\n    text\n  - 2\nb: 1\n"


def test_templates_survive() -> None:
    assert put("a: {{ env_var('X') }}\nb: 1\n", ("b",), 2) == "a: {{ env_var('X') }}\nb: 2\n"


def test_umlauts_do_not_move_anything() -> None:
    assert put("a: äöü€😀\nb: [x]\n", ("b",), ["ß"]) == "a: äöü€😀\nb: [ß]\n"


def test_only_the_lines_that_change_are_laid_out_anew() -> None:
    text = "---\na:   1 # odd\nb: ~\nl:\n    - 'x'\n    - {{ y }}\n# end of l\nc: {a:  1 ,b: 2}   \nd: yes\n"
    assert put(text, ("d",), "no") == text.replace("yes", "'no'")
    assert append(text, ("l",), "z") == text.replace("{{ y }}\n", "{{ y }}\n    - z\n")
    assert put(text.replace("\n", "\r\n"), ("d",), 1) == text.replace("yes", "1").replace("\n", "\r\n")


def test_comments_stay_with_what_follows_them() -> None:
    text = "a:\n  x: 1\n  y: 2   # two\n\n# about b\nb: 1\n"
    assert edit_text(text, lambda document: document["a"].pop("y")) == text.replace("  y: 2   # two\n", "")
    assert put(text, ("a", "z"), {"k": [1]}) == text.replace("two\n", "two\n  z:\n    k: [1]\n")


@pytest.mark.parametrize("value", ["on", "12:30", "0123", "2026-01-01", "a\nb\n", "- x", "*", "{{ x }}", "1_0", "~"])
def test_text_stays_text(value: str) -> None:
    for text in (to_yaml({"a": value, value: [value]}), put("a: {}\n", ("b",), [value])):
        for loaded in (yaml.safe_load(text), load_yaml(Path("x"), text=text).data):
            assert value in (loaded.get("a"), loaded.get("b", [None])[0])


def test_a_file_is_replaced_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "real.yaml"
    file.write_text("a: 1\n")
    file.chmod(0o640)
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    assert edit_file(link, lambda text: text + "b: 2\n") == ("a: 1\n", "a: 1\nb: 2\n")
    assert link.is_symlink()
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("a: 1\nb: 2\n", 0o640)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.yaml", "real.yaml"]


keys = st.sampled_from(["a", "b", "c"])
values: st.SearchStrategy[Any] = st.recursive(
    st.integers(0, 9) | st.sampled_from(["x", "y z", "#", "a: b", "", "on", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(keys, values), st.sampled_from([None, True, False]), keys, values)
def test_the_result_always_says_what_it_should(data: dict[str, Any], flow: bool | None, key: str, value: Any) -> None:
    text = yaml.safe_dump(data, default_flow_style=flow, sort_keys=False)
    assert yaml.safe_load(put(text, (key,), value)) == {**data, key: value}
    data[key] = data[key] if isinstance(data.get(key), list) else []
    text = yaml.safe_dump(data, default_flow_style=flow, sort_keys=False)
    assert yaml.safe_load(append(text, (key,), value)) == {**data, key: [*data[key], value]}


def test_what_can_be_read_but_not_edited_is_refused_with_its_line() -> None:
    with refuses("setting.not_editable", "line 2"):
        put("source: tap-x\nconfig: {a: 1}\t# note\n", ("source",), "tap-y")


@pytest.mark.parametrize("key", ["1", "007", "1_000", "true", "no", "~", "2024-01-01", "1.50"])
def test_keys_that_are_no_text_to_yaml(key: str) -> None:
    text = f"streams:\n  {key}:   # the first\n    columns: [a]\n  other: {{}}\n"
    changed = put(text, ("streams", key, "selected"), False)
    assert changed == text.replace("    columns: [a]\n", "    columns: [a]\n    selected: false\n")


def test_each_line_keeps_its_ending() -> None:
    text = "a: 1\r\nb: 2\nc: 3\r\n"
    assert put(text, ("b",), 5) == "a: 1\r\nb: 5\r\nc: 3\r\n"
    assert put(text, ("d",), 4) == "a: 1\r\nb: 2\nc: 3\r\nd: 4\r\n"
    assert put("a: 1\nb: 2\nc: 3\r\n", ("d",), 4) == "a: 1\nb: 2\nc: 3\r\nd: 4\n", "new lines end as most do"
