"""Reads a pipeline's metadata.yaml into its model and checks it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.errors import ConfigError
from streamline.pipeline.block_settings import block_settings
from streamline.pipeline.graph import downstream_of, find_cycle
from streamline.pipeline.kinds import known_languages, languages
from streamline.pipeline.limits import block_run_limit, dynamic_limits
from streamline.pipeline.model import (
    BATCH_TYPES,
    FOLDERS,
    TYPE_NAMES,
    Block,
    PipelineModel,
    RetryConfig,
    pipeline_folder,
)
from streamline.pipeline.unknown_keys import UnknownKeys, misspelt_settings
from streamline.project.suggest import suggestion, words
from streamline.project.yamlfile import PathKey, YamlFile, kind_of, load_yaml

if TYPE_CHECKING:
    from streamline.project.project import Project

# Blocks of Mage's notebook that never run.
_IDLE_TYPES = words("markdown scratchpad chart extension global_data_product hook group")

_PIPELINE_KEYS = words(
    "blocks name uuid description tags created_at type variables retry_config concurrency_config callbacks "
    "conditionals data_integration dynamic_blocks delivery checkpoint_interval on_error dead_letter startup_timeout "
    "instances "
    # Mage's own, which mean nothing here or not yet.
    "widgets extensions executor_type executor_config executor_count notification_config cache_block_output_in_memory "
    "run_pipeline_in_one_process settings spark_config variables_dir remote_variables_dir execution_framework "
    "updated_at state_store_config repo_path"
)
_BLOCK_KEYS = words(
    "uuid name type language upstream_blocks downstream_blocks configuration executor_type retry_config timeout "
    "status color content executor_config extension_uuid groups has_callback replicated_block "
    "all_upstream_blocks_executed file_source"
)
_READ_KEYS = words(
    "uuid name type language upstream_blocks downstream_blocks configuration executor_type timeout content"
)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


_RETRY_VALUES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "retries": (lambda value: _is_number(value) and value == int(value), "a whole number, 0 or more"),
    "delay": (_is_number, "a number of seconds, 0 or more"),
    "max_delay": (_is_number, "a number of seconds, 0 or more"),
    "exponential_backoff": (lambda value: isinstance(value, bool), "true or false"),
}
"""The check of each key of `retry_config`, and its words in messages."""


def load_pipeline(project: Project, uuid: str) -> PipelineModel:
    """Read and check `pipelines/<uuid>/metadata.yaml`.

    Raises:
        ConfigError: there is no such pipeline, or its file is wrong; the error names file and line.
    """
    folder = pipeline_folder(project, uuid)
    path = folder / "metadata.yaml"
    if not path.is_file():
        raise ConfigError(
            f"there is no pipeline '{uuid}'",
            where=project.shown(path),
            hint=suggestion(uuid, project.pipelines(), what="pipelines")
            + f"; `streamline create {uuid} --type python` makes one (or integration, streaming, dbt)",
            code="pipeline.unknown",
        )
    return Reader(project, uuid, folder, load_yaml(path, shown=project.shown(path))).read()


class Reader:
    def __init__(self, project: Project, uuid: str, folder: Path, yaml: YamlFile) -> None:
        self.project = project
        self.uuid = uuid
        self.folder = folder
        self.yaml = yaml
        self.data = yaml.mapping()
        self.unknown = UnknownKeys()

    def read(self) -> PipelineModel:
        data = self.data
        kind = TYPE_NAMES.get(str(data.get("type") or "python"))
        if kind is None:
            raise self.error(
                f"unknown pipeline type '{data['type']}'",
                ("type",),
                suggestion(str(data["type"]), TYPE_NAMES),
                code="pipeline.type_unknown",
            )
        self.unknown.add_all(self.yaml, (), _PIPELINE_KEYS)
        self.unknown.add_limits(self.yaml)
        retry = self.retry_config(data.get("retry_config"), ("retry_config",), self.project_retry())
        blocks = self.blocks("blocks", retry)
        # A callback or conditional among the blocks is one of the other two lists.
        callbacks = self.taken_out(blocks, "callback") | self.blocks("callbacks", None)
        conditionals = self.taken_out(blocks, "conditional") | self.blocks("conditionals", None)
        self.connect(blocks)
        self.keep_folders_apart(blocks)
        self.one_block_of_a_name(blocks, callbacks, conditionals)
        for watcher in (*callbacks.values(), *conditionals.values()):
            for index, name in enumerate(watcher.upstream):
                self.known_block(blocks, name, (*watcher.path, "upstream_blocks", index))
            watcher.downstream = []
        tags = data.get("tags") or []
        model = PipelineModel(
            uuid=self.uuid,
            name=str(data.get("name") or self.uuid),
            type=kind,
            blocks=blocks,
            callbacks=callbacks,
            conditionals=conditionals,
            variables=self.yaml.mapping(("variables",)),
            retry_config=retry,
            data_integration=self.yaml.mapping(("data_integration",)),
            description=str(data["description"]) if data.get("description") is not None else None,
            tags=[str(tag) for tag in tags] if isinstance(tags, list) else [str(tags)],
            created_at=str(data["created_at"]) if data.get("created_at") is not None else None,
            options={key: value for key, value in data.items() if key in _PIPELINE_KEYS and value is not None},
            extra={key: value for key, value in data.items() if key not in _PIPELINE_KEYS},
            path=self.folder,
            yaml=self.yaml,
            warnings=self.unknown.warnings(),
        )
        self.check_settings(model)
        if kind in BATCH_TYPES:
            model.warnings += self.doubts(model)
        return model

    def check_settings(self, model: PipelineModel) -> None:
        """Check the settings that are read later: a wrong value is an error at load."""
        dynamic_limits(self.project, model)
        block_run_limit(self.project, model)
        for block in model.blocks.values():
            block_settings(model, block)

    def doubts(self, model: PipelineModel) -> list[str]:
        """Warnings for what is allowed and probably a mistake."""
        groups = (model.blocks, model.callbacks, model.conditionals)
        found = [one for group in groups for block in group.values() for one in misspelt_settings(model, block)]
        if not model.blocks:
            found.append(f"{self.yaml.shown}: it lists no blocks, so there is nothing to run")
        return found

    def project_retry(self) -> RetryConfig | None:
        """The project's `retry_config`, which holds where a pipeline's says nothing."""
        file = self.project.yaml
        return self.retry_config(file.mapping().get("retry_config"), ("retry_config",), None, file)

    def one_block_of_a_name(self, *groups: dict[str, Block]) -> None:
        first: dict[str, Block] = {}
        for group in groups:
            for uuid, block in group.items():
                if uuid in first:
                    raise self.error(
                        f"'{uuid}' is the name of a {first[uuid].type} as well, at {self.yaml.where(first[uuid].path)}",
                        block.path,
                        "a uuid names one block; rename one of the two, and its file",
                    )
                first[uuid] = block

    def keep_folders_apart(self, blocks: dict[str, Block]) -> None:
        """A block's stored output is a folder that is replaced whole, so no other block's may lie inside."""
        for uuid, block in blocks.items():
            parts = uuid.split("/")
            for end in range(1, len(parts)):
                if (outer := "/".join(parts[:end])) in blocks:
                    raise self.error(
                        f"the outputs of '{uuid}' would lie among those of '{outer}'",
                        (*block.path, "uuid"),
                        "rename one of the two",
                    )

    def taken_out(self, blocks: dict[str, Block], kind: str) -> dict[str, Block]:
        found = {uuid: block for uuid, block in blocks.items() if block.type == kind}
        for uuid, block in found.items():
            del blocks[uuid]
            self.only_python(block)
        return found

    def only_python(self, block: Block) -> None:
        if block.language != "python":
            raise self.error(
                f"a {block.type} is written in python, not in {block.language}",
                (*block.path, "language"),
                f"put a function in {FOLDERS[block.type]}/{block.uuid}.py",
                code="block.wrong_language",
            )

    def blocks(self, key: str, retry: RetryConfig | None) -> dict[str, Block]:
        entries = self.data.get(key) or []
        if not isinstance(entries, list):
            raise self.error(f"{key} must be a list, not {kind_of(entries)}", (key,))
        blocks: dict[str, Block] = {}
        for index, entry in enumerate(entries):
            path: tuple[PathKey, ...] = (key, index)
            if not isinstance(entry, dict):
                raise self.error(f"{key}[{index}] must be a mapping with a uuid, not {kind_of(entry)}", path)
            uuid = self.block_uuid(entry, path)
            if uuid in blocks:
                first = self.yaml.where(blocks[uuid].path)
                raise self.error(
                    f"duplicate block '{uuid}': it is listed first at {first}",
                    path,
                    "rename one of the two",
                    code="graph.duplicate",
                )
            of_type = key.removesuffix("s") if key != "blocks" else None
            block = self.block(entry, uuid, path, retry, of_type)
            if block is None:
                continue
            if of_type is not None:
                if block.type != of_type:
                    raise self.error(
                        f"'{uuid}' is a {block.type}, and stands among the {key}",
                        (*path, "type"),
                        f"list it under `blocks:`, or say `type: {of_type}`",
                    )
                self.only_python(block)
            blocks[uuid] = block
        return blocks

    def block_uuid(self, entry: dict[str, Any], path: tuple[PathKey, ...]) -> str:
        uuid = entry.get("uuid")
        if uuid is None or uuid == "":
            uuid = entry.get("name")
        if uuid is None or uuid == "":
            raise self.error("a block has no uuid", path, "add `uuid: NAME`, where NAME is its file without the ending")
        if not isinstance(uuid, str):
            key = "name" if entry.get("uuid") in (None, "") else "uuid"
            raise self.error(f"a block's uuid must be text, not {kind_of(uuid)}", (*path, key), _quoted(uuid))
        self.plain_name(uuid, (*path, "uuid"), "uuid")
        return uuid

    def plain_name(self, name: str, path: tuple[PathKey, ...], what: str) -> None:
        """Refuse a name that is no path of files below a folder: outputs and files are named by it."""
        parts = name.split("/")
        if ".." in parts or name.startswith("/") or "\\" in name:
            raise self.error(f"the {what} '{name}' leads out of the project", path, "use a plain name")
        if any(not part or part.startswith(".") for part in parts) or not name.isprintable():
            raise self.error(f"the {what} {name!r} cannot name a file", path, "use a plain name")

    def block(
        self,
        entry: dict[str, Any],
        uuid: str,
        path: tuple[PathKey, ...],
        retry: RetryConfig | None,
        of_type: str | None,
    ) -> Block | None:
        kind = entry.get("type") or of_type
        if not isinstance(kind, str | None):
            raise self.error(
                f"type must be text, not {kind_of(kind)}", (*path, "type"), f"one of: {', '.join(FOLDERS)}"
            )
        if kind in _IDLE_TYPES:
            return None
        if kind is None:
            raise self.error(
                f"the block '{uuid}' has no type", path, f"one of: {', '.join(FOLDERS)}", code="block.unknown_type"
            )
        if kind not in FOLDERS:
            raise self.error(
                f"unknown block type '{kind}'",
                (*path, "type"),
                suggestion(kind, FOLDERS, what="types"),
                code="block.unknown_type",
            )
        self.unknown.add_all(self.yaml, path, _BLOCK_KEYS)
        configuration = entry.get("configuration") or {}
        if not isinstance(configuration, dict):
            raise self.error(f"configuration must be a mapping, not {kind_of(configuration)}", (*path, "configuration"))
        content = entry.get("content")
        language, file = self.file(entry, uuid, kind, configuration, path)
        return Block(
            uuid=uuid,
            type=kind,
            language=language,
            upstream=self.names(entry, "upstream_blocks", path),
            downstream=self.names(entry, "downstream_blocks", path),
            configuration=configuration,
            retry_config=self.retry_config(entry.get("retry_config"), (*path, "retry_config"), retry),
            timeout=self.seconds(entry.get("timeout"), (*path, "timeout")),
            file=file,
            content=content if isinstance(content, str) and file is None else None,
            name=str(entry.get("name") or uuid),
            executor_type=str(entry["executor_type"]) if entry.get("executor_type") else None,
            extra={key: value for key, value in entry.items() if key not in _READ_KEYS},
            path=path,
        )

    def file(
        self, entry: dict[str, Any], uuid: str, kind: str, configuration: dict[str, Any], path: tuple[PathKey, ...]
    ) -> tuple[str, Path | None]:
        """The block's language and its file."""
        language = entry.get("language")
        given = str(language).lower() if language is not None else None
        suffixes = languages(*([given] if given else []))
        if given is not None and given not in suffixes:
            raise self.error(
                f"unknown language '{language}'",
                (*path, "language"),
                suggestion(str(language), known_languages()),
                code="block.unknown_kind",
            )
        source = entry.get("file_source")
        named = configuration.get("file_path") or (source.get("path") if isinstance(source, dict) else None)
        if isinstance(named, str) and named and "{{" not in named:
            return self.named_file(named, given, path)
        stem = uuid
        original = entry.get("replicated_block")
        if original is not None:
            if not isinstance(original, str):
                raise self.error(
                    f"replicated_block must be a block's uuid, not {kind_of(original)}", (*path, "replicated_block")
                )
            self.plain_name(original, (*path, "replicated_block"), "replicated_block")
            replicated = self.original(original, entry, kind, path)
            if replicated is not None:
                return replicated
            stem = original
        folders = [self.project.root / FOLDERS[kind]]
        if kind == "dbt":
            folders.append(self.project.root / "dbt")
        candidates = [
            (one, folder / f"{stem}{suffix}")
            for one, endings in suffixes.items()
            for folder in folders
            for suffix in endings
        ]
        # Without `language` it is python, or the language of the only file there is.
        wanted = [(one, file) for one, file in candidates if one == (given or "python")]
        for one, file in [*wanted, *([] if given else candidates)]:
            if file.is_file():
                return one, file
        if entry.get("content") or isinstance(named, str):
            return given or "python", None
        expected = wanted[0][1]
        others = [file for _, file in candidates if file.is_file()]
        if others:
            found = self.project.shown(others[0])
            hint = f"there is {found}: set `language: {next(one for one, file in candidates if file == others[0])}`"
        else:
            elsewhere = self.elsewhere(stem, kind)
            if elsewhere is not None:
                there, its_type = elsewhere
                message = f"the block '{uuid}' has no file: {self.project.shown(expected)} is missing"
                raise self.error(
                    message,
                    path,
                    f"{self.project.shown(there)} exists: use `type: {its_type}`?",
                    code="block.file_missing",
                )
            stems = [one.stem for one in folders[0].glob("*.*")] if folders[0].is_dir() else []
            hint = f"write it, or {suggestion(str(stem), stems, what='files there')}"
        message = f"the block '{uuid}' has no file: {self.project.shown(expected)} is missing"
        raise self.error(message, path, hint, code="block.file_missing")

    def elsewhere(self, stem: str, kind: str) -> tuple[Path, str] | None:
        """A file of that name among those of another type, and the type."""
        for its_type, folder in FOLDERS.items():
            for suffix in (one for suffixes in languages().values() for one in suffixes):
                file = self.project.root / folder / f"{stem}{suffix}"
                if its_type != kind and file.is_file():
                    return file, its_type
        return None

    def original(
        self, uuid: str, copy: dict[str, Any], kind: str, path: tuple[PathKey, ...]
    ) -> tuple[str, Path | None] | None:
        """Language and file of the block of this pipeline that `copy` replicates; None if it is not in this one."""
        place = next(
            (
                (key, index)
                for key in ("blocks", "callbacks", "conditionals")
                for index, one in enumerate(self.data.get(key) or [])
                if isinstance(one, dict) and one is not copy and (one.get("uuid") or one.get("name")) == uuid
            ),
            None,
        )
        if place is None:
            return None
        entry = self.data[place[0]][place[1]]
        its_type = entry.get("type") or place[0].removesuffix("s")
        if its_type != kind:
            raise self.error(
                f"it replicates '{uuid}', which is a {its_type}, not a {kind}",
                (*path, "replicated_block"),
                f"say `type: {its_type}`",
            )
        if entry.get("replicated_block") is not None:
            raise self.error(
                f"it replicates '{uuid}', which is itself a replica",
                (*path, "replicated_block"),
                f"name the original: {entry['replicated_block']}",
            )
        configuration = entry.get("configuration")
        return self.file(entry, uuid, kind, configuration if isinstance(configuration, dict) else {}, place)

    def named_file(self, named: str, language: str | None, path: tuple[PathKey, ...]) -> tuple[str, Path]:
        root = self.project.root
        # Mage names files from the project's parent as well.
        for candidate in (root / named, root.parent / named):
            if candidate.is_file():
                by_suffix = {suffix: one for one, suffixes in languages().items() for suffix in suffixes}
                return language or by_suffix.get(candidate.suffix, "python"), candidate
        raise self.error(
            f"the file {named} is missing",
            (*path, "configuration", "file_path"),
            "give its path from the project's folder",
            code="block.file_missing",
        )

    def connect(self, blocks: dict[str, Block]) -> None:
        """Make upstream and downstream agree, and check the graph."""
        upstream_given, downstream_given = {}, {}
        for uuid, block in blocks.items():
            entry = self.data["blocks"][block.path[1]]
            upstream_given[uuid] = entry.get("upstream_blocks") is not None
            downstream_given[uuid] = entry.get("downstream_blocks") is not None
            for key, names in (("upstream_blocks", block.upstream), ("downstream_blocks", block.downstream)):
                for index, name in enumerate(names):
                    self.known_block(blocks, name, (*block.path, key, index))
        for uuid, block in blocks.items():
            for index, name in enumerate(block.downstream):
                if upstream_given[name] and uuid not in blocks[name].upstream:
                    raise self.error(
                        f"'{uuid}' has '{name}' in downstream_blocks, but the upstream_blocks of '{name}' are "
                        f"{blocks[name].upstream}",
                        (*block.path, "downstream_blocks", index),
                        "one of the two lists is enough; if both are given, they must agree",
                        code="graph.contradiction",
                    )
            for index, name in enumerate(block.upstream):
                if downstream_given[name] and uuid not in blocks[name].downstream:
                    raise self.error(
                        f"'{uuid}' has '{name}' in upstream_blocks, but the downstream_blocks of '{name}' are "
                        f"{blocks[name].downstream}",
                        (*block.path, "upstream_blocks", index),
                        "one of the two lists is enough; if both are given, they must agree",
                        code="graph.contradiction",
                    )
        for uuid, block in blocks.items():
            for name in block.downstream:
                if uuid not in blocks[name].upstream:
                    blocks[name].upstream.append(uuid)
        upstream = {uuid: block.upstream for uuid, block in blocks.items()}
        cycle = find_cycle(upstream)
        if cycle is not None:
            raise self.error(
                f"dependency cycle: {' → '.join(cycle)}",
                blocks[cycle[0]].path,
                "remove one of these upstream_blocks",
                code="graph.cycle",
            )
        for uuid, children in downstream_of(upstream).items():
            blocks[uuid].downstream = children

    def known_block(self, blocks: dict[str, Block], name: str, path: tuple[PathKey, ...]) -> None:
        if name not in blocks:
            raise self.error(
                f"there is no block '{name}' in this pipeline",
                path,
                suggestion(name, blocks, what="blocks"),
                code="graph.unknown_block",
            )

    def names(self, entry: dict[str, Any], key: str, path: tuple[PathKey, ...]) -> list[str]:
        value = entry.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.error(f"{key} must be a list of uuids, not {kind_of(value)}", (*path, key))
        for index, one in enumerate(value):
            if not isinstance(one, str):
                at = (*path, key, index)
                raise self.error(f"{key} must be a list of uuids, and holds {kind_of(one)}", at, _quoted(one))
        if len(set(value)) != len(value):
            twice = next(one for one in value if value.count(one) > 1)
            raise self.error(f"duplicate '{twice}' in {key}", (*path, key), code="graph.duplicate")
        return list(value)

    def seconds(self, value: object, path: tuple[PathKey, ...]) -> float | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise self.error(
                f"timeout must be a number of seconds above 0, not {kind_of(value)}",
                path,
                "without a limit, leave it out",
            )
        return float(value)

    def retry_config(
        self, value: object, path: tuple[PathKey, ...], base: RetryConfig | None, file: YamlFile | None = None
    ) -> RetryConfig | None:
        """`base` with what `value` says laid over it, key by key; None where neither says anything."""
        if value is None:
            return base
        yaml = file or self.yaml
        if not isinstance(value, dict):
            raise yaml.error(f"retry_config must be a mapping, not {kind_of(value)}", path)
        known = {key: one for key, one in value.items() if key in RetryConfig.__struct_fields__ and one is not None}
        self.unknown.add_all(yaml, path, frozenset(RetryConfig.__struct_fields__), "retry_config.")
        for key, one in known.items():
            fits, said = _RETRY_VALUES[key]
            if not fits(one):
                raise yaml.error(f"retry_config: {key} must be {said}, not {kind_of(one)}", (*path, key))
        own = msgspec.convert(known, RetryConfig)
        return msgspec.structs.replace(base or RetryConfig(), **{key: getattr(own, key) for key in known})

    def error(
        self, message: str, path: Sequence[PathKey], hint: str | None = None, code: str | None = None
    ) -> ConfigError:
        return self.yaml.error(message, path, hint=hint, code=code)


def _quoted(value: object) -> str:
    words = " (yes, no, on, off, true and false are truth values in YAML)" if isinstance(value, bool) else ""
    return f"put it in quotes{words}"
