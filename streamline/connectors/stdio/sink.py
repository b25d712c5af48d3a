"""A sink that writes messages to the standard output, as lines."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from streamline.connectors.kafka.serialization.json_text import encode_json
from streamline.connectors.refusals import Message
from streamline.connectors.stream_connector import StreamContext
from streamline.connectors.thread_sink import StreamWriter, ThreadSink
from streamline.errors import StreamlineError
from streamline.flow.items import BadRecord, MessageBatch, Position

ROOM = 5_000
"""Messages that wait in memory."""


class Output:
    """Where the standard output of this process leads.

    Attributes:
        fd: its descriptor. The command sets another, and gives what else is printed to stderr.
    """

    fd = 1


OUTPUT = Output()


class OutputClosed(StreamlineError):
    """Nobody reads the standard output, or it cannot be written."""

    code = "stdout.closed"


class StdoutSink(ThreadSink):
    """Writes a line for each message.

    Args:
        as_text: strings and bytes are written as they are, not as JSON.
    """

    def __init__(self, context: StreamContext, *, as_text: bool, output: Output = OUTPUT) -> None:
        super().__init__(context.block, room=ROOM, note=context.note)
        self._as_text = as_text
        self._output = output

    def _open(self) -> StreamWriter:
        return LineWriter(self.id, self._output.fd, self._refuse, self._prove, as_text=self._as_text)


class LineWriter:
    """Implements `StreamWriter`.

    Args:
        refuse: called with a source's id and a message of it that cannot be written.
        prove: called with numbers of positions, by source.
    """

    def __init__(
        self,
        id: str,
        fd: int,
        refuse: Callable[[str, BadRecord], None],
        prove: Callable[[dict[str, int]], None],
        *,
        as_text: bool,
    ) -> None:
        self._id = id
        self._fd = fd
        self._refuse = refuse
        self._prove = prove
        self._as_text = as_text

    def take(self, source: str, batch: MessageBatch) -> None:
        """See `StreamWriter.take`."""
        lines: list[bytes] = []
        for number, data in enumerate(batch.data):
            try:
                lines.append(self._line(data))
            except ValueError as error:
                self._write(lines)
                lines = []
                self._refuse(source, Message(source, batch, number).refused(str(error), self._id))
        self._write(lines)

    def reach(self, source: str, position: Position) -> None:
        """See `StreamWriter.reach`."""
        self._prove({source: position.number})

    def patience(self) -> float | None:
        """See `StreamWriter.patience`."""
        return None

    def rest(self, *, hurry: bool) -> None:
        """See `StreamWriter.rest`."""

    def _line(self, data: Any) -> bytes:
        if self._as_text and isinstance(data, str | bytes):
            return data.encode() if isinstance(data, str) else data
        return encode_json(data)

    def _write(self, lines: Sequence[bytes]) -> None:
        left = memoryview(b"".join(line + b"\n" for line in lines))
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except OSError as error:
                raise OutputClosed(
                    f"cannot write the standard output: {error.strerror}",
                    hint="the program that reads it has ended, or the disk is full",
                ) from None
