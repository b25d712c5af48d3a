"""Set and delete variables in metadata.yaml. Everything else in the file is preserved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamline.errors import ConfigError, StreamlineError
from streamline.pipeline.reader import load_pipeline
from streamline.project.files import replace_file
from streamline.project.yamledit import edit_text, locked, put
from streamline.project.yamlfile import read_text

if TYPE_CHECKING:
    from streamline.project.project import Project


def edit_variable(project: Project, uuid: str, key: str, value: Any = None, *, delete: bool = False) -> None:
    """Set a variable of a pipeline, or delete it; deleting a missing variable does nothing.

    A lock serializes concurrent edits.

    Raises:
        ConfigError: the pipeline does not exist, or YAML cannot represent the value.
    """
    with locked(load_pipeline(project, uuid).path):
        model = load_pipeline(project, uuid)
        before = read_text(model.yaml.path)
        if delete:
            if key not in model.variables:
                return
            text = edit_text(before, lambda document: document["variables"].pop(key))
        else:
            _check_representable(key, value, model.yaml.shown)
            text = edit_text(before, lambda document: put(document, ("variables", key), value))
        replace_file(model.yaml.path, text)
        try:
            load_pipeline(project, uuid)
        except StreamlineError:
            replace_file(model.yaml.path, before)
            raise


def _check_representable(key: str, value: Any, where: str) -> None:
    import yaml

    try:
        unchanged = yaml.safe_load(yaml.safe_dump(value)) == value
    except yaml.YAMLError:
        raise ConfigError(
            f"the variable '{key}' cannot be written: YAML has no type for {type(value).__name__}",
            where=where,
            hint="use text, numbers, booleans, dates, lists and dicts of these",
            code="variable.not_yaml",
        ) from None
    if not unchanged:
        raise ConfigError(
            f"the variable '{key}' cannot be written: YAML would read it back as another value",
            where=where,
            code="variable.not_yaml",
        )
