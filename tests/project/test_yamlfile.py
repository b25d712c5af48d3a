"""YAML as users write it: what is read, and which line an error names."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamline.errors import ConfigError
from streamline.project.yamlfile import YamlFile, load_yaml
from tests.support.failures import refuses


def read(text: str) -> YamlFile:
    return load_yaml(Path("f.yaml"), text=text)


def refused(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("a: 1\nb: [x, 2.5, true, null]", {"a": 1, "b": ["x", 2.5, True, None]}),
        ("start: 2024-01-01", {"start": "2024-01-01"}),
        ("start: 2024-01-01T10:00:00Z", {"start": "2024-01-01T10:00:00Z"}),
        ("at: 12:30", {"at": "12:30"}),
        ("zip: 01234", {"zip": "01234"}),
        ("mask: 0x1f", {"mask": 31}),
        ("big: 123456789012345678901234567890", {"big": 123456789012345678901234567890}),
        ("size: 1_000", {"size": 1000}),
        ("price: -1.50", {"price": -1.5}),
        ("", None),
        ("# only a comment\n", None),
        ("base: &b {x: 1, y: 2}\nother: {<<: *b, y: 3}", {"base": {"x": 1, "y": 2}, "other": {"x": 1, "y": 3}}),
    ],
)
def test_values_are_what_was_written(text: str, data: object) -> None:
    assert read(text).data == data


def test_where_names_the_line_of_a_key_or_item() -> None:
    file = read("a: 1\nplugins:\n  # a comment\n  tap:\n    pip:\n      - x\n      - y\n")
    assert file.where() == "f.yaml:1"
    assert file.where(("plugins", "tap")) == "f.yaml:4"
    assert file.where(("plugins", "tap", "pip", 1)) == "f.yaml:7"
    assert file.where(("plugins", "tap", "absent", "deeper")) == "f.yaml:4"


def test_where_finds_what_a_merge_brought() -> None:
    file = read("base: &b\n  x: 1\nother:\n  <<: *b\n  y: 2\n")
    assert file.where(("other", "x")) == "f.yaml:2"


@pytest.mark.parametrize(
    ("text", "line", "code", "name"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "yaml.duplicate_key", "line 1"),
        ("x:\n  - k: 1\n    k: 2\n", 3, "yaml.duplicate_key", "'k'"),
        ("a: {b: 1, b: 2}", 1, "yaml.duplicate_key", "'b'"),
        ("a:\n\tb: 1\n", 2, "yaml.tab", ""),
        ("a: 1\n  b: 2\n", 2, "yaml.invalid", ""),
        ("a: [1, 2\n", 2, "yaml.invalid", ""),
        ("a: 'open\n", 2, "yaml.invalid", ""),
        ("? [a, b]\n: 1\n", 1, "yaml.invalid", "a key must be text"),
        ("a: &x [*x]\n", 1, "yaml.alias_cycle", ""),
        ("a: !!python/object:os.system x\n", 1, "yaml.invalid", ""),
    ],
)
def test_errors_name_the_line(text: str, line: int, code: str, name: str) -> None:
    error = refused(text)
    assert error.where == f"f.yaml:{line}"
    assert error.code == code
    assert name in error.message
    assert error.exit_code == 2


def test_keys_are_text() -> None:
    assert read("on: 1\nno: 2\n1: 3\nnull: 4\n2024-01-01: 5\n").data == {
        "on": 1,
        "no": 2,
        "1": 3,
        "null": 4,
        "2024-01-01": 5,
    }
    assert refused("1: a\n'1': b\n").code == "yaml.duplicate_key"


def test_the_same_key_in_different_mappings_is_fine() -> None:
    assert read("a: {k: 1}\nb: {k: 1}").data == {"a": {"k": 1}, "b": {"k": 1}}


def test_unknown_keys_suggest_the_nearest() -> None:
    file = read("plugin: {}\n")
    with refuses("setting.unknown", "'plugin'") as caught:
        file.refuse_unknown(["plugins", "name"])
    assert caught.value.where == "f.yaml:1"
    assert "'plugins'" in str(caught.value.hint)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(b"a: \xff\xfe")
    with refuses("file.wrong_encoding"):
        load_yaml(path)
    with refuses("file.not_found"):
        load_yaml(tmp_path / "absent.yaml")


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert load_yaml(path).data == {"a": 1}


def test_aliases_of_aliases_are_refused_before_they_are_copied() -> None:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    assert refused("\n".join(["a0: &a0 [x]", *levels])).code == "yaml.too_many_aliases"
    merged = [f"b{n}: &b{n}\n  <<: [{', '.join([f'*b{n - 1}'] * 10)}]" for n in range(1, 30)]
    assert refused("\n".join(["b0: &b0 {x: 1}", *merged])).code == "yaml.too_many_aliases"


def test_aliases_may_repeat_what_is_small() -> None:
    text = "a: &a {x: 1, y: [1, 2, 3]}\nb:\n" + "- *a\n" * 5000
    assert read(text).data["b"][4999] == {"x": 1, "y": [1, 2, 3]}


def test_deep_nesting_is_refused() -> None:
    assert refused("a: " + "[" * 500 + "]" * 500).code == "yaml.invalid"
