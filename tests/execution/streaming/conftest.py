"""A streaming pipeline for tests, run in their own process with a connector in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml

from streamline.connectors import registry
from streamline.connectors.kafka import clients
from streamline.connectors.registry import InProcess
from streamline.execution.engine import run_pipeline
from streamline.execution.events import Event
from streamline.execution.flow_runs import open_planning
from streamline.execution.run import RunOptions, RunResult
from streamline.execution.streaming.plan import Plan
from streamline.execution.streaming.planner import make_plan
from streamline.pipeline.model import PipelineModel
from streamline.pipeline.reader import load_pipeline
from streamline.project.project import Project
from tests.connectors.kafka.fake import FakeCluster
from tests.execution.streaming import memory
from tests.execution.streaming.memory import World
from tests.support.batch import BatchProject

if TYPE_CHECKING:
    from tests.execution.streaming.shop import Shop


class Stream:
    """A project with the pipeline `p` of type streaming."""

    def __init__(self, folder: Path) -> None:
        self.files = BatchProject(folder / "shop")
        self.files.type = "streaming"
        self.events: list[Event] = []

    @property
    def world(self) -> World:
        """What exists outside of the pipeline."""
        return memory.CONNECTOR.world

    def keys(self, **keys: Any) -> None:
        """Set keys of the pipeline."""
        self.files.keys.update(keys)
        self.files.save()

    def source(self, uuid: str = "load", messages: Sequence[Any] = (), **config: Any) -> None:
        """Add a source of these messages."""
        text = yaml.safe_dump({"connector_type": "memory", "messages": list(messages), **config})
        self.files.block(uuid, text, type="data_loader", language="yaml", upstream=[])

    def sink(self, uuid: str = "export", upstream: Sequence[str] | None = None, **config: Any) -> None:
        """Add a sink."""
        text = yaml.safe_dump({"connector_type": "memory", **config})
        self.files.block(uuid, text, type="data_exporter", language="yaml", upstream=upstream)

    def transformer(self, uuid: str, code: str, upstream: Sequence[str] | None = None, **entry: Any) -> None:
        """Add a transformer."""
        self.files.block(uuid, code, upstream=upstream, **entry)

    @property
    def project(self) -> Project:
        """The project, read again."""
        return Project.open(self.files.root)

    def model(self) -> PipelineModel:
        """The pipeline, read again."""
        return load_pipeline(self.project, "p")

    def plan(self, **options: Any) -> Plan:
        """Make the plan."""
        model = self.model()
        with open_planning(self.project, model, RunOptions(**options), "test") as run:
            return make_plan(run, model)

    def run(self, **options: Any) -> RunResult:
        """Run it to its end."""
        return run_pipeline(self.project, self.model(), RunOptions(**options), self.events.append)

    def of(self, kind: type[msgspec.Struct]) -> list[Any]:
        """The events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stream:
    """An empty pipeline."""
    monkeypatch.setattr(memory.CONNECTOR, "world", World())
    entry = InProcess(stream="tests.execution.streaming.memory:CONNECTOR")
    monkeypatch.setattr(registry, "IN_PROCESS", {**registry.IN_PROCESS, "memory": entry})
    return Stream(tmp_path)


@pytest.fixture
def shop(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """Two topics on a Kafka cluster in memory, and a block between them."""
    from tests.execution.streaming.shop import Shop

    cluster = FakeCluster()
    monkeypatch.setattr(clients, "kafka_client", lambda name, **_: cluster)
    return Shop(stream, cluster)
