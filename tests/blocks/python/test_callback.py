"""Callbacks: who is called, with what, and that nothing of it harms the run."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from streamline.blocks.python.callback import call_back
from tests.blocks.python.python_calls import Given, Workshop


class Failure(msgspec.Struct):
    message: str
    where: str | None = None
    trace: str | None = None


FAILED = Failure("KeyError: 'total'", "transformers/clean.py:4", "Traceback …")
SAY = """
import json
def say(*words):
    with open(%r, 'a') as file:
        file.write(json.dumps(words) + '\\n')
"""


@pytest.fixture
def hear(workshop: Workshop) -> Any:
    """Calls a callback file; gives what its functions said."""
    heard = workshop.root / "said"

    def hear(text: str, status: str, error: Failure | None = None, own: Given | None = None, **kwargs: Any) -> Any:
        heard.write_text("")
        call = workshop.call(workshop.block(SAY % str(heard) + text, "callback", "tell"), **kwargs)
        call_back(call, status, error, own)
        return [json.loads(line) for line in heard.read_text().splitlines()]

    return hear


EACH = """
@callback
def bare(**kwargs): say('bare')
@callback()
def called(**kwargs): say('called')
@callback('success')
def success(**kwargs): say('success')
@callback('failure')
def failure(**kwargs): say('failure')
@callback('cancelled')
def cancelled(**kwargs): say('cancelled')
@callback('success', 'failure')
def both(**kwargs): say('both')
@callback(['failure', 'cancelled'])
def listed(**kwargs): say('listed')
@on_success
def old_success(**kwargs): say('old_success')
@on_failure
def old_failure(**kwargs): say('old_failure')
"""


@pytest.mark.parametrize(
    ("status", "names"),
    [
        ("success", ["bare", "called", "success", "both", "old_success"]),
        ("failure", ["failure", "both", "listed", "old_failure"]),
        ("cancelled", ["cancelled", "listed"]),
    ],
)
def test_those_of_the_status_are_called_in_order(hear: Any, workshop: Workshop, status: str, names: list[str]) -> None:
    assert hear(EACH, status) == [[name] for name in names]
    assert workshop.warnings == []


def test_the_output_comes_first_and_who_it_was_by_keyword(hear: Any) -> None:
    text = (
        "@callback\ndef tell(output, *args, **kwargs): say(output, args, kwargs['parent_block_uuid'], kwargs['env'])\n"
    )
    assert hear(text, "success", own=Given("load", [1, 2])) == [[[1, 2], [], "load", "dev"]]
    named = "@callback\ndef tell(parent_block_uuid, output): say(parent_block_uuid, output)\n"
    assert hear(named, "success", own=Given("load", 1), parent_block_uuid="load") == [["load", 1]]


def test_functions_with_keywords_alone_find_it_under_its_names(hear: Any) -> None:
    text = """
@callback
def tell(**kwargs):
    given = kwargs['__input']
    say(given['load'], given['df_1'], sorted(given), given.get('other'))
"""
    load = Given("load", 1)
    assert hear(text, "success", own=load) == [[1, 1, ["df_1", "load"], None]]
    unread = Given("load", 1)
    assert hear("@callback\ndef tell(**kwargs): say('done')\n", "success", own=unread) == [["done"]]
    assert unread.reads == 0


def test_after_a_failure_there_is_the_error_and_no_output(hear: Any) -> None:
    text = """
@callback('failure')
def tell(output, **kwargs):
    error = kwargs['__error']
    say(output, str(error), isinstance(error, Exception), error.where, error.trace)
"""
    heard = hear(text, "failure", FAILED, parent_block_uuid="clean")
    assert heard == [[None, FAILED.message, True, FAILED.where, FAILED.trace]]
    assert hear("@callback\ndef tell(**kwargs): say('__error' in kwargs)\n", "success") == [[False]]


def test_a_pipelines_callback_hears_of_the_failed_blocks(hear: Any) -> None:
    text = "@callback('failure')\ndef tell(failed_blocks, **kwargs): say(failed_blocks, kwargs['parent_block_uuid'])\n"
    assert hear(text, "failure", FAILED, failed_blocks=["clean"]) == [[["clean"], None]]


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "@callback\ndef tell():\n    {}['a']\n",
            "callbacks/tell.py:8: the callback 'tell' failed in tell(): KeyError: 'a'",
        ),
        ("1 / 0\n", "callbacks/tell.py:6: the callback 'tell' failed: ZeroDivisionError: division by zero"),
        ("raise SystemExit(1)\n", "callbacks/tell.py:6: the callback 'tell' failed: SystemExit: 1"),
        (
            "@callback\ndef tell(a, b): ...\n",
            "callbacks/tell.py:6: the callback 'tell' failed in tell(): tell() expects 2 arguments (a, b), but a "
            "callback gets the output of 'load'",
        ),
        ("def tell(:\n", "callbacks/tell.py:6: the callback 'tell' failed: "),
    ],
)
def test_what_goes_wrong_is_a_warning(hear: Any, workshop: Workshop, text: str, warning: str) -> None:
    assert hear(text, "success", own=Given("load", 1)) == []
    assert len(workshop.warnings) == 1
    assert workshop.warnings[0].startswith(warning)


def test_one_that_fails_leaves_the_others_be(hear: Any, workshop: Workshop) -> None:
    text = "@callback\ndef first(): 1 / 0\n@callback\nasync def second(): say('second')\n"
    assert hear(text, "success") == [["second"]]
    assert "ZeroDivisionError" in workshop.warnings[0]
    assert "1 / 0" in workshop.lines[0]
