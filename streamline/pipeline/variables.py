"""Variables in metadata.yaml that code sets: what the rest of the file says stays as it stands."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamline.errors import ConfigError, StreamlineError
from streamline.pipeline.model import load_pipeline
from streamline.project.yamledit import put, replace_file
from streamline.project.yamlfile import read_text

if TYPE_CHECKING:
    from streamline.project.project import Project


def edit_variable(project: Project, uuid: str, key: str, value: Any = None, *, delete: bool = False) -> None:
    """Set a variable of a pipeline, or delete it; deleting one that is not there is harmless.

    Processes that do so at the same time wait for each other.

    Raises:
        ConfigError: there is no such pipeline, or YAML cannot hold the value.
    """
    with _alone(load_pipeline(project, uuid).path):
        model = load_pipeline(project, uuid)
        before = read_text(model.yaml.path)
        if delete:
            if key not in model.variables:
                return
            left = {name: one for name, one in model.variables.items() if name != key}
            text = put(before, ("variables",), left)
        else:
            text = _with_value(before, key, value, model.yaml.shown)
        replace_file(model.yaml.path, text)
        try:
            load_pipeline(project, uuid)
        except StreamlineError:
            replace_file(model.yaml.path, before)
            raise


def _with_value(text: str, key: str, value: Any, where: str) -> str:
    import yaml

    try:
        if yaml.safe_load(yaml.safe_dump(value)) != value:
            raise ConfigError(f"the variable '{key}' does not come back from YAML as it went", where=where)
    except yaml.YAMLError:
        raise ConfigError(
            f"the variable '{key}' cannot be written: YAML has no {type(value).__name__}",
            where=where,
            hint="use text, numbers, booleans, dates, lists and dicts of these",
        ) from None
    return put(text, ("variables", key), value)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
