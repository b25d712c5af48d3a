"""Conditions: yes, no, and an exception that counts as no."""

from __future__ import annotations

import pytest

from streamline.blocks.python.block import evaluate
from streamline.errors import ConfigError
from tests.blocks.python.python_calls import Given, Workshop


def ask(workshop: Workshop, text: str, *inputs: Given) -> bool:
    return evaluate(workshop.call(workshop.block(text, "conditional", "enough"), *inputs, least=2))


def test_it_gets_the_inputs_of_the_block_that_it_gates(workshop: Workshop) -> None:
    text = "@condition\ndef enough(rows, *args, **kwargs):\n    return len(rows) >= kwargs['least']\n"
    assert ask(workshop, text, Given("load", [1, 2])) is True
    assert ask(workshop, text, Given("load", [1]), Given("more", [])) is False
    unread = Given("more", [])
    assert ask(workshop, "@condition\ndef enough(rows):\n    return rows\n", Given("load", [1]), unread) is True
    assert unread.reads == 0


@pytest.mark.parametrize(
    ("text", "line", "summary"),
    [
        ("@condition\ndef enough(rows):\n    return rows['none']\n", 3, "KeyError: 'none'"),
        ("1 / 0\n@condition\ndef enough(rows): ...\n", 1, "ZeroDivisionError: division by zero"),
        ("@condition\ndef enough(rows):\n    raise SystemExit(2)\n", 3, "SystemExit: 2"),
    ],
)
def test_an_exception_counts_as_no_with_a_warning(workshop: Workshop, text: str, line: int, summary: str) -> None:
    assert ask(workshop, text, Given("load", {})) is False
    assert workshop.warnings == [f"conditionals/enough.py:{line}: the condition 'enough' counts as false: {summary}"]
    assert summary in workshop.lines[0]


def test_what_is_neither_true_nor_false_counts_as_no(workshop: Workshop) -> None:
    text = "import pandas as pd\n@condition\ndef enough(): return pd.DataFrame({'a': [1]})\n"
    assert ask(workshop, text) is False
    assert workshop.warnings[0].startswith("conditionals/enough.py:2: ")


def test_wrong_files_and_parameters_are_errors(workshop: Workshop) -> None:
    with pytest.raises(ConfigError) as missing:
        ask(workshop, "def enough(): ...\n")
    assert missing.value.code == "block.function_missing"
    with pytest.raises(ConfigError) as refused:
        ask(workshop, "@condition\ndef enough(a, b): ...\n", Given("load", 1))
    assert refused.value.code == "block.parameters_mismatch"
