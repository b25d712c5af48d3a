"""The texts that new source, destination and mapper blocks begin with."""

from __future__ import annotations

from collections.abc import Sequence

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


def connector_block(role: str, name: str, connector: str, streams: Sequence[str], *, with_streams: bool) -> str:
    """Return the text of a source, destination or mapper block.

    Args:
        role: `source`, `destination` or `mapper`.
        name: what the block calls the plugin.
        connector: the connector's full name, which tells the config that it needs.
        streams: streams to name in it.
        with_streams: name one as an example where there are none.
    """
    config = dict(example_config(connector))
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


def _word(text: str) -> str:
    """`text` as a YAML value."""
    return to_yaml({"x": text})[3:].rstrip("\n")
