"""A project with a pipeline `shop` of one source block, and the command line run inside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from click.testing import CliRunner, Result

from streamline.cli import main as cli
from streamline.cli.main import main
from streamline.state import open_store
from streamline.state.store import BookmarkSave, Store


class Shop:
    """The project, and ways to look at it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, *args: str, code: int = 0, stdin: str | None = None) -> Result:
        """Run `streamline ARGS`; its exit code must be `code`."""
        result = CliRunner().invoke(main, ["--project", str(self.root), *args], input=stdin)
        assert result.exit_code == code, result.output
        return result

    def refuses(self, failure: str, *args: str, code: int = 2, stdin: str | None = None) -> str:
        """Run `streamline ARGS`, which fails with this code (`usage`: the command's syntax); return what it printed."""
        with mock.patch.object(cli, "report", wraps=cli.report) as report:
            result = self(*args, code=code, stdin=stdin)
        (error, _) = report.call_args.args
        assert getattr(error, "code", "usage") == failure, error
        return result.output

    def json(self, *args: str) -> Any:
        """What `streamline ARGS --json` prints, decoded."""
        return json.loads(self(*args, "--json").stdout)

    def store(self) -> Store:
        return open_store("sqlite:///.streamline/state.db", self.root)

    def save(self, run: str, block: str = "load", pipeline: str = "shop", **values: str) -> None:
        """Save bookmarks as a run does."""
        store = self.store()
        store.save(pipeline, block, run, [BookmarkSave(stream=s, value=v, sinks=["export"]) for s, v in values.items()])
        store.close()

    def pipeline(self, name: str, *sources: str) -> None:
        """A pipeline of source blocks that all feed one destination."""
        folder = self.root / "pipelines" / name
        folder.mkdir(parents=True)
        blocks = [{"uuid": uuid, "type": "data_loader", "language": "yaml"} for uuid in sources]
        blocks.append({"uuid": "export", "type": "data_exporter", "language": "yaml", "upstream_blocks": list(sources)})
        (folder / "metadata.yaml").write_text(json.dumps({"type": "integration", "name": name, "blocks": blocks}))
        for uuid in sources:
            (self.root / "data_loaders").mkdir(exist_ok=True)
            (self.root / "data_loaders" / f"{uuid}.yaml").write_text("source: tap-x\n")
        (self.root / "data_exporters").mkdir(exist_ok=True)
        (self.root / "data_exporters" / "export.yaml").write_text("destination: target-x\n")


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    (tmp_path / "streamline.yaml").write_text("name: shop\n")
    shop = Shop(tmp_path)
    shop.pipeline("shop", "load")
    return shop
