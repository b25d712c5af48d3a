"""Source and destination blocks prepared as a worker does it, in this process, with a tap that notes its options."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import yaml

from streamline.blocks.call import block_output
from streamline.blocks.connector.prepare import prepare
from streamline.blocks.connector.prepared import PreparedDestination, PreparedSource
from streamline.blocks.registry import check_block
from streamline.pipeline.model import FOLDERS, PipelineModel
from streamline.pipeline.reader import load_pipeline
from streamline.project.project import Project
from streamline.project.render import Renderer
from tests.blocks.call_inputs import Calls, Given

PLUGINS = """\
name: shop
plugins:
  tap-shop: {command: [python, tap.py]}
  target-shop: {command: [python, tap.py]}
"""

TAP = """\
import json, os, sys
with open("asked.txt", "a") as asked:
    print(*sys.argv[-1:], file=asked)
if "--help" in sys.argv:
    print("usage: tap --config --catalog --state --discover")
elif "--discover" in sys.argv:
    path = sys.argv[sys.argv.index("--config") + 1]
    config = json.load(open(path))
    if config.get("down"):
        sys.exit("the database is down")
    if "rotate" in config:
        json.dump({**config, "token": config["rotate"]}, open(path, "w"))
    names = config.get("streams") or ["orders", "users"]
    schema = {"type": "object", "properties": {"id": {"type": "integer"}, "note": {"type": ["null", "string"]}}}
    marks = json.loads(config.get("marks", "{}"))
    metadata = [{"breadcrumb": [], "metadata": {"table-key-properties": ["id"], **marks}}]
    entries = [{"tap_stream_id": name, "stream": name, "schema": schema, "metadata": metadata} for name in names]
    print(json.dumps({"streams": entries}))
"""

SOURCE = """\
@data_integration_source
def source(*args, **kwargs):
    return 'shop'


@data_integration_config
def config(*args, **kwargs):
    return {'host': 'localhost'}
"""
DESTINATION = SOURCE.replace("source", "destination")


class Preparing(Calls):
    """A project with a tap and a target named `shop`, and a pipeline `p` with a source or destination block `sync`."""

    def __init__(self, root: Path, settings: str = PLUGINS) -> None:
        root.mkdir(parents=True, exist_ok=True)
        (root / "streamline.yaml").write_text(settings)
        super().__init__(root)
        self.write("tap.py", TAP)
        self.seen: list[Any] = []
        """What the blocks' functions put into `kwargs['seen']`."""

    def source(self, text: str = SOURCE, *inputs: Given, **keys: Any) -> PreparedSource:
        """Prepare a source with this code, or YAML."""
        prepared = self.prepare("data_loader", text, *inputs, **keys)
        assert isinstance(prepared, PreparedSource)
        return prepared

    def destination(self, text: str = DESTINATION, *inputs: Given, **keys: Any) -> PreparedDestination:
        """Prepare a destination with this code, or YAML."""
        prepared = self.prepare("data_exporter", text, *inputs, **keys)
        assert isinstance(prepared, PreparedDestination)
        return prepared

    def prepare(
        self, type: str, text: str, *inputs: Given, configuration: dict[str, Any] | None = None, **variables: Any
    ) -> PreparedSource | PreparedDestination:
        """Prepare a block. Its upstream blocks are the inputs'."""
        model = self.pipeline(type, text, [upstream.uuid for upstream in inputs], configuration)
        call = self.call(model.blocks["sync"], *inputs, variables={"seen": self.seen, **variables})
        call.renderer = Renderer(self.project, variables, block_output=block_output(inputs, "sync"))
        return prepare(call)

    def check(
        self, type: str, text: str, *upstream: str, configuration: dict[str, Any] | None = None
    ) -> frozenset[str]:
        """Check a block before anything runs."""
        model = self.pipeline(type, text, list(upstream), configuration)
        renderer = Renderer(self.project, model.variables, self.project.secrets)
        return check_block(self.project, model, model.blocks["sync"], renderer)

    @property
    def asked(self) -> list[str]:
        """The options that the tap was started with."""
        file = self.root / "asked.txt"
        return file.read_text().split() if file.exists() else []

    def catalog(self, catalog: Any) -> None:
        """Write the block's catalog.json."""
        self.write("pipelines/p/sync/catalog.json", catalog if isinstance(catalog, str) else json.dumps(catalog))

    def line(self, where: str | None) -> str:
        """Return the line of a file that an error names."""
        file, _, line = (where or "").rpartition(":")
        return (self.root / file).read_text().splitlines()[int(line) - 1].strip()

    def pipeline(
        self, type: str, text: str, upstream: list[str], configuration: dict[str, Any] | None = None
    ) -> PipelineModel:
        """Write the pipeline and read it."""
        language = "python" if "def " in text else "yaml"
        self.write(f"{FOLDERS[type]}/sync.{'py' if language == 'python' else 'yaml'}", textwrap.dedent(text))
        blocks: list[dict[str, Any]] = []
        for uuid in upstream:
            self.write(f"custom/{uuid}.py", "@custom\ndef f(*args): ...\n")
            blocks.append({"uuid": uuid, "type": "custom", "language": "python", "upstream_blocks": []})
        block = {"uuid": "sync", "type": type, "language": language, "upstream_blocks": upstream}
        blocks.append({**block, "configuration": configuration or {}})
        self.write("pipelines/p/metadata.yaml", yaml.safe_dump({"type": "python", "blocks": blocks}, sort_keys=False))
        return load_pipeline(Project.open(self.root), "p")
