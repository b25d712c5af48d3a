"""How the blocks of a pipeline are joined."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from streamline.execution.integration.topology import Specs, check_hook, find_paths, without
from streamline.pipeline.model import PipelineModel
from streamline.project.render import Renderer
from tests.execution.integration.plans import block
from tests.support.failures import refuses

KINDS = {"load": "sources", "export": "destinations", "map": "mappers", "clean": "transforms"}
TYPES = {"load": "data_loader", "export": "data_exporter", "map": "transformer", "clean": "transformer"}


def pipeline(**upstream: str) -> tuple[PipelineModel, Specs]:
    """Blocks by name (`load2`, `export`, `map`, `clean`: what they are), each with the blocks before it."""
    before = {uuid: names.split() for uuid, names in upstream.items()}
    blocks = {
        uuid: block(
            uuid,
            TYPES[uuid.rstrip("0123456789")],
            upstream=names,
            downstream=[other for other, above in before.items() if uuid in above],
        )
        for uuid, names in before.items()
    }
    empty: dict[str, Any] = dict.fromkeys(PipelineModel.__struct_fields__)
    yaml: Any = SimpleNamespace(shown="metadata.yaml", where=lambda path: "metadata.yaml:1")
    model = PipelineModel(
        **{
            **empty,
            "uuid": "p",
            "type": "integration",
            "blocks": blocks,
            "callbacks": {},
            "conditionals": {},
            "yaml": yaml,
            "path": Path(),
        },
    )
    specs = Specs({}, {}, {}, {})
    for uuid in blocks:
        kind = KINDS[uuid.rstrip("0123456789")]
        value: Any = SimpleNamespace(block=blocks[uuid]) if kind == "transforms" else (blocks[uuid], None)
        getattr(specs, kind)[uuid] = value
    return model, specs


def shape(path: Any) -> Any:
    """A path as transformers, destinations and branches."""
    return [each.block.uuid for each in path.transforms], path.sinks, [shape(branch) for branch in path.branches]


def test_each_source_has_its_mappers_and_its_path() -> None:
    paths, mappers = find_paths(
        *pipeline(
            load="",
            load2="",
            map="load",
            map2="map",
            clean="map2",
            clean2="clean",
            export="clean2",
            export2="clean load2",
        )
    )
    assert mappers == {"load": ["map", "map2"], "load2": []}
    # A branch begins where a block has several after it.
    assert shape(paths["load"]) == (["clean"], ["export2"], [(["clean2"], ["export"], [])])
    assert shape(paths["load2"]) == ([], ["export2"], [])


@pytest.mark.parametrize(
    ("blocks", "code", "name"),
    [
        ({"load": "", "export": "load", "export2": "export"}, "graph.wrong_place", "'export' has blocks after it"),
        ({"export": ""}, "pipeline.no_source", "no source"),
        ({"load": ""}, "pipeline.no_destination", "no destination"),
        ({"load": "", "export": "load", "clean": ""}, "graph.wrong_place", "'clean' has nothing before it"),
        ({"load": "", "export": "load", "export2": ""}, "graph.wrong_place", "'export2' has nothing before it"),
        ({"load": "", "export": "load", "map": ""}, "graph.wrong_place", "'map' has nothing before it"),
        ({"load": "", "load2": "load", "export": "load2"}, "graph.wrong_place", "'load2' has blocks before it"),
        ({"load": "", "load2": "", "export": "load"}, "pipeline.no_destination", "'load2' leads to no destination"),
        ({"load": "", "clean": "load", "map": "clean", "export": "map"}, "graph.wrong_place", "mapper 'map'"),
        ({"load": "", "map": "load", "export": "map load"}, "graph.wrong_place", "mapper 'map'"),
        ({"load": "", "map": "load", "map2": "load", "export": "map map2"}, "graph.wrong_place", "mapper 'map'"),
    ],
)
def test_a_block_in_a_wrong_place_is_named(blocks: dict[str, str], code: str, name: str) -> None:
    with refuses(code, name):
        find_paths(*pipeline(**blocks))


def test_without_a_source_what_it_alone_feeds_goes_too() -> None:
    model, _ = pipeline(load="", load2="", clean="load", export="clean", export2="clean load2")
    model.conditionals = {"gate": block("gate", "conditional")}
    rest = without(model, ["load"])
    assert list(rest.blocks) == ["load2", "export2"]
    assert rest.blocks["export2"].upstream == ["load2"]
    assert rest.conditionals == {}
    assert rest.blocks["load2"].downstream == ["export2"]
    other = without(model, ["load2"])
    assert list(other.blocks) == ["load", "clean", "export", "export2"]
    assert other.blocks["export2"].upstream == ["clean"]
    assert without(model, ["load", "load2"]).blocks == {}


@pytest.mark.parametrize(
    ("type", "gated", "refused"),
    [("conditional", "export", True), ("conditional", "load", False), ("callback", "export", False)],
)
def test_a_conditional_gates_sources_alone(
    type: str, gated: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = pipeline(load="", export="load")
    hook = block("gate", type, upstream=[gated])
    checked: list[str] = []
    monkeypatch.setattr(
        "streamline.execution.integration.topology.check_block", lambda *args: checked.append(args[2].uuid)
    )
    if refused:
        with refuses("block.wrong_pipeline", f"'{gated}'"):
            check_hook(cast(Any, None), model, hook, cast(Renderer, None))
    else:
        check_hook(cast(Any, None), model, hook, cast(Renderer, None))
    assert checked == ([] if refused else ["gate"])
