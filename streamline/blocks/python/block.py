"""Python blocks: the decorated function of the file, called with the upstream outputs and the keyword arguments."""

from __future__ import annotations

import builtins
import inspect
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Generator, Mapping, Sequence
from typing import Any

from streamline.blocks.call import BlockCall, UpstreamOutput
from streamline.blocks.python import user_modules
from streamline.blocks.python.annotations import wanted_frames
from streamline.blocks.python.binding import Callee, bind
from streamline.blocks.python.file import BlockFile, PythonFile, UserError, name_of
from streamline.decorators import LEGACY, NAMES, decorator_of
from streamline.errors import ConfigError, StreamlineError


def run(call: BlockCall) -> Any:
    """Call the block's function. A transformer annotated `-> bool` sets `call.gate`.

    Returns:
        What the function returned; of `async def`, what it returned in the end. A generator runs as it is read.

    Raises:
        ConfigError: there is not one decorated function, or its parameters do not fit the upstream blocks.
        UserError: the block's code raised.
    """
    if call.block.type == "sensor":
        return poll(call)
    file = load(call)
    function = _only(call, file)
    for before in file.marked("preprocesser"):
        invoke(call, file, before, call.inputs, spare=True)
    result = invoke(call, file, function, call.inputs)
    if call.block.type == "transformer" and _answers(function):
        call.gate = truth(result, call, file, function, "annotated `-> bool`, which decides whether to go on")
    return result


def poll(call: BlockCall) -> bool:
    """Check a sensor once. The runner waits between calls.

    Inputs and keyword arguments are passed as far as the function takes them.

    Raises:
        ConfigError: there is not one function decorated with `@sensor`, or it asks for what is not there.
        UserError: it raised.
        StreamlineError: what it returned is neither true nor false.
    """
    file = load(call)
    function = _only(call, file)
    result = invoke(call, file, function, call.inputs, spare=True)
    return truth(result, call, file, function, "a sensor")


def evaluate(call: BlockCall) -> bool:
    """Evaluate a conditional block, which gets the inputs of the block that it gates.

    An exception in it counts as false, with a warning.

    Raises:
        ConfigError: there is not one function decorated with `@condition`, or it asks for what is not there.
    """
    try:
        file = load(call)
        function = _only(call, file)
        return truth(invoke(call, file, function, call.inputs, spare=True), call, file, function, "a condition")
    except UserError as error:
        where, reason = error.where, error.summary
        if error.trace:
            call.log(error.trace)
    except ConfigError:
        raise
    except StreamlineError as error:
        where, reason = error.where or call.where, error.message
    call.warn(f"{where}: the condition '{call.block.uuid}' counts as false: {reason}")
    return False


def _only(call: BlockCall, file: PythonFile) -> Callable[..., Any]:
    return file.only(decorator_of(call.block.type), call.warn if call.project.mage else None)


def block_file(call: BlockCall) -> BlockFile:
    """Return where the code of the call's block is."""
    block = call.block
    if block.file is None:
        return BlockFile(block.uuid, f"<block {block.uuid}>", block.content or "", call.where)
    module = user_modules.module_name(call.project.root, block.file)
    return BlockFile(block.uuid, str(block.file), None, call.where, module)


_loaded: list[tuple[BlockCall, PythonFile]] = []


def forget() -> None:
    """Unload the file that was loaded last, with its globals. Loading another file does so, too."""
    if _loaded:
        sys.modules.pop(_loaded.pop()[1].module, None)


def load(call: BlockCall, inputs: Sequence[UpstreamOutput] | None = None) -> PythonFile:
    """Run the block's file as a module, once for a call: tests see what the block left in its globals.

    Where the code reads `df_1`, `df_2`, … or the names of upstream blocks without defining them, these are there, as
    in Mage.

    Args:
        inputs: what these names stand for; by default the call's inputs.

    Raises:
        ConfigError: the file cannot be read, or has a syntax error.
        UserError: it raised.
    """
    if _loaded and _loaded[0][0] is call:
        return _loaded[0][1]
    forget()
    upstreams = call.inputs if inputs is None else inputs

    def values(read: Callable[[Collection[str]], set[str]]) -> Mapping[str, Any]:
        by_name: dict[str, UpstreamOutput] = {f"df_{number}": upstream for number, upstream in enumerate(upstreams, 1)}
        by_name.update((upstream.uuid, upstream) for upstream in upstreams)
        known = {name for name in by_name if name not in NAMES and name not in LEGACY and not hasattr(builtins, name)}
        return {name: by_name[name].value() for name in read(known)} if known else {}

    block = block_file(call)
    user_modules.serve(call.project.root, block.text)
    file = PythonFile(block, values)
    _loaded.append((call, file))
    return file


def invoke(
    call: BlockCall,
    file: PythonFile,
    function: Callable[..., Any],
    inputs: Sequence[UpstreamOutput],
    *,
    kwargs: Mapping[str, Any] | None = None,
    spare: bool = False,
    given: str | None = None,
    reserved: Collection[str] = (),
) -> Any:
    """Call one of the file's functions with what it asks for.

    Args:
        inputs: its positional arguments, as far as it takes them.
        kwargs: its keyword arguments, as far as it takes them; by default the call's.
        spare, given, reserved: see `binding`.

    Raises:
        ConfigError: its parameters do not fit.
        UserError: it raised.
    """
    callee = Callee(function=name_of(function), where=file.where(function), block=call.block.uuid, given=given)
    offered = call.kwargs if kwargs is None else kwargs
    signature = signature_of(function)
    frames = wanted_frames(function, signature, file.imports)
    args, keywords = bind(signature, inputs, offered, callee, spare=spare, reserved=reserved, frames=frames)
    try:
        result = function(*args, **keywords)
        if inspect.isawaitable(result):
            result = _awaited(result)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, CancelledError, what test libraries raise
        raise file.error(error) from None
    if isinstance(result, AsyncGenerator):
        return _chunks(_one_by_one(result), file)
    return _chunks(result, file) if inspect.isgenerator(result) else result


def truth(result: Any, call: BlockCall, file: PythonFile, function: Callable[..., Any], why: str) -> bool:
    """Return a result as a boolean.

    Raises:
        StreamlineError: it is neither, such as a DataFrame.
    """
    if result is None:
        call.log(f"{file.where(function)}: {name_of(function)}() returned None, which counts as false")
    try:
        return bool(result)
    except Exception as error:
        raise StreamlineError(
            f"{name_of(function)}() is {why}, but returned a {type(result).__name__}, which is neither true nor false "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__})",
            where=file.where(function),
            hint="return True or False, such as `len(df) > 0`",
            code="block.not_boolean",
        ) from None


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a function; `*args, **kwargs` if Python does not know it."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return inspect.signature(lambda *args, **kwargs: None)


def _answers(function: Callable[..., Any]) -> bool:
    annotation = signature_of(function).return_annotation
    return annotation is bool or (isinstance(annotation, str) and annotation.strip().strip("'\"") == "bool")


def _awaited(result: Awaitable[Any]) -> Any:
    import asyncio

    async def wait() -> Any:
        return await result

    return asyncio.run(wait())


def _one_by_one(chunks: AsyncGenerator[Any, Any]) -> Generator[Any, None, None]:
    import asyncio

    end = object()

    async def following() -> Any:
        return await anext(chunks, end)

    with asyncio.Runner() as runner:
        try:
            while (chunk := runner.run(following())) is not end:
                yield chunk
        finally:
            runner.run(chunks.aclose())


def _chunks(chunks: Generator[Any, Any, Any], file: PythonFile) -> Generator[Any, None, None]:
    # The function's own code runs while its chunks are stored.
    try:
        yield from chunks
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        raise file.error(error) from None
