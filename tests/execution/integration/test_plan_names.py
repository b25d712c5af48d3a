"""Tables are planned by the names that streams have in messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamline.blocks.connector.spec import DestinationSpec, SourceSpec
from streamline.connectors.singer.capabilities import Capabilities
from streamline.connectors.singer.catalog import Catalog
from streamline.connectors.singer.selection import choose
from streamline.execution.integration.destination_plan import plan_sink
from streamline.execution.integration.plan import PathPlan, SourcePlan
from tests.connectors.singer import fakes
from tests.execution.integration.plans import block

ORDERS = {"tap_stream_id": "public-orders", "stream": "orders", "schema": {"properties": {"id": {}}}}


@pytest.mark.parametrize(("library", "name"), [("pipelinewise-singer-python", "public-orders"), (None, "orders")])
def test_a_tap_of_pipelinewise_names_a_stream_by_its_id(tmp_path: Path, library: str | None, name: str) -> None:
    plugin = fakes.tap(tmp_path, "", library=library)
    catalog = Catalog({"streams": [ORDERS]})
    source = SourcePlan(
        block=block("load", "data_loader"),
        spec=SourceSpec(source="tap-x"),
        plugin=plugin,
        config={},
        capabilities=Capabilities(),
        catalog=catalog,
        selected=choose(catalog),
        groups=[],
        max_parallel=1,
        keep_config=lambda config: None,
    )
    paths = {"load": PathPlan(transforms=[], sinks=["export"], branches=[])}
    destination = block("export", "data_exporter")

    sink = plan_sink(
        destination, DestinationSpec(destination="target-x"), plugin, Capabilities(), {"load": source}, paths
    )

    assert list(sink.plans) == [("load", name)]
