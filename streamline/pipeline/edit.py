"""Create pipelines and add blocks to them.

Everything else in metadata.yaml, including unknown keys and comments, is preserved.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.errors import ConfigError, StreamlineError, disk_errors
from streamline.pipeline.kinds import languages
from streamline.pipeline.model import (
    BATCH_TYPES,
    FOLDERS,
    PIPELINE_TYPES,
    TYPE_NAMES,
    Block,
    PipelineModel,
    check_fits,
    pipeline_folder,
)
from streamline.pipeline.reader import load_pipeline
from streamline.project.files import replace_file
from streamline.project.suggest import suggestion
from streamline.project.yamledit import append, edit_text, put, to_yaml
from streamline.project.yamlfile import read_text

if TYPE_CHECKING:
    from streamline.pipeline.kinds import Template
    from streamline.project.project import Project

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


class NewBlock(msgspec.Struct, kw_only=True, frozen=True):
    """A block to add.

    Args:
        uuid: the block's name.
        type: a key of `FOLDERS`.
        language: a name in `kinds.languages()`.
        text: the text of the block's file, or a function that returns it for the given upstream blocks.
        upstream: the upstream blocks; None: choose them by the block's type.
        downstream: the downstream blocks; an edge from `upstream` to one of these is replaced by the new block.
        configuration: the block's `configuration` in metadata.yaml.
        file: the block's file, relative to the project; None: the default file for its type and name.
        others: more files to create, by path relative to the project.
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
    """The result of `add_block`.

    Args:
        file: the block's file.
        existing: the file existed already, and is used as it is.
        upstream, downstream: the block's neighbours.
        others: more files that were created.
    """

    file: Path
    existing: bool = False
    upstream: list[str]
    downstream: list[str]
    others: list[Path] = []


def create_pipeline(
    project: Project, uuid: str, pipeline_type: str, *, description: str | None = None, tags: Sequence[str] = ()
) -> Path:
    """Create an empty pipeline: metadata.yaml, __init__.py and requirements.txt. Return its folder.

    Raises:
        ConfigError: the name or the type is invalid, or the pipeline already exists.
    """
    if not _NAME.fullmatch(uuid):
        letters = "".join(char for char in unicodedata.normalize("NFKD", uuid) if not unicodedata.combining(char))
        cleaned = re.sub(r"[^A-Za-z0-9_-]+", "_", letters).strip("_-")
        raise ConfigError(
            f"invalid pipeline name '{uuid}'",
            hint=f"use letters, digits, '_' and '-'{f', such as {cleaned}' if cleaned else ''}",
            code="pipeline.invalid_name",
        )
    if pipeline_type not in TYPE_NAMES:
        raise ConfigError(
            f"unknown pipeline type '{pipeline_type}'",
            hint=suggestion(pipeline_type, PIPELINE_TYPES, what="types"),
            code="pipeline.type_unknown",
        )
    folder = pipeline_folder(project, uuid)
    if (folder / "metadata.yaml").exists():
        raise ConfigError(
            f"the pipeline '{uuid}' already exists",
            where=project.shown(folder / "metadata.yaml"),
            hint="choose another name",
            code="pipeline.exists",
        )
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
    """Write a block's file, unless it exists, and add the block to metadata.yaml. On an error, nothing is changed.

    Raises:
        ConfigError: the block already exists, or its file in another language; an upstream or downstream block does
            not; or the resulting pipeline would be invalid.
    """
    model = load_pipeline(project, pipeline)
    check_block_name(model, new.uuid)
    check_fits(model.type, new.type, new.language, where=model.yaml.shown)
    if new.type == "conditional" and not new.upstream:
        raise ConfigError(
            f"the conditional '{new.uuid}' needs a block to gate",
            where=model.yaml.shown,
            hint="add --upstream BLOCK; the conditional decides whether that block and its downstream blocks run",
            code="block.upstream_missing",
        )
    used = existing_file(project, new.type, new.uuid, new.language) if new.file is None else None
    suffix = languages(new.language)[new.language][0]
    file = used[1] if used else project.root / (new.file or f"{FOLDERS[new.type]}/{new.uuid}{suffix}")
    others = {project.root / name: text for name, text in new.others.items()}
    other_language = existing_file(project, new.type, new.uuid) if used is None and new.file is None else None
    taken = [other_language[1]] if other_language else [path for path in (file, *others) if path.exists()]
    if taken and used is None:
        raise ConfigError(
            "the file already exists and is not overwritten",
            where=project.shown(taken[0]),
            hint=f"choose another name, or add --language {other_language[0]} to use it"
            if other_language
            else "choose another name",
            code="file.exists",
        )
    before = read_text(model.yaml.path)
    change, added = _entry(model, new, file)
    text = edit_text(before, change)
    # Sensors have no output, and dbt models refer to each other by `ref`.
    silent = ("sensor", "dbt") if new.type == "dbt" else ("sensor",)
    outputs = [uuid for uuid in added.upstream if model.blocks[uuid].type not in silent]
    written: dict[Path, str | Template] = others if used else {file: new.text, **others}
    for path, content in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with disk_errors(path):
            path.write_text(content if isinstance(content, str) else content(outputs), encoding="utf-8")
    replace_file(model.yaml.path, text)
    try:
        load_pipeline(project, pipeline)
    except StreamlineError:
        replace_file(model.yaml.path, before)
        for path in written:
            path.unlink()
        raise
    added.existing = used is not None
    added.others += others
    return added


def existing_file(project: Project, block_type: str, uuid: str, language: str | None = None) -> tuple[str, Path] | None:
    """Return the language and path of a file that a new block would find by its name; None: there is none.

    Args:
        language: only a file of this language.
    """
    for name, suffixes in languages().items():
        for suffix in suffixes if language in (None, name) else ():
            file = project.root / FOLDERS[block_type] / f"{uuid}{suffix}"
            if file.is_file():
                return name, file
    return None


def check_block_name(model: PipelineModel, uuid: str) -> None:
    """Check the name of a new block.

    Raises:
        ConfigError: it is invalid, or another block has it.
    """
    batch = model.type in BATCH_TYPES
    if not all(_NAME.fullmatch(part) for part in (uuid.split("/") if batch else [uuid])):
        folders = ", and '/' for a subfolder" if batch else ""
        raise ConfigError(
            f"invalid block name '{uuid}'",
            hint=f"use letters, digits, '_' and '-'{folders}",
            code="block.invalid_name",
        )
    if model.find(uuid) is not None:
        raise ConfigError(
            f"the block '{uuid}' already exists",
            where=model.where(uuid),
            hint="choose another name",
            code="block.exists",
        )


def _entry(model: PipelineModel, new: NewBlock, file: Path) -> tuple[Callable[[Any], None], Added]:
    """Return the function that adds the block to the YAML document, and the result to report."""
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
        upstream, downstream = _default_position(model, new, downstream)
    entry |= {"upstream_blocks": upstream, "downstream_blocks": downstream}
    # Edges from the upstream to the downstream blocks now go through the new block.
    edges: list[tuple[Block, str, list[str]]] = []
    for parent in (model.blocks[uuid] for uuid in upstream):
        edges.append((parent, "downstream_blocks", _replaced(parent.downstream, downstream, new.uuid)))
    for child in (model.blocks[uuid] for uuid in downstream):
        edges.append((child, "upstream_blocks", _replaced(child.upstream, upstream, new.uuid)))

    def change(document: Any) -> None:
        for block, key, names in edges:
            # A block without the list needs none: the new block's entry has the edge.
            if document["blocks"][block.path[1]].get(key) is not None:
                put(document, (*block.path, key), names)
        append(document, ("blocks",), entry)

    return change, Added(file=file, upstream=upstream, downstream=downstream)


def _default_position(model: PipelineModel, new: NewBlock, downstream: list[str]) -> tuple[list[str], list[str]]:
    """Choose the upstream and downstream blocks: loaders first, exporters last, transformers before exporters."""
    blocks = model.blocks
    if new.type in ("data_loader", "sensor"):
        if model.type in ("integration", "streaming") and not downstream:
            # What waits for records gets those of the new source.
            downstream = [uuid for uuid, block in blocks.items() if block.type != "data_loader" and not block.upstream]
        return [], downstream
    open_ends = [uuid for uuid, block in blocks.items() if not block.downstream and block.type != "data_exporter"]
    if open_ends or downstream:
        return [uuid for uuid in open_ends if uuid not in downstream], downstream
    exporters = [uuid for uuid, block in blocks.items() if block.type == "data_exporter"]
    feeding = list(dict.fromkeys(parent for uuid in exporters for parent in blocks[uuid].upstream))
    if new.type == "data_exporter":
        return feeding, []
    # Exporters with different upstream blocks: the user must choose.
    if all(blocks[uuid].upstream == feeding for uuid in exporters):
        return feeding, exporters
    raise ConfigError(
        f"the position of '{new.uuid}' in '{model.uuid}' is ambiguous",
        where=model.yaml.shown,
        hint="add --upstream BLOCK, and --downstream BLOCK to insert it between two blocks",
        code="graph.position_ambiguous",
    )


def _replaced(names: Sequence[str], replaced: Sequence[str], new: str) -> list[str]:
    """Return `names` with `new` instead of the first of `replaced`, without the rest of `replaced`."""
    result: list[str] = []
    for name in names:
        if name not in replaced:
            result.append(name)
        elif new not in result:
            result.append(new)
    return result if new in result else [*result, new]
