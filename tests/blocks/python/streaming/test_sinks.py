"""Python sinks: what their classes are given, when that counts, and what they refuse."""

from __future__ import annotations

import pytest

from streamline.connectors.python import isolation
from streamline.errors import StreamlineError
from tests.blocks.python.streaming.conftest import Run
from tests.protocols.memory import Memory

SOURCE = """
@streaming_source
class Source:
    def batch_read(self, handler):
        handler([{"n": number} for number in range(%d)], position=1)
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "PAUSES", (0.0, 0.0, 0.0, 0.0))


def sink(body: str, rest: str = "") -> str:
    lines = "".join(f"        {line}\n" for line in body.splitlines())
    return f"@streaming_sink\nclass Sink:\n    def batch_write(self, messages):\n{lines}\n{rest}"


def test_a_call_gets_batch_size_messages_at_most_and_never_none(run: Run) -> None:
    done = run(SOURCE % 25, sink("board.got.append(len(messages))"), sink_configuration={"batch_size": 10})
    assert done.got == [10, 10, 5]
    none = run(
        SOURCE % 3, sink("board.got.append(1)"), "@transformer\ndef drop(messages, **kwargs):\n    return None\n"
    )
    assert none.got == []
    assert none.saved == {"position": b"1"}


def test_a_sink_may_take_messages_one_by_one(run: Run) -> None:
    code = "@streaming_sink\nclass Sink:\n    def write(self, message):\n        board.got.append(10 // message['n'])\n"
    done = run(SOURCE % 4, code)
    assert done.got == [10, 5, 3]
    assert [letter.record for letter in done.refused] == [b'{"n":0}']


@pytest.mark.parametrize("base", ["", "(BasePythonSink)"])
def test_a_class_is_made_once(run: Run, base: str) -> None:
    done = run(
        SOURCE % 1,
        f"""
from mage_ai.streaming.sinks.base_python import BasePythonSink


@streaming_sink
class Sink{base}:
    def init_client(self):
        board.said.append(("init_client", self.global_vars["env"]))

    def batch_write(self, messages):
        self._print("writing")
        board.got.extend(messages)

    def destroy(self):
        board.said.append("destroy")
""",
        env="test",
    )
    assert done.outcome.error is None
    assert done.board.said == [("init_client", "test"), "destroy"]
    assert done.got == [{"n": 0}]


def test_what_was_written_counts_when_flush_returns(run: Run) -> None:
    done = run(
        SOURCE % 3,
        sink("self.waiting = messages", "    def flush(self):\n        board.got.extend(self.waiting)\n"),
    )
    assert done.got == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert done.saved == {"position": b"1"}
    failed = run(SOURCE % 3, sink("pass", "    def flush(self):\n        raise OSError('down')\n"))
    assert isinstance(failed.outcome.error, StreamlineError)
    assert failed.saved == {}


def test_flush_is_called_at_intervals_while_the_sink_is_idle(run: Run) -> None:
    done = run(
        """
@streaming_source
class Source:
    def batch_read(self, handler):
        handler([1], position=1)
        assert board.go.wait(20)
""",
        sink("board.got.extend(messages)", "    def flush(self):\n        board.go.set()\n"),
    )
    assert done.outcome.error is None


def test_one_bad_message_is_refused_and_the_others_arrive_in_order(run: Run) -> None:
    done = run(
        SOURCE % 100,
        sink("for m in messages:\n    if m['n'] == 41: raise RuntimeError('no')\nboard.got.extend(messages)"),
    )
    assert done.outcome.error is None
    assert [message["n"] for message in done.got] == [number for number in range(100) if number != 41]
    (letter,) = done.refused
    assert (letter.record, letter.stage, letter.sink) == (b'{"n":41}', "export", "export")
    assert "RuntimeError: no" in letter.error
    assert letter.trace is not None
    assert done.saved == {"position": b"1"}


def test_messages_that_were_changed_before_it_raised_are_given_as_they_were(run: Run) -> None:
    done = run(
        SOURCE % 4,
        sink("for m in messages:\n    m['id'] = 6 // m.pop('n')\nboard.got.extend(messages)"),
    )
    assert done.got == [{"id": 6}, {"id": 3}, {"id": 2}]
    assert [letter.record for letter in done.refused] == [b'{"n":0}']


def test_an_outage_is_waited_for(run: Run) -> None:
    done = run(
        SOURCE % 50,
        "calls = []\n"
        + sink(
            "calls.append(1)\nif 3 < len(calls) < 13:\n    raise ConnectionError('down')\nboard.got.extend(messages)"
        ),
        sink_configuration={"batch_size": 10},
    )
    assert done.outcome.error is None
    assert [message["n"] for message in done.got] == list(range(50))
    assert done.refused == []


@pytest.mark.parametrize("error", ["ConnectionError", "RuntimeError"])
def test_a_sink_that_writes_nothing_any_more_fails_and_refuses_nothing(run: Run, error: str) -> None:
    done = run(
        SOURCE % 50,
        sink(f"if board.got: raise {error}('down')\nboard.got.extend(messages)"),
        sink_configuration={"batch_size": 10},
    )
    assert done.outcome.sink == "export"
    assert isinstance(done.outcome.error, StreamlineError)
    assert done.outcome.error.code == "streaming_class.failed"
    assert done.refused == []
    assert done.saved == {}


BAD_AT_THE_END = "if any(message['n'] > 6 for message in messages):\n    raise %s('no')\nboard.got.extend(messages)"


def test_messages_at_the_end_are_bad_if_the_connection_is_good(run: Run) -> None:
    test = "    def test_connection(self):\n        return %s\n"
    done = run(SOURCE % 10, sink(BAD_AT_THE_END % "RuntimeError", test % True))
    assert done.outcome.error is None
    assert [letter.record for letter in done.refused] == [b'{"n":7}', b'{"n":8}', b'{"n":9}']
    # It is asked again when messages cannot be written.
    done = run(SOURCE % 10, sink(BAD_AT_THE_END % "RuntimeError", test % "not board.got"))
    assert done.outcome.error is not None
    assert done.refused == []


@pytest.mark.parametrize(("good", "failed"), [(7, 1), (0, isolation.ATTEMPTS)])
def test_messages_at_which_attempts_fail_again_and_again_are_bad(run: Run, good: int, failed: int) -> None:
    memory: dict[str, object] = {}
    code = (BAD_AT_THE_END % "RuntimeError").replace("> 6", f">= {good}")
    for _ in range(failed):
        done = run(SOURCE % (good + 3), sink(code), memory=memory)
        assert done.outcome.error is not None
        assert done.refused == []
    done = run(SOURCE % (good + 3), sink(code), memory=memory)
    assert done.outcome.error is None
    assert len(done.refused) == 3


def test_an_outage_makes_no_message_bad_however_many_attempts_fail(run: Run) -> None:
    memory: dict[str, object] = {}
    for _ in range(isolation.ATTEMPTS + 2):
        done = run(SOURCE % 5, sink("raise ConnectionError('down')"), memory=memory)
        assert done.outcome.error is not None
        assert done.refused == []


def test_what_a_database_refuses_is_no_outage(run: Run) -> None:
    done = run(SOURCE % 10, "class DataError(Exception): pass\n" + sink(BAD_AT_THE_END % "DataError"))
    assert done.outcome.error is None
    assert len(done.refused) == 3


def test_what_no_outage_raises_is_refused_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "PAUSES", (60.0,))
    done = run(SOURCE % 5, sink("raise ValueError('never')"))
    assert done.outcome.error is None
    assert len(done.refused) == 5


def test_metadata_is_given_where_it_is_asked_for(run: Run) -> None:
    done = run(SOURCE % 1, sink_configuration={"include_metadata": True})
    assert done.got == [{"data": {"n": 0}, "metadata": {}}]


def test_a_class_that_cannot_be_made_fails_the_sink(run: Run) -> None:
    done = run(SOURCE % 1, sink("pass", "    def init_client(self):\n        raise OSError('no route')\n"))
    assert done.outcome.sink == "export"
    assert isinstance(done.outcome.error, StreamlineError)
    assert "no route" in done.outcome.error.message


def test_nothing_is_lost_or_out_of_order_when_a_failed_attempt_is_repeated(run: Run) -> None:
    store = Memory()
    source = """
@streaming_source
class Source:
    def batch_read(self, handler):
        for number in range((self.position or 0) + 1, 501):
            handler([number], position=number)
"""
    failing = sink("if len(board.got) > 200: raise OSError('down')\nboard.got.extend(messages)")
    first = run(source, failing, store=store, sink_configuration={"batch_size": 20})
    assert first.outcome.error is not None
    second = run(source, store=store)
    assert second.outcome.error is None
    assert list(dict.fromkeys(first.got + second.got)) == list(range(1, 501))
    assert store.refused == []


def test_what_is_awaited_is_flushed_at_once(run: Run) -> None:
    done = run(
        "@streaming_source\nclass Source:\n    def batch_read(self, handler):\n        for number in range(20):\n"
        "            handler([number])\n",
        sink("board.got.extend(messages)", "    def flush(self):\n        board.said.append(len(board.got))\n"),
        checkpoint_interval=3600.0,
    )
    assert done.outcome.error is None
    assert done.board.said == list(range(1, 21))


STOPPED = RuntimeError("on_error: stop")


@pytest.mark.parametrize("error", ["ValueError", "RuntimeError"])
def test_nothing_after_a_message_that_ends_the_run_is_written(run: Run, error: str) -> None:
    done = run(
        SOURCE % 10,
        sink(f"for m in messages:\n    if m['n'] == 4: raise {error}\nboard.got.extend(messages)"),
        refuse=STOPPED,
    )
    assert done.outcome.error is STOPPED
    assert [message["n"] for message in done.got] == [0, 1, 2, 3]


def test_an_outage_does_not_end_the_run(run: Run) -> None:
    done = run(SOURCE % 3, sink("raise ConnectionError('down')"), refuse=STOPPED)
    assert isinstance(done.outcome.error, StreamlineError)
    assert done.refused == []
