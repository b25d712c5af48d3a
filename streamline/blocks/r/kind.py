"""The entry of R blocks."""

from streamline.pipeline.kinds import Kind

KIND = Kind(
    name="r",
    title="R",
    engine="Rscript",
    suffixes=(".r", ".R"),
    run="streamline.blocks.r.block:run",
    check="streamline.blocks.r.check:check_block",
    checked="is R, and mentions its function",
    verify="streamline.blocks.r.check:verify",
    template="streamline.blocks.r.templates:template",
    preload=("numpy", "pandas", "pyarrow.parquet"),
)
