"""Conditional blocks: a function that says whether the blocks that it gates run."""

from __future__ import annotations

from streamline.blocks.call import BlockCall
from streamline.blocks.python.block import invoke, load, truth
from streamline.blocks.python.file import UserError
from streamline.errors import ConfigError, StreamlineError


def evaluate(call: BlockCall) -> bool:
    """Whether to go on. It is given the inputs of the block that it gates, as far as it takes them.

    An exception in it counts as no; the warning tells of it.

    Raises:
        ConfigError: there is not one function decorated with `@condition`, or it asks for what is not there.
    """
    try:
        file = load(call)
        function = file.only("condition")
        result = invoke(call, file, function, call.inputs, spare=True)
        return truth(result, call, file, function, "a condition")
    except UserError as error:
        call.warn(f"{error.where}: the condition '{call.block.uuid}' counts as false: {error.summary}")
        if error.trace:
            call.log(error.trace)
    except ConfigError:
        raise
    except StreamlineError as error:
        call.warn(f"{error.where or call.where}: the condition '{call.block.uuid}' counts as false: {error.message}")
    return False
