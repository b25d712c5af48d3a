"""Pipelines for scripts, notebooks and other schedulers: create, inspect and run them.

Runs go through the same engines as `streamline run`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import cached_property, partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from streamline.errors import ConfigError, PipelineFailed, StreamlineError
from streamline.project.current import current_folder, current_project

if TYPE_CHECKING:
    from streamline.execution.events import Subscriber
    from streamline.execution.run import RunOptions, RunResult
    from streamline.outputs.store import Output
    from streamline.outputs.streams import StoredStream
    from streamline.pipeline.model import Block, PipelineModel
    from streamline.project.project import Project

Folder = str | PathLike[str]


class PipelineType(StrEnum):
    """Types of pipelines. `PYSPARK` is one of Mage's; here it is a Python pipeline."""

    PYTHON = "python"
    INTEGRATION = "integration"
    STREAMING = "streaming"
    DBT = "dbt"
    PYSPARK = "pyspark"


def get_repo_path(*args: Any, **kwargs: Any) -> str:
    """Return the project's folder: that of the running block, else the project around the current folder.

    Without a project it is the current folder. Mage's arguments are accepted.
    """
    return str(current_folder())


class Pipeline:
    """A pipeline of a project. Making one reads its metadata.yaml; `create` makes a new one.

    Args:
        uuid: the name of its folder below `pipelines/`.
        repo_path: the project's folder; by default the project around the current folder.

    Raises:
        ConfigError: there is no such project or pipeline, or its metadata.yaml is wrong; file and line are named.
    """

    def __init__(self, uuid: str, repo_path: Folder | None = None, **kwargs: Any) -> None:
        self.project = _project(repo_path)
        self.uuid = uuid
        self.model = self._load()

    @classmethod
    def create(
        cls,
        name: str,
        repo_path: Folder | None = None,
        pipeline_type: PipelineType | str = PipelineType.PYTHON,
        description: str | None = None,
        tags: Sequence[str] | None = None,
    ) -> Self:
        """Create an empty pipeline: its folder with metadata.yaml, __init__.py and requirements.txt.

        Args:
            name: its name. If that cannot be a folder's name, the folder's name is derived from it.
            pipeline_type: one of `PipelineType`, or its text.

        Raises:
            ConfigError: it exists, or the type does not.
        """
        from streamline.pipeline.edit import create_pipeline

        project = _project(repo_path)
        uuid = _folder_name(name)
        folder = create_pipeline(
            project, uuid, str(getattr(pipeline_type, "value", pipeline_type)), description=description, tags=tags or ()
        )
        if uuid != name:
            from streamline.project.yamledit import edit_file, edit_text, put

            edit_file(folder / "metadata.yaml", lambda text: edit_text(text, lambda found: put(found, ("name",), name)))
        return cls(uuid, project.root)

    @overload
    @classmethod
    def get(
        cls, uuid: str, repo_path: Folder | None = None, *, check_if_exists: Literal[False] = False, **kwargs: Any
    ) -> Self: ...
    @overload
    @classmethod
    def get(
        cls, uuid: str, repo_path: Folder | None = None, *, check_if_exists: bool, **kwargs: Any
    ) -> Self | None: ...
    @classmethod
    def get(
        cls, uuid: str, repo_path: Folder | None = None, *, check_if_exists: bool = False, **kwargs: Any
    ) -> Self | None:
        """Return the pipeline of that name.

        Args:
            check_if_exists: return None if there is none, instead of raising.

        Raises:
            ConfigError: as for `Pipeline(…)`.
        """
        if check_if_exists and not cls.exists(uuid, repo_path):
            return None
        return cls(uuid, repo_path)

    @classmethod
    def exists(cls, uuid: str, repo_path: Folder | None = None) -> bool:
        """Return whether the project has the pipeline."""
        return uuid in cls.get_all_pipelines(repo_path)

    @classmethod
    def get_all_pipelines(cls, repo_path: Folder | None = None, **kwargs: Any) -> list[str]:
        """Return the names of the project's pipelines, sorted."""
        return _project(repo_path).pipelines()

    @property
    def name(self) -> str:
        """Its display name."""
        return self.model.name

    @property
    def type(self) -> PipelineType:
        """Its type."""
        return PipelineType(self.model.type)

    @property
    def description(self) -> str | None:
        """Its description."""
        return self.model.description

    @property
    def tags(self) -> list[str]:
        """Its tags."""
        return self.model.tags

    @property
    def variables(self) -> dict[str, Any]:
        """Its variables, templates unrendered."""
        return self.model.variables

    @property
    def repo_path(self) -> str:
        """The project's folder."""
        return str(self.project.root)

    @property
    def dir_path(self) -> str:
        """Its own folder."""
        return str(self.model.path)

    @property
    def config_path(self) -> str:
        """Its metadata.yaml."""
        return str(self.model.yaml.path)

    @cached_property
    def blocks_by_uuid(self) -> dict[str, PipelineBlock]:
        """Its blocks in the order of the file, without callbacks and conditionals."""
        return {uuid: PipelineBlock(self, block) for uuid, block in self.model.blocks.items()}

    def get_block(self, block_uuid: str, *args: Any, **kwargs: Any) -> PipelineBlock | None:
        """Return a block; None if there is none of that name."""
        return self.blocks_by_uuid.get(block_uuid)

    def has_block(self, block_uuid: str, *args: Any, **kwargs: Any) -> bool:
        """Return whether it has a block of that name."""
        return block_uuid in self.model.blocks

    def execute_sync(
        self,
        global_vars: Mapping[str, Any] | None = None,
        run_tests: bool = False,
        *,
        analyze_outputs: bool = False,
        build_block_output_stdout: Callable[..., object] | None = None,
        parallel: bool = False,
        retry_config: Mapping[str, Any] | None = None,
        run_sensors: bool = True,
        update_status: bool = True,
        on_event: Subscriber | None = None,
    ) -> RunResult:
        """Run it to its end, one block at a time. It may be called within a running event loop, which it blocks.

        Args:
            global_vars: variables of this run; they win over the pipeline's.
            run_tests: run the blocks' tests as well; one that fails fails its block.
            parallel: run independent blocks in parallel.
            retry_config: `{retries, delay, max_delay, exponential_backoff}` for blocks that have none of their own.
            run_sensors: False: treat every sensor's condition as met.
            on_event: called with each event of the run (`streamline.execution.events`), from whichever thread it
                happens in. What it raises harms no run.
            analyze_outputs, build_block_output_stdout, update_status: accepted as in Mage, without effect.

        Returns:
            the run: `run_id`, `status`, `summary`, `warnings`, and `log`, the path of its log.

        Raises:
            PipelineFailed: blocks failed; `blocks` names them.
            ConfigError: something is wrong that is seen before anything runs.
            LeaseHeld: another run of this pipeline is in progress.
        """
        options = _options(global_vars, tests=run_tests, parallel=parallel, skip_sensors=not run_sensors)
        return self._completed(self.run(options, retry_config=retry_config, on_event=on_event))

    async def execute(
        self,
        global_vars: Mapping[str, Any] | None = None,
        parallel: bool = True,
        run_tests: bool = False,
        *,
        analyze_outputs: bool = False,
        build_block_output_stdout: Callable[..., object] | None = None,
        retry_config: Mapping[str, Any] | None = None,
        run_sensors: bool = True,
        update_status: bool = True,
        on_event: Subscriber | None = None,
    ) -> RunResult:
        """Run it to its end without blocking the event loop, independent blocks in parallel.

        Arguments, result and errors are as for `execute_sync`.
        """
        from streamline.execution.engine import engine_of
        from streamline.execution.events import Bus

        options = _options(global_vars, tests=run_tests, parallel=parallel, skip_sensors=not run_sensors)
        self._reload(options, retry_config)
        bus = Bus([on_event] if on_event is not None else [])
        return self._completed(await engine_of(self.model).run(self.project, self.model, options, bus))

    def execute_block(
        self,
        block_uuid: str,
        global_vars: Mapping[str, Any] | None = None,
        run_tests: bool = False,
        run_sensors: bool = True,
    ) -> RunResult:
        """Run one of its blocks alone, on the stored outputs of the blocks before it.

        Raises:
            ConfigError: there is no such block, or an output that it needs is not stored.
            PipelineFailed, LeaseHeld: as `execute_sync`.
        """
        options = _options(global_vars, block=block_uuid, tests=run_tests, parallel=False, skip_sensors=not run_sensors)
        return self._completed(self.run(options))

    def output(self, block_uuid: str, *, as_frame: bool = False) -> Any:
        """Return what a block returned when it last completed, as its downstream blocks get it.

        Of a dynamic block's child, it is a list with what every call returned.

        Args:
            as_frame: of a source block, a pandas DataFrame for one stream, a dict of them by name for several.

        Raises:
            ConfigError: there is no such block.
            StreamlineError: nothing is stored.
        """
        from streamline.outputs.frames import Frames

        child, outputs = _stored(self, block_uuid)
        frames = Frames() if as_frame else None
        return [output.value(frames) for output in outputs] if child else outputs[0].value(frames)

    def run(
        self,
        options: RunOptions,
        *,
        retry_config: Mapping[str, Any] | None = None,
        on_event: Subscriber | None = None,
    ) -> RunResult:
        """Run it to its end and return the result, also of a run that failed.

        Raises:
            ConfigError, LeaseHeld: as `execute_sync`.
            KeyboardInterrupt, SystemExit: a signal interrupted it.
        """
        from streamline.execution.engine import run_pipeline

        self._reload(options, retry_config)
        subscribers = [on_event] if on_event is not None else []
        return _uninterrupted(run_pipeline(self.project, self.model, options, *subscribers))

    def failure(self, result: RunResult) -> PipelineFailed | None:
        """Return the error for a result whose run did not complete."""
        if result.status == "completed":
            return None
        from streamline.execution.events import one_line

        mask = self.project.secrets.masker.mask
        words = [mask(f"{name}: {one_line(failure)}") for name, failure in result.errors.items()]
        return PipelineFailed(
            f"the pipeline '{self.uuid}' {'was cancelled' if result.status == 'cancelled' else result.status}"
            + (f": {'; '.join(words)}" if words else ""),
            blocks=list(result.errors),
            where=self.model.yaml.shown,
            hint=f"`streamline runs show {result.run_id}` shows its blocks; the whole log: {result.log}",
        )

    def update_global_variable(self, key: str, value: Any) -> None:
        """Set one of its variables in metadata.yaml. `value` is made of what YAML can hold."""
        self._edit_variable(key, value)

    def delete_global_variable(self, key: str) -> None:
        """Delete one of its variables from metadata.yaml."""
        self._edit_variable(key, None, delete=True)

    def __repr__(self) -> str:
        return f"Pipeline({self.uuid!r}, {self.repo_path!r})"

    def _load(self) -> PipelineModel:
        from streamline.pipeline.reader import load_pipeline

        return load_pipeline(self.project, self.uuid)

    def _edit_variable(self, key: str, value: Any, *, delete: bool = False) -> None:
        from streamline.pipeline.variables import edit_variable

        edit_variable(self.project, self.uuid, key, value, delete=delete)
        self.model = self._load()

    def _reload(self, options: RunOptions, retry_config: Mapping[str, Any] | None) -> None:
        """Read its file again: the run is of what it says now, not of what it said when this object was made."""
        from streamline.execution.engine import takes

        self.project = _project(self.project.root)
        self.model = model = self._load()
        self.__dict__.pop("blocks_by_uuid", None)
        if options.block is not None:
            model.block(options.block)
            if not takes(model, "block"):
                raise ConfigError(
                    f"a block of a pipeline of type {model.type} does not run alone",
                    where=model.yaml.shown,
                    code="run.option_refused",
                )
        if retry_config is not None:
            _apply_retries(model, retry_config)

    def _completed(self, result: RunResult) -> RunResult:
        failure = self.failure(_uninterrupted(result))
        if failure is not None:
            raise failure
        return result


class PipelineBlock:
    """A block of a pipeline."""

    def __init__(self, pipeline: Pipeline, model: Block) -> None:
        self.pipeline = pipeline
        self.model = model
        self.uuid = model.uuid
        self.name = model.name
        self.type = model.type
        self.language = model.language
        self.configuration = model.configuration
        self.upstream_block_uuids = list(model.upstream)
        self.downstream_block_uuids = list(model.downstream)

    @property
    def upstream_blocks(self) -> list[PipelineBlock]:
        """The blocks whose outputs it gets, in the order of its arguments."""
        return [self.pipeline.blocks_by_uuid[uuid] for uuid in self.upstream_block_uuids]

    @property
    def downstream_blocks(self) -> list[PipelineBlock]:
        """The blocks that get its output."""
        return [self.pipeline.blocks_by_uuid[uuid] for uuid in self.downstream_block_uuids]

    @property
    def file_path(self) -> str | None:
        """Its file; None if its content is in metadata.yaml."""
        return None if self.model.file is None else str(self.model.file)

    def execute_sync(
        self, global_vars: Mapping[str, Any] | None = None, run_tests: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Run it alone, on the stored outputs of the blocks before it.

        Returns:
            `{"output": […]}`: its outputs.

        Raises:
            PipelineFailed, ConfigError, LeaseHeld: as `Pipeline.execute_block`.
        """
        self.pipeline.execute_block(self.uuid, global_vars, run_tests)
        return {"output": stored_outputs(self.pipeline, self.uuid)}

    def __repr__(self) -> str:
        return f"Block({self.uuid!r}, {self.type!r})"


def run(
    pipeline_uuid: str,
    project_path: Folder | None = None,
    block_uuid: str | None = None,
    run_sensors: bool = True,
    **global_vars: Any,
) -> None:
    """Run a pipeline, or one block of it, to its end.

    Args:
        project_path: the project's folder; by default the project around the current folder.
        global_vars: variables of this run.

    Raises:
        PipelineFailed, ConfigError, LeaseHeld: as `Pipeline.execute_sync`.
    """
    # Schedulers written for Mage pass these.
    variables = {key: value for key, value in global_vars.items() if key not in ("analyze_outputs", "update_status")}
    pipeline = Pipeline(pipeline_uuid, project_path)
    if block_uuid is None:
        pipeline.execute_sync(variables, run_sensors=run_sensors)
    else:
        pipeline.execute_block(block_uuid, variables, run_sensors=run_sensors)


def stored_outputs(pipeline: Pipeline, block_uuid: str) -> list[Any]:
    """Return a block's stored outputs; of a dynamic block's child, those of every call.

    Raises:
        ConfigError: there is no such block.
        StreamlineError: it has not stored any yet.
    """
    child, outputs = _stored(pipeline, block_uuid)
    return [output.value() for output in outputs] if child else outputs[0].values()


def stored_streams(pipeline: Pipeline, block_uuid: str) -> list[StoredStream] | None:
    """Return the stored streams of a source block, unread; None for any other block.

    Raises:
        ConfigError: there is no such block.
        StreamlineError: it has not stored any yet.
    """
    from streamline.outputs.stream_frames import merged

    streams = [output.streams() for output in _stored(pipeline, block_uuid)[1]]
    known = [each for each in streams if each is not None]
    return merged(known) if known and len(known) == len(streams) else None


def _stored(pipeline: Pipeline, block_uuid: str) -> tuple[bool, list[Output]]:
    """Open the stored outputs of a block's calls. Return also whether it is a dynamic block's child."""
    from streamline.execution.batch.output_layout import OutputLayout
    from streamline.outputs.store import open_output, project_key

    pipeline.model.block(block_uuid)
    if not pipeline.model.stores_outputs:
        raise ConfigError(
            f"blocks of a pipeline of type {pipeline.model.type} store no output",
            where=pipeline.uuid,
            hint=f"to see records of a source: streamline sample {pipeline.uuid} STREAM",
            code="output.never_stored",
        )
    layout = OutputLayout(pipeline.project, pipeline.uuid, "")
    stored = layout.remembered(block_uuid)
    if stored is None:
        from streamline.blocks.connector.role import connector_role

        hint = f"run it first: streamline run {pipeline.uuid}"
        if connector_role(pipeline.model.block(block_uuid)) is not None:
            hint += "; a source that feeds a destination as it reads stores none, nor does a destination"
        raise StreamlineError(
            f"the block '{block_uuid}' of '{pipeline.uuid}' has no stored output",
            hint=hint,
            code="block.no_stored_output",
        )
    folder = layout.block(block_uuid)
    key = partial(project_key, pipeline.project.work_dir)
    folders = [folder / str(call.number) for call in stored.calls if not call.skipped] if stored.child else [folder]
    return stored.child, [open_output(each, key) for each in folders]


def _options(global_vars: Mapping[str, Any] | None, **options: Any) -> RunOptions:
    from streamline.execution.run import RunOptions

    return RunOptions(variables=dict(global_vars or {}), **options)


def _apply_retries(model: PipelineModel, given: Mapping[str, Any]) -> None:
    """Use `given` for blocks that have no retry_config of their own."""
    import msgspec

    from streamline.pipeline.model import RetryConfig

    try:
        config = msgspec.convert(dict(given), RetryConfig, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"retry_config: {error}",
            hint="its keys are retries, delay, max_delay and exponential_backoff",
            code="setting.invalid",
        ) from None
    for block in model.blocks.values():
        if block.retry_config is None or block.retry_config == model.retry_config:
            block.retry_config = config


def _uninterrupted(result: RunResult) -> RunResult:
    """Raise what a signal means to this process, if the run caught one to end in order."""
    if result.signal is None:
        return result
    import signal

    raise KeyboardInterrupt if result.signal == signal.SIGINT else SystemExit(128 + result.signal)


def _project(repo_path: Folder | None) -> Project:
    if repo_path is None:
        return current_project()
    from streamline.project.project import Project

    return Project.open(Path(repo_path))


def _folder_name(name: str) -> str:
    """Return the name if it can be a folder's, else the name that Mage derives from it."""
    import re

    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", name):
        return name
    cleaned = re.sub(r"\W", "_", name, flags=re.ASCII).lower()
    return f"letter_{cleaned}" if cleaned[:1].isdigit() else cleaned
