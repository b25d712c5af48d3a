"""What is said about the class of a block's file before it is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamline.blocks.python.file import BlockFile
from streamline.blocks.python.streaming import PythonConnector, check_class, python_connector
from streamline.blocks.python.templates import STREAMING_SINK, STREAMING_SOURCE, template
from streamline.connectors.stream_connector import StreamContext
from streamline.errors import ConfigError

SOURCE = "@streaming_source\nclass Source:\n    def batch_read(self, handler): ...\n"
SINK = "@streaming_sink\nclass Sink:\n    def batch_write(self, messages): ...\n"


@pytest.fixture
def block(tmp_path: Path) -> BlockFile:
    return BlockFile("load", str(tmp_path / "load.py"), shown="data_loaders/load.py")


CONTEXT = StreamContext(pipeline="p", block="load", root=Path())


def where(*keys: str) -> str:
    return f"metadata.yaml:{len(keys)}"


@pytest.mark.parametrize(
    ("code", "problem", "line"),
    [
        ("class Source: ...", "block.class_missing", ""),
        (SOURCE + SOURCE, "block.class_ambiguous", ""),
        (SOURCE.replace("batch_read", "fetch"), "streaming_class.method_missing", ":2"),
        (
            SOURCE.replace("class Source:", "class Source(BasePythonSource):").replace("batch_read", "fetch"),
            "streaming_class.method_missing",
            ":2",
        ),
        ("def", "block.syntax", ":1"),
    ],
)
def test_a_class_that_cannot_be_used_is_refused(block: BlockFile, code: str, problem: str, line: str) -> None:
    Path(block.path).write_text(code)
    with pytest.raises(ConfigError) as refused:
        check_class(block, "source")
    assert (refused.value.code, refused.value.where) == (problem, f"data_loaders/load.py{line}")


def test_methods_may_come_from_a_base_class(block: BlockFile) -> None:
    Path(block.path).write_text("from shop import Reader\n\n\n@streaming_source\nclass Source(Reader): ...\n")
    assert check_class(block, "source").name == "Source"


@pytest.mark.parametrize("config", [{"batch_size": 0}, {"batch_size": True}, {"wait_for_proof": "no"}])
def test_settings_are_checked(block: BlockFile, config: dict[str, object]) -> None:
    Path(block.path).write_text(SOURCE)
    with pytest.raises(ConfigError) as refused:
        python_connector(block, config).describe_source(config, CONTEXT, where)
    assert (refused.value.code, refused.value.where) == ("setting.invalid", "metadata.yaml:1")


def test_what_it_promises_is_read_from_its_file(block: BlockFile) -> None:
    Path(block.path).write_text(SOURCE + SINK)
    connector: PythonConnector = python_connector(block, {})
    assert connector.describe_source({"batch_size": 7}, CONTEXT, where).batch_size == 7
    assert connector.describe_source({}, CONTEXT, where).replays
    assert not connector.describe_source({"wait_for_proof": False}, CONTEXT, where).replays
    assert connector.describe_sink({}, CONTEXT, where).changes_data
    assert "batch_write" in connector.describe_sink({}, CONTEXT, where).proof
    Path(block.path).write_text(SINK + "    def flush(self): ...\n")
    assert "flush" in connector.describe_sink({}, CONTEXT, where).proof


def test_check_connects(block: BlockFile) -> None:
    Path(block.path).write_text(SOURCE + "    def test_connection(self): raise OSError('no route')\n")
    with pytest.raises(Exception, match="no route"):
        python_connector(block, {}).check("source", {}, CONTEXT, where)
    Path(block.path).write_text(SINK)
    assert python_connector(block, {}).check("destination", {}, CONTEXT, where)


def test_templates_are_of_these_classes(block: BlockFile) -> None:
    for text, type, side in (
        (STREAMING_SOURCE, "data_loader", "source"),
        (STREAMING_SINK, "data_exporter", "destination"),
    ):
        made = template(type, "streaming")
        assert made is not None
        assert made([]) == text
        Path(block.path).write_text(text)
        check_class(block, "source" if side == "source" else "destination")
