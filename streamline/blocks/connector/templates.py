"""The texts that new source, destination and mapper blocks begin with."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from streamline.connectors.registry import example_config
from streamline.project.yamledit import to_yaml

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
_PYTHON = """\
{imports}from streamline.decorators import (
    {decorators},
)


@{decorator}
def {role}(*args, **kwargs) -> str:
    return {name}


@data_integration_config
def config(*args, **kwargs) -> dict:
    # Outputs of upstream blocks are positional arguments: `def config(credentials, *args, **kwargs)`.
    return {{{config}}}


@data_integration_selected_streams
def selected_streams(*args, **kwargs) -> list[str]:
    # {meaning}
    return [{streams}]
"""
_CATALOG = """

# How streams are read: what this returns is laid over what the source discovers.
# @data_integration_catalog(discover=True)
# def catalog(*args, **kwargs) -> dict:
#     catalog = kwargs["catalog"]
#     for stream in catalog["streams"]:
#         if stream["stream"] == {stream}:
#             stream.update(replication_method="INCREMENTAL", bookmark_properties=["updated_at"])
#     return catalog
"""
_MEANING = {
    "source": 'Names of streams, such as "orders"; of an empty list all that the source selects itself.',
    "destination": "Names of streams, or of upstream blocks, to export; of an empty list all.",
}
_TEMPLATE_CALL = re.compile(r"\{\{ (env_var|secret)\('([^']+)'(?:, '([^']*)')?\) \}\}")


def connector_block(
    role: str, name: str, connector: str, streams: Sequence[str], *, with_streams: bool, commented: bool = False
) -> str:
    """Return the text of a source, destination or mapper block in YAML.

    Args:
        role: `source`, `destination` or `mapper`.
        name: what the block calls the plugin.
        connector: the connector's full name, which tells the config that it needs.
        streams: streams to name in it.
        with_streams: name one as an example where there are none.
        commented: name it in comments.
    """
    config = dict(example_config(connector))
    text = to_yaml({role: name}) + ("config:\n" if config else "config: {}  # what the connector needs\n")
    for key, value in config.items():
        is_template = isinstance(value, str) and "{{" in value
        text += f'  {key}: "{value}"\n' if is_template else "  " + to_yaml({key: value})
    if role == "mapper" or not (streams or with_streams or commented):
        return text
    listed = "streams:\n"
    template = _SOURCE_STREAM if role == "source" else _DESTINATION_STREAM
    for stream in streams or ["orders"]:
        listed += template.format(stream=_word(stream), table=_word(stream.rpartition("-")[2]))
    if not streams and not with_streams:
        return text + "".join(f"# {line}\n" for line in listed.splitlines())
    text += listed
    if role == "destination":
        text += "on_bad_record: pass  # pass | quarantine | fail\nschema_change: evolve  # evolve | freeze | pause\n"
    return text


def python_connector_block(role: str, name: str, connector: str, streams: Sequence[str]) -> str:
    """Return the text of a source or destination block in Python. Args: see `connector_block`."""
    config = {key: _expression(value) for key, value in example_config(connector).items()}
    lines = "".join(f"        {_quoted(key)}: {value},\n" for key, value in config.items())
    decorator = f"data_integration_{role}"
    uses_environment = any("os.environ" in value for value in config.values())
    text = _PYTHON.format(
        imports="import os\n\n" if uses_environment else "",
        decorator=decorator,
        decorators=",\n    ".join(sorted(["data_integration_config", "data_integration_selected_streams", decorator])),
        role=role,
        name=_quoted(name),
        config=f"\n{lines}    " if lines else "",
        meaning=_MEANING[role],
        streams=", ".join(map(_quoted, streams)),
    )
    return text + (_CATALOG.format(stream=_quoted(next(iter(streams), "orders"))) if role == "source" else "")


def _expression(value: Any) -> str:
    """Return the Python expression for a value of a config; templates become variables of the environment."""
    call = _TEMPLATE_CALL.fullmatch(value) if isinstance(value, str) else None
    if call is None:
        return _quoted(value) if isinstance(value, str) else repr(value)
    function, variable, default = call.groups()
    if function == "secret":
        variable = f"STREAMLINE_SECRET_{variable.upper()}"
    name = _quoted(variable)
    return f"os.environ[{name}]" if default is None else f"os.environ.get({name}, {_quoted(default)})"


def _quoted(text: str) -> str:
    """`text` as a Python string."""
    return json.dumps(text, ensure_ascii=False)


def _word(text: str) -> str:
    """`text` as a YAML value."""
    return to_yaml({"x": text})[3:].rstrip("\n")
