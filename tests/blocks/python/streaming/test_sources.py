"""Python sources: how their classes are made, what their handler does, and how they end."""

from __future__ import annotations

import pytest

from streamline.errors import StreamlineError
from tests.blocks.python.streaming.conftest import Run
from tests.protocols.memory import Memory

COUNTING = """
@streaming_source
class Source:
    def batch_read(self, handler):
        board.said.append(self.position)
        for number in range((self.position or 0) + 1, 101):
            handler([{"n": number}], position=number)
"""


def test_what_it_reads_arrives_in_order_and_its_position_is_kept(run: Run) -> None:
    first = run(COUNTING)
    assert first.outcome.error is None
    assert [message["n"] for message in first.got] == list(range(1, 101))
    assert first.saved == {"position": b"100"}


def test_it_goes_on_after_the_position_that_was_saved(run: Run) -> None:
    store = Memory()
    store.saved["load"] = {"position": b"60"}
    again = run(COUNTING, store=store)
    assert again.board.said == [60]
    assert [message["n"] for message in again.got] == list(range(61, 101))


def test_any_json_value_is_a_position_and_anything_else_is_an_error(run: Run) -> None:
    code = "@streaming_source\nclass Source:\n    def batch_read(self, handler):\n        handler([1], position=%s)\n"
    assert run(code % "{'file': 'a', 'at': [1, None]}").saved == {"position": b'{"file":"a","at":[1,null]}'}
    assert isinstance(run(code % "object()").outcome.error, StreamlineError)


def test_without_a_position_the_handler_returns_when_the_messages_are_written(run: Run) -> None:
    done = run(
        """
@streaming_source
class Source:
    def batch_read(self, handler):
        for number in range(5):
            handler([number, number])
            board.said.append(list(board.got))
"""
    )
    assert done.outcome.error is None
    assert done.board.said == [[each for each in range(number + 1) for _ in range(2)] for number in range(5)]
    assert done.saved == {"delivered": b"10"}


def test_without_a_position_nothing_is_acknowledged_that_did_not_arrive(run: Run) -> None:
    done = run(
        """
@streaming_source
class Source:
    def batch_read(self, handler):
        handler([1])
        board.said.append("acknowledged")
""",
        "@streaming_sink\nclass Sink:\n    def batch_write(self, messages):\n        raise OSError('down')\n"
        "    def destroy(self):\n        pass\n",
        stop_when=lambda board: False,
    )
    assert done.outcome.error is None or done.outcome.sink == "export"
    assert (done.board.said == ["acknowledged"]) == (len(done.refused) == 1)


def test_a_source_may_go_on_before_its_messages_are_written(run: Run) -> None:
    done = run(
        """
@streaming_source
class Source:
    def batch_read(self, handler):
        handler([1])
        board.go.set()
""",
        """
@streaming_sink
class Sink:
    def batch_write(self, messages):
        assert board.go.wait(20)
        board.got.extend(messages)
""",
        configuration={"wait_for_proof": False},
    )
    assert done.got == [1]


@pytest.mark.parametrize(
    "code",
    [
        """
@streaming_source
class Source:
    consume_method = "READ"

    def read(self, handler):
        for number in range(3):
            handler({"n": number}, position=number)
""",
        """
@streaming_source
class Source:
    def read(self, handler):
        for number in range(3):
            handler({"n": number})
""",
        """
from mage_ai.streaming.sources.base import SourceConsumeMethod
from mage_ai.streaming.sources.base_python import BasePythonSource


@streaming_source
class Source(BasePythonSource):
    consume_method = SourceConsumeMethod.READ_ASYNC

    async def read_async(self, handler):
        for number in range(3):
            await handler({"n": number})
""",
        """
@streaming_source
class Source:
    async def read_async(self, handler):
        await handler([{"n": 0}, {"n": 1}], position=1)
        await handler([{"n": 2}], position=2)
""",
    ],
    ids=["READ", "read alone", "READ_ASYNC", "read_async alone"],
)
def test_messages_may_come_one_by_one_and_from_coroutines(run: Run, code: str) -> None:
    done = run(code)
    assert done.outcome.error is None
    assert done.got == [{"n": 0}, {"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    "base",
    ["", "(BasePythonSource)"],
)
def test_a_class_is_made_once_with_what_it_asks_for(run: Run, base: str) -> None:
    done = run(
        f"""
from mage_ai.streaming.sources.base_python import BasePythonSource


@streaming_source
class Source{base}:
    def init_client(self):
        board.said.append(("init_client", self.position, self.global_vars["env"]))

    def test_connection(self):
        board.said.append("test_connection")
        return True

    def batch_read(self, handler):
        self._print("reading")
        handler([1], position=1)

    def destroy(self):
        board.said.append("destroy")
""",
        env="test",
    )
    assert done.outcome.error is None
    assert done.board.said == [("init_client", None, "test"), "test_connection", "destroy"]


def test_a_constructor_gets_the_keywords_that_it_names(run: Run) -> None:
    done = run(
        """
@streaming_source
class Source:
    def __init__(self, env, position):
        self.given = [env, position]

    def batch_read(self, handler):
        handler([self.given], position=1)
""",
        env="test",
        other="left out",
    )
    assert done.got == [["test", None]]


def test_saved_positions_are_told_in_the_source_thread(run: Run) -> None:
    done = run(
        """
import threading


@streaming_source
class Source:
    def batch_read(self, handler):
        self.thread = threading.get_ident()
        for number in range(3):
            handler([number], position={"at": number})

    def commit(self, position):
        assert threading.get_ident() == self.thread
        board.said.append(position)
"""
    )
    assert done.outcome.error is None
    assert done.notes == []
    assert done.board.said[-1] == {"at": 2}


@pytest.mark.parametrize("code", ["handler([1], position=1)\n        1 / 0", "1 / 0"])
def test_an_exception_of_the_class_ends_the_flow_after_what_came_before(run: Run, code: str) -> None:
    done = run(f"@streaming_source\nclass Source:\n    def batch_read(self, handler):\n        {code}\n")
    assert isinstance(done.outcome.error, StreamlineError)
    assert done.outcome.error.code == "streaming_class.failed"
    assert "ZeroDivisionError" in done.outcome.error.message
    assert done.outcome.error.where is not None
    assert done.outcome.error.where.endswith(f"load.py:{done.outcome.error.where.rpartition(':')[2]}")
    assert done.got == ([1] if "handler" in code else [])


def test_a_connection_that_fails_its_test_ends_the_flow(run: Run) -> None:
    done = run(
        "@streaming_source\nclass Source:\n    def test_connection(self):\n        return False\n"
        "    def batch_read(self, handler):\n        handler([1])\n"
    )
    assert isinstance(done.outcome.error, StreamlineError)
    assert done.got == []


def test_stopped_it_ends_with_everything_that_was_given_and_cleans_up(run: Run) -> None:
    done = run(
        """
@streaming_source
class Source:
    def batch_read(self, handler):
        number = 0
        try:
            while True:
                try:
                    number += 1
                    handler([number], position=number)
                except Exception:
                    board.said.append("a stop is no error")
        finally:
            board.said.append("finally")

    def destroy(self):
        board.said.append("destroy")
""",
        stop_when=lambda board: len(board.got) > 100,
    )
    assert done.outcome.error is None
    assert done.got == list(range(1, len(done.got) + 1))
    assert done.saved == {"position": b"%d" % len(done.got)}
    assert done.board.said == ["finally", "destroy"]


def test_stopped_while_it_waits_for_proof_it_may_still_acknowledge(run: Run) -> None:
    done = run(
        """
@streaming_source
class Source:
    def batch_read(self, handler):
        while True:
            handler([1])
            board.said.append("acknowledged")
""",
        stop_when=lambda board: len(board.got) > 3,
    )
    assert done.outcome.error is None
    assert len(done.board.said) == len(done.got)


def test_a_source_that_waits_by_itself_is_left_behind(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamline.connectors.python.source.STOP_SECONDS", 0.1)
    done = run(
        "@streaming_source\nclass Source:\n    def batch_read(self, handler):\n        handler([1], position=1)\n"
        "        board.go.wait(60)\n",
        stop_when=lambda board: board.got == [1],
    )
    assert done.outcome.error is None
    assert done.saved == {"position": b"1"}
    assert len(done.notes) == 1


def test_a_source_can_see_that_it_is_stopped(run: Run) -> None:
    done = run(
        """
import time


@streaming_source
class Source:
    def batch_read(self, handler):
        handler([1], position=1)
        while not handler.stopped:
            time.sleep(0.01)
        board.said.append("stopped")
""",
        stop_when=lambda board: board.got == [1],
    )
    assert done.outcome.error is None
    assert done.board.said == ["stopped"]


@pytest.mark.parametrize("given", ["{'n': 1}", "'text'", "5", "pd.DataFrame({'n': [1]})"])
def test_what_is_no_list_of_messages_is_an_error(run: Run, given: str) -> None:
    done = run(
        "import pandas as pd\n\n\n@streaming_source\nclass Source:\n    def batch_read(self, handler):\n"
        f"        handler({given}, position=1)\n"
    )
    assert isinstance(done.outcome.error, StreamlineError)
    assert "TypeError" in done.outcome.error.message
    assert done.got == []


def test_messages_may_come_from_a_generator_and_none_is_no_position(run: Run) -> None:
    done = run(
        "@streaming_source\nclass Source:\n    def batch_read(self, handler):\n"
        "        handler((number for number in range(3)), position=None)\n        handler((3, 4))\n"
    )
    assert done.got == [0, 1, 2, 3, 4]
    assert done.saved == {"delivered": b"5"}
