"""Remove blocks from pipelines, and rename them.

Everything else in metadata.yaml, including unknown keys and comments, is preserved.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.errors import ConfigError, StreamlineError
from streamline.pipeline.edit import check_block_name
from streamline.pipeline.model import FOLDERS, Block, PipelineModel
from streamline.pipeline.reader import load_pipeline
from streamline.project.suggest import suggestion
from streamline.project.yamledit import edit_file, edit_text, new_node, put
from streamline.project.yamlfile import read_text

if TYPE_CHECKING:
    from streamline.project.project import Project

_SECTIONS = ("blocks", "callbacks", "conditionals")
_LISTS = ("upstream_blocks", "downstream_blocks", "callback_blocks", "conditional_blocks")
"""Keys of a block's entry with the uuids of other blocks; the last two are Mage's."""


class Edited(msgspec.Struct, kw_only=True):
    """A change of metadata.yaml and of block files.

    Args:
        before, after: the text of metadata.yaml.
        files: files of the block that were moved (old and new path), or deleted (no new path).
        kept: files of the block that were left where they are.
        mentions: places that still mention the old name, as `file:line`.
    """

    before: str
    after: str
    files: list[tuple[Path, Path | None]] = []
    kept: list[Path] = []
    mentions: list[str] = []


def find_block(model: PipelineModel, uuid: str) -> Block:
    """Return a block, callback or conditional.

    Raises:
        ConfigError: the pipeline has none of this name.
    """
    block = model.find(uuid)
    if block is None:
        known = [*model.blocks, *model.callbacks, *model.conditionals]
        raise ConfigError(
            f"the pipeline '{model.uuid}' has no block '{uuid}'",
            where=model.yaml.shown,
            hint=suggestion(uuid, known, what="blocks"),
            code="graph.unknown_block",
        )
    return block


def other_pipelines(project: Project, pipeline: str, file: Path) -> list[str]:
    """Return the other pipelines that have a block with this file. Those that can't be read are left out."""
    users = []
    for name in project.pipelines():
        if name == pipeline:
            continue
        try:
            model = load_pipeline(project, name)
        except StreamlineError:
            continue
        blocks = (*model.blocks.values(), *model.callbacks.values(), *model.conditionals.values())
        if any(block.file == file for block in blocks):
            users.append(name)
    return users


def own_files(project: Project, model: PipelineModel, block: Block) -> list[Path]:
    """Return the files that are found by the block's name: its code, and the folder with its catalog.json."""
    files = []
    if block.file is not None and _is_default_file(project, block):
        files.append(block.file)
    if (model.path / block.uuid).is_dir():
        files.append(model.path / block.uuid)
    return files


def remove_block(project: Project, pipeline: str, uuid: str, *, connect: bool, delete_files: bool) -> Edited:
    """Remove a block from a pipeline.

    Args:
        connect: blocks may use it: their upstream blocks become those of the removed block.
        delete_files: delete the block's files, too.

    Raises:
        ConfigError: there is no such block, other blocks use it, or other pipelines use its file.
    """
    model = load_pipeline(project, pipeline, fileless=uuid)
    block = find_block(model, uuid)
    _check_unused(model, block, connect=connect)
    files = own_files(project, model, block)
    if delete_files:
        for file in files:
            _refuse_shared(project, pipeline, file, hint="leave out --delete-files")
    before, after = _edit(project, model, lambda document: _take_out(document, model, block))
    if not delete_files:
        return Edited(before=before, after=after, kept=files)
    for file in files:
        _delete(file)
    return Edited(before=before, after=after, files=[(file, None) for file in files])


def rename_block(project: Project, pipeline: str, old: str, new: str, *, copy: bool = False) -> Edited:
    """Rename a block, in all lists of its pipeline, and its files.

    Args:
        copy: other pipelines may use its file: they keep it, and the block gets a copy.

    Raises:
        ConfigError: there is no such block, the new name or its file is taken, or other pipelines use the file.
    """
    model = load_pipeline(project, pipeline)
    block = find_block(model, old)
    check_block_name(model, new)
    moves = _moves(project, model, block, new)
    shared = set()
    for file, target in moves:
        if target.exists():
            raise ConfigError(
                "the file already exists and is not overwritten",
                where=project.shown(target),
                hint="choose another name",
                code="file.exists",
            )
        if copy and other_pipelines(project, pipeline, file):
            shared.add(file)
        elif not copy:
            _refuse_shared(
                project, pipeline, file, hint="with --force they keep the file, and the renamed block gets a copy"
            )
    try:
        # The old files stay until metadata.yaml names the new ones.
        for file, target in moves:
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(file, target)
        before, after = _edit(project, model, lambda document: _rename_in(document, block, new, pipeline))
    except BaseException:
        for _, target in moves:
            _delete(target)
        raise
    for file, _ in moves:
        if file not in shared:
            _delete(file)
    return Edited(
        before=before,
        after=after,
        files=[(file, target) for file, target in moves if file not in shared],
        kept=sorted(shared),
        mentions=_mentions(project, model, old),
    )


def _edit(project: Project, model: PipelineModel, change: Callable[[Any], None]) -> tuple[str, str]:
    """Change metadata.yaml; return its text before and after. It stays as it is if the result is invalid."""
    path = model.yaml.path
    before, after = edit_file(path, lambda text: edit_text(text, change), shown=model.yaml.shown)
    try:
        load_pipeline(project, model.uuid)
    except StreamlineError:
        edit_file(path, lambda text: before if text == after else text, shown=model.yaml.shown)
        raise
    return before, after


def _check_unused(model: PipelineModel, block: Block, *, connect: bool) -> None:
    """Check that no other block needs this one.

    Raises:
        ConfigError: one does.
    """
    uuid = block.uuid
    others = {**model.callbacks, **model.conditionals}
    for other in others.values():
        # A callback without upstream blocks would be called after the whole pipeline.
        if other.upstream == [uuid]:
            raise ConfigError(
                f"the {other.type} '{other.uuid}' is for '{uuid}' only",
                where=model.where(other.uuid),
                hint=f"remove it first: streamline remove {other.uuid} --pipeline {model.uuid}",
                code="block.in_use",
            )
    for other in (*model.blocks.values(), *others.values()):
        if model.yaml.mapping(other.path).get("replicated_block") == uuid:
            raise ConfigError(
                f"the block '{other.uuid}' is a replica of '{uuid}'",
                where=model.where(other.uuid),
                hint="remove the replica first",
                code="block.in_use",
            )
    if connect or not block.downstream or uuid not in model.blocks:
        return
    parents = ", ".join(block.upstream)
    hint = f"get their input from {parents}" if parents else "have this input no longer"
    raise ConfigError(
        f"other blocks use '{uuid}': {', '.join(block.downstream)}",
        where=model.where(uuid),
        hint=f"add --force to remove it all the same; these blocks then {hint}",
        code="block.in_use",
    )


def _refuse_shared(project: Project, pipeline: str, file: Path, *, hint: str) -> None:
    users = other_pipelines(project, pipeline, file)
    if users:
        raise ConfigError(
            f"other pipelines use this file: {', '.join(users)}",
            where=project.shown(file),
            hint=hint,
            code="block.in_use",
        )


def _take_out(document: Any, model: PipelineModel, block: Block) -> None:
    """Remove a block's entry; blocks that it led to get the records of those that led to it."""
    for entry in _entries(document):
        for key in _LISTS:
            names = entry.get(key)
            if isinstance(names, list) and block.uuid in names:
                instead = {"upstream_blocks": block.upstream, "downstream_blocks": block.downstream}.get(key, [])
                bridge = instead if block.uuid in model.blocks and _uuid(entry) in model.blocks else []
                put(entry, (key,), _without(names, block.uuid, bridge))
    section, index = block.path
    del document[section][index]


def _without(names: Sequence[str], removed: str, instead: Sequence[str]) -> list[str]:
    result: list[str] = []
    for name in names:
        result += [each for each in (instead if name == removed else [name]) if each not in result]
    return result


def _rename_in(document: Any, block: Block, new: str, pipeline: str) -> None:
    old = block.uuid
    for entry in _entries(document):
        if _uuid(entry) == old:
            _keep_table(entry, block, pipeline)
        for key in ("uuid", "name", "replicated_block"):
            if entry.get(key) == old and (key != "name" or entry.get("uuid") in (None, "", old, new)):
                put(entry, (key,), new)
        for key in _LISTS:
            names = entry.get(key)
            for index, name in enumerate(names if isinstance(names, list) else ()):
                if name == old:
                    names[index] = new_node(new)
        configuration = entry.get("configuration")
        upstream = configuration.get("upstream_block_configuration") if isinstance(configuration, dict) else None
        _rename_key(upstream, old, new)
        for item in upstream if isinstance(upstream, list) else ():
            if isinstance(item, dict) and item.get("uuid") == old:
                put(item, ("uuid",), new)
    variables = document.get("variables")
    _rename_key(variables.get("__bookmark_values__") if isinstance(variables, dict) else None, old, new)


def _keep_table(entry: Any, block: Block, pipeline: str) -> None:
    """Name the table that an SQL block writes, whose default name has the block's name in it."""
    configuration = block.configuration
    if (
        block.language == "sql"
        and configuration.get("data_provider")
        and not configuration.get("data_provider_table")
        and not configuration.get("use_raw_sql")
    ):
        put(entry, ("configuration", "data_provider_table"), f"{pipeline}_{block.uuid}")


def _rename_key(mapping: Any, old: str, new: str) -> None:
    if isinstance(mapping, dict) and old in mapping:
        position = list(mapping).index(old)
        node: Any = mapping
        node.insert(position, new_node(new), node.pop(old))


def _entries(document: Any) -> Iterator[Any]:
    for section in (*_SECTIONS, "widgets"):
        entries = document.get(section)
        yield from (entry for entry in (entries if isinstance(entries, list) else ()) if isinstance(entry, dict))


def _uuid(entry: Any) -> Any:
    return entry.get("uuid") or entry.get("name")


def _is_default_file(project: Project, block: Block) -> bool:
    folders = [FOLDERS[block.type], *(["dbt"] if block.type == "dbt" else [])]
    return block.file is not None and any(
        block.file.with_suffix("") == project.root / folder / block.uuid for folder in folders
    )


def _moves(project: Project, model: PipelineModel, block: Block, new: str) -> list[tuple[Path, Path]]:
    """Return the files and folders to move, each with its new path."""
    moves = []
    for file in own_files(project, model, block):
        depth = len(Path(block.uuid).parts)
        folder = file.parents[depth - 1]
        moves.append((file, folder / f"{new}{file.suffix if file == block.file else ''}"))
    return moves


def _mentions(project: Project, model: PipelineModel, old: str) -> list[str]:
    """Return the places that mention a block by its old name: metadata.yaml, and files of blocks that use its output
    (a table, an argument).
    """
    word = re.compile(rf"(?<![\w-]){re.escape(old)}(?![\w-])")
    places = []
    for file in dict.fromkeys((model.yaml.path, *(block.file for block in model.blocks.values()))):
        if file is None or not file.is_file():
            continue
        used = file == model.yaml.path or any(
            block.file == file and old in block.upstream for block in model.blocks.values()
        )
        for number, line in enumerate(read_text(file).splitlines(), start=1):
            if word.search(line) and (used or "block_output" in line):
                places.append(f"{project.shown(file)}:{number}")
    return places


def _copy(file: Path, target: Path) -> None:
    if file.is_dir():
        shutil.copytree(file, target)
    else:
        shutil.copy2(file, target)


def _delete(file: Path) -> None:
    if file.is_dir():
        shutil.rmtree(file)
    else:
        file.unlink(missing_ok=True)
