"""A new kind of source and a new kind of sink: this is all that they take."""

from __future__ import annotations

import inspect

import pytest

from streamline.flow.items import Position, RowBatch
from streamline.flow.router import Route
from streamline.flow.runtime import Flow, Runtime
from tests.protocols.memory import Memory

pytestmark = pytest.mark.anyio


class Letters:
    """A source of the letters of a word, one a record, with a position after each."""

    def __init__(self, word, start):
        self.id, self.word, self.start, self.stopped, self.confirmed = "word", word, start, None, {}

    async def run(self, emit):
        for number, letter in enumerate(self.word[self.start :], start=self.start + 1):
            if self.stopped is None:
                await emit(
                    [RowBatch("letters", [{"letter": letter}]), Position(self.id, number, {"at": b"%d" % number})]
                )

    def stop(self, reason):
        self.stopped = reason

    async def confirm(self, parts):
        self.confirmed.update(parts)

    async def release(self, keys): ...


class Text:
    """A sink that puts letters together, as long as there is room for them."""

    def __init__(self, room):
        self.id, self.room, self.text = "text", room, ""

    async def run(self, proven, failed):
        self.proven, self.failed = proven, failed

    async def send(self, source, items):
        for item in items:
            if isinstance(item, RowBatch):
                if len(self.text) == self.room:
                    self.failed(error := OSError("no room is left"))
                    raise error
                self.text += item.rows[0]["letter"]
            elif isinstance(item, Position):
                self.proven(source, item.number)

    async def source_ended(self, source): ...

    def limit(self, seconds): ...

    async def close(self): ...


def test_they_are_short() -> None:
    assert sum(len([line for line in inspect.getsource(each).splitlines() if line]) for each in (Letters, Text)) < 40


async def test_they_run_with_positions_proof_and_replay() -> None:
    store, first = Memory(), Text(room=4)
    (outcome,) = await Runtime([Flow(source=Letters("streamline", 0), route=Route(sinks=[first]))], store=store).run()
    assert (str(outcome.error), outcome.sink) == ("no room is left", "text")
    assert (first.text, store.saved) == ("stre", {"word": {"at": b"4"}})
    second, source = Text(room=10), Letters("streamline", int(store.saved["word"]["at"]))
    (outcome,) = await Runtime([Flow(source=source, route=Route(sinks=[second]))], store=store).run()
    assert outcome.error is None
    assert first.text + second.text == "streamline"
    assert store.saved["word"] == source.confirmed == {"at": b"10"}
