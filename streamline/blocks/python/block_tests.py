"""The `@test` functions of a block's file, run on what the block has stored."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from streamline.blocks.call import BlockCall, StoredOutput, TestOutcome
from streamline.blocks.connector.role import connector_role
from streamline.blocks.python.block import invoke, load
from streamline.blocks.python.file import PythonFile, UserError, name_of
from streamline.errors import StreamlineError
from streamline.outputs.frames import Frames


def run_tests(call: BlockCall, output: StoredOutput) -> list[TestOutcome]:
    """Run every test, whatever comes of those before it, in the order of the file.

    A test gets the block's outputs as positional arguments: of a returned tuple (in projects of Mage, also of a list)
    its elements, of anything else what a downstream block would get. It gets no more of them than it has parameters
    for. Each reads them anew, so that what one changes the next does not see.

    Raises:
        ConfigError: the file has a syntax error.
        UserError: it raised while it was loaded.
    """
    file = load(call)
    return [_run(call, file, function, output) for function in file.marked("test")]


def _run(call: BlockCall, file: PythonFile, function: Callable[..., Any], output: StoredOutput) -> TestOutcome:
    name = name_of(function)
    lists = call.project.mage and connector_role(call.block) is None  # streams belong together
    values = functools.cache(lambda frames: _values(output, frames, lists=lists))
    count = len(values(None)) if lists else output.count()
    given = f"the block '{call.block.uuid}' returned {count} output{'' if count == 1 else 's'}"
    try:
        outputs = [_One(values, number) for number in range(max(1, count))]
        invoke(call, file, function, outputs, spare=True, given=given)
    except UserError as error:
        return TestOutcome(name=name, error=error.summary, where=error.where, trace=error.trace)
    except StreamlineError as error:
        hint = f"; {error.hint}" if error.hint else ""
        return TestOutcome(name=name, error=f"{error.message}{hint}", where=error.where or file.where(function))
    return TestOutcome(name=name)


def _values(output: StoredOutput, frames: Frames | None, *, lists: bool) -> list[Any]:
    if output.count() > 1:
        return output.values()
    value = output.value(frames)
    return value if lists and type(value) is list and value else [value]


class _One:
    """One of the block's outputs. It has no name that a parameter could bear."""

    uuid = ""
    type = "output"

    def __init__(self, values: Callable[[Frames | None], list[Any]], number: int) -> None:
        self._values = values
        self._number = number

    def value(self, frames: Frames | None = None) -> Any:
        return self._values(frames)[self._number]

    def values(self) -> list[Any]:
        return [self.value()]

    def count(self) -> int:
        return 1
