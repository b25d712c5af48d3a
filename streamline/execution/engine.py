"""The engines: one for each type of pipeline, the only place where a pipeline's type decides anything.

A new type of pipeline is one entry of `ENGINES`.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

from streamline.errors import ConfigError

if TYPE_CHECKING:
    from streamline.execution.batch.stored_tests import BlockTests
    from streamline.execution.checklist import Checklist
    from streamline.execution.events import Bus, Subscriber
    from streamline.execution.run import RunOptions, RunResult, Stop
    from streamline.pipeline.model import PipelineModel
    from streamline.project.project import Project


class PlanExplanation(Protocol):
    """A plan in words: a msgspec struct."""

    view: ClassVar[str]
    """How the command line shows it: `flow`, `stream` or `tasks`."""
    pipeline: str


class Engine(Protocol):
    """Runs pipelines of one type."""

    uvloop: bool
    """Whether its event loop should be uvloop's."""

    async def run(
        self, project: Project, model: PipelineModel, options: RunOptions, bus: Bus, stop: Stop | None = None
    ) -> RunResult:
        """Run a pipeline to its end, in the caller's event loop (asyncio).

        Raises:
            ConfigError: something is wrong that is seen before anything runs.
            LeaseHeld: another run of this pipeline is in progress.
        """
        ...

    def explain(
        self, project: Project, model: PipelineModel, options: RunOptions, *, dry_run: bool = False
    ) -> PlanExplanation:
        """Make the plan of a run with these options. Nothing runs and nothing moves.

        Args:
            dry_run: check also what only a run with these variables needs.

        Raises:
            ConfigError: something is wrong.
        """
        ...

    def check(self, project: Project, model: PipelineModel, options: RunOptions, checklist: Checklist) -> None:
        """Check the configuration, and connect to what it names. No block runs."""
        ...

    def test(self, project: Project, model: PipelineModel, options: RunOptions, bus: Bus) -> list[BlockTests]:
        """Run the tests of blocks on what these stored last.

        Raises:
            ConfigError: nothing is stored, or pipelines of this type store nothing.
        """
        ...


class _Entry(NamedTuple):
    """Where an engine is, and the fields of RunOptions that it takes."""

    target: str
    options: frozenset[str]


_TASKS = frozenset({"block", "tests", "resume"})
_SOURCES = frozenset({"full_refresh", "bookmarks", "accept_gap", "refresh_catalog"})
_BATCH = _Entry("streamline.execution.batch.engine:BatchEngine", _TASKS | _SOURCES)
_DBT = _Entry("streamline.execution.batch.engine:BatchEngine", _TASKS)
# A run of these always continues from the saved positions: `resume` changes nothing.
_INTEGRATION = _Entry(
    "streamline.execution.integration.engine:IntegrationEngine", frozenset({"streams", "resume"}) | _SOURCES
)
_STREAMING = _Entry(
    "streamline.execution.streaming.engine:StreamingEngine",
    frozenset({"until_caught_up", "metrics_port", "resume", "streams"}) | _SOURCES,
)
ENGINES = {"integration": _INTEGRATION, "streaming": _STREAMING, "python": _BATCH, "dbt": _DBT}

FLAGS = {
    "block": "--block-uuid",
    "tests": "--test",
    "resume": "--resume",
    "streams": "--stream",
    "full_refresh": "--full-refresh",
    "bookmarks": "--bookmark",
    "accept_gap": "--accept-gap",
    "refresh_catalog": "--refresh-catalog",
    "until_caught_up": "--until-caught-up",
    "metrics_port": "--metrics-port",
}
"""Options of `streamline run` that not every type takes: fields of RunOptions, and their flags."""


def types_taking(option: str) -> list[str]:
    """Return the types of pipelines that take an option, sorted."""
    return sorted(type_ for type_, entry in ENGINES.items() if option in entry.options)


def engine_of(model: PipelineModel) -> Engine:
    """Return the engine of a pipeline.

    Raises:
        ConfigError: this version does not run pipelines of its type.
    """
    module, _, name = _entry(model).target.partition(":")
    engine: Engine = getattr(import_module(module), name)()
    return engine


def takes(model: PipelineModel, option: str) -> bool:
    """Return whether runs of a pipeline take an option (a field of RunOptions)."""
    return option in _entry(model).options


def refuse_options(model: PipelineModel, options: RunOptions) -> None:
    """Refuse options that are set and that the pipeline's type does not take.

    Raises:
        ConfigError: naming the first of them.
    """
    for option, flag in FLAGS.items():
        value = getattr(options, option)
        given = value is not None if option == "metrics_port" else value
        if given and not takes(model, option):
            raise ConfigError(
                f"{flag} does not apply to pipelines of type {model.type}",
                where=model.uuid,
                hint="leave it out",
                code="run.option_refused",
            )


def run_pipeline(project: Project, model: PipelineModel, options: RunOptions, *subscribers: Subscriber) -> RunResult:
    """Run a pipeline to its end. From any thread, also where an event loop runs already.

    Args:
        subscribers: called with each event, from whichever thread it happens in.

    Raises:
        ConfigError, LeaseHeld: as `Engine.run`.
    """
    from streamline.execution.events import Bus
    from streamline.execution.run import run_to_end

    engine = engine_of(model)
    return run_to_end(partial(engine.run, project, model, options, Bus(subscribers)), uvloop=engine.uvloop)


def _entry(model: PipelineModel) -> _Entry:
    entry = ENGINES.get(model.type)
    if entry is None:
        raise ConfigError(
            f"this version does not run {model.type} pipelines", where=model.yaml.shown, code="pipeline.type_unknown"
        )
    return entry
