"""What is said about a block's file before anything runs."""

from __future__ import annotations

import pytest

from streamline.blocks.python.check import check_block
from streamline.blocks.python.imports import required_modules
from streamline.errors import ConfigError
from tests.blocks.python.python_calls import Workshop


def refusal(workshop: Workshop, text: str | bytes, type: str = "transformer", *, inline: bool = False) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        check_block(workshop.project, workshop.block(text, type, inline=inline))
    assert caught.value.exit_code == 2
    return caught.value


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("def f(:\n", 1, "invalid syntax"),
        ("x = 1\n    y = 2\n", 2, "unexpected indent"),
        ("x = 1\nreturn x\n", 2, "'return' outside function"),
        ("\n\nawait f()\n", 3, "'await' outside function"),
    ],
)
def test_a_file_that_is_no_python(workshop: Workshop, text: str, line: int, message: str) -> None:
    error = refusal(workshop, text)
    assert error.where == f"transformers/clean.py:{line}"
    assert error.message.startswith(f"Python syntax error: {message}")
    assert error.code == "block.syntax"
    assert refusal(workshop, text, inline=True).where == f"block clean:{line}"


def test_a_file_with_null_bytes_or_of_a_wrong_encoding(workshop: Workshop) -> None:
    assert "null bytes" in refusal(workshop, b"x = 1\0\n").message
    for text, line in ((b"x = '\xff'\n", 1), (b"\n\n\nx = '\xff'\n", 4), (b"# coding: nope\n", 1)):
        error = refusal(workshop, text)
        assert error.code == "file.wrong_encoding"
        assert error.where == f"transformers/clean.py:{line}"
        assert error.hint is not None
        assert "save it as UTF-8" in error.hint


def test_nothing_is_executed(workshop: Workshop) -> None:
    block = workshop.block("raise SystemExit(1)\n@transformer\ndef f(): ...\n")
    assert check_block(workshop.project, block) == set()


def test_no_decorated_function(workshop: Workshop) -> None:
    error = refusal(workshop, "import os\n\ndef clean(df):\n    return df\n")
    assert str(error) == (
        "transformers/clean.py:3: no function in this file is decorated with @transformer\n"
        "  write @transformer above clean()"
    )
    error = refusal(workshop, "def a(): ...\ndef b(): ...\n@test\ndef c(): ...\n")
    assert (error.where, error.hint) == (
        "transformers/clean.py",
        "write @transformer above the function to run",
    )
    assert refusal(workshop, "").where == "transformers/clean.py"


def test_a_function_decorated_as_another_type(workshop: Workshop) -> None:
    error = refusal(workshop, "\n@data_loader\ndef load(): ...\n")
    assert error.where == "transformers/clean.py:2"
    assert error.message.endswith(", but load() is with @data_loader")
    assert error.code == "block.function_missing"
    assert "the block 'clean' is a transformer" in (error.hint or "")


def test_two_decorated_functions(workshop: Workshop) -> None:
    error = refusal(workshop, "@transformer\ndef a(): ...\n\n@transformer()\ndef b(): ...\n")
    assert error.message == (
        "more than one function in this file is decorated with @transformer: a (line 1) and b (line 4)"
    )
    assert (error.where, error.code) == ("transformers/clean.py:4", "block.function_ambiguous")


@pytest.mark.parametrize(
    "text",
    [
        "@transformer\ndef f(): ...\n",
        "@transformer()\nasync def f(): ...\n",
        "if 'transformer' not in globals():\n    from mage_ai.data_preparation.decorators import transformer\n"
        "@transformer\ndef f(): ...\n@test\ndef g(out): ...\n",
        "from streamline.decorators import transformer as step\n@step\ndef f(): ...\n",
        "import streamline.decorators\n@streamline.decorators.transformer\ndef f(): ...\n",
        "import sys\nif sys.argv:\n    @transformer\n    def f(): ...\nelse:\n    @transformer\n    def f(): ...\n",
        "try:\n    @transformer\n    def f(): ...\nexcept ImportError:\n    @transformer\n    def f(): ...\n",
        "def make(): return lambda df: df\nclean = transformer(make())\n",
        "from shop.steps import clean\n",
        "from shop.steps import *\ndef helper(): ...\n",
        "class A:\n    @transformer\n    def method(self): ...\n"
        "@transformer\ndef f():\n    @transformer\n    def g(): ...\n",
    ],
)
def test_whatever_may_have_its_function_is_let_through(workshop: Workshop, text: str) -> None:
    check_block(workshop.project, workshop.block(text))


def test_conditions_and_callbacks(workshop: Workshop) -> None:
    def check(text: str, type: str) -> None:
        check_block(workshop.project, workshop.block(text, type))

    check("@condition\ndef f(): ...\n", "conditional")
    check("@callback\ndef f(): ...\n@callback('failure')\ndef g(): ...\n", "callback")
    check("from mage_ai.data_preparation.decorators import on_success\n@on_success\ndef f(): ...\n", "callback")
    assert refusal(workshop, "@conditional\ndef f(): ...\n", "conditional").code == "block.function_missing"
    error = refusal(workshop, "@callback('done')\ndef f(): ...\n", "callback")
    assert error.where == "callbacks/clean.py:1"
    assert (error.message, error.code) == ("@callback: unknown status 'done'", "block.unknown_status")


def test_the_modules_that_loading_the_file_imports(workshop: Workshop) -> None:
    (workshop.root / "utils").mkdir()
    (workshop.root / "shared.py").write_text("")
    text = """
    import numpy as np, os.path
    from pandas.api import types
    import utils.dates
    from shared import x
    from workshop.utils import y
    from .neighbour import z
    try:
        import polars
    except ImportError:
        import nothing
    if 'transformer' not in globals():
        from mage_ai.data_preparation.decorators import transformer

    @transformer
    def f():
        import late
    """
    modules = check_block(workshop.project, workshop.block(text))
    assert modules == {"numpy", "os", "pandas", "polars"}


def test_checking_says_nothing_about_strings_with_odd_escapes(
    workshop: Workshop, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    check_block(workshop.project, workshop.block("@transformer\ndef f(): return '\\d'\n"))
    assert capsys.readouterr().err == ""
    assert not recwarn.list


def test_what_a_block_always_imports_must_be_installed(workshop: Workshop) -> None:
    text = """\
import first
try:
    import optional
except ImportError:
    optional = None
@transformer
def clean(df):
    import second
    with open("x"):
        from third import x
    if df.empty:
        return df
    import perhaps
def helper():
    import not_called
@test
def check(df):
    import fourth.part
"""
    modules = required_modules(workshop.project, workshop.block(text))
    assert modules == {"first": 1, "second": 8, "third": 10, "fourth": 18}
