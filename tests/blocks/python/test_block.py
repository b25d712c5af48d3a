"""Python blocks: what the decorated function is given, what becomes of what it returns, and how errors look."""

from __future__ import annotations

import pickle
import subprocess
import sys
import types
from typing import Any

import pytest

from streamline.blocks.python.block import forget
from streamline.blocks.python.function import UserError
from streamline.blocks.registry import run_block
from streamline.errors import ConfigError, StreamlineError
from tests.blocks.python.python_calls import Given, Workshop
from tests.support.failures import refuses

IDIOM = """
if 'transformer' not in globals():
    from streamline.decorators import transformer
"""
IMPORT = "from streamline.decorators import transformer\n"
ALIAS = "from streamline import decorators\ntransformer = decorators.transformer\n"


def run(workshop: Workshop, text: str, *inputs: Given, **kwargs: Any) -> Any:
    return run_block(workshop.call(workshop.block(text), *inputs, **kwargs))


def failure(workshop: Workshop, text: str, *inputs: Given) -> UserError:
    """What the user sees of an exception: none of our own lines."""
    with pytest.raises(UserError) as caught:
        run(workshop, text, *inputs)
    assert "streamline/blocks" not in caught.value.trace
    assert "importlib" not in caught.value.trace
    return caught.value


ORDERS = {"stream": {"stream": "orders"}, "columns": ["id"], "rows": [[1]]}


@pytest.mark.parametrize(
    ("output", "code", "annotation"),
    [
        (ORDERS, "data[data['id'] > 1]", "pandas.DataFrame"),
        (ORDERS, "data.groupby('id')", "pandas.DataFrame"),
        ([ORDERS, ORDERS], "data['orders']", "dict[str, pandas.DataFrame]"),
        ([ORDERS, ORDERS], "data.groupby('id')", "dict[str, pandas.DataFrame]"),
        ({"id": 1}, "data['orders']", None),
        ([], "data['orders']", None),
        (ORDERS, "kwargs['orders']", None),
    ],
)
def test_code_that_takes_a_source_for_a_table(
    workshop: Workshop, output: Any, code: str, annotation: str | None
) -> None:
    text = f"{IMPORT}@transformer\ndef f(data, **kwargs):\n    return {code}\n"
    hint = failure(workshop, text, Given("load", output)).hint or ""
    assert f" annotate the parameter with {annotation} " in hint if annotation else "annotate" not in hint


@pytest.mark.parametrize("head", ["", IDIOM, IMPORT, ALIAS])
@pytest.mark.parametrize("decorator", ["@transformer", "@transformer()"])
def test_the_decorated_function_runs_however_the_decorator_came(workshop: Workshop, head: str, decorator: str) -> None:
    text = f"{head}{decorator}\ndef double(rows, *args, **kwargs):\n    return rows * 2, kwargs['env']\n"
    assert run(workshop, text, Given("load", [1, 2])) == ([1, 2, 1, 2], "dev")


@pytest.mark.parametrize("type", ["data_loader", "transformer", "data_exporter", "custom"])
def test_each_type_of_block_has_its_decorator(workshop: Workshop, type: str) -> None:
    block = workshop.block(f"@{type}\ndef f(*args, **kwargs):\n    return [*args, kwargs['size']]", type)
    assert run_block(workshop.call(block, Given("load", 1), size=2)) == [1, 2]


def test_what_comes_back_is_what_was_returned(workshop: Workshop) -> None:
    for text, expected in [("None", None), ("(1, 2)", (1, 2)), ("[]", []), ("0", 0), ("[{'a': 1}]", [{"a": 1}])]:
        assert run(workshop, f"@transformer\ndef f():\n    return {text}\n") == expected


def test_the_file_knows_where_it_is_and_is_not_main(workshop: Workshop) -> None:
    text = """
    import os
    name = __name__
    if __name__ == '__main__':
        raise SystemExit(1)

    @transformer
    def f(**kwargs):
        return os.path.relpath(__file__, %r)
    """
    assert run(workshop, text % str(workshop.root)) == "transformers/clean.py"


def test_code_in_metadata_yaml_runs_and_its_lines_are_shown(workshop: Workshop) -> None:
    block = workshop.block("@transformer\ndef f(rows):\n    return rows['none']\n", inline=True)
    with pytest.raises(UserError) as caught:
        run_block(workshop.call(block, Given("load", {})))
    assert caught.value.where == "block clean:3"
    assert "return rows['none']" in caught.value.trace


def test_module_level_code_runs_anew_for_each_run(workshop: Workshop) -> None:
    text = "seen = []\n@transformer\ndef f(row):\n    seen.append(row)\n    return seen\n"
    block = workshop.block(text)
    assert [run_block(workshop.call(block, Given("load", number))) for number in (1, 2)] == [[1], [2]]


def test_a_changed_file_is_read_again(workshop: Workshop) -> None:
    assert run(workshop, "@transformer\ndef f():\n    return 1\n") == 1
    assert run(workshop, "@transformer\ndef f():\n    return 'other'\n") == "other"


@pytest.mark.parametrize("cookie", [b"# -*- coding: latin-1 -*-\n", b"\xef\xbb\xbf"])
def test_the_files_encoding_is_what_python_takes_it_for(workshop: Workshop, cookie: bytes) -> None:
    encoding = "latin-1" if b"latin" in cookie else "utf-8"
    block = workshop.block(cookie + "@transformer\ndef f():\n    return 'é'\n".encode(encoding))
    assert run_block(workshop.call(block)) == "é"


# Coroutines and generators


def test_a_coroutine_function_is_awaited(workshop: Workshop) -> None:
    text = """
    import asyncio

    @transformer
    async def f(rows, **kwargs):
        return sum(await asyncio.gather(*(asyncio.sleep(0, row) for row in rows)))
    """
    assert run(workshop, text, Given("load", [1, 2])) == 3


def test_a_generator_is_handed_on_and_runs_as_it_is_read(workshop: Workshop) -> None:
    text = """
    steps = []

    @transformer
    def f(rows):
        try:
            for row in rows:
                steps.append(row)
                yield steps
        finally:
            steps.append('end')
    """
    chunks = run(workshop, text, Given("load", [1, 2]))
    assert isinstance(chunks, types.GeneratorType)
    steps = next(chunks)
    assert steps == [1]
    chunks.close()
    assert steps == [1, "end"]


def test_an_async_generator_arrives_as_a_generator(workshop: Workshop) -> None:
    text = """
    import asyncio

    @transformer
    async def f(rows):
        for row in rows:
            await asyncio.sleep(0)
            yield row
        1 / 0
    """
    chunks = run(workshop, text, Given("load", [1, None]))
    assert isinstance(chunks, types.GeneratorType)
    assert [next(chunks), next(chunks)] == [1, None]
    with pytest.raises(UserError) as caught:
        next(chunks)
    assert caught.value.where == "transformers/clean.py:9"


# What upstream blocks returned, in the globals


def test_upstream_outputs_are_globals_where_the_code_reads_them(workshop: Workshop) -> None:
    text = """
    first = df_1
    @transformer
    def f(*, env):
        def inner():
            return first, df_2, orders
        return inner()
    """
    load, orders, other = Given("load", 1), Given("orders", 2), Given("other", 3)
    assert run(workshop, text, load, orders, other) == (1, 2, 2)
    assert other.reads == 0


def test_nothing_is_read_for_names_that_mean_something_else(workshop: Workshop) -> None:
    text = """
    def load(): return 'own'
    @transformer
    def f(orders, *args, **kwargs):
        df_1 = args[0].df_2 if args else load()
        return df_1, list(filter(None, [1])), orders, test
    """
    load, orders = Given("load", "output"), Given("orders", 2)
    builtin, decorator = Given("filter", 3), Given("test", 4)
    text = text.replace("*args, ", "").replace("args[0].df_2 if args else ", "")
    block = workshop.block(text)
    with pytest.raises(ConfigError) as refused:
        run_block(workshop.call(block, load, orders, builtin, decorator))
    assert refused.value.code == "block.parameters_mismatch"
    text = text.replace("(orders,", "(orders, a, b, c,")
    own, filtered, arrived, mark = run(workshop, text, load, orders, builtin, decorator)
    assert (own, filtered, arrived) == ("own", [1], 2)
    assert callable(mark)
    assert [upstream.reads for upstream in (load, orders, builtin, decorator)] == [1, 1, 1, 1]


# Gates


@pytest.mark.parametrize("annotation", ["bool", "'bool'"])
@pytest.mark.parametrize(("value", "gate"), [("True", True), ("0", False), ("None", False), ("[1]", True)])
def test_a_transformer_annotated_bool_decides(workshop: Workshop, annotation: str, value: str, gate: bool) -> None:
    call = workshop.call(workshop.block(f"@transformer\ndef f(df, *args) -> {annotation}:\n    return {value}\n"))
    call.inputs = [Given("load", 1)]
    assert run_block(call) == eval(value)
    assert call.gate is gate


def test_a_future_import_makes_no_difference_to_gates_and_other_blocks_are_none(workshop: Workshop) -> None:
    future = "from __future__ import annotations\n@transformer\ndef f() -> bool:\n    return False\n"
    unannotated = "@transformer\ndef f():\n    return False\n"
    for text, type, gate in [(future, "transformer", False), (unannotated, "transformer", None)]:
        call = workshop.call(workshop.block(text, type))
        assert run_block(call) is False
        assert call.gate is gate
    call = workshop.call(workshop.block("@custom\ndef f() -> bool:\n    return False\n", "custom"))
    run_block(call)
    assert call.gate is None


def test_a_gate_that_returns_a_frame_is_an_error(workshop: Workshop) -> None:
    text = "import pandas as pd\n@transformer\ndef big(df) -> bool:\n    return df\n"
    pd = pytest.importorskip("pandas")
    with pytest.raises(StreamlineError) as caught:
        run(workshop, text, Given("load", pd.DataFrame({"a": [1]})))
    assert caught.value.message.startswith("big() is annotated `-> bool`")
    assert "returned a DataFrame" in caught.value.message
    assert caught.value.where == "transformers/clean.py:2"


# Errors


def test_an_exception_shows_the_users_own_lines(workshop: Workshop) -> None:
    error = failure(
        workshop,
        "def helper(rows):\n    return rows['none']\n\n@transformer\ndef f(df):\n    helper(df)\n",
        Given("load", {}),
    )
    assert error.summary == "KeyError: 'none'"
    assert error.where == "transformers/clean.py:2"
    lines = error.trace.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == f'  File "{workshop.root}/transformers/clean.py", line 6, in f'
    assert "return rows['none']" in error.trace


def test_an_exception_in_a_helper_module_names_the_blocks_line(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workshop.root / "shop_helpers.py").write_text("def fail():\n    raise ValueError('deep down')\n")
    monkeypatch.syspath_prepend(workshop.root)
    error = failure(workshop, "import shop_helpers\n@transformer\ndef f():\n    shop_helpers.fail()\n")
    assert (error.summary, error.where) == ("ValueError: deep down", "transformers/clean.py:4")
    assert "shop_helpers.py" in error.trace


@pytest.mark.parametrize(
    ("statement", "summary"),
    [
        ("assert rows", "AssertionError: assert rows"),
        ("assert rows, 'no rows'", "AssertionError: no rows"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import asyncio; raise asyncio.CancelledError", "asyncio.exceptions.CancelledError"),
        ("f(rows)", "RecursionError: maximum recursion depth exceeded"),
        ("e = KeyError('a'); e.add_note('more'); raise e", "KeyError: 'a'"),
        ("raise ValueError('one\\ntwo')", "ValueError: one"),
        ("compile('a b', 'x', 'exec')", "SyntaxError: invalid syntax"),
        (
            "from streamline.errors import ConfigError; raise ConfigError('no such profile', where='io_config.yaml')",
            "streamline.errors.ConfigError: io_config.yaml: no such profile",
        ),
    ],
)
def test_each_exception_has_a_line_that_says_what_it_is(workshop: Workshop, statement: str, summary: str) -> None:
    error = failure(workshop, f"@transformer\ndef f(rows):\n    {statement}\n", Given("load", []))
    assert error.summary.startswith(summary)
    assert "\n" not in error.summary
    assert error.where == "transformers/clean.py:3"


def test_an_exception_of_enormous_size_is_cut(workshop: Workshop) -> None:
    error = failure(workshop, "@transformer\ndef f():\n    raise ValueError('x' * 10_000_000)\n")
    assert len(error.summary) < 3000
    assert len(error.trace) < 200_000


def test_an_exception_that_was_caused_by_another_shows_both_and_none_of_ours(workshop: Workshop) -> None:
    text = """
    @transformer
    async def f():
        try:
            {}['a']
        except KeyError as error:
            raise RuntimeError('second') from error
    """
    error = failure(workshop, text)
    assert "KeyError: 'a'" in error.trace
    assert error.summary == "RuntimeError: second"
    assert error.where == "transformers/clean.py:7"


def test_an_exception_while_the_file_is_loaded_names_its_line(workshop: Workshop) -> None:
    error = failure(workshop, "import no_such_module\n@transformer\ndef f(): ...\n")
    assert error.summary == "ModuleNotFoundError: No module named 'no_such_module'"
    assert error.where == "transformers/clean.py:1"


def test_an_exception_in_a_generator_names_its_line(workshop: Workshop) -> None:
    chunks = run(workshop, "@transformer\ndef f():\n    yield 1\n    raise ValueError('late')\n")
    with pytest.raises(UserError) as caught:
        list(chunks)
    assert (caught.value.summary, caught.value.where) == ("ValueError: late", "transformers/clean.py:4")
    assert "streamline/blocks" not in caught.value.trace


def test_an_interruption_is_not_swallowed(workshop: Workshop) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(workshop, "@transformer\ndef f():\n    raise KeyboardInterrupt\n")


def test_arguments_that_do_not_fit_name_function_and_line(workshop: Workshop) -> None:
    with pytest.raises(ConfigError) as caught:
        run(workshop, "\n\n@transformer\ndef join(customers, orders):\n    ...\n", Given("load", 1))
    assert (caught.value.where, caught.value.code) == ("transformers/clean.py:3", "block.parameters_mismatch")


# Which function it is


def test_a_wrapper_around_the_decorated_function_is_called_with_it(workshop: Workshop) -> None:
    text = """
    import functools

    def twice(function):
        @functools.wraps(function)
        def wrapper(*args):
            return function(*args) * 2
        return wrapper

    @%s
    @%s
    def f(rows):
        return rows
    """
    for order in (("transformer", "twice"), ("twice", "transformer")):
        assert run(workshop, text % order, Given("load", [1])) == [1, 1]


def test_a_decorated_function_of_an_imported_file_is_not_this_files(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workshop.root / "shop_other.py").write_text(
        "from streamline.decorators import transformer\n@transformer\ndef other(): return 'other'\n"
    )
    monkeypatch.syspath_prepend(workshop.root)
    both = "from shop_other import other\n@transformer\ndef f(): return 'own'\n"
    assert run(workshop, both) == "own"
    assert run(workshop, "from shop_other import other\n") == "other"
    with pytest.raises(ConfigError) as missing:
        run(workshop, "import shop_other\n")
    assert missing.value.code == "block.function_missing"


def test_two_decorated_functions_are_refused_even_of_the_same_name(workshop: Workshop) -> None:
    with refuses("block.function_ambiguous", "f (line 1)", "f (line 3)"):
        run(workshop, "@transformer\ndef f(): ...\n@transformer\ndef f(): ...\n")


def test_preprocessers_run_first(workshop: Workshop) -> None:
    text = """
    seen = []
    @preprocesser
    def before(rows, **kwargs):
        seen.append((rows, kwargs['env']))
    @transformer
    def f(rows):
        return seen
    """
    assert run(workshop, text, Given("load", 1)) == [(1, "dev")]


def test_a_kind_of_block_that_nothing_runs_is_refused(workshop: Workshop) -> None:
    block = workshop.block("")
    block.language = "yaml"
    with pytest.raises(ConfigError) as caught:
        run_block(workshop.call(block))
    assert caught.value.code == "block.unknown_kind"


# Classes of block files

CLASS = """
from dataclasses import dataclass

@dataclass
class Order:
    id: int

@data_loader
def load(**kwargs):
    return Order(7)
"""


def test_an_object_of_a_blocks_own_class_is_read_in_any_process_of_the_project(workshop: Workshop) -> None:
    order = run_block(workshop.call(workshop.block(CLASS, "data_loader", "load")))
    data = pickle.dumps(order)
    assert type(order).__module__ == "streamline.blocks.python.user_modules.data_loaders.load"
    run(workshop, "@transformer\ndef f(): ...\n")  # what runs next takes its place
    assert pickle.loads(data).id == 7
    script = "import pickle, sys; print(pickle.loads(bytes.fromhex(sys.argv[1])))"
    done = subprocess.run(
        [sys.executable, "-c", script, data.hex()], cwd=workshop.root, capture_output=True, text=True, check=True
    )
    assert done.stdout == "Order(id=7)\n"


def test_a_forgotten_file_keeps_no_globals(workshop: Workshop) -> None:
    call = workshop.call(workshop.block("@transformer\ndef f(): ...\n"))
    run_block(call)
    assert "streamline.blocks.python.user_modules.transformers.clean" in sys.modules
    forget()
    assert "streamline.blocks.python.user_modules.transformers.clean" not in sys.modules
    forget()


def test_block_files_can_import_their_neighbours(workshop: Workshop) -> None:
    workshop.block("SIZE = 3\n", uuid="my.sizes")
    workshop.block("SIZE = 3\n", uuid="sizes")
    assert run(workshop, "from .sizes import SIZE\n@transformer\ndef f(): return SIZE\n") == 3
    assert not list(workshop.root.rglob("__pycache__"))


def test_a_pool_of_processes_can_call_the_files_functions(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workshop.root)
    text = """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    def double(number):
        return number * 2

    @transformer
    def f(rows):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as pool:
            return list(pool.map(double, rows))
    """
    assert run(workshop, text, Given("load", [1, 2])) == [2, 4]
