"""Stored outputs and pipelines' variables, under Mage's names."""

from __future__ import annotations

from typing import Any

from streamline.api import Folder, Pipeline, stored_outputs
from streamline.errors import StreamlineError


def get_variable(pipeline_uuid: str, block_uuid: str, key: str = "output_0", **kwargs: Any) -> Any:
    """Return a stored output of a block: `output_0`, `output_1`, ….

    Raises:
        ConfigError: there is no such pipeline or block.
        StreamlineError: it has not stored that output.
    """
    pipeline = Pipeline(pipeline_uuid)
    outputs = stored_outputs(pipeline, block_uuid)
    if pipeline.project.mage and len(outputs) == 1 and type(outputs[0]) is list and outputs[0]:
        outputs = outputs[0]
    name, _, number = key.rpartition("_")
    if name != "output" or not number.isdigit() or int(number) >= len(outputs):
        raise StreamlineError(
            f"the block '{block_uuid}' of '{pipeline_uuid}' has stored no '{key}'",
            hint="it has stored " + (", ".join(f"output_{n}" for n in range(len(outputs))) or "nothing"),
            code="output.missing",
        )
    return outputs[int(number)]


def get_global_variables(pipeline_uuid: str, repo_path: Folder | None = None, **kwargs: Any) -> dict[str, Any]:
    """Return a pipeline's variables, rendered."""
    from streamline.project.render import Renderer

    pipeline = Pipeline(pipeline_uuid, repo_path)
    project = pipeline.project
    renderer = Renderer(project, {**project.variables, **pipeline.variables}, project.secrets)
    return {name: renderer.render(value, f"variable {name}") for name, value in pipeline.variables.items()}


def get_global_variable(pipeline_uuid: str, key: str) -> Any:
    """Return one of a pipeline's variables, rendered; None if it has none of that name."""
    return get_global_variables(pipeline_uuid).get(key)


def set_global_variable(pipeline_uuid: str, key: str, value: Any, repo_path: Folder | None = None) -> None:
    """Set one of a pipeline's variables in its metadata.yaml, for the runs to come."""
    Pipeline(pipeline_uuid, repo_path).update_global_variable(key, value)


def delete_global_variable(pipeline_uuid: str, key: str, repo_path: Folder | None = None) -> None:
    """Delete one of a pipeline's variables from its metadata.yaml."""
    Pipeline(pipeline_uuid, repo_path).delete_global_variable(key)
