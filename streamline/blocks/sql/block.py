"""SQL blocks: run in an embedded DuckDB over the upstream outputs, or in the user's database."""

from __future__ import annotations

from typing import Any

from streamline.blocks.call import BlockCall


def run(call: BlockCall) -> Any:
    """Run an SQL block. Return the rows of the last SELECT, or None.

    Raises:
        ConfigError: the configuration, the profile or a template is invalid.
        DatabaseError: a statement failed; the error names file and line.
    """
    import pyarrow as pa

    from streamline.blocks.sql import template
    from streamline.blocks.sql.settings import Profiles, read_settings

    settings = read_settings(call.block.configuration, call.where)
    text = template.source(call.block, call.where)
    profiles = Profiles(call.project, template.renderer(call))
    if profiles.in_memory(settings, call.where):
        from streamline.blocks.sql import embedded

        rows = embedded.run(call, settings, text)
    else:
        from streamline.blocks.sql import provider

        rows = provider.run(call, settings, text, profiles)
    if not isinstance(rows, pa.Table):
        return rows
    if not rows.num_columns:
        return None
    import pyarrow.parquet as pq

    from streamline.outputs.values import ParquetFile

    path = call.scratch / "output.parquet"
    pq.write_table(rows, path)
    return ParquetFile(path)
