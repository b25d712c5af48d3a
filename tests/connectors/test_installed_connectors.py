"""Connectors from another package, added by their entry points alone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.packages import Installation

PACKAGE = '''
"""A tap of two orders, a source and a sink."""

import json
import sys

from streamline.connectors.registry import Connector, InProcess

TAP = Connector(role="tap", system="orders", module="acme_orders", config={"shop": "north"})
MEMORY = InProcess(source="acme_orders:open_source", sink="acme_orders:open_sink")
SCHEMA = {"type": "object", "properties": {"id": {"type": "integer"}, "shop": {"type": "string"}}}


def open_source(id, config, start):
    from tests.protocols.memory import Numbers

    return Numbers(config["count"], id=id, start=start)


def open_sink(id, config):
    from tests.protocols.memory import Table

    return Table(id)


def main():
    if "--discover" in sys.argv:
        stream = {"tap_stream_id": "orders", "stream": "orders", "schema": SCHEMA, "key_properties": ["id"]}
        print(json.dumps({"streams": [{**stream, "metadata": []}]}))
        return
    with open(sys.argv[sys.argv.index("--config") + 1]) as file:
        shop = json.load(file)["shop"]
    print(json.dumps({"type": "SCHEMA", "stream": "orders", "schema": SCHEMA, "key_properties": ["id"]}))
    for number in (1, 2):
        print(json.dumps({"type": "RECORD", "stream": "orders", "record": {"id": number, "shop": shop}}))


if __name__ == "__main__":
    if "--help" in sys.argv:
        print("usage: acme_orders --config FILE --catalog FILE --state FILE --discover")
    else:
        main()
'''
ENTRY_POINTS = {"streamline.connectors": {"tap-orders": "acme_orders:TAP", "memory": "acme_orders:MEMORY"}}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("installed"), "acme-orders", PACKAGE, ENTRY_POINTS)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "streamline.yaml").write_text("name: shop\n")
    return tmp_path


def test_a_tap_is_named_by_its_system_and_runs_in_a_pipeline(project: Path, installation: Installation) -> None:
    installation.streamline(project, "create", "p", "--type", "integration")
    installation.streamline(project, "add", "source", "orders", "--system", "orders")
    assert "shop: north" in (project / "data_loaders" / "orders.yaml").read_text()
    installation.streamline(project, "add", "destination", "files", "--system", "files")
    installation.streamline(project, "run", "p")
    rows = [json.loads(line) for file in (project / "output").rglob("*.jsonl") for line in file.open()]
    assert [(row["id"], row["shop"]) for row in rows] == [(1, "north"), (2, "north")]


def test_an_entry_in_the_project_adds_to_it(project: Path, installation: Installation) -> None:
    (project / "streamline.yaml").write_text("name: shop\nplugins:\n  tap-orders: {max_processes: 2}\n")
    result = json.loads(installation.streamline(project, "plugin", "test", "tap-orders", "--json"))
    assert (result["kind"], result["command"][-1]) == ("installed", "acme_orders")


def test_it_is_listed(project: Path, installation: Installation) -> None:
    rows = {row["name"]: row for row in json.loads(installation.streamline(project, "plugin", "list", "--json"))}
    assert rows["tap-orders"] == {
        "name": "tap-orders",
        "kind": "installed",
        "source": "acme-orders",
        "installed": True,
        "version": "1.0",
    }
    assert rows["tap-sqlite"]["kind"] == "builtin"


SCRIPT = """
import anyio

from streamline.connectors.registry import open_sink, open_source
from streamline.errors import ConfigError
from streamline.flow.router import Route
from streamline.flow.runtime import Flow, Runtime
from tests.protocols.memory import Memory

store, sink = Memory(), open_sink("memory", "out", {})
source = open_source("memory", "load", {"count": 12}, {"numbers": b"9"})
anyio.run(Runtime([Flow(source=source, route=Route(sinks=[sink]))], store=store).run)
print(sink.rows, store.saved)
try:
    open_sink("tap-orders", "out", {})
except ConfigError as error:
    print(error.code)
try:
    open_sink("nowhere", "out", {})
except ConfigError as error:
    print(error.code)
"""


def test_its_source_and_sink_run_in_this_process(installation: Installation) -> None:
    done = subprocess.run([installation.python, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "[10, 11, 12] {'load': {'numbers': b'12'}}",
        "extension.wrong_type",
        "connector.unknown",
    ], done.stderr
