"""Base classes of Python sources and sinks. Streamline needs none; files that name them get what they expect:
the constructor connects, and every method that need not be written has a default.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

from streamline.project.files import replace_file

Handler = Callable[[list[Any]], Any]


class SourceConsumeMethod(StrEnum):
    """Which of a source's methods is called."""

    BATCH_READ = "BATCH_READ"
    READ = "READ"
    READ_ASYNC = "READ_ASYNC"


class _Connected:
    """What sources and sinks share."""

    def init_client(self) -> None:
        """Connect."""

    def destroy(self) -> None:
        """Disconnect."""

    def test_connection(self) -> bool:
        """Return whether the other side answers."""
        return True

    def print(self, msg: Any) -> None:
        """Write a line to the run's log."""
        self._print(msg)

    def _print(self, msg: Any) -> None:
        print(f"[{type(self).__name__}] {msg}")


class BaseSource(_Connected):
    """A source of messages.

    Args:
        config: its YAML, for subclasses.
        checkpoint_path: a file that the source may keep its place in, beside the positions that Streamline keeps.
    """

    consume_method: str = SourceConsumeMethod.BATCH_READ

    def __init__(self, config: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self.config = config
        self.checkpoint_path: str | None = kwargs.get("checkpoint_path")
        self.checkpoint = self.read_checkpoint()
        self.init_client()
        self.test_connection()

    def read(self, handler: Handler) -> None:
        """Hand single messages to the handler; for `consume_method = READ`."""

    def batch_read(self, handler: Handler) -> None:
        """Hand lists of messages to the handler; for `consume_method = BATCH_READ`."""

    async def read_async(self, handler: Handler) -> None:
        """Read messages for `consume_method = READ_ASYNC`."""
        self.read(handler)

    def read_checkpoint(self) -> Any:
        """Return what `update_checkpoint` wrote last; None if there is nothing."""
        if self.checkpoint_path is None or not Path(self.checkpoint_path).exists():
            return None
        return json.loads(Path(self.checkpoint_path).read_text(encoding="utf-8"))

    def update_checkpoint(self) -> None:
        """Write `self.checkpoint` down, whole or not at all."""
        if self.checkpoint_path is None or self.checkpoint is None:
            return
        replace_file(Path(self.checkpoint_path), json.dumps(self.checkpoint))


class BasePythonSource(BaseSource):
    """The base of classes under `@streaming_source`, which have no YAML."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(None, **kwargs)


class BaseSink(_Connected):
    """A sink for messages."""

    def __init__(self, config: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self.config = config
        self.buffer: list[Any] = []
        self.init_client()

    def write(self, message: Any) -> None:
        """Write one message."""
        self.batch_write([message])

    def batch_write(self, messages: list[Any]) -> None:
        """Write messages; they are durable when it returns."""
        raise NotImplementedError(f"{type(self).__name__} needs a method batch_write(messages)")


class BasePythonSink(BaseSink):
    """The base of classes under `@streaming_sink`, which have no YAML."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(None, **kwargs)
