"""The reference pages name every key that there is."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
import yaml

from streamline.blocks.connector.spec import DestinationSpec, MapperSpec, SourceSpec
from streamline.connectors.kafka.settings import SINK_KINDS, SOURCE_KINDS
from streamline.connectors.registry import bundled_connectors
from streamline.connectors.setting_kinds import key_names
from streamline.connectors.singer.settings import setting_names
from streamline.project.entries import PluginEntry
from tests.support.connector_pages import page, with_settings

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "keys",
    [
        [field.name for spec in (SourceSpec, DestinationSpec, MapperSpec) for field in msgspec.structs.fields(spec)],
        setting_names("source"),
        setting_names("destination"),
        [field.name for field in msgspec.structs.fields(PluginEntry)],
    ],
    ids=["blocks", "source streams", "destination streams", "plugins"],
)
def test_every_key_is_explained(keys: list[str]) -> None:
    page = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
    hidden = {"where", "name"}
    missing = [key for key in keys if key not in hidden and f"`{key}" not in page and f"{key}:" not in page]
    assert missing == []


def test_every_key_of_kafka_is_explained() -> None:
    page = (ROOT / "docs" / "streaming.md").read_text(encoding="utf-8")
    keys = {key for kinds in (SOURCE_KINDS, SINK_KINDS) for key in key_names(kinds)}
    assert [key for key in sorted(keys) if not re.search(rf"[`{{ ]{key}[`:]", page)] == []


def test_the_entries_of_connectors_are_those_that_the_tests_use() -> None:
    """docs/connectors.md shows each requirement as it stands in tests/services/plugins.yaml."""
    page = (ROOT / "docs" / "connectors.md").read_text(encoding="utf-8")
    entries = yaml.safe_load((ROOT / "tests" / "services" / "plugins.yaml").read_text(encoding="utf-8"))["plugins"]
    for entry in entries.values():
        for requirement in [entry["pip"]] if isinstance(entry["pip"], str) else entry["pip"]:
            assert f'"{requirement}"' in page, requirement


@pytest.mark.parametrize("connector", [each.name for each in bundled_connectors()])
def test_each_bundled_connector_has_a_page_with_its_settings(connector: str) -> None:
    text = page(connector).read_text(encoding="utf-8")
    assert "| `path` |" in text
    assert with_settings(connector, text) == text, "run: python -m tests.support.connector_pages"
    assert f"connectors/{connector}.md" in (ROOT / "docs" / "connectors.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(path.relative_to(ROOT) for path in ROOT.glob("docs/**/*.md")), ids=str)
def test_pages_that_a_page_names_are_there(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)[^):]*\)", (ROOT / path).read_text(encoding="utf-8")):
        assert (ROOT / path.parent / link).exists(), link
