"""Pipelines of Python blocks, run as flows: the files that a user would write, and what became of the messages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from streamline.blocks.python.file import BlockFile
from streamline.blocks.python.messages.caller import MessageSettings
from streamline.blocks.python.messages.transform import MessageTransform
from streamline.blocks.python.messages.worker import MessageWorker
from streamline.blocks.python.streaming import python_sink, python_source
from streamline.connectors.stream_connector import StreamContext
from streamline.flow.items import BadRecord
from streamline.flow.protocols import Stage
from streamline.flow.router import Route
from streamline.flow.runtime import Flow, FlowOutcome, Runtime
from tests.protocols.memory import Memory

PATIENCE = 30


class Board:
    """What the user's classes and the test tell each other."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.said: list[Any] = []
        self.go = threading.Event()


class Pipeline(msgspec.Struct):
    """How a run ended, and what it left."""

    outcome: FlowOutcome
    board: Board
    store: Memory
    notes: list[str]

    @property
    def got(self) -> list[Any]:
        """What the sink wrote."""
        return self.board.got

    @property
    def saved(self) -> Mapping[str, bytes]:
        """The source's saved parts."""
        return self.store.saved.get("load", {})

    @property
    def refused(self) -> list[BadRecord]:
        """The dead letters."""
        return self.store.refused


Run = Callable[..., Pipeline]

SINK = """
@streaming_sink
class Sink:
    def batch_write(self, messages):
        board.got.extend(messages)
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a source's code, a transformer's and a sink's. `board` in their code is the pipeline's `Board`.

    With `stop_when`, the run is stopped as soon as that says so of the board; with `refuse`, a dead letter raises it.
    """

    def block(name: str, code: str, board: Board) -> BlockFile:
        boards[id(board)] = board
        path = tmp_path / f"{name}.py"
        path.write_text(
            f"from tests.blocks.python.streaming.conftest import boards\nboard = boards[{id(board)}]\n" + code
        )
        return BlockFile(name, str(path))

    def start(
        source: str,
        sink: str = SINK,
        transformer: str | None = None,
        *,
        store: Memory | None = None,
        configuration: Mapping[str, Any] | None = None,
        sink_configuration: Mapping[str, Any] | None = None,
        stop_when: Callable[[Board], bool] | None = None,
        checkpoint_interval: float = 0.05,
        refuse: Exception | None = None,
        memory: dict[str, Any] | None = None,
        **keywords: Any,
    ) -> Pipeline:
        board, notes = Board(), []
        store = store or Memory()

        def context(name: str) -> StreamContext:
            return StreamContext(
                pipeline="p",
                block=name,
                root=tmp_path,
                start=store.saved.get(name, {}),
                checkpoint_interval=checkpoint_interval,
                set_aside=refuse is None,
                memory={} if memory is None else memory,
                note=lambda message, level: notes.append(f"{level}: {message}"),
            )

        loads = python_source(
            block("load", source, board), context("load"), {**keywords, "configuration": configuration or {}}
        )
        exports = python_sink(
            block("export", sink, board), context("export"), {**keywords, "configuration": sink_configuration or {}}
        )
        stages: list[Stage] = []
        if transformer is not None:
            worker = MessageWorker(MessageSettings(block=block("enrich", transformer, board)))
            stages.append(MessageTransform(worker))

        def refused(records: Sequence[BadRecord]) -> None:
            if refuse is not None:
                raise refuse

        flow = Flow(source=loads, route=Route(stages=stages, sinks=[exports]), refused=refused)

        async def main() -> FlowOutcome:
            runtime = Runtime([flow], store=store)

            async def stop() -> None:
                while stop_when is not None and not stop_when(board):
                    await anyio.sleep(0.005)
                runtime.stop("enough", within=20)

            with anyio.fail_after(PATIENCE):
                async with anyio.create_task_group() as tasks:
                    if stop_when is not None:
                        tasks.start_soon(stop)
                    (outcome,) = await runtime.run()
                    tasks.cancel_scope.cancel()
            return outcome

        outcome = anyio.run(main)
        return Pipeline(outcome, board, store, notes)

    return start


boards: dict[int, Board] = {}
"""By id, for the code of blocks."""
