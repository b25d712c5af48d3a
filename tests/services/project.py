"""A project with community connectors, each in an environment of its own that the real command makes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import uv
import yaml

from tests.support.project import Block, Completed, Project

RUN_SECONDS = 600.0

# Connectors of the package index from before Python 3.10 expect these names; see plugins.yaml.
SITECUSTOMIZE = """\
import collections
import collections.abc

vars(collections).update({name: value for name, value in vars(collections.abc).items() if name[0].isupper()})
"""


class CommunityProject(Project):
    """A project folder whose plugins are entries of plugins.yaml.

    Args:
        root: an empty folder, or one that is not there yet.
        plugins: names of the entries that the project may use.
    """

    def __init__(self, root: Path, plugins: Sequence[str] = ()) -> None:
        super().__init__(root)
        entries = yaml.safe_load(Path(__file__).with_name("plugins.yaml").read_text(encoding="utf-8"))["plugins"]
        self.settings["plugins"] = {name: entries[name] for name in plugins}
        self.write("shims/sitecustomize.py", SITECUSTOMIZE)
        # The project has a home folder of its own; packages that are there already need not be fetched again.
        self.env |= {"UV_CACHE_DIR": _uv_cache()}
        self.env |= {name: value for name, value in os.environ.items() if name.startswith(("UV_", "SSL_CERT"))}
        self.env |= {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}

    def integration(
        self,
        name: str,
        *,
        source: Mapping[str, Any],
        destination: Mapping[str, Any],
        transform: str | Mapping[str, Any] | None = None,
    ) -> None:
        """Write a pipeline source → (transformer) → destination, replacing one of that name.

        Args:
            source, destination: the blocks' YAML.
            transform: a Python transformer's text, or a mapper block's YAML.
        """
        blocks = [Block("load", "data_loader", _yaml(source)), Block("export", "data_exporter", _yaml(destination))]
        if isinstance(transform, str):
            blocks.append(Block("change", "transformer", transform, language="python"))
        elif transform is not None:
            blocks.append(Block("change", "transformer", _yaml(transform)))
        self.pipeline(name, *blocks)

    def sync(self, pipeline: str, *options: str) -> Completed:
        """`streamline run PIPELINE`, which must end well; the first use makes the plugins' environments."""
        return self.run(*options, pipeline=pipeline, seconds=RUN_SECONDS).expect(0)

    def moved(self, pipeline: str) -> dict[str, int]:
        """Records that the pipeline's newest run read, by stream."""
        newest = json.loads(self.command("runs", "show", "--json").expect(0).out)
        assert newest["pipeline"] == pipeline, newest
        return {stream["stream"]: stream["read"] for stream in newest["summary"]["streams"]}


MakeCommunity = Callable[..., CommunityProject]


def _yaml(content: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(content), sort_keys=False)


@cache
def _uv_cache() -> str:
    return subprocess.run([uv.find_uv_bin(), "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
