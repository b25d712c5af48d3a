"""The entry of SQL blocks."""

from streamline.pipeline.kinds import Kind

KIND = Kind(
    name="sql",
    title="SQL",
    suffixes=(".sql",),
    run="streamline.blocks.sql.block:run",
    check="streamline.blocks.sql.check:check",
    checked="is SQL, and its templates are well formed",
    connection="streamline.blocks.sql.check:connection",
    jinja="streamline.blocks.sql.template:jinja",
    explain="streamline.blocks.sql.check:explain",
    template="streamline.blocks.sql.block:template",
    preload=("streamline.blocks.sql.block", "streamline.blocks.sql.embedded", "duckdb"),
)
