"""Sensors: a function that is asked again and again until it says yes. The runner does the waiting."""

from __future__ import annotations

from streamline.blocks.call import BlockCall
from streamline.blocks.python.block import invoke, load, truth


def poll(call: BlockCall) -> bool:
    """Ask once: whether to go on. Inputs and keyword arguments are given as far as the function takes them.

    Raises:
        ConfigError: there is not one function decorated with `@sensor`, or it asks for what is not there.
        UserError: it raised.
        StreamlineError: what it returned is neither true nor false.
    """
    file = load(call)
    function = file.only("sensor")
    result = invoke(call, file, function, call.inputs, spare=True)
    return truth(result, call, file, function, "a sensor")
