"""How pipelines are run from code: what was asked for, on whose event loop, and what a run's end means to a caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from streamline.errors import ConfigError

if TYPE_CHECKING:
    from streamline.execution.batch.context import BatchResult
    from streamline.execution.integration.run import Result as IntegrationResult
    from streamline.execution.run import RunOptions
    from streamline.pipeline.model import PipelineModel

    RunResult: TypeAlias = BatchResult | IntegrationResult

T = TypeVar("T")


@dataclass
class RunSettings:
    """What a caller asked for, whatever type the pipeline is of."""

    variables: Mapping[str, Any] | None = None
    _: KW_ONLY
    trigger_variables: Mapping[str, Any] | None = None
    block: str | None = None
    tests: bool = False
    parallel: bool = False
    retry_config: Mapping[str, Any] | None = None
    sensors: bool = True

    def for_integration(self) -> RunOptions:
        """As a run of an integration pipeline takes it: independent streams run side by side there in any case."""
        from streamline.execution.run import RunOptions

        return RunOptions(variables={**(self.trigger_variables or {}), **(self.variables or {})})

    def for_batch(self) -> RunOptions:
        """As a batch run takes it."""
        from streamline.execution.run import RunOptions

        return RunOptions(
            variables=dict(self.variables or {}),
            trigger_variables=dict(self.trigger_variables or {}),
            block=self.block,
            tests=self.tests,
            parallel=self.parallel,
            skip_sensors=not self.sensors,
        )


def apply_retries(model: PipelineModel, given: Mapping[str, Any]) -> None:
    """Retry blocks by `given` that have no retry_config of their own."""
    import msgspec

    from streamline.pipeline.model import RetryConfig

    try:
        config = msgspec.convert(dict(given), RetryConfig, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"retry_config: {error}", hint="it has the keys retries, delay, max_delay, exponential_backoff"
        ) from None
    for block in model.blocks.values():
        if block.retry_config is None or block.retry_config == model.retry_config:
            block.retry_config = config


def uninterrupted(result: RunResult) -> RunResult:
    """A signal that a run caught to end in order now means to this process what it always means."""
    if result.signal is None:
        return result
    import signal

    raise KeyboardInterrupt if result.signal == signal.SIGINT else SystemExit(128 + result.signal)


def one_line(failure: Any) -> str:
    """A failure in one line: what happened, and where."""
    where = getattr(failure, "where", None)
    message = getattr(failure, "message", None) or f"{type(failure).__name__}: {failure}"
    return f"{where}: {message}" if where else str(message)


def outside_of_loops(function: Callable[[], T]) -> T:
    """Call it here or, where an event loop runs already (a notebook), in a thread of its own."""
    import sys

    # It is not imported for the question: without it no loop runs.
    asyncio = sys.modules.get("asyncio")
    try:
        if asyncio is not None:
            asyncio.get_running_loop()
    except RuntimeError:
        asyncio = None
    if asyncio is None:
        return function()
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, thread_name_prefix="streamline") as thread:
        return thread.submit(function).result()
