"""Moves stream settings that earlier versions kept in the state store into the blocks' files."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamline.connectors.singer.settings import Side
from streamline.errors import ConfigError

if TYPE_CHECKING:
    from streamline.blocks.connector.stream_edits import Entries
    from streamline.pipeline.model import PipelineModel
    from streamline.project.project import Project
    from streamline.state.store import Store

_SIDES: dict[str, Side] = {"data_loader": "source", "data_exporter": "destination"}


def move_stored_settings(project: Project, model: PipelineModel, store: Store) -> None:
    """Write the stored stream settings of a pipeline into its blocks' files, once, and say so on stderr.

    Settings that cannot be written go to a file of their own. As long as it is there, the pipeline does not run: the
    next run would read other streams than the last one.

    Raises:
        ConfigError: settings of a block could not be written into its file, now or earlier.
    """
    for uuid, settings in store.stored_stream_settings(model.uuid).items():
        try:
            file = project.shown(_move(project, model, uuid, settings))
            print(f"Moved the stream settings of block '{uuid}' from the state store to {file}", file=sys.stderr)
        except ConfigError as error:
            kept = project.shown(_keep(project, model.uuid, uuid, settings))
            text = f"the stream settings of block '{uuid}' in the state store could not be moved to its file"
            print(f"warning: {text}: {error.message}; they are kept in {kept}", file=sys.stderr)
        store.drop_stored_stream_settings(model.uuid, uuid)
    for uuid in model.blocks:
        unmoved = _kept_file(project, model.uuid, uuid)
        if unmoved.exists():
            shown = project.shown(unmoved)
            raise ConfigError(
                f"the stream settings of block '{uuid}' in the state store could not be moved to its file",
                where=model.where(uuid),
                hint=f"add the settings in {shown} to the block's `streams:`, then delete {shown}",
                code="setting.not_moved",
            )


def _move(project: Project, model: PipelineModel, uuid: str, settings: Mapping[str, dict[str, Any]]) -> Path:
    # Imported here: every run looks for settings to move, and hardly any has some.
    from streamline.blocks.connector.stream_edits import edit_streams, editable_file, select_streams, set_settings
    from streamline.project.yamledit import edit_file

    block = model.blocks.get(uuid)
    side = _SIDES.get(block.type) if block is not None else None
    if block is None or side is None:
        raise ConfigError("there is no such source or destination", code="block.not_found")
    file = editable_file(project, block)
    shown = project.shown(file)

    def change(entries: Entries) -> None:
        for name, values in settings.items():
            others = {key: value for key, value in values.items() if key != "selected"}
            set_settings(entries, name, others)
            if "selected" in values:
                select_streams(entries, [name], values["selected"])

    edit_file(file, lambda text: edit_streams(text, side, change, shown=shown), shown=shown)
    return file


def _kept_file(project: Project, pipeline: str, uuid: str) -> Path:
    return project.work_dir / "unmoved-settings" / f"{pipeline}.{uuid.replace('/', '.')}.yaml"


def _keep(project: Project, pipeline: str, uuid: str, settings: Mapping[str, dict[str, Any]]) -> Path:
    from streamline.project.yamledit import to_yaml

    project.ensure_work_dir()
    file = _kept_file(project, pipeline, uuid)
    file.parent.mkdir(mode=0o700, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(to_yaml({"streams": dict(settings)}), encoding="utf-8")
    return file
