"""The runner's settings in a batch block's `configuration`: fan-out, sensors, isolation, secrecy of outputs.

The rest of `configuration` belongs to the block's own kind, or to its author, and may hold templates. These keys
decide the plan before anything is rendered, so they hold no templates.
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
"""Seconds between two questions to a sensor, unless it says otherwise."""

# The second form of Mage (its DYNAMIC_BLOCKS_VERSION=2). `modes` says how children get their items
# while the parent still runs; what they get is the same.
_DYNAMIC_KEYS = words("parent reduce_output reduce_output_upstream modes")


class BlockSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a block's configuration says to the runner.

    Args:
        dynamic: its downstream blocks run once for each item of its output.
        reduce_output: its children's outputs are gathered into one list for the blocks behind it.
        isolated: it runs in the environment of the pipeline's requirements.txt.
        secret_output: its output is never written to disk.
        interval: of a sensor: seconds between two questions.
        give_up_after: of a sensor: seconds after which it has failed (`configuration.timeout`); None: never.
    """

    dynamic: bool = False
    reduce_output: bool = False
    isolated: bool = False
    secret_output: bool = False
    interval: float = INTERVAL
    give_up_after: float | None = None


def block_settings(model: PipelineModel, block: Block) -> BlockSettings:
    """The settings in a block's configuration.

    Raises:
        ConfigError: one of them is not what it should be; it names file and line.
    """
    given = block.configuration
    if not given and not any("dynamic" in model.blocks[one].configuration for one in block.downstream):
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
        interval=interval if interval is not None else INTERVAL,
        give_up_after=give_up_after,
    )


_PLAIN = BlockSettings()


def _switch(model: PipelineModel, block: Block, key: str) -> bool:
    value = block.configuration.get(key)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise _error(model, block, f"{key} must be true or false, not {kind_of(value)}", key, _why_plain(value))


def _why_plain(value: Any) -> str | None:
    if isinstance(value, str) and "{{" in value:
        return "this setting is read before templates are rendered"
    if isinstance(value, str) and value.lower() in ("true", "false", "yes", "no"):
        return "remove the quotes"
    return None


def _dynamic(model: PipelineModel, block: Block) -> bool:
    value = block.configuration.get("dynamic")
    if isinstance(value, dict):
        for key in value:
            if key not in _DYNAMIC_KEYS:
                hint = suggestion(key, _DYNAMIC_KEYS, what="keys")
                raise _error(model, block, f"unknown key '{key}' in dynamic", ("dynamic", key), hint)
        return _for_all(model, block, value.get("parent"), ("dynamic", "parent"))
    if value is None or isinstance(value, bool):
        return bool(value)
    message = f"dynamic must be true, false or a mapping with `parent: true`, not {kind_of(value)}"
    raise _error(model, block, message, "dynamic", _why_plain(value))


def _reduces(model: PipelineModel, block: Block) -> bool:
    second_form = block.configuration.get("dynamic")
    given = second_form.get("reduce_output") if isinstance(second_form, dict) else None
    own = _for_all(model, block, given, ("dynamic", "reduce_output"))
    return _switch(model, block, "reduce_output") or own or _gathered_by(model, block)


def _gathered_by(model: PipelineModel, block: Block) -> bool:
    """Whether the blocks behind it say themselves that they want its outputs gathered."""
    asking = [one for one in block.downstream if block.uuid in _gathers(model, model.blocks[one])]
    if asking and len(asking) < len(block.downstream):
        other = next(one for one in block.downstream if one not in asking)
        raise _error(
            model,
            model.blocks[asking[0]],
            f"'{asking[0]}' gathers the outputs of '{block.uuid}', and '{other}' does not",
            ("dynamic", "reduce_output_upstream"),
            f"gather for both with `reduce_output: true` at '{block.uuid}', or put a block of its own before '{other}'",
        )
    return bool(asking)


def _gathers(model: PipelineModel, block: Block) -> list[str]:
    second_form = block.configuration.get("dynamic")
    names = second_form.get("reduce_output_upstream") if isinstance(second_form, dict) else None
    if names is None:
        return []
    return _names(model, block, names, block.upstream, ("dynamic", "reduce_output_upstream"))


def _for_all(model: PipelineModel, block: Block, value: Any, path: tuple[str, ...]) -> bool:
    """Whether a setting that may name some of the downstream blocks is on: true, or all of them."""
    if value is None or isinstance(value, bool):
        return bool(value)
    names = _names(model, block, value, block.downstream, path)
    missing = [one for one in block.downstream if one not in names]
    if names and missing:
        raise _error(
            model,
            block,
            f"{'.'.join(path)} holds for all downstream blocks or for none, and '{missing[0]}' is not listed",
            path,
            f"say `true`, or put a block of its own between '{block.uuid}' and '{missing[0]}'",
        )
    return bool(names)


def _names(model: PipelineModel, block: Block, value: Any, known: Iterable[str], path: tuple[str, ...]) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        message = f"{'.'.join(path)} must be true or a list of uuids, not {kind_of(value)}"
        raise _error(model, block, message, path, _why_plain(value))
    for index, name in enumerate(value):
        if name not in known:
            hint = suggestion(name, known, what="blocks there")
            where = model.where(block.uuid, "configuration", *path, index)
            raise ConfigError(f"{'.'.join(path)}: '{name}' is no neighbour of '{block.uuid}'", where=where, hint=hint)
    return list(value)


def _seconds(model: PipelineModel, block: Block, key: str) -> float | None:
    value = block.configuration.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        message = f"{key} must be a number of seconds above 0, not {kind_of(value)}"
        raise _error(model, block, message, key, _why_plain(value))
    return float(value)


def _error(
    model: PipelineModel, block: Block, message: str, path: str | tuple[str, ...], hint: str | None
) -> ConfigError:
    keys = (path,) if isinstance(path, str) else path
    return ConfigError(message, where=model.where(block.uuid, "configuration", *keys), hint=hint)
