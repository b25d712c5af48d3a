"""Which arguments a block's function is called with.

One positional argument per input, in their order. A parameter with an input's name takes that input, at any position.
If a function has more positional parameters than there are inputs, outputs that were returned as a tuple are spread
over them; a sensor's result is left out if others need its place. Nothing is read before the call is known to be
possible, and only what it takes.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Collection, Mapping, Sequence
from inspect import Parameter
from typing import Any

import msgspec

from streamline.blocks.call import GATES, UpstreamOutput
from streamline.errors import ConfigError
from streamline.outputs.frames import Frames

_BY_PLACE = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class Callee(msgspec.Struct, frozen=True, kw_only=True):
    """What messages say about the function.

    Args:
        where: `file:line`.
        given: what it can get, in words, if not the outputs of the block's upstream blocks.
    """

    function: str
    where: str
    block: str
    given: str | None = None


class Slot(msgspec.Struct, frozen=True):
    """What fills a parameter: an input, one of its outputs (`output` counts from 0), a keyword argument (`name`), or
    the default of the parameter `keeps`."""

    input: int = -1
    output: int | None = None
    name: str | None = None
    keeps: str | None = None


def bind(
    signature: inspect.Signature,
    inputs: Sequence[UpstreamOutput],
    offered: Mapping[str, Any],
    callee: Callee,
    *,
    spare: bool = False,
    reserved: Collection[str] = (),
    frames: Mapping[str, Frames] | None = None,
) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments for a call.

    Args:
        offered: what it gets by keyword, if it has parameters of these names or `**kwargs`.
        spare: inputs without a parameter are left out instead of being an error.
        reserved: parameters of these names never take an input.
        frames: the parameters that take the streams of a source block as tables.

    Raises:
        ConfigError: the parameters do not fit the inputs and keyword arguments, or one of `frames` its input.
    """
    args, keywords = _Planner(signature, inputs, offered, callee, spare, reserved).plan()
    spread: dict[int, list[Any]] = {}

    def read(slot: Slot, parameter: str) -> Any:
        if slot.name is not None:
            return offered[slot.name]
        if slot.keeps is not None:
            return signature.parameters[slot.keeps].default
        if slot.output is None:
            upstream = inputs[slot.input]
            try:
                return upstream.value((frames or {}).get(parameter))
            except ConfigError as error:
                if error.where is None:
                    error.message = f"{callee.function}() cannot take the output of '{upstream.uuid}': {error.message}"
                    error.where = callee.where
                raise
        if slot.input not in spread:
            spread[slot.input] = inputs[slot.input].values()
        return spread[slot.input][slot.output]

    parameters = signature.parameters.values()
    by_place = [parameter.name for parameter in parameters if parameter.kind in _BY_PLACE]
    any_number = next((parameter.name for parameter in parameters if parameter.kind is Parameter.VAR_POSITIONAL), "")
    names = itertools.chain(by_place, itertools.repeat(any_number))
    return [read(slot, name) for slot, name in zip(args, names, strict=False)], {
        name: read(slot, name) for name, slot in keywords.items()
    }


class _Planner:
    def __init__(
        self,
        signature: inspect.Signature,
        inputs: Sequence[UpstreamOutput],
        offered: Mapping[str, Any],
        callee: Callee,
        spare: bool,
        reserved: Collection[str],
    ) -> None:
        self._parameters = list(signature.parameters.values())
        self._inputs = inputs
        self._offered = offered
        self._callee = callee
        self._spare = spare
        self._reserved = reserved
        self._by_place = [parameter for parameter in self._parameters if parameter.kind in _BY_PLACE]
        self._any_number = any(parameter.kind is Parameter.VAR_POSITIONAL for parameter in self._parameters)
        self._any_name = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in self._parameters)

    def plan(self) -> tuple[list[Slot], dict[str, Slot]]:
        """Return what fills the positional and keyword arguments; nothing is read yet."""
        filled = self._named()
        taken = {slot.input for slot in filled.values()}  # -1 for a keyword argument
        rest = [number for number in range(len(self._inputs)) if number not in taken]
        free = [parameter for parameter in self._by_place if parameter.name not in filled]
        rest = self._with_room(rest, free)
        # Parameters beyond the inputs with the name of a keyword argument mean that: `def load(df, env)`.
        for parameter in reversed(free.copy()):
            if len(free) > len(rest) and parameter.name in self._offered:
                filled[parameter.name] = Slot(name=parameter.name)
                free.remove(parameter)
        slots = self._spread(rest, free)
        filled.update((parameter.name, slot) for parameter, slot in zip(free, slots, strict=False))
        return self._arranged(filled, slots[len(free) :])

    def _named(self) -> dict[str, Slot]:
        numbers = {upstream.uuid: number for number, upstream in enumerate(self._inputs)}
        named = [parameter for parameter in self._parameters if parameter.kind in (*_BY_PLACE, Parameter.KEYWORD_ONLY)]
        filled = {parameter.name: Slot(numbers[parameter.name]) for parameter in named if parameter.name in numbers}
        reserved = [parameter.name for parameter in self._by_place if parameter.name in self._reserved]
        return {**filled, **{name: Slot(name=name) for name in reserved if name in self._offered}}

    def _with_room(self, rest: list[int], free: list[Parameter]) -> list[int]:
        """Return the inputs that the function takes. Those that only say whether to go on make room for others."""
        if not self._by_place and not self._any_number:
            return []  # it asks for nothing: its upstream blocks only come before it
        room = sum(parameter.name not in self._offered for parameter in free)
        if len(rest) > room and not self._any_number:
            others = [number for number in rest if self._inputs[number].type not in GATES]
            # As many as there are other inputs, or parameters that nothing else fills.
            rest = rest if len(rest) <= len(free) and len(others) < room else others
        return rest

    def _spread(self, rest: list[int], free: list[Parameter]) -> list[Slot]:
        """Return what fills the free positional parameters, in order.

        Raises:
            ConfigError: it is too little, or too much.
        """
        least = sum(parameter.default is Parameter.empty for parameter in free)
        most = None if self._any_number else len(free)
        # What was returned comes before answers that only say whether to go on.
        others = [number for number in rest if self._inputs[number].type not in GATES]
        if len(others) < least and len(others) < len(rest):
            fitting = self._fitting(others, least, most)
            if len(fitting) == 1:
                return fitting[0]
        if least > len(rest):
            fitting = self._fitting(rest, least, most)
            if len(fitting) == 1:
                return fitting[0]
            raise self._too_few(free, rest, ambiguous=len(fitting) > 1)
        if most is not None and len(rest) > most:
            if not self._spare:
                raise self._too_many(rest, len(free))
            rest = rest[:most]
        return [Slot(number) for number in rest]

    def _fitting(self, rest: Sequence[int], least: int, most: int | None) -> list[list[Slot]]:
        """Return the ways to spread inputs with several outputs so that the number fits: all such inputs, else one."""
        counts = {number: self._inputs[number].count() for number in rest}
        several = [number for number in rest if counts[number] > 1]
        ways: list[list[Slot]] = []
        for chosen in [several, *([number] for number in several if len(several) > 1)]:
            slots: list[Slot] = []
            for number in rest:
                each = [Slot(number, output) for output in range(counts[number])]
                slots.extend(each if number in chosen else [Slot(number)])
            if chosen and least <= len(slots) and (most is None or len(slots) <= most):
                ways.append(slots)
                if chosen is several:
                    break
        return ways

    def _arranged(self, filled: Mapping[str, Slot], extra: Sequence[Slot]) -> tuple[list[Slot], dict[str, Slot]]:
        args: list[Slot] = []
        keywords: dict[str, Slot] = {}
        unfilled: list[Slot] = []  # what comes after a parameter that keeps its default goes by name, if it can
        for parameter in self._by_place:
            slot = filled.get(parameter.name)
            if slot is None:
                unfilled.append(Slot(keeps=parameter.name))
            elif unfilled and parameter.kind is Parameter.POSITIONAL_OR_KEYWORD:
                keywords[parameter.name] = slot
            else:
                args.extend([*unfilled, slot])
                unfilled.clear()
        args.extend(extra)
        for parameter in self._parameters:
            if parameter.kind is Parameter.KEYWORD_ONLY:
                if parameter.name in filled:
                    keywords[parameter.name] = filled[parameter.name]
                elif parameter.name in self._offered:
                    keywords[parameter.name] = Slot(name=parameter.name)
                elif parameter.default is Parameter.empty:
                    raise self._nothing_for(parameter.name)
        if self._any_name:
            taken = {
                parameter.name for parameter in self._by_place if parameter.kind is Parameter.POSITIONAL_OR_KEYWORD
            }
            for name in self._offered:
                if name not in taken and name not in keywords:
                    keywords[name] = Slot(name=name)
        return args, keywords

    def _too_few(self, free: Sequence[Parameter], rest: Sequence[int], *, ambiguous: bool) -> ConfigError:
        counts = {number: self._inputs[number].count() for number in rest}
        several = [self._inputs[number].uuid for number in rest if counts[number] > 1]
        expected = [parameter.name for parameter in self._by_place if parameter.default is Parameter.empty]
        needed = [parameter.name for parameter in free if parameter.default is Parameter.empty]
        missing = needed[min(len(rest), len(needed) - 1)]
        if self._callee.given is not None:
            hint = f"take '{missing}' out, give it a default, or set a variable of that name"
        elif ambiguous:
            hint = (
                f"more than one of {' and '.join(several)} could be spread over its parameters; name the parameters of "
                "the others like their blocks"
            )
        elif several:
            hint = (
                f"spread, that makes {sum(counts.values())} values: give the function as many parameters, or one for "
                "each block to get several outputs as a list"
            )
        else:
            tuples = f"return a tuple of {len(needed)} from '{self._inputs[rest[0]].uuid}', " if len(rest) == 1 else ""
            hint = (
                f"add a block to upstream_blocks of '{self._callee.block}', {tuples}set a variable named '{missing}', "
                f"or give '{missing}' a default"
            )
        least = "at least " if self._any_number or len(expected) < len(self._by_place) else ""
        listed = f" ({', '.join(expected)})" if len(expected) > 1 else ""
        given = self._callee.given or self._upstream(counts)
        return self._mismatch(f"expects {least}{_count(len(expected), 'argument')}{listed}, but {given}", hint)

    def _too_many(self, rest: Sequence[int], room: int) -> ConfigError:
        names = [parameter.name for parameter in self._by_place]
        listed = f" ({', '.join(names)})" if names else ""
        over = self._inputs[rest[room]].uuid
        hint = (
            f"add a parameter for '{over}' (such as `{over if over.isidentifier() else 'another_input'}`) or `*args`, "
            f"or take it out of upstream_blocks of '{self._callee.block}'"
        )
        return self._mismatch(f"takes {_count(len(names), 'argument')}{listed}, but {self._upstream()}", hint)

    def _nothing_for(self, name: str) -> ConfigError:
        return self._mismatch(
            f"needs the keyword argument '{name}', but no variable and no upstream block of '{self._callee.block}' "
            "has that name",
            f"set '{name}' under variables: in metadata.yaml or with --runtime-vars {name}=…, or give it a default",
        )

    def _mismatch(self, text: str, hint: str) -> ConfigError:
        message = f"{self._callee.function}() {text}"
        return ConfigError(message, where=self._callee.where, hint=hint, code="block.parameters_mismatch")

    def _upstream(self, counts: Mapping[int, int] | None = None) -> str:
        block = f"the block '{self._callee.block}'"
        if not self._inputs:
            return f"{block} has no upstream blocks"
        names = [upstream.uuid for upstream in self._inputs]
        if counts is not None:
            names = [f"{name}: {_count(counts.get(number, 1), 'output')}" for number, name in enumerate(names)]
        return f"{block} has {_count(len(names), 'upstream block')} ({', '.join(names)})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
