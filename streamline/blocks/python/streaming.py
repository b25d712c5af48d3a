"""Python sources and sinks of streaming pipelines: finds the `@streaming_source` or `@streaming_sink` class of a file,
and opens it.

The file is loaded, and the object made, in the thread of the source or sink. What can be said before is read from the
file's text.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

from streamline.blocks.python.file import BlockFile, PythonFile, name_of, parsed, user_error
from streamline.blocks.python.function import decorator_name
from streamline.blocks.python.templates import STREAMING_SINK, STREAMING_SOURCE
from streamline.connectors.python.sink import BATCH_SIZE as SINK_BATCH_SIZE
from streamline.connectors.python.sink import PythonSink
from streamline.connectors.python.source import BATCH_SIZE as SOURCE_BATCH_SIZE
from streamline.connectors.python.source import READING, PythonSource
from streamline.connectors.python.user_class import UserClass, UserObject
from streamline.connectors.stream_connector import Config, Side, SinkTraits, SourceTraits, StreamContext, Where
from streamline.errors import ConfigError
from streamline.processes.job import Failure

_DECORATORS: Mapping[Side, str] = {"source": "streaming_source", "destination": "streaming_sink"}
_METHODS: Mapping[Side, tuple[str, ...]] = {
    "source": tuple(READING.values()),
    "destination": ("batch_write", "write"),
}
_BASES = frozenset({"streamline.compat.streaming"})
"""Modules of base classes that connect in their constructor, and whose methods do nothing."""
_BASE_NAMES = frozenset({"BasePythonSource", "BasePythonSink", "BaseSource", "BaseSink", "object", "ABC"})


def python_source(block: BlockFile, context: StreamContext, keywords: Mapping[str, Any]) -> PythonSource:
    """Open the source that a block's class is.

    Args:
        keywords: what the class gets: pipeline variables, `configuration`, `env`, `run_id` ….

    Raises:
        ConfigError: a setting in `configuration` is invalid.
    """
    config = keywords.get("configuration") or {}
    where = _where(block)
    return PythonSource(
        context.block,
        _user_class(block, "source", context, keywords),
        batch_size=_batch_size(config, SOURCE_BATCH_SIZE, where),
        start=context.start,
        waits=_flag(config, "wait_for_proof", True, where),
        until_caught_up=context.until_caught_up,
        note=context.note,
    )


def python_sink(block: BlockFile, context: StreamContext, keywords: Mapping[str, Any]) -> PythonSink:
    """Open the sink that a block's class is; see `python_source`."""
    config = keywords.get("configuration") or {}
    where = _where(block)
    return PythonSink(
        context.block,
        _user_class(block, "destination", context, keywords),
        batch_size=_batch_size(config, SINK_BATCH_SIZE, where),
        include_metadata=_flag(config, "include_metadata", False, where),
        checkpoint_interval=context.checkpoint_interval,
        set_aside=context.set_aside,
        note=context.note,
        memory=context.memory,
    )


def python_connector(
    block: BlockFile, configuration: Mapping[str, Any], keywords: Mapping[str, Any] | None = None
) -> PythonConnector:
    """Return a block's class as a connector.

    Args:
        configuration: of the block.
        keywords: see `python_source`.
    """
    return PythonConnector(block, configuration, keywords)


class PythonConnector:
    """A block's class as a `StreamConnector`.

    Attributes:
        keywords: what the class gets; set before it is opened.
    """

    name = "python"

    def __init__(
        self, block: BlockFile, configuration: Mapping[str, Any], keywords: Mapping[str, Any] | None = None
    ) -> None:
        self.keywords: Mapping[str, Any] = {"configuration": configuration, **(keywords or {})}
        self._block = block

    def describe_source(self, config: Config, context: StreamContext, where: Where) -> SourceTraits:
        """See `StreamConnector.describe_source`."""
        check_class(self._block, "source")
        waits = _flag(config, "wait_for_proof", True, where)
        return SourceTraits(
            replays=waits,
            positions="the state store, or what the class acknowledges itself",
            include_metadata=_flag(config, "include_metadata", False, where),
            batch_size=_batch_size(config, SOURCE_BATCH_SIZE, where),
            ends=True,
        )

    def describe_sink(self, config: Config, context: StreamContext, where: Where) -> SinkTraits:
        """See `StreamConnector.describe_sink`."""
        found = check_class(self._block, "destination")
        _batch_size(config, SINK_BATCH_SIZE, where)
        _flag(config, "include_metadata", False, where)
        return SinkTraits(
            proof="flush() returns" if "flush" in _defined(found) else "batch_write() returns", changes_data=True
        )

    def open_source(self, config: Config, context: StreamContext, where: Where) -> PythonSource:
        """See `StreamConnector.open_source`."""
        return python_source(self._block, context, {**self.keywords, "configuration": config})

    def open_sink(
        self, configs: Mapping[str, Config], context: StreamContext, where: Mapping[str, Where]
    ) -> PythonSink:
        """See `StreamConnector.open_sink`."""
        (config,) = configs.values()
        return python_sink(self._block, context, {**self.keywords, "configuration": config})

    def check(self, side: Side, config: Config, context: StreamContext, where: Where) -> str:
        """See `StreamConnector.check`."""
        found = check_class(self._block, side)
        made = UserObject(_user_class(self._block, side, context, {**self.keywords, "configuration": config}), {})
        made.destroy()
        return f"{found.name} connects"

    def template(self, side: Side, pipeline: str, block: str) -> str:
        """See `StreamConnector.template`."""
        return STREAMING_SOURCE if side == "source" else STREAMING_SINK


def check_class(block: BlockFile, side: Side) -> ast.ClassDef:
    """Return the class of a block's file, which is only read.

    Raises:
        ConfigError: the file cannot be read or is not Python; it has no such class, or several; or the class has no
            method that reads or writes.
    """
    decorator = _DECORATORS[side]
    tree, _ = parsed(block, block.text())
    classes = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any(decorator_name(each) == decorator for each in node.decorator_list)
    ]
    if not classes:
        raise _no_class(block, decorator)
    if len(classes) > 1:
        raise _several_classes(block, decorator, [f"{each.name} (line {each.lineno})" for each in classes])
    (found,) = classes
    known = {_last_name(base) for base in found.bases} <= _BASE_NAMES
    if known and not _defined(found).intersection(_METHODS[side]):
        first, *others = _METHODS[side]
        given = "handler" if side == "source" else "messages"
        raise ConfigError(
            f"class {found.name} has no method {first}({given})",
            where=f"{block.name}:{found.lineno}",
            hint=f"define {first}({given}); or one of: {', '.join(others)}",
            code="streaming_class.method_missing",
        )
    return found


def _user_class(block: BlockFile, side: Side, context: StreamContext, keywords: Mapping[str, Any]) -> UserClass:
    checkpoint = context.root / ".streamline" / "data" / context.pipeline / ".checkpoints" / f"{context.block}.json"

    def load() -> type:
        kind = _load(block, _DECORATORS[side])
        if hasattr(kind, "update_checkpoint"):
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
        return kind

    def explain(error: BaseException) -> Failure:
        raised = user_error(error, block.path, block.name)
        return Failure(message=raised.summary, where=raised.where, trace=raised.trace or None, hint=raised.hint)

    variables = dict(keywords)
    return UserClass(
        block=context.block,
        load=load,
        explain=explain,
        keywords={**variables, "global_vars": variables, "checkpoint_path": str(checkpoint)},
        attributes={"global_vars": variables},
        defaults={"_print": print},
        bases=_BASES,
        where=block.name,
    )


def _load(block: BlockFile, decorator: str) -> type:
    """Load a block's file; return its class.

    Raises:
        ConfigError: it has no such class, or several.
        UserError: it raised.
    """
    classes = [each for each in PythonFile(block).marked(decorator) if isinstance(each, type)]
    if not classes:
        raise _no_class(block, decorator)
    if len(classes) > 1:
        raise _several_classes(block, decorator, [name_of(each) for each in classes])
    return classes[0]


def _no_class(block: BlockFile, decorator: str) -> ConfigError:
    return ConfigError(
        f"no class in this file is decorated with @{decorator}",
        where=block.name,
        hint=f"write @{decorator} above the class",
        code="block.class_missing",
    )


def _several_classes(block: BlockFile, decorator: str, names: list[str]) -> ConfigError:
    return ConfigError(
        f"more than one class in this file is decorated with @{decorator}: {' and '.join(names)}",
        where=block.name,
        hint="leave the decorator on one of them",
        code="block.class_ambiguous",
    )


def _defined(found: ast.ClassDef) -> set[str]:
    """Return the names that a class's body defines."""
    names = {node.name for node in found.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    for node in found.body:
        if isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return names


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _where(block: BlockFile) -> Callable[..., str]:
    return lambda *keys: f"{block.name} (block {block.uuid})"


def _batch_size(config: Mapping[str, Any], default: int, where: Where) -> int:
    value = config.get("batch_size", default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(
            f"configuration.batch_size is {value!r}; it must be a whole number, at least 1",
            where=where("batch_size"),
            code="setting.invalid",
        )
    return value


def _flag(config: Mapping[str, Any], name: str, default: bool, where: Where) -> bool:
    value = config.get(name, default)
    if not isinstance(value, bool):
        raise ConfigError(
            f"configuration.{name} is {value!r}; it must be true or false", where=where(name), code="setting.invalid"
        )
    return value
