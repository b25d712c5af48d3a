"""Makes pipelines and adds blocks to them: the only code that writes metadata.yaml.

What it does not change stays as people wrote it, unknown keys and comments included.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.errors import ConfigError, StreamlineError
from streamline.pipeline.kinds import languages
from streamline.pipeline.model import (
    BATCH_TYPES,
    FOLDERS,
    PIPELINE_TYPES,
    TYPE_NAMES,
    Block,
    PipelineModel,
    pipeline_folder,
)
from streamline.pipeline.reader import load_pipeline
from streamline.project.suggest import suggestion
from streamline.project.yamledit import append, edit_text, put, replace_file, to_yaml
from streamline.project.yamlfile import read_text

if TYPE_CHECKING:
    from streamline.pipeline.kinds import Template
    from streamline.project.project import Project

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


class NewBlock(msgspec.Struct, kw_only=True, frozen=True):
    """A block to add.

    Args:
        uuid: its name.
        type: a key of `FOLDERS`.
        language: a name in `kinds.languages()`.
        text: its file's text, or what makes it for a block behind certain others.
        upstream: blocks before it; None: where it naturally goes.
        downstream: blocks after it; an edge that leads from one of `upstream` to one of these now goes through it.
        configuration: as it is to stand in metadata.yaml.
        file: its file, relative to the project; None: where blocks of its type have theirs.
        others: further files to make, by their paths relative to the project.
    """

    uuid: str
    type: str
    language: str
    text: str | Template
    upstream: Sequence[str] | None = None
    downstream: Sequence[str] = ()
    configuration: Mapping[str, Any] = {}
    file: str | None = None
    others: Mapping[str, str | Template] = {}


class Added(msgspec.Struct, kw_only=True):
    """What was added: the block's file, the others made with it, and between which blocks it stands."""

    file: Path
    upstream: list[str]
    downstream: list[str]
    others: list[Path] = []


def create_pipeline(
    project: Project, uuid: str, pipeline_type: str, *, description: str | None = None, tags: Sequence[str] = ()
) -> Path:
    """Make an empty pipeline: metadata.yaml, __init__.py and requirements.txt; returns its folder.

    Raises:
        ConfigError: the name or the type cannot be, or the pipeline exists.
    """
    if not _NAME.fullmatch(uuid):
        plain = "".join(one for one in unicodedata.normalize("NFKD", uuid) if not unicodedata.combining(one))
        cleaned = re.sub(r"[^A-Za-z0-9_-]+", "_", plain).strip("_-")
        raise ConfigError(
            f"'{uuid}' cannot be a pipeline's name",
            hint=f"use letters, digits, '_' and '-'{f', such as {cleaned}' if cleaned else ''}",
        )
    if pipeline_type not in TYPE_NAMES:
        raise ConfigError(
            f"unknown pipeline type '{pipeline_type}'", hint=suggestion(pipeline_type, PIPELINE_TYPES, what="types")
        )
    folder = pipeline_folder(project, uuid)
    if (folder / "metadata.yaml").exists():
        raise ConfigError(f"the pipeline '{uuid}' exists", where=project.shown(folder / "metadata.yaml"))
    from datetime import UTC, datetime

    entries: dict[str, Any] = {"name": uuid, "uuid": uuid, "type": TYPE_NAMES[pipeline_type]}
    if description:
        entries["description"] = description
    if tags:
        entries["tags"] = list(tags)
    entries["created_at"] = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S+00:00")
    entries["blocks"] = []
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("__init__.py", "requirements.txt"):
        (folder / name).touch()
    replace_file(folder / "metadata.yaml", to_yaml(entries))
    return folder


def add_block(project: Project, pipeline: str, new: NewBlock) -> Added:
    """Write a block's file and enter it in its pipeline's metadata.yaml. Either both are done or nothing is.

    Raises:
        ConfigError: the block or its file exists, a block named beside it does not, or the pipeline would be wrong.
    """
    model = load_pipeline(project, pipeline)
    batch = model.type in BATCH_TYPES
    if not all(_NAME.fullmatch(part) for part in (new.uuid.split("/") if batch else [new.uuid])):
        folders = "; a '/' puts it into a folder" if batch else ""
        raise ConfigError(f"'{new.uuid}' cannot be a block's name", hint=f"use letters, digits, '_' and '-'{folders}")
    for group in (model.blocks, model.callbacks, model.conditionals):
        if new.uuid in group:
            raise ConfigError(f"the block '{new.uuid}' exists", where=model.where(new.uuid), hint="choose another name")
    if new.type == "conditional" and not new.upstream:
        raise ConfigError(
            f"which blocks does the conditional '{new.uuid}' gate?",
            where=model.yaml.shown,
            hint="say --upstream BLOCK; it decides whether that block, and what is behind it, is run",
        )
    suffixes = languages(new.language)
    file = project.root / (new.file or f"{FOLDERS[new.type]}/{new.uuid}{suffixes[new.language][0]}")
    same = [one for endings in suffixes.values() for suffix in endings if (one := file.with_suffix(suffix)).exists()]
    others = {project.root / name: text for name, text in new.others.items()}
    taken = [*same, *(path for path in others if path.exists())]
    if taken:
        raise ConfigError(
            "the file exists and is not overwritten",
            where=project.shown(taken[0]),
            hint=f"choose another name; to use it, enter `uuid: {new.uuid}, type: {new.type}` in {model.yaml.shown}",
        )
    before = read_text(model.yaml.path)
    change, added = _entry(model, new, file)
    text = edit_text(before, change)
    # Sensors hand nothing on, and dbt's models know each other by `ref`.
    silent = ("sensor", "dbt") if new.type == "dbt" else ("sensor",)
    outputs = [one for one in added.upstream if model.blocks[one].type not in silent]
    written: dict[Path, str | Template] = {file: new.text, **others}
    for path, content in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else content(outputs), encoding="utf-8")
    replace_file(model.yaml.path, text)
    try:
        load_pipeline(project, pipeline)
    except StreamlineError:
        replace_file(model.yaml.path, before)
        for path in written:
            path.unlink()
        raise
    added.others += others
    return added


def _entry(model: PipelineModel, new: NewBlock, file: Path) -> tuple[Callable[[Any], None], Added]:
    """What enters the new block in the document of metadata.yaml, and where it stands then."""
    upstream = list(new.upstream) if new.upstream is not None else None
    for name in (*(upstream or ()), *new.downstream):
        model.block(name)
    entry: dict[str, Any] = {"uuid": new.uuid, "type": new.type, "language": new.language}
    if new.configuration:
        entry["configuration"] = dict(new.configuration)
    if new.type in ("callback", "conditional"):
        entry["upstream_blocks"] = upstream or []
        added = Added(file=file, upstream=upstream or [], downstream=[])
        return lambda document: append(document, (f"{new.type}s",), entry), added
    downstream = list(new.downstream)
    if upstream is None:
        upstream, downstream = _natural_place(model, new, downstream)
    entry |= {"upstream_blocks": upstream, "downstream_blocks": downstream}
    # The edges that led past the new block now lead through it.
    edges: list[tuple[Block, str, list[str]]] = []
    for parent in (model.blocks[uuid] for uuid in upstream):
        edges.append((parent, "downstream_blocks", _replaced(parent.downstream, downstream, new.uuid)))
    for child in (model.blocks[uuid] for uuid in downstream):
        edges.append((child, "upstream_blocks", _replaced(child.upstream, upstream, new.uuid)))

    def change(document: Any) -> None:
        for block, key, names in edges:
            # Where a block has no list, the new block's own is enough.
            if document["blocks"][block.path[1]].get(key) is not None:
                put(document, (*block.path, key), names)
        append(document, ("blocks",), entry)

    return change, Added(file=file, upstream=upstream, downstream=downstream)


def _natural_place(model: PipelineModel, new: NewBlock, downstream: list[str]) -> tuple[list[str], list[str]]:
    """Where a block goes if nobody says: sources first, exporters last, a transformer before the exporters."""
    blocks = model.blocks
    if new.type in ("data_loader", "sensor"):
        return [], downstream
    open_ends = [uuid for uuid, block in blocks.items() if not block.downstream and block.type != "data_exporter"]
    if open_ends or downstream:
        return [uuid for uuid in open_ends if uuid not in downstream], downstream
    exporters = [uuid for uuid, block in blocks.items() if block.type == "data_exporter"]
    feeding = list(dict.fromkeys(parent for uuid in exporters for parent in blocks[uuid].upstream))
    if new.type == "data_exporter":
        return feeding, []
    # Several paths that end in different places are the user's to sort out.
    if all(blocks[uuid].upstream == feeding for uuid in exporters):
        return feeding, exporters
    raise ConfigError(
        f"'{new.uuid}' could go to several places in '{model.uuid}'",
        where=model.yaml.shown,
        hint="say --upstream BLOCK, and --downstream BLOCK to put it between two",
    )


def _replaced(names: Sequence[str], replaced: Sequence[str], new: str) -> list[str]:
    """`names` with `new` in the place of the first of `replaced`, the others of these left out."""
    result: list[str] = []
    for name in names:
        if name not in replaced:
            result.append(name)
        elif new not in result:
            result.append(new)
    return result if new in result else [*result, new]
