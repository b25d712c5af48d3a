"""What is read of single messages, and which lines are none."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from streamline.connectors.singer.message_reader import TapOutputError
from streamline.connectors.singer.parser import TapParser
from streamline.connectors.singer.state import state_of
from streamline.flow.items import FileBatch, Item, Position, Schema

SCHEMA = b'{"type":"SCHEMA","stream":"a","schema":{"properties":{}},"key_properties":[]}\n'


def parse(*chunks: bytes, mask: Callable[[str], str] = str) -> tuple[list[Item], list[str]]:
    logged: list[str] = []
    parser = TapParser("group", tap="tap-x", log=logged.append, mask=mask)
    return [item for chunk in chunks for item in parser.feed(chunk)], logged


@pytest.mark.parametrize("depth", [200, 201])
def test_a_bookmark_that_is_nested_too_deeply_is_left_out_and_told_once(depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    lines = [b'{"type":"STATE","value":{"bookmarks":{"a":%d,"b":%b}}}\n' % (number, deep) for number in (1, 2)]
    items, logged = parse(*lines)
    positions = [state_of(item.parts) for item in items if isinstance(item, Position)]
    if depth == 200:
        assert [json.loads(text)["bookmarks"].keys() for text in positions] == [{"a", "b"}] * 2
        assert logged == []
    else:
        assert positions == [b'{"bookmarks":{"a":1}}', b'{"bookmarks":{"a":2}}']
        assert len(logged) == 1


def test_a_state_of_bookmarks_that_are_nested_too_deeply_is_no_position() -> None:
    deep = b"[" * 300 + b"]" * 300
    items, logged = parse(b'{"type":"STATE","value":{"bookmarks":{"b":%b,"a":%b}}}\n' % (deep, deep))
    assert items == []
    assert ["'a'" in logged[0], "'b'" in logged[1]] == [True, True]


@pytest.mark.parametrize(
    "text",
    [
        b'{"stream":"a","record":{"v":NaN}}\n',
        b'{"type":1,"stream":"a","record":{"v":NaN}}\n',
        b'{"type":"RECORD","stream":1,"record":{"v":NaN}}\n',
        b'{"type":"ACTIVATE_VERSION","stream":"a","version":"7"}\n',
        b'{"type":"BATCH","stream":"a"}\n',
        b'{"type":"BATCH"}\n',
        b'{"type":"RECORD","stream":"a","record":[]}\n',
        b'{"type":"SCHEMA","stream":"a","schema":[]}\n',
        b'{"type":"NEWS","value":{"bookmarks":{}}}\n',
    ],
)
def test_a_message_with_invalid_members_fails_the_tap(text: bytes) -> None:
    with pytest.raises(TapOutputError) as caught:
        parse(SCHEMA + text)
    assert caught.value.code == "tap.invalid_output"
    assert caught.value.message.endswith(text.decode().strip())


def test_an_error_quotes_the_beginning_of_a_line_masked() -> None:
    for length in (100, 185, 186, 5000):
        line = '{"level":"' + "x" * length + 'secret"}'
        with pytest.raises(TapOutputError) as caught:
            parse(line.encode() + b"\n", mask=lambda text: text.replace("secret", "***"))
        quoted = line.replace("secret", "***")
        expected = quoted if len(quoted) <= 200 else quoted[:200] + " …"
        assert caught.value.message.endswith(": " + expected)


def test_batches_of_files_have_defaults() -> None:
    lines = [
        b'{"type":"BATCH","stream":"a","manifest":["x"]}\n',
        b'{"type":"BATCH","stream":"a","filepath":"y","version":7}\n',
    ]
    items, _ = parse(b"".join(lines))
    assert items == [
        FileBatch("a", "sdk", ["x"], "jsonl", None, None, lines[0]),
        FileBatch("a", "pipelinewise", ["y"], "jsonl", None, 7, lines[1], None),
    ]


def test_one_bookmark_property_may_be_a_text() -> None:
    items, _ = parse(b'{"type":"SCHEMA","stream":"a","schema":{},"bookmark_properties":"id"}\n')
    assert isinstance(items[0], Schema)
    assert items[0].bookmark_properties == ["id"]
