"""Dead letters of streaming pipelines are sent again, from the stage that refused them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from streamline.errors import StreamlineError
from streamline.execution.run import new_run_id
from streamline.execution.streaming import letter_waves
from streamline.execution.streaming.letter_waves import Waves
from streamline.execution.streaming.resend import Outcome, resend
from streamline.state import project_store
from streamline.state.store import DeadLetter
from tests.execution.streaming import memory
from tests.execution.streaming.conftest import Stream

STRICT = """
@transformer
def clean(messages, *args, **kwargs):
    for message in messages:
        if message["n"] in BAD:
            raise ValueError(f"{message['n']} is bad")
    return RESULT
"""


def strict(bad: Sequence[int], result: str = "messages") -> str:
    """Return a transformer that raises on some messages."""
    return STRICT.replace("BAD", repr(list(bad))).replace("RESULT", result)


NEW = '[{"n": message["n"], "by": [*message.get("by", []), kwargs["block_uuid"]]} for message in messages]'
"""New messages, which name the blocks that made them."""


def message(n: int, key: str | None = None) -> dict[str, Any]:
    return {"n": n, "key": key}


def retry(stream: Stream, *, overwrite: bool = False, **which: Any) -> Outcome:
    with project_store(stream.project) as store:
        # The end of a run kills the processes that have its id.
        return resend(stream.project, store, "p", new_run_id(), store.dead_letters("p", **which), overwrite=overwrite)


def letters(stream: Stream) -> list[DeadLetter]:
    with project_store(stream.project) as store:
        return store.dead_letters("p")


def places(stream: Stream) -> list[tuple[int | None, str, str]]:
    return [(letter.offset, letter.stage, letter.error.partition("\n")[0]) for letter in letters(stream)]


def written(stream: Stream, sink: str = "export") -> list[Any]:
    return [row["n"] for row in stream.world.written.get(sink, [])]


@pytest.fixture
def graph(stream: Stream) -> Callable[..., Stream]:
    """load → clean → enrich → (a, b); `make` writes the transformers, and the source's messages."""

    def make(
        ns: Sequence[int] = (), *, clean: Sequence[int] = (), enrich: Sequence[int] = (), keys: str = "", **sinks: Any
    ) -> Stream:
        stream.files.entries["blocks"].clear()
        messages = [message(n, keys[number] if keys else None) for number, n in enumerate(ns)]
        stream.source(messages=messages, decodes=True, keyed=bool(keys))
        stream.transformer("clean", strict(clean, NEW if sinks.pop("new", True) else "messages"), ["load"])
        stream.transformer("enrich", strict(enrich, NEW), ["clean"])
        for sink in ("a", "b"):
            stream.sink(sink, ["enrich"], **sinks.get(sink, {}))
        stream.files.save()
        return stream

    return make


def test_letters_go_on_from_the_stage_that_refused_them(graph: Callable[..., Stream]) -> None:
    stream = graph([1, 2, 3, 4], clean=[2], enrich=[3])
    assert stream.run().status == "completed"
    assert written(stream, "a") == written(stream, "b") == [1, 4]
    assert [(letter.stage, letter.form, letter.offset, letter.value) for letter in letters(stream)] == [
        ("clean", "value", 1, b'{"key": null, "n": 2}'),
        ("enrich", "json", 2, b'{"key": null, "n": 3}'),
    ]
    graph([1, 2, 3, 4])
    outcome = retry(stream)
    assert (outcome.arrived, outcome.refused, outcome.failure) == (2, 0, None)
    assert letters(stream) == []
    for sink in ("a", "b"):
        assert sorted(written(stream, sink)[2:]) == [2, 3]
        assert [row["by"] for row in stream.world.written[sink][2:]] == [["clean", "enrich"]] * 2


def test_a_letter_of_a_sink_goes_to_that_sink_alone(stream: Stream) -> None:
    stream.source(messages=[message(1), message(2)], decodes=True)
    stream.sink("a", ["load"], refuse=message(2))
    stream.sink("b", ["load"])
    stream.run()
    assert (written(stream, "a"), written(stream, "b")) == ([1], [1, 2])
    stream.files.write("data_exporters/a.yaml", "connector_type: memory\n")
    assert retry(stream).arrived == 1
    assert (written(stream, "a"), written(stream, "b")) == ([1, 2], [1, 2])
    assert letters(stream) == []


def test_what_is_refused_again_stays_with_its_new_error(graph: Callable[..., Stream]) -> None:
    stream = graph([1, 2, 3], clean=[2, 3])
    stream.run()
    before = letters(stream)
    graph([1, 2, 3], clean=[2])
    stream.files.write("transformers/clean.py", strict([2], NEW).replace("is bad", "is still bad"))
    outcome = retry(stream)
    assert (outcome.arrived, outcome.refused) == (1, 1)
    (letter,) = letters(stream)
    assert (letter.id, letter.times, letter.offset) == (before[0].id, 2, 1)
    assert letter.run_id != before[0].run_id
    assert "2 is still bad" in letter.error
    assert letter.trace is not None


def test_what_a_later_stage_refuses_waits_there(graph: Callable[..., Stream]) -> None:
    stream = graph([1, 2], clean=[2])
    stream.run()
    graph([1, 2], enrich=[2])
    outcome = retry(stream)
    assert (outcome.arrived, outcome.refused) == (0, 1)
    assert [(offset, stage) for offset, stage, _ in places(stream)] == [(1, "enrich")]
    graph([1, 2])
    assert retry(stream).arrived == 1
    assert stream.world.written["a"][-1] == {"n": 2, "by": ["clean", "enrich"]}
    assert letters(stream) == []


def test_a_letter_is_not_discarded_before_the_one_that_follows_it_is_kept(
    graph: Callable[..., Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = graph([1, 2], clean=[2])
    stream.run()
    graph([1, 2], enrich=[2])

    def fail(*args: Any, **given: Any) -> None:
        raise StreamlineError("not now")

    with project_store(stream.project) as store, monkeypatch.context() as patch:
        patch.setattr(type(store), "save", fail)
        with pytest.raises(StreamlineError):
            retry(stream)
    assert [stage for _, stage, _ in places(stream)] == ["clean"]


def test_what_a_sink_refuses_of_a_retry_is_a_letter_of_that_sink(graph: Callable[..., Stream]) -> None:
    stream = graph([1, 2], clean=[2])
    stream.run()
    refuse = {"n": 2, "by": ["clean", "enrich"]}
    graph([1, 2], a={"refuse": refuse})
    outcome = retry(stream)
    assert outcome.refused == 1
    assert [(letter.stage, letter.destination) for letter in letters(stream)] == [("a", "a")]
    assert written(stream, "b") == [1, 2]
    graph([1, 2])
    assert retry(stream).arrived == 1
    assert (written(stream, "a"), written(stream, "b")) == ([1, 2], [1, 2])


def test_letters_of_a_key_arrive_in_order_and_wait_behind_one_that_is_refused_again(
    graph: Callable[..., Stream],
) -> None:
    ns = list(range(8))
    stream = graph(ns, keys="xyxyxyxy", clean=[0, 1, 3, 5, 6, 7], enrich=[2, 4], new=False)
    stream.run()
    assert len(letters(stream)) == 8
    graph(ns, keys="xyxyxyxy", clean=[3], new=False)
    outcome = retry(stream)
    assert (outcome.arrived, outcome.refused, outcome.held) == (5, 1, 2)
    assert [n for n in written(stream, "a") if n % 2 == 0] == [0, 2, 4, 6]
    assert [n for n in written(stream, "a") if n % 2] == [1]
    assert sorted(offset or 0 for offset, _, _ in places(stream)) == [3, 5, 7]
    graph(ns, keys="xyxyxyxy")
    assert retry(stream).arrived == 3
    assert [n for n in written(stream, "a") if n % 2] == [1, 3, 5, 7]


def test_a_key_that_was_written_since_is_not_overwritten_unasked(graph: Callable[..., Stream]) -> None:
    stream = graph([1, 2, 3], keys="xxy", clean=[1, 3], a={"replaces": True})
    stream.run()
    assert {letter.offset: letter.written_since for letter in letters(stream)} == {0: 1, 2: None}
    graph([1, 2, 3], keys="xxy", a={"replaces": True})
    outcome = retry(stream)
    assert outcome.arrived == 1
    assert len(outcome.unsendable) == 1
    assert written(stream, "a") == [2, 3]
    assert retry(stream, overwrite=True).arrived == 1
    assert written(stream, "a") == [2, 3, 1]


def test_parked_messages_follow_the_letter_of_their_key(graph: Callable[..., Stream]) -> None:
    stream = graph([1], keys="x", clean=[1])
    stream.keys(park="key")
    stream.run()
    # Another run: within one, some may have passed the source before the letter was made, and wait before the sinks.
    graph([1, 2, 3, 4, 5], keys="xyxxy", clean=[1]).run()
    assert written(stream, "a") == [2, 5]
    assert [offset for offset, _, _ in places(stream)] == [0, 2, 3]
    graph([1, 2, 3, 4, 5], keys="xyxxy", clean=[3])
    outcome = retry(stream)
    assert (outcome.arrived, outcome.refused, outcome.held) == (1, 1, 1)
    graph([1, 2, 3, 4, 5], keys="xyxxy")
    assert retry(stream).arrived == 2
    assert written(stream, "a") == [2, 5, 1, 3, 4]


def test_a_letter_does_not_overtake_an_earlier_one_of_its_key_unasked(graph: Callable[..., Stream]) -> None:
    stream = graph([1], keys="x", clean=[1], a={"replaces": True})
    stream.keys(park="key")
    stream.run()
    graph([1, 2, 3], keys="xxy", clean=[1, 3], a={"replaces": True}).run()
    first, second, other = (letter.id for letter in letters(stream))
    graph([1, 2, 3], keys="xxy", a={"replaces": True})
    outcome = retry(stream, ids=[second, other])
    assert (outcome.arrived, list(outcome.unsendable)) == (1, [second])
    assert retry(stream, ids=[second], overwrite=True).arrived == 1
    assert written(stream, "a") == [3, 2]
    # Now the first one is the older one.
    outcome = retry(stream)
    assert (outcome.arrived, list(outcome.unsendable)) == (0, [first])
    assert retry(stream, overwrite=True).arrived == 1
    assert letters(stream) == []


def test_a_retry_that_is_interrupted_keeps_what_has_not_arrived(
    graph: Callable[..., Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    ns = list(range(40))
    stream = graph(ns, keys="x" * 40, clean=ns)
    stream.run()
    graph(ns, keys="x" * 40)
    write = memory.MemorySink._write

    def write_and_interrupt(sink: memory.MemorySink, *args: Any) -> None:
        write(sink, *args)
        if sink.id == "a" and len(written(stream, "a")) == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(memory.MemorySink, "_write", write_and_interrupt)
    outcome = retry(stream)
    assert (outcome.interrupted, outcome.failure) == (signal.SIGTERM, None)
    assert 0 < outcome.arrived < 40
    assert written(stream, "a") == written(stream, "b") == ns[: outcome.arrived]
    assert [offset for offset, _, _ in places(stream)] == ns[outcome.arrived :]


def test_letters_whose_place_is_gone_stay(graph: Callable[..., Stream], stream: Stream) -> None:
    graph([1, 2, 3, 4], clean=[2], enrich=[3]).run()
    stream.files.entries["blocks"].clear()
    stream.source(messages=[], decodes=True)
    stream.transformer("clean", strict([]), ["load"])
    stream.sink("a", ["clean"])
    stream.files.save()
    outcome = retry(stream)
    assert (outcome.arrived, len(outcome.unsendable)) == (1, 1)
    assert [stage for _, stage, _ in places(stream)] == ["enrich"]


def test_data_that_cannot_be_restored_is_made_anew_from_the_message(stream: Stream) -> None:
    make = """
class Order:
    def __init__(self, n): self.n = n
    def __getitem__(self, name): return self.n

@transformer
def clean(messages, *args, **kwargs):
    return [Order(message["n"]) for message in messages]
"""
    stream.source(messages=[message(1), message(2)], decodes=True)
    stream.transformer("clean", make, ["load"])
    stream.transformer("enrich", strict([2], '[{"n": each["n"]} for each in messages]'), ["clean"])
    stream.sink("a", ["enrich"])
    stream.run()
    assert [(letter.stage, letter.form, letter.offset) for letter in letters(stream)] == [("enrich", "text", 1)]
    stream.files.write("transformers/enrich.py", strict([], '[{"n": each["n"]} for each in messages]'))
    assert retry(stream).arrived == 1
    assert written(stream, "a") == [1, 2]


def test_a_sink_that_fails_ends_it_and_what_has_not_arrived_stays(graph: Callable[..., Stream]) -> None:
    stream = graph([1, 2, 3], clean=[2, 3], keys="xxx", new=False)
    stream.run()
    graph([1, 2, 3], keys="xxx", new=False)
    stream.files.write("data_exporters/a.yaml", "connector_type: memory\nfail_at: {n: 3, by: [enrich]}\n")
    outcome = retry(stream)
    assert outcome.failure is not None
    assert [offset for offset, _, _ in places(stream)] == [2]
    stream.files.write("data_exporters/a.yaml", "connector_type: memory\n")
    assert retry(stream).arrived == 1
    assert written(stream, "a") == [1, 2, 3]


# -- the order


def letter(id: int, offset: int | None, key: bytes | None = b"k", **fields: Any) -> DeadLetter:
    names = {"pipeline": "p", "block": "load", "stream": "t", "run_id": "r", "record": "", "error": "", "stage": "s"}
    place = {"topic": "t", "partition": 0} if offset is not None else {}
    return DeadLetter(**{**names, **place, "id": id, "offset": offset, "key": key, **fields})


def waves(given: dict[str | None, list[DeadLetter]], refuse: Sequence[int] = ()) -> tuple[list[list[int]], list[int]]:
    """Return the ids of each wave's letters, and of those that were held back."""

    async def run() -> tuple[list[list[int]], list[int]]:
        made = Waves(given)
        rounds: dict[int, list[int]] = {}

        async def take(flow: str) -> None:
            while (wave := await made.next(flow)) is not None:
                number, letters = wave
                rounds.setdefault(number, []).extend(letter.id for letter in letters)
                for each in letters:
                    if each.id in refuse:
                        made.refused(each)
                await anyio.lowlevel.checkpoint()
                made.settled(flow)

        async with anyio.create_task_group() as tasks:
            for flow in given:
                if flow is not None:
                    tasks.start_soon(take, flow)
        return [sorted(rounds[number]) for number in sorted(rounds)], [letter.id for letter in made.held]

    return anyio.run(run)


def test_a_wave_has_one_message_of_a_key() -> None:
    given = {
        "clean": [letter(1, 5), letter(2, 3), letter(3, 4, b"other"), letter(4, 9, None)],
        "a": [letter(5, 4), letter(6, 5), letter(7, 1, None)],
    }
    assert waves({**given}) == ([[2, 3, 4, 7], [5], [1, 6]], [])


def test_what_is_behind_a_refused_one_is_held_back() -> None:
    given: dict[str | None, list[DeadLetter]] = {"clean": [letter(1, 1), letter(2, 2), letter(3, 2, b"other")]}
    assert waves(given, refuse=[1]) == ([[1, 3]], [2])
    given[None] = [letter(4, 0)]
    assert waves(given) == ([[3]], [1, 2])
    assert waves({None: [letter(4, 0)], "clean": []}) == ([], [])


def test_messages_without_offsets_go_by_their_times() -> None:
    given: dict[str | None, list[DeadLetter]] = {
        "clean": [letter(1, None, time="2026-11-30T12:00:01.000Z"), letter(2, None, time="2026-11-30T12:00:00.000Z")]
    }
    assert waves(given) == ([[2], [1]], [])


def test_waves_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letter_waves, "MAX_WAVE", 2)
    assert waves({"clean": [letter(n, n, None) for n in range(1, 6)]}) == ([[1, 2], [3, 4], [5]], [])
