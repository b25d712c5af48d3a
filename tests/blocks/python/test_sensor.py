"""Sensors are asked once at a time."""

from __future__ import annotations

from typing import Any

import pytest

from streamline.blocks.python.block import poll
from streamline.blocks.python.function import UserError
from streamline.blocks.registry import run_block
from streamline.errors import ConfigError, StreamlineError
from tests.blocks.python.python_calls import Given, Workshop


def ask(workshop: Workshop, text: str, *inputs: Given, **kwargs: Any) -> bool:
    return poll(workshop.call(workshop.block(text, "sensor", "ready"), *inputs, **kwargs))


@pytest.mark.parametrize(("value", "answer"), [("True", True), ("'yes'", True), ("[]", False), ("0", False)])
def test_what_is_true_goes_on(workshop: Workshop, value: str, answer: bool) -> None:
    assert ask(workshop, f"@sensor\ndef ready(*args, **kwargs):\n    return {value}\n") is answer


def test_none_counts_as_no_and_the_log_says_so(workshop: Workshop) -> None:
    assert ask(workshop, "@sensor\ndef ready(): ...\n") is False
    (line,) = workshop.lines
    assert line.startswith("sensors/ready.py:1: ready() returned None")


def test_it_gets_inputs_and_variables_as_far_as_it_takes_them(workshop: Workshop) -> None:
    load = Given("load", 3)
    assert ask(workshop, "@sensor\ndef ready(): return True\n", load)
    assert load.reads == 0
    assert ask(workshop, "@sensor\ndef ready(rows, least, **kwargs): return rows > least\n", load, least=2)
    assert not ask(workshop, "@sensor\nasync def ready(*args, least): return args[0] > least\n", load, least=5)


def test_it_runs_like_any_block_too(workshop: Workshop) -> None:
    block = workshop.block("@sensor\ndef ready(): return 1\n", "sensor")
    assert run_block(workshop.call(block)) is True


def test_errors_name_the_line(workshop: Workshop) -> None:
    with pytest.raises(UserError) as raised:
        ask(workshop, "@sensor\ndef ready():\n    return {}['a']\n")
    assert raised.value.where == "sensors/ready.py:3"
    with pytest.raises(ConfigError) as refused:
        ask(workshop, "@sensor\ndef ready(rows): ...\n")
    assert refused.value.code == "block.parameters_mismatch"
    with pytest.raises(StreamlineError, match=r"ready\(\) is a sensor, but returned a DataFrame") as unclear:
        ask(workshop, "import pandas as pd\n@sensor\ndef ready(): return pd.DataFrame()\n")
    assert unclear.value.code == "block.not_boolean"
