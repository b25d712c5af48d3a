"""Which arguments a block's function is called with."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamline.blocks.python.binding import Callee, bind
from streamline.errors import ConfigError
from tests.blocks.python.python_calls import Given

OFFERED = {"env": "dev", "limit": 5}


def call(function: Callable[..., Any], *inputs: Given, spare: bool = False, **offered: Any) -> Any:
    """What the function returns, called with what is bound."""
    callee = Callee(function=function.__name__, where="transformers/join.py:3", block="join")
    args, keywords = bind(inspect.signature(function), inputs, {**OFFERED, **offered}, callee, spare=spare)
    return function(*args, **keywords)


def refusal(function: Callable[..., Any], *inputs: Given) -> tuple[str, str]:
    """The error's message and hint; the place is always named, and nothing was read."""
    with pytest.raises(ConfigError) as caught:
        call(function, *inputs)
    assert caught.value.where == "transformers/join.py:3"
    assert [upstream.reads for upstream in inputs] == [0] * len(inputs)
    return caught.value.message, caught.value.hint or ""


# By place


def test_one_positional_argument_per_upstream_block_in_their_order() -> None:
    def transform(first, second, *args, **kwargs):
        return first, second, args, kwargs

    assert call(transform, Given("a", 1), Given("b", 2)) == (1, 2, (), OFFERED)
    assert call(transform, Given("a", 1), Given("b", 2), Given("c", 3), Given("d", None)) == (1, 2, (3, None), OFFERED)


def test_several_outputs_taken_as_one_parameter_are_a_list() -> None:
    def transform(data, *args):
        return data

    assert call(transform, Given("load", (1, 2))) == [1, 2]


def test_outputs_are_spread_over_more_parameters_than_there_are_blocks() -> None:
    def transform(customers, orders, *args):
        return customers, orders, args

    assert call(transform, Given("load", ("c", "o"))) == ("c", "o", ())
    assert call(transform, Given("load", ("c", "o", "x"))) == ("c", "o", ("x",))


def test_each_block_that_returned_several_is_spread_if_all_fit_and_one_if_only_one_does() -> None:
    def four(a, b, c, d):
        return a, b, c, d

    def three(a, b, c):
        return a, b, c

    two, three_of_them = Given("x", (1, 2)), Given("y", (3, 4, 5))
    assert call(four, two, Given("y", (3, 4))) == (1, 2, 3, 4)
    assert call(four, two, three_of_them) == ([1, 2], 3, 4, 5)
    assert call(three, two, three_of_them) == (1, 2, [3, 4, 5])


def test_optional_parameters_do_not_ask_for_outputs_but_take_what_is_spread() -> None:
    def transform(data, more=None):
        return data, more

    def required(a, b, c=None):
        return a, b, c

    assert call(transform, Given("load", (1, 2))) == ([1, 2], None)
    assert call(transform, Given("a", 1), Given("b", 2)) == (1, 2)
    assert call(required, Given("load", (1, 2, 3))) == (1, 2, 3)


def test_a_spread_output_is_read_once() -> None:
    def transform(a, b, c):
        return a, b, c

    load = Given("load", (1, 2, 3))
    assert call(transform, load) == (1, 2, 3)
    assert load.reads == 1


# By name


def test_a_parameter_that_bears_a_blocks_name_takes_its_output_wherever_it_stands() -> None:
    def transform(orders, rest, *, customers, **kwargs):
        return orders, rest, customers

    def swapped(orders, customers):
        return orders, customers

    inputs = Given("customers", "c"), Given("prices", "p"), Given("orders", ("o1", "o2"))
    assert call(transform, *inputs) == (["o1", "o2"], "p", "c")
    assert call(swapped, Given("customers", "c"), Given("orders", "o")) == ("o", "c")


def test_a_blocks_name_beats_a_variable() -> None:
    def transform(data, *, limit, **kwargs):
        return data, limit, kwargs

    assert call(transform, Given("load", 1), Given("limit", 2)) == (1, 2, {"env": "dev"})


def test_what_follows_a_parameter_that_keeps_its_default_still_arrives() -> None:
    def by_name(size=3, orders=None):
        return size, orders

    def by_place(size=3, orders=None, /):
        return size, orders

    assert call(by_name, Given("orders", "o")) == (3, "o")
    assert call(by_place, Given("orders", "o")) == (3, "o")


# Keyword arguments


def test_keyword_arguments_go_to_who_names_them_or_takes_all() -> None:
    def named(data, env, limit=1):
        return data, env, limit

    def keyword_only(data, *, env, size=3):
        return data, env, size

    def everything(**kwargs):
        return kwargs

    def nothing(data):
        return data

    assert call(named, Given("load", 1)) == (1, "dev", 5)
    assert call(keyword_only, Given("load", 1)) == (1, "dev", 3)
    assert call(everything) == OFFERED
    assert call(nothing, Given("load", 1)) == 1


def test_a_parameter_named_like_a_variable_is_an_input_where_there_are_as_many() -> None:
    def transform(limit, *args, **kwargs):
        return limit, kwargs

    assert call(transform, Given("load", 1)) == (1, {"env": "dev"})


def test_names_of_positional_only_parameters_are_free_for_keyword_arguments() -> None:
    def transform(env, /, **kwargs):
        return env, kwargs

    assert call(transform, Given("load", 1)) == (1, OFFERED)


# What only says whether to go on


@pytest.mark.parametrize("gate", ["sensor", "conditional"])
def test_sensors_are_left_out_where_there_is_no_room(gate: str) -> None:
    def one(data):
        return data

    def with_variable(data, env):
        return data, env

    def two(data, ready):
        return data, ready

    def any_number(*args):
        return args

    def only_variable(env):
        return env

    load, ready = Given("load", 1), Given("ready", True, gate)
    assert call(one, ready, load) == 1
    assert call(with_variable, load, ready) == (1, "dev")
    assert call(only_variable, ready) == "dev"
    assert ready.reads == 0
    assert call(two, load, ready) == (1, True)
    assert call(any_number, ready, load) == (True, 1)


def test_what_was_returned_is_spread_before_a_sensor_gets_a_place() -> None:
    def two(customers, orders):
        return customers, orders

    def at_least_two(customers, orders, *args):
        return customers, orders, args

    def named(customers, ready):
        return customers, ready

    def three(customers, orders, go):
        return customers, orders, go

    load, ready = Given("load", ("c", "o")), Given("ready", True, "sensor")
    assert call(two, ready, load) == ("c", "o")
    assert call(at_least_two, load, ready) == ("c", "o", ())
    assert ready.reads == 0
    assert call(named, load, ready) == (["c", "o"], True)
    assert call(three, load, ready) == ("c", "o", True)


def test_a_function_without_positional_parameters_only_comes_after_its_upstream_blocks() -> None:
    def load(**kwargs):
        return "loaded"

    before = Given("before", 1)
    assert call(load, before) == "loaded"
    assert before.reads == 0


def test_spare_inputs_are_left_out_where_that_is_asked_for() -> None:
    def check(first):
        return first

    unread = Given("b", 2)
    assert call(check, Given("a", 1), unread, spare=True) == 1
    assert unread.reads == 0


# What does not fit


def test_too_few_inputs() -> None:
    def transform(customers, orders):
        raise AssertionError

    def at_least(customers, orders, *args):
        raise AssertionError

    def load(path):
        raise AssertionError

    message, hint = refusal(transform, Given("load", "one"))
    assert message == (
        "transform() expects 2 arguments (customers, orders), but the block 'join' has 1 upstream block (load: 1 "
        "output)"
    )
    assert hint == (
        "add a block to upstream_blocks of 'join', return a tuple of 2 from 'load', set a variable named 'orders', or "
        "give 'orders' a default"
    )
    message, _ = refusal(at_least, Given("load", "one"))
    assert message.startswith("at_least() expects at least 2 arguments (customers, orders), but the block 'join' has 1")
    message, hint = refusal(load)
    assert message == "load() expects 1 argument, but the block 'join' has no upstream blocks"
    assert "set a variable named 'path'" in hint


def test_too_few_inputs_of_several_blocks() -> None:
    def three(a, b, c):
        raise AssertionError

    message, hint = refusal(three, Given("x", 1), Given("y", 2))
    assert message == (
        "three() expects 3 arguments (a, b, c), but the block 'join' has 2 upstream blocks (x: 1 output, y: 1 output)"
    )
    assert "upstream_blocks of 'join'" in hint
    assert "'c'" in hint


def test_outputs_that_cannot_be_spread() -> None:
    def two(a, b):
        raise AssertionError

    def three(a, b, c):
        raise AssertionError

    message, hint = refusal(two, Given("load", (1, 2, 3)))
    assert message == ("two() expects 2 arguments (a, b), but the block 'join' has 1 upstream block (load: 3 outputs)")
    assert hint.startswith("spread, that makes 3 values")
    message, hint = refusal(three, Given("x", (1, 2)), Given("y", (3, 4)))
    assert message.endswith("has 2 upstream blocks (x: 2 outputs, y: 2 outputs)")
    assert hint.startswith("more than one of x and y could be spread")


def test_too_many_inputs() -> None:
    def transform(data):
        raise AssertionError

    message, hint = refusal(transform, Given("load", 1), Given("orders", 2))
    assert message == ("transform() takes 1 argument (data), but the block 'join' has 2 upstream blocks (load, orders)")
    assert hint == (
        "add a parameter for 'orders' (such as `orders`) or `*args`, or take it out of upstream_blocks of 'join'"
    )


def test_a_keyword_argument_that_nothing_gives() -> None:
    def transform(data, *, api_key):
        raise AssertionError

    message, hint = refusal(transform, Given("load", 1))
    assert message.startswith("transform() needs the keyword argument 'api_key'")
    assert "--runtime-vars api_key=" in hint


# Whatever the parameters and inputs are

NAMES = st.sampled_from(["a", "b", "c", "load", "orders", "env", "limit"])
KINDS = [
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.KEYWORD_ONLY,
    inspect.Parameter.VAR_KEYWORD,
]


@st.composite
def signatures(draw: st.DrawFn) -> inspect.Signature:
    names = draw(st.lists(NAMES, unique=True, max_size=5))
    plain = [KINDS[0], KINDS[1], KINDS[3]]
    kinds = sorted(draw(st.lists(st.sampled_from(plain), min_size=len(names), max_size=len(names))))
    parameters = []
    default_from = draw(st.integers(0, 6))
    for number, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        default = "default" if number >= default_from else inspect.Parameter.empty
        parameters.append(inspect.Parameter(name, kind, default=default))
    if draw(st.booleans()):
        parameters.append(inspect.Parameter("args", KINDS[2]))
    if draw(st.booleans()):
        parameters.append(inspect.Parameter("kwargs", KINDS[4]))
    return inspect.Signature(sorted(parameters, key=lambda parameter: parameter.kind))


@st.composite
def many_inputs(draw: st.DrawFn) -> list[Given]:
    uuids = draw(st.lists(st.sampled_from(["load", "orders", "x", "y", "limit"]), unique=True, max_size=4))
    inputs = []
    for uuid in uuids:
        count = draw(st.integers(1, 3))
        output = tuple(f"{uuid}{number}" for number in range(count)) if count > 1 else uuid
        inputs.append(Given(uuid, output, draw(st.sampled_from(["data_loader", "sensor"]))))
    return inputs


@settings(max_examples=5 * settings.default.max_examples, deadline=None)
@given(signature=signatures(), inputs=many_inputs(), spare=st.booleans())
def test_what_is_bound_can_always_be_called_and_loses_nothing(
    signature: inspect.Signature, inputs: list[Given], spare: bool
) -> None:
    callee = Callee(function="f", where="f.py:1", block="join")
    refused = None
    try:
        args, keywords = bind(signature, inputs, OFFERED, callee, spare=spare)
    except ConfigError as error:
        refused = error
    if refused is not None:
        assert (refused.where, refused.message[:4]) == ("f.py:1", "f() ")
        assert refused.hint
        assert all(upstream.reads == 0 for upstream in inputs)
        return
    bound = signature.bind(*args, **keywords)
    bound.apply_defaults()
    values: list[Any] = [value for name, value in bound.arguments.items() if name not in ("args", "kwargs")]
    values += bound.arguments.get("args", ())
    # Each input arrives once, whole or spread, unless it could be left out.
    asks = any(parameter.kind in KINDS[:3] for parameter in signature.parameters.values())
    for upstream in inputs:
        whole = (
            [f"{upstream.uuid}{number}" for number in range(upstream.count())]
            if upstream.count() > 1
            else upstream.uuid
        )
        spread = isinstance(whole, list) and all(values.count(each) == 1 for each in whole)
        arrivals = sum(value == whole for value in values) + spread
        assert arrivals <= 1
        if arrivals == 0:
            assert spare or upstream.type == "sensor" or not asks
            assert upstream.reads == 0
        named = signature.parameters.get(upstream.uuid)
        if named is not None:
            assert bound.arguments[upstream.uuid] == whole
    # Keyword arguments reach whoever takes all of them.
    if any(parameter.kind is KINDS[4] for parameter in signature.parameters.values()):
        everything = {**bound.arguments.get("kwargs", {}), **{n: v for n, v in bound.arguments.items() if n in OFFERED}}
        assert set(OFFERED) <= set(everything)
