"""The entry of Python blocks."""

from streamline.pipeline.kinds import Kind

KIND = Kind(
    name="python",
    title="Python",
    suffixes=(".py",),
    types=("data_loader", "transformer", "data_exporter", "sensor", "custom", "callback", "conditional"),
    run="streamline.blocks.python.block:run",
    check="streamline.blocks.python.check:check_block",
    checked="is Python, with its decorated function",
    imports="streamline.blocks.python.imports:required_modules",
    explain="streamline.blocks.python.check:explain",
    template="streamline.blocks.python.templates:template",
    tests="streamline.blocks.python.block_tests:run_tests",
    variant="streamline.blocks.connector.role:kind_name",
    preload=("streamline.blocks.python.block",),
)
