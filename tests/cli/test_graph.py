"""`streamline graph`: the pipeline in a terminal, as Mermaid text, as SVG."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.cli.conftest import Shop
from tests.conformance.integration.common import rows_tap
from tests.conftest import MakeProject
from tests.support.project import target

SVG = "{http://www.w3.org/2000/svg}"
FOLDERS = {"data_loader": "data_loaders", "transformer": "transformers", "data_exporter": "data_exporters"}


def batch(root: Path, blocks: list[dict[str, Any]], **keys: Any) -> Shop:
    """A batch pipeline `p` of Python blocks."""
    (root / "streamline.yaml").write_text("name: shop\n")
    for group, default in (
        (blocks, ""),
        (keys.get("callbacks", []), "callback"),
        (keys.get("conditionals", []), "conditional"),
    ):
        for block in group:
            kind = block.get("type", default)
            path = root / FOLDERS.get(kind, "custom" if kind == "custom" else f"{kind}s") / f"{block['uuid']}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (root / "pipelines/p").mkdir(parents=True)
    (root / "pipelines/p/metadata.yaml").write_text(json.dumps({"type": "python", "blocks": blocks, **keys}))
    return Shop(root)


def custom(uuid: str, *upstream: str, **keys: Any) -> dict[str, Any]:
    return {"uuid": uuid, "type": "custom", "upstream_blocks": list(upstream), **keys}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return batch(
        tmp_path,
        [
            {"uuid": "regions", "type": "data_loader", "configuration": {"dynamic": True}},
            {
                "uuid": "fetch",
                "type": "transformer",
                "upstream_blocks": ["regions"],
                "configuration": {"reduce_output": True, "isolated": True},
            },
            {"uuid": "export", "type": "data_exporter", "upstream_blocks": ["fetch"]},
        ],
        callbacks=[{"uuid": "say", "upstream_blocks": ["fetch"]}, {"uuid": "post"}],
        conditionals=[{"uuid": "if_open", "upstream_blocks": ["fetch"]}],
    )


def test_in_a_terminal(shop: Shop) -> None:
    assert shop("graph", "p").stdout == (
        "◆  regions  data_loader (python), dynamic\n"
        "│\n"
        "◇  fetch    transformer (python), per item of regions, isolated, if if_open, notifies say\n"
        "│\n"
        "●  export   data_exporter (python)\n"
        "\n"
        "called when the pipeline ends: post\n"
    )


def test_paths_that_part_and_meet(tmp_path: Path) -> None:
    shop = batch(
        tmp_path,
        [custom("a"), custom("b", "a"), custom("c", "a"), custom("d", "b", "c"), custom("e", "a", "d"), custom("f")],
    )
    assert shop("graph", "p").stdout == (
        "●      a  custom (python)\n"
        "├─┬─╮\n"
        "● │ │  b  custom (python)\n"
        "│ ● │  c  custom (python)\n"
        "├─╯ │\n"
        "●   │  d  custom (python)\n"
        "├───╯\n"
        "●      e  custom (python)\n"
        "\n"
        "●      f  custom (python)\n"
    )


def test_a_path_that_is_crossed(tmp_path: Path) -> None:
    shop = batch(tmp_path, [custom("a"), custom("b"), custom("c", "a", "b"), custom("d", "a", "b")])
    assert shop("graph", "p").stdout == (
        "●        a  custom (python)\n"
        "├─╮\n"
        "│ │ ●    b  custom (python)\n"
        "│ │ ├─╮\n"
        "├─│─╯ │\n"
        "● │   │  c  custom (python)\n"
        "  ├───╯\n"
        "  ●      d  custom (python)\n"
    )


def test_names_of_wide_signs_keep_their_columns(tmp_path: Path) -> None:
    shop = batch(tmp_path, [custom("注文"), custom("abcde", "注文")])
    assert shop("graph", "p").stdout == "●  注文   custom (python)\n│\n●  abcde  custom (python)\n"


def test_a_file_that_cannot_be_written(shop: Shop) -> None:
    assert "/nodir/a.svg" in shop.refuses("file.not_writable", "graph", "p", "-o", "/nodir/a.svg")


def test_mermaid(shop: Shop) -> None:
    text = shop("graph", "p", "--format", "mermaid").stdout
    assert text.startswith("flowchart LR\n")
    assert 'b0["regions<br/>data_loader<br/>dynamic"]:::data_loader' in text
    assert 'b3{{"if_open<br/>conditional"}}:::conditional' in text
    for line in ('b0 == "per item" ==> b1', 'b1 -- "gathered" --> b2', 'b3 -. "gates" .-> b1', 'b1 -. "tells" .-> b4'):
        assert f"    {line}\n" in text
    shop("graph", "p", "--output", str(shop.root / "p.mmd"))
    assert (shop.root / "p.mmd").read_text() == text


def test_svg(shop: Shop) -> None:
    shop("graph", "p", "--output", str(shop.root / "p.svg"))
    drawn = ElementTree.parse(shop.root / "p.svg").getroot()
    groups = [(one.get("class"), [text.text for text in one.iter(f"{SVG}text")]) for one in drawn.iter(f"{SVG}g")]
    assert groups[0] == ("data_loader", ["regions", "data_loader", "dynamic"])
    assert [name for name, _ in groups] == [*FOLDERS, "conditional", "callback", "callback"]
    assert [one.get("class") for one in drawn.iter(f"{SVG}path")][1:] == ["items", "gathered", "gates", "tells"]


def test_boxes_of_an_svg_never_overlap_and_long_lines_go_between_them(tmp_path: Path) -> None:
    blocks = [custom("a"), *(custom(f"b{n}", f"b{n - 1}" if n else "a") for n in range(4)), custom("z", "b3", "a")]
    shop = batch(tmp_path, blocks)
    drawn = ElementTree.fromstring(shop("graph", "p", "--format", "svg").stdout)
    boxes = [
        tuple(float(one.get(key, "")) for key in ("x", "y", "width", "height")) for one in drawn.iter(f"{SVG}rect")
    ]
    for x, y, width, height in boxes:
        assert not [one for one in boxes if one[:2] != (x, y) and abs(one[0] - x) < width and abs(one[1] - y) < height]
    paths = [one.get("d", "") for one in drawn.iter(f"{SVG}path")]
    (long,) = [path for path in paths if "H" in path]
    assert long.count("H") == 4


def test_of_an_integration_pipeline(make_project: MakeProject) -> None:
    project = make_project(rows_tap({"numbers": 5}), target(uuid="export_<a>"), target(uuid="export_b"))

    printed = project.command("graph", "p", "--format", "mermaid").expect(0).out
    project.command("graph", "p", "--output", "p.svg").expect(0)

    assert printed.count("-->") == 2
    assert "load<br/>source" in printed
    assert "export_#60;a#62;<br/>" in printed
    drawn = ElementTree.parse(project.root / "p.svg").getroot()
    texts = [text.text for text in drawn.iter(f"{SVG}text")]
    assert texts[0::2] == ["load", "export_<a>", "export_b"]
    project.command("graph", "p", "--output", "p.png").expect(2, "svg")
    project.command("graph", "p").expect(0, "● +load +source \\(yaml\\)")


def test_a_pipeline_without_blocks(tmp_path: Path) -> None:
    shop = batch(tmp_path, [])
    assert shop("graph", "p").stdout == ""
    assert shop("graph", "p", "--format", "svg").stdout.startswith("<svg")
