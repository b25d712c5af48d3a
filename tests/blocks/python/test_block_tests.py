"""The tests in a block's file: what they get, and that every one of them runs."""

from __future__ import annotations

from typing import Any

import pytest

from streamline.blocks.call import TestOutcome as Outcome
from streamline.blocks.python.block_tests import run_tests
from streamline.blocks.python.function import UserError
from streamline.blocks.registry import run_block
from tests.blocks.python.python_calls import Given, Workshop


def outcomes(workshop: Workshop, text: str, output: Any, **kwargs: Any) -> list[Outcome]:
    return run_tests(workshop.call(workshop.block(text), **kwargs), Given("clean", output))


def passed(workshop: Workshop, text: str, output: Any, **kwargs: Any) -> list[str]:
    results = outcomes(workshop, text, output, **kwargs)
    assert [(result.name, result.error) for result in results] == [(result.name, None) for result in results]
    return [result.name for result in results]


def test_a_test_gets_the_output_and_all_of_several(workshop: Workshop) -> None:
    text = "@test\ndef one(output, *args) -> None:\n    assert output == {'a': 1}\n    assert args == ()\n"
    assert passed(workshop, text, {"a": 1}) == ["one"]
    text = "@test\ndef first(output): assert output == 1\n@test\ndef both(a, b): assert (a, b) == (1, 2)\n"
    text += "@test\ndef rest(output, *args): assert args == (2,)\n"
    assert passed(workshop, text, (1, 2)) == ["first", "both", "rest"]


@pytest.mark.parametrize("output", [None, [], [1, 2]])
def test_a_list_or_nothing_is_one_output(workshop: Workshop, output: Any) -> None:
    assert passed(workshop, f"@test\ndef same(output, *args):\n    assert output == {output}\n", output) == ["same"]


def test_keyword_arguments_come_as_far_as_they_are_taken(workshop: Workshop) -> None:
    text = "@test\ndef all_of_them(output, **kwargs): assert kwargs['least'] == 2\n"
    text += "@test\ndef named(output, least): assert least == 2\n@test\ndef none_of_them(): ...\n"
    assert passed(workshop, text, 1, least=2) == ["all_of_them", "named", "none_of_them"]


def test_every_test_runs_and_every_failure_is_told(workshop: Workshop) -> None:
    text = """
    @transformer
    def clean(df): ...

    @test
    def defined(output, *args):
        assert output is not None, 'Output is undefined'

    @test
    def full(output, *args):
        assert len(output) > 5

    @test
    def odd(output, *args):
        output['none']

    @test
    def leaves(output):
        raise SystemExit(1)

    @test
    async def last(output):
        assert output
    """
    results = outcomes(workshop, text, [1])
    assert [(result.name, result.error, result.where) for result in results] == [
        ("defined", None, None),
        ("full", "AssertionError: assert len(output) > 5", "transformers/clean.py:11"),
        ("odd", "TypeError: list indices must be integers or slices, not str", "transformers/clean.py:15"),
        ("leaves", "SystemExit: 1", "transformers/clean.py:19"),
        ("last", None, None),
    ]
    assert "assert len(output) > 5" in (results[1].trace or "")
    assert "streamline/blocks" not in (results[1].trace or "")


def test_two_tests_of_one_name_both_run(workshop: Workshop) -> None:
    text = "@test\ndef check(output): assert output == 1\n@test\ndef check(output): assert output == 2\n"
    results = outcomes(workshop, text, 2)
    assert [result.error for result in results] == ["AssertionError: assert output == 1", None]
    assert results[0].where == "transformers/clean.py:2"


def test_an_assertion_of_several_lines_is_shown_in_one(workshop: Workshop) -> None:
    (results,) = outcomes(workshop, "@test\ndef check(output):\n    assert (\n        output\n        == 1\n    )\n", 2)
    # Which lines Python tells depends on its version.
    assert results.error in ("AssertionError: assert output == 1", "AssertionError: assert ( output == 1 )")
    assert results.where in ("transformers/clean.py:3", "transformers/clean.py:4")


def test_what_a_test_changes_the_next_does_not_see(workshop: Workshop) -> None:
    text = "@test\ndef first(output): output.clear()\n@test\ndef second(output): assert output == [1]\n"
    assert passed(workshop, text, [1]) == ["first", "second"]


def test_a_test_that_asks_for_more_than_there_is_has_failed(workshop: Workshop) -> None:
    (results,) = outcomes(workshop, "@test\ndef both(customers, orders): ...\n", 1)
    assert results.error is not None
    assert results.error.endswith(
        "but the block 'clean' returned 1 output; take 'orders' out, give it a default, or set a variable of that name"
    )
    assert results.where == "transformers/clean.py:1"


def test_tests_see_what_the_block_left_in_its_globals(workshop: Workshop) -> None:
    text = "count = 0\n@transformer\ndef clean():\n    global count\n    count += 1\n    return count\n"
    text += "@test\ndef counted(output): assert output == count == 1\n"
    call = workshop.call(workshop.block(text))
    assert [result.error for result in run_tests(call, Given("clean", run_block(call)))] == [None]


def test_no_tests_and_a_file_that_does_not_load(workshop: Workshop) -> None:
    assert outcomes(workshop, "@transformer\ndef clean(): ...\n", 1) == []
    with pytest.raises(UserError) as caught:
        outcomes(workshop, "1 / 0\n@test\ndef check(output): ...\n", 1)
    assert caught.value.where == "transformers/clean.py:1"
