"""The entries of source, destination and mapper blocks, written in YAML or Python."""

from streamline.pipeline.kinds import Kind

KIND = Kind(
    name="yaml",
    title="YAML (a source or destination)",
    suffixes=(".yaml", ".yml"),
    types=("data_loader", "transformer", "data_exporter"),
    prepare="streamline.blocks.connector.prepare:prepare",
    check="streamline.blocks.connector.before_run:check",
    check_entry="streamline.blocks.connector.before_run:check_entry",
    explain="streamline.blocks.connector.explain:explain",
)

PYTHON = Kind(
    name="connector",
    title="Python (a source or destination)",
    types=("data_loader", "data_exporter"),
    prepare="streamline.blocks.connector.prepare:prepare",
    check="streamline.blocks.connector.before_run:check",
    check_entry="streamline.blocks.connector.before_run:check_entry",
    explain="streamline.blocks.connector.explain:explain",
    checked="is Python, with its decorated functions",
    imports="streamline.blocks.python.imports:required_modules",
    tests="streamline.blocks.python.block_tests:run_tests",
    preload=("streamline.blocks.python.block",),
)
