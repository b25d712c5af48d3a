"""The texts that new source, destination and mapper blocks begin with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from streamline.connectors.registry import example_config
from streamline.errors import ConfigError

_SOURCE_STREAM = """\
  {stream}:  # a stream's name or id, or a pattern such as public-*
    replication_method: INCREMENTAL  # FULL_TABLE | INCREMENTAL | LOG_BASED
    bookmark_properties: [updated_at]
    unique_constraints: [id]
    # columns: [id, total, updated_at]  # or {{exclude: [note]}}
    # run_in_parallel: true
"""
_DESTINATION_STREAM = """\
  {stream}:  # only the streams listed are exported; "*" stands for the rest
    destination_table: {table}
    unique_constraints: [id]
    unique_conflict_method: UPDATE  # UPDATE | IGNORE
    # load_method: upsert  # append | upsert | replace
"""

_SOURCE_PYTHON = """\
from streamline.decorators import (
    data_integration_catalog,
    data_integration_config,
    data_integration_selected_streams,
    data_integration_source,
)


@data_integration_source
def source(*args, **kwargs) -> str:
    return {name!r}


@data_integration_config
def config(*args, **kwargs) -> dict:
    return {config!r}


@data_integration_selected_streams(discover_streams=False)
def selected_streams(*args, **kwargs) -> list[str]:
    return {streams!r}  # empty: every stream that the catalog selects


@data_integration_catalog(discover=False, select_all=True)
def catalog(*args, **kwargs) -> dict | None:
    return None  # nothing overridden
"""
_DESTINATION_PYTHON = """\
from streamline.decorators import data_integration_config, data_integration_destination


@data_integration_destination
def destination(*args, **kwargs) -> str:
    return {name!r}


@data_integration_config
def config(*args, **kwargs) -> dict:
    return {config!r}
"""


def connector_block(
    role: str, name: str, connector: str, language: str, streams: Sequence[str], *, with_streams: bool
) -> str:
    """A source, destination or mapper block.

    Args:
        role: `source`, `destination` or `mapper`.
        name: what the block calls the plugin.
        connector: the connector's full name, which tells the config that it needs.
        language: `yaml` or `python`.
        streams: streams to name in it.
        with_streams: name one as an example where there are none.

    Raises:
        ConfigError: there is no template in that language.
    """
    config = dict(example_config(connector))
    if language == "python" and role in ("source", "destination"):
        template = _SOURCE_PYTHON if role == "source" else _DESTINATION_PYTHON
        return template.format(name=name, config=_without_templates(config), streams=list(streams))
    if language != "yaml":
        raise ConfigError(f"a {role} cannot be written in {language}", hint="use --language yaml")
    from streamline.project.yamledit import to_yaml

    text = to_yaml({role: name}) + ("config:\n" if config else "config: {}  # what the connector needs\n")
    for key, value in config.items():
        is_template = isinstance(value, str) and "{{" in value
        text += f'  {key}: "{value}"\n' if is_template else "  " + to_yaml({key: value})
    if role == "mapper" or not (streams or with_streams):
        return text
    text += "streams:\n"
    template = _SOURCE_STREAM if role == "source" else _DESTINATION_STREAM
    for stream in streams or ["orders"]:
        text += template.format(stream=_word(stream), table=_word(stream.rpartition("-")[2]))
    if role == "destination":
        text += "on_bad_record: pass  # pass | quarantine | fail\nschema_change: evolve  # evolve | freeze | pause\n"
    return text


def _without_templates(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: "" if isinstance(value, str) and "{{" in value else value for key, value in config.items()}


def _word(text: str) -> str:
    """`text` as a YAML value."""
    from streamline.project.yamledit import to_yaml

    return to_yaml({"x": text})[3:].rstrip("\n")
