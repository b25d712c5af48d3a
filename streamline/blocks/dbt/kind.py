"""The entry of dbt blocks: known by their type, written in SQL (a model) or YAML (dbt's arguments)."""

from streamline.pipeline.kinds import Kind

KIND = Kind(
    name="dbt",
    title="dbt",
    types=("dbt",),
    run="streamline.blocks.dbt.block:run",
    check="streamline.blocks.dbt.block:check_block",
    checked="names a dbt project that is there",
    jinja="streamline.blocks.dbt.arguments:jinja",
)
