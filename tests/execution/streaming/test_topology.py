"""The graph of a streaming pipeline, and its blocks' files."""

from __future__ import annotations

import pytest

from streamline.errors import ConfigError
from tests.execution.streaming.conftest import Stream

IDENTITY = "@transformer\ndef f(messages: list[dict], *args, **kwargs):\n    return messages\n"


def refused(stream: Stream) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        stream.plan()
    return caught.value


def test_the_parts_of_a_graph(stream: Stream) -> None:
    stream.source("a")
    stream.source("b")
    stream.transformer("t", IDENTITY, ["a", "b"])
    stream.sink("x", ["t", "a"])
    stream.sink("y", ["t"])
    plan = stream.plan()
    assert plan.blocks() == ["a", "b", "t", "x", "y"]
    assert list(plan.paths("a")) == [["a", "x"], ["a", "t", "x"], ["a", "t", "y"]]
    assert plan.sinks_of("b") == ["x", "y"]


def test_a_pipeline_needs_a_source_and_a_sink(stream: Stream) -> None:
    stream.source()
    assert refused(stream).code == "pipeline.no_destination"
    stream.files.entries["blocks"].clear()
    stream.sink(upstream=[])
    assert refused(stream).code == "pipeline.no_source"


@pytest.mark.parametrize("wrong", ["sink before", "source behind", "transformer first"])
def test_blocks_in_wrong_places(stream: Stream, wrong: str) -> None:
    stream.source("a")
    if wrong == "transformer first":
        stream.transformer("t", IDENTITY, [])
        stream.sink("x", ["a", "t"])
    else:
        stream.sink("x", ["a"])
    if wrong == "sink before":
        stream.sink("y", ["x"])
    if wrong == "source behind":
        stream.files.block("b", "connector_type: memory\n", type="data_loader", language="yaml", upstream=["a"])
    error = refused(stream)
    assert error.code == "graph.wrong_place"
    assert error.where is not None
    assert error.where.startswith("pipelines/p/metadata.yaml:")


def test_a_transformer_that_leads_nowhere(stream: Stream) -> None:
    stream.source("a")
    stream.transformer("t", IDENTITY, ["a"])
    stream.sink("x", ["a"])
    assert refused(stream).code == "pipeline.no_destination"


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("connector_type: memry\n", "connector.unknown", 1),
        ("messages: []\n\nconnector_typ: memory\n", "block.wrong_kind", 1),
        ("messages: []\ndestination: memory\n", "block.wrong_kind", 2),
        ("connector_type: memory\nsource: memory\n", "block.wrong_kind", 2),
        ("connector_type: [memory]\n", "setting.invalid", 1),
        ("connector_type: memory\n", "setting.invalid", 1),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(stream: Stream, text: str, code: str, line: int) -> None:
    stream.files.block("load", text, type="data_loader", language="yaml", upstream=[])
    stream.sink()
    error = refused(stream)
    assert (error.code, error.where) == (code, f"data_loaders/load.yaml:{line}")


def test_a_connector_may_be_named_as_in_other_pipelines(stream: Stream) -> None:
    stream.files.block("load", "source: memory\nmessages: [1]\n", type="data_loader", language="yaml", upstream=[])
    stream.files.block("export", "destination: memory\n", type="data_exporter", language="yaml")
    assert stream.run().status == "completed"
    assert stream.world.written == {"export": [1]}


def test_blocks_of_other_kinds_are_refused(stream: Stream) -> None:
    stream.source()
    stream.files.block("wait", "@sensor\ndef f():\n    return True\n", type="sensor", upstream=[])
    stream.sink(upstream=["load"])
    assert refused(stream).code == "block.wrong_pipeline"


@pytest.mark.parametrize(
    ("code", "entry", "problem"),
    [
        ("def", {}, "block.syntax"),
        ("x = 1", {}, "block.function_missing"),
        ("@transformer\ndef f(messages: dict[str, int]): ...", {}, "block.unknown_annotation"),
        (IDENTITY, {"configuration": {"workers": 2}}, "transformer.setting_invalid"),
    ],
)
def test_a_transformer_that_cannot_be_called(stream: Stream, code: str, entry: dict[str, object], problem: str) -> None:
    stream.source("a")
    stream.transformer("t", code, ["a"], **entry)
    stream.sink("x", ["t"])
    assert refused(stream).code == problem


def test_a_python_source_without_its_class(stream: Stream) -> None:
    stream.files.block("a", "def f(): ...\n", type="data_loader", language="python", upstream=[])
    stream.sink("x", ["a"])
    assert refused(stream).code == "block.class_missing"
