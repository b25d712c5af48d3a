"""The entry of source, destination and mapper blocks, which are written in YAML. They run in integration pipelines."""

from streamline.pipeline.kinds import Kind

KIND = Kind(
    name="yaml",
    title="YAML (a source or destination)",
    suffixes=(".yaml", ".yml"),
    types=("data_loader", "transformer", "data_exporter"),
)
