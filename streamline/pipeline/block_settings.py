"""Read the runner's settings from a batch block's `configuration`: dynamic, sensor, isolated, secret_output.

Other keys of `configuration` belong to the block's kind or to its author, and may contain templates. The keys read
here determine the plan before templates are rendered, so they cannot contain templates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.errors import ConfigError
from streamline.project.suggest import suggestion, words
from streamline.project.yamlfile import kind_of

if TYPE_CHECKING:
    from streamline.pipeline.model import Block, PipelineModel

INTERVAL = 60.0
"""Default number of seconds between two checks of a sensor."""

SWITCHES = ("dynamic", "reduce_output", "isolated", "secret_output", "advance_on_skip")
"""Keys whose value is true or false."""

# The keys of Mage's DYNAMIC_BLOCKS_VERSION=2. `modes` sets how children receive items while the parent still runs;
# the items are the same, so it has no effect here.
_DYNAMIC_KEYS = words("parent reduce_output reduce_output_upstream modes")


class BlockSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The runner's settings of a block.

    Args:
        dynamic: run each downstream block once per item of this block's output.
        reduce_output: collect the outputs of the block's children into a list for its downstream blocks.
        isolated: run the block in the environment of the pipeline's requirements.txt.
        secret_output: never write the block's output to disk.
        advance_on_skip: of a source: a downstream block that is skipped does not hold back its bookmarks.
        interval: seconds between two checks of a sensor.
        give_up_after: seconds after which a sensor fails (`configuration.timeout`); None: no limit.
    """

    dynamic: bool = False
    reduce_output: bool = False
    isolated: bool = False
    secret_output: bool = False
    advance_on_skip: bool = False
    interval: float = INTERVAL
    give_up_after: float | None = None


def block_settings(model: PipelineModel, block: Block) -> BlockSettings:
    """Return the runner's settings of a block.

    Raises:
        ConfigError: a setting is invalid; the error names file and line.
    """
    children = (model.blocks[uuid] for uuid in block.downstream)
    if not block.configuration and not any("dynamic" in child.configuration for child in children):
        return _PLAIN
    interval = give_up_after = None
    if block.type == "sensor":
        interval = _seconds(model, block, "interval")
        give_up_after = _seconds(model, block, "timeout")
    return BlockSettings(
        dynamic=_dynamic(model, block),
        reduce_output=_reduces(model, block),
        isolated=_switch(model, block, "isolated"),
        secret_output=_switch(model, block, "secret_output"),
        advance_on_skip=_switch(model, block, "advance_on_skip"),
        interval=interval if interval is not None else INTERVAL,
        give_up_after=give_up_after,
    )


_PLAIN = BlockSettings()


def _switch(model: PipelineModel, block: Block, key: str) -> bool:
    value = block.configuration.get(key)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise _error(model, block, f"{key} must be true or false, not {kind_of(value)}", key, _template_hint(value))


def _template_hint(value: Any) -> str | None:
    if isinstance(value, str) and "{{" in value:
        return "templates are not rendered in this setting; write the value itself"
    if isinstance(value, str) and value.lower() in ("true", "false", "yes", "no"):
        return "remove the quotes"
    return None


def _dynamic(model: PipelineModel, block: Block) -> bool:
    value = block.configuration.get("dynamic")
    if isinstance(value, dict):
        for key in value:
            if key not in _DYNAMIC_KEYS:
                hint = suggestion(key, _DYNAMIC_KEYS, what="keys")
                raise _error(model, block, f"unknown key '{key}' in dynamic", ("dynamic", key), hint, "setting.unknown")
        return _for_all(model, block, value.get("parent"), ("dynamic", "parent"))
    if value is None or isinstance(value, bool):
        return bool(value)
    message = f"dynamic must be true, false or a mapping with `parent: true`, not {kind_of(value)}"
    raise _error(model, block, message, "dynamic", _template_hint(value))


def _reduces(model: PipelineModel, block: Block) -> bool:
    value = _dynamic_key(block, "reduce_output")
    reduced = _for_all(model, block, value, ("dynamic", "reduce_output"))
    return _switch(model, block, "reduce_output") or reduced or _reduced_by_children(model, block)


def _dynamic_key(block: Block, key: str) -> Any:
    dynamic = block.configuration.get("dynamic")
    return dynamic.get(key) if isinstance(dynamic, dict) else None


def _reduced_by_children(model: PipelineModel, block: Block) -> bool:
    """Return whether all downstream blocks list this block in their `reduce_output_upstream`."""
    reducing = [uuid for uuid in block.downstream if block.uuid in _reduced_upstream(model, model.blocks[uuid])]
    if reducing and len(reducing) < len(block.downstream):
        other = next(uuid for uuid in block.downstream if uuid not in reducing)
        raise _error(
            model,
            model.blocks[reducing[0]],
            f"'{reducing[0]}' reduces the output of '{block.uuid}', but '{other}' does not",
            ("dynamic", "reduce_output_upstream"),
            f"set `reduce_output: true` on '{block.uuid}' for both, or add a block between it and '{other}'",
        )
    return bool(reducing)


def _reduced_upstream(model: PipelineModel, block: Block) -> list[str]:
    names = _dynamic_key(block, "reduce_output_upstream")
    if names is None:
        return []
    return _names(model, block, names, block.upstream, ("dynamic", "reduce_output_upstream"))


def _for_all(model: PipelineModel, block: Block, value: Any, path: tuple[str, ...]) -> bool:
    """Return whether a setting is on: it is true, or lists all downstream blocks."""
    if value is None or isinstance(value, bool):
        return bool(value)
    names = _names(model, block, value, block.downstream, path)
    missing = [uuid for uuid in block.downstream if uuid not in names]
    if names and missing:
        raise _error(
            model,
            block,
            f"{'.'.join(path)} must list all downstream blocks or none; '{missing[0]}' is missing",
            path,
            f"set it to true, or add a block between '{block.uuid}' and '{missing[0]}'",
        )
    return bool(names)


def _names(model: PipelineModel, block: Block, value: Any, known: Iterable[str], path: tuple[str, ...]) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        message = f"{'.'.join(path)} must be true or a list of uuids, not {kind_of(value)}"
        raise _error(model, block, message, path, _template_hint(value))
    for index, name in enumerate(value):
        if name not in known:
            raise ConfigError(
                f"{'.'.join(path)}: '{name}' is not connected to '{block.uuid}'",
                where=model.where(block.uuid, "configuration", *path, index),
                hint=suggestion(name, known, what="connected blocks"),
                code="graph.unknown_block",
            )
    return list(value)


def _seconds(model: PipelineModel, block: Block, key: str) -> float | None:
    value = block.configuration.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        message = f"{key} must be a number of seconds above 0, not {kind_of(value)}"
        raise _error(model, block, message, key, _template_hint(value))
    return float(value)


def _error(
    model: PipelineModel,
    block: Block,
    message: str,
    path: str | tuple[str, ...],
    hint: str | None,
    code: str = "setting.invalid",
) -> ConfigError:
    keys = (path,) if isinstance(path, str) else path
    return ConfigError(message, where=model.where(block.uuid, "configuration", *keys), hint=hint, code=code)
