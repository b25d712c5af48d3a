"""Run SQL blocks in an embedded DuckDB over the upstream outputs, or in the user's database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.blocks.call import BlockCall, block_text
from streamline.blocks.sql.cleaned_input import cleaned_inputs
from streamline.blocks.sql.settings import Profiles, read_settings
from streamline.blocks.sql.template import renderer
from streamline.outputs.values import ParquetFile

if TYPE_CHECKING:
    from streamline.pipeline.kinds import Template


def run(call: BlockCall) -> Any:
    """Run an SQL block. Return the rows of the last SELECT, or None.

    Raises:
        ConfigError: the configuration, the profile or a template is invalid.
        DatabaseError: a statement failed; the error names file and line.
    """
    import pyarrow as pa

    settings = read_settings(call.block.configuration, call.where)
    in_mage = call.project.mage and settings.entry.mage_cleans
    if in_mage if settings.clean_columns is None else settings.clean_columns:
        call = msgspec.structs.replace(call, inputs=cleaned_inputs(call, settings.allow_reserved_words))
    text = block_text(call.block, call.where)
    profiles = Profiles(call.project, renderer(call))
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

    path = call.scratch / "output.parquet"
    pq.write_table(rows, path)
    return ParquetFile(path)


def template(block_type: str, pipeline_type: str) -> Template | None:
    """Return the template for new SQL blocks, which runs unchanged; None: the type has none."""
    return _select if block_type in ("data_loader", "transformer", "data_exporter") else None


def _select(upstream: Sequence[str]) -> str:
    if not upstream:
        return "select 1 as id\n"
    frames = ", ".join(f"df_{number} is {uuid}" for number, uuid in enumerate(upstream, 1))
    return f"{f'-- {frames}' if len(upstream) > 1 else ''}\nselect *\nfrom {{{{ df_1 }}}}\n".lstrip()
