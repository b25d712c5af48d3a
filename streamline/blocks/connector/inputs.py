"""What `configuration.data_integration.inputs` says about the upstream blocks of a source or destination block.

Left out, every upstream output is an argument of the decorated functions and, for a destination, exported. Given, only
the listed ones are arguments; the others are still exported, those with `input_only` are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.errors import ConfigError
from streamline.project.suggest import suggestion
from streamline.project.yamlfile import PathKey, dotted, kind_of

if TYPE_CHECKING:
    from streamline.pipeline.model import Block

PATH = ("data_integration", "inputs")
"""Where the settings stand in a block's configuration."""

Where = Callable[[Sequence[PathKey]], str]


class InputSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one upstream block.

    Args:
        streams: the streams of its output that are passed and exported; empty: all.
        catalog: pass `(data, catalog)` instead of the data.
        input_only: do not export it.
        where: `file:line` of `streams`, else of the settings.
    """

    streams: tuple[str, ...] = ()
    catalog: bool = False
    input_only: bool = False
    where: str | None = None


_KEYS = tuple(name for name in InputSettings.__struct_fields__ if name != "where")
_DEFAULT = InputSettings()


class Inputs(msgspec.Struct, frozen=True):
    """The settings of a block's inputs. `listed`: by upstream block; None: the block has none."""

    listed: Mapping[str, InputSettings] | None = None

    def passes(self, uuid: str) -> bool:
        """Return whether the output of this upstream block is an argument of the decorated functions."""
        return self.listed is None or uuid in self.listed

    def of(self, uuid: str) -> InputSettings:
        """Return the settings of an upstream block."""
        return (self.listed or {}).get(uuid, _DEFAULT)


def read_inputs(block: Block, where: Where, *, mage: bool = False) -> Inputs:
    """Read the settings from a block's configuration.

    Args:
        where: returns `file:line` of a path below the configuration.
        mage: other keys beside `inputs` are ignored: Mage keeps more there.

    Raises:
        ConfigError: a block that is not upstream, an unknown key, or a value of the wrong type.
    """
    settings = block.configuration.get(PATH[0])
    if settings is None:
        return Inputs()
    _must_be_mapping(settings, PATH[:1], where)
    if not mage:
        _refuse_unknown(settings, PATH[1:], PATH[:1], where)
    raw = settings.get(PATH[1])
    if raw is None:
        return Inputs()
    if isinstance(raw, list):
        for number, name in enumerate(raw):
            if not isinstance(name, str):
                raise _invalid(f"must be a list of upstream blocks, not of {kind_of(name)}", (*PATH, number), where)
        listed = {name: InputSettings() for name in raw}
    else:
        _must_be_mapping(raw, PATH, where)
        listed = {name: _one(options, (*PATH, name), where) for name, options in raw.items()}
    for number, name in enumerate(listed):
        if name not in block.upstream:
            path = (*PATH, number if isinstance(raw, list) else name)
            raise ConfigError(
                f"{dotted(PATH)}: '{name}' is not upstream of '{block.uuid}'",
                where=where(path),
                hint=suggestion(name, block.upstream, what="upstream blocks"),
                code="block.not_upstream",
            )
    return Inputs(listed)


def _one(options: Any, path: tuple[PathKey, ...], where: Where) -> InputSettings:
    if options is None:
        return InputSettings(where=where(path))
    _must_be_mapping(options, path, where)
    _refuse_unknown(options, _KEYS, path, where)
    streams = options.get("streams") or ()
    if not isinstance(streams, list | tuple) or not all(isinstance(name, str) and name for name in streams):
        raise _invalid("must be a list of stream names", (*path, "streams"), where)
    switches = {key: options.get(key) or False for key in ("catalog", "input_only")}
    for key, value in switches.items():
        if not isinstance(value, bool):
            raise _invalid(f"must be true or false, not {kind_of(value)}", (*path, key), where)
    place = where((*path, "streams")) if streams else where(path)
    return InputSettings(streams=tuple(dict.fromkeys(streams)), where=place, **switches)


def _must_be_mapping(value: Any, path: Sequence[PathKey], where: Where) -> None:
    if not isinstance(value, dict):
        expected = "a list of upstream blocks, or a mapping of them to settings" if path == PATH else "a mapping"
        raise _invalid(f"must be {expected}, not {kind_of(value)}", path, where)


def _refuse_unknown(value: Mapping[str, Any], known: Sequence[str], path: Sequence[PathKey], where: Where) -> None:
    for key in value:
        if key not in known:
            raise ConfigError(
                f"unknown key '{key}' in {dotted(path)}",
                where=where((*path, key)),
                hint=suggestion(key, known),
                code="setting.unknown",
            )


def _invalid(text: str, path: Sequence[PathKey], where: Where) -> ConfigError:
    return ConfigError(f"{dotted(path)} {text}", where=where(path), code="setting.invalid")
