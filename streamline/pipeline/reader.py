"""Read a pipeline's metadata.yaml into a `PipelineModel` and validate it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.errors import ConfigError
from streamline.pipeline.block_settings import SWITCHES, block_settings
from streamline.pipeline.kinds import known_languages, languages
from streamline.pipeline.limits import block_run_limit, dynamic_limits
from streamline.pipeline.links import IDLE_TYPES, Links, quoted
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
from streamline.project.suggest import suggestion, suggestion_and, words
from streamline.project.yamlfile import PathKey, YamlFile, kind_of, load_yaml

if TYPE_CHECKING:
    from streamline.project.project import Project

_KEYS_WITH_EFFECT = words(
    "blocks name uuid description tags created_at type variables retry_config concurrency_config callbacks "
    "conditionals data_integration dynamic_blocks delivery checkpoint_interval on_error dead_letter startup_timeout "
    "instances max_dead_letters metrics park"
)
_PIPELINE_KEYS = _KEYS_WITH_EFFECT | words(
    # Keys of Mage without effect here.
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
"""The check of each key of `retry_config`, and a description of valid values."""


def load_pipeline(project: Project, uuid: str, *, fileless: str | None = None) -> PipelineModel:
    """Read and validate `pipelines/<uuid>/metadata.yaml`.

    Args:
        fileless: a block whose file may be missing.

    Raises:
        ConfigError: the pipeline does not exist, or its file is invalid; the error names file and line.
    """
    folder = pipeline_folder(project, uuid)
    path = folder / "metadata.yaml"
    if not path.is_file():
        raise ConfigError(
            f"pipeline '{uuid}' not found",
            where=project.shown(path),
            hint=suggestion_and(
                suggestion(uuid, project.pipelines(), what="pipelines"),
                f"to create it: streamline create {uuid} --type python (or integration, streaming, dbt)",
            ),
            code="pipeline.not_found",
        )
    yaml = load_yaml(path, shown=project.shown(path), allow_duplicates=project.mage)
    return Reader(project, uuid, folder, yaml, fileless).read()


class Reader:
    def __init__(self, project: Project, uuid: str, folder: Path, yaml: YamlFile, fileless: str | None = None) -> None:
        self.project = project
        self.fileless = fileless
        self.uuid = uuid
        self.folder = folder
        self.yaml = yaml
        self.data = yaml.mapping()
        self.unknown = UnknownKeys()
        self.links = Links(yaml, mage=project.mage)
        self.warnings = list(yaml.duplicates)

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
        if kind == "streaming":
            self.unknown.refuse_misspelt(self.yaml, _KEYS_WITH_EFFECT, _PIPELINE_KEYS)
        self.unknown.add_all(self.yaml, (), _PIPELINE_KEYS)
        self.unknown.add_limits(self.yaml)
        retry = self.retry_config(data.get("retry_config"), ("retry_config",), self.project_retry())
        blocks = self.blocks("blocks", retry)
        # A callback or conditional may also be listed under `blocks`.
        callbacks = self.take_out(blocks, "callback") | self.blocks("callbacks", None)
        conditionals = self.take_out(blocks, "conditional") | self.blocks("conditionals", None)
        self.links.connect(blocks)
        self.check_output_folders(blocks)
        self.check_unique_names(blocks, callbacks, conditionals)
        for watchers in (callbacks, conditionals):
            for uuid, watcher in list(watchers.items()):
                upstream = self.links.known(blocks, watcher.upstream, watcher.path)
                if watcher.upstream and not upstream:
                    del watchers[uuid]  # without upstream_blocks it would watch the whole pipeline
                watcher.upstream, watcher.downstream = upstream, []
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
            warnings=[*self.warnings, *self.links.warnings(), *self.unknown.warnings()],
        )
        self.check_settings(model)
        if kind in BATCH_TYPES:
            model.warnings += self.find_mistakes(model)
        return model

    def check_settings(self, model: PipelineModel) -> None:
        """Check settings that are used later, so that invalid values are reported on load."""
        dynamic_limits(self.project, model)
        block_run_limit(self.project, model)
        for block in model.blocks.values():
            block_settings(model, block)

    def find_mistakes(self, model: PipelineModel) -> list[str]:
        """Return warnings about valid settings that are probably mistakes."""
        groups = (model.blocks, model.callbacks, model.conditionals)
        warnings = []
        for group in groups:
            for block in group.values():
                warnings += misspelt_settings(model, block)
        warnings += [
            f"{self.yaml.where(block.path)}: the conditional '{uuid}' gates no block: it has no upstream_blocks"
            for uuid, block in model.conditionals.items()
            if not block.upstream
        ]
        if not model.blocks:
            warnings.append(f"{self.yaml.shown}: the pipeline has no blocks, so there is nothing to run")
        return warnings

    def project_retry(self) -> RetryConfig | None:
        """Return the project's `retry_config`: the defaults of all pipelines."""
        file = self.project.yaml
        return self.retry_config(file.mapping().get("retry_config"), ("retry_config",), None, file)

    def check_unique_names(self, *groups: dict[str, Block]) -> None:
        first: dict[str, Block] = {}
        for group in groups:
            for uuid, block in group.items():
                if uuid in first:
                    raise self.error(
                        f"duplicate block '{uuid}': also a {first[uuid].type}, at {self.yaml.where(first[uuid].path)}",
                        block.path,
                        "rename one of the two, and its file",
                        code="graph.duplicate",
                    )
                first[uuid] = block

    def check_output_folders(self, blocks: dict[str, Block]) -> None:
        """Check that no block's output folder is inside another's: output folders are replaced as a whole."""
        for uuid, block in blocks.items():
            parts = uuid.split("/")
            for end in range(1, len(parts)):
                if (outer := "/".join(parts[:end])) in blocks:
                    raise self.error(
                        f"the output folder of '{uuid}' would be inside that of '{outer}'",
                        (*block.path, "uuid"),
                        "rename one of the two blocks",
                        code="block.invalid_name",
                    )

    def take_out(self, blocks: dict[str, Block], kind: str) -> dict[str, Block]:
        taken = {uuid: block for uuid, block in blocks.items() if block.type == kind}
        for uuid, block in taken.items():
            del blocks[uuid]
            self.only_python(block)
        return taken

    def only_python(self, block: Block) -> None:
        if block.language != "python":
            raise self.error(
                f"a {block.type} must be written in python, not {block.language}",
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
                        f"'{uuid}' is a {block.type}, but is listed under {key}",
                        (*path, "type"),
                        f"list it under `blocks:`, or set `type: {of_type}`",
                        code="block.unknown_type",
                    )
                self.only_python(block)
            blocks[uuid] = block
        return blocks

    def block_uuid(self, entry: dict[str, Any], path: tuple[PathKey, ...]) -> str:
        uuid = entry.get("uuid")
        if uuid is None or uuid == "":
            uuid = entry.get("name")
        if uuid is None or uuid == "":
            raise self.error("a block has no uuid", path, "add `uuid: NAME`, the file name without suffix")
        if not isinstance(uuid, str):
            key = "name" if entry.get("uuid") in (None, "") else "uuid"
            raise self.error(f"a block's uuid must be text, not {kind_of(uuid)}", (*path, key), quoted(uuid))
        self.plain_name(uuid, (*path, "uuid"), "uuid")
        return uuid

    def plain_name(self, name: str, path: tuple[PathKey, ...], what: str) -> None:
        """Check that a name is a relative path inside a folder: files and outputs are named by it."""
        parts = name.split("/")
        if ".." in parts or name.startswith("/") or "\\" in name:
            raise self.error(
                f"the {what} '{name}' is a path outside of the project",
                path,
                "use letters, digits, '_', '-' and '/'",
                code="block.invalid_name",
            )
        if any(not part or part.startswith(".") for part in parts) or not name.isprintable():
            raise self.error(
                f"the {what} {name!r} is not a valid file name",
                path,
                "use letters, digits, '_', '-' and '/'",
                code="block.invalid_name",
            )

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
        if kind in IDLE_TYPES:
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
        if self.project.mage:
            configuration = self.true_or_false(configuration, (*path, "configuration"))
        content = entry.get("content")
        language, file = self.file(entry, uuid, kind, configuration, path)
        return Block(
            uuid=uuid,
            type=kind,
            language=language,
            upstream=self.links.names(entry, "upstream_blocks", path),
            downstream=self.links.names(entry, "downstream_blocks", path),
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

    def true_or_false(self, configuration: dict[str, Any], path: tuple[PathKey, ...]) -> dict[str, Any]:
        """Return a block's configuration with its switches as booleans: Mage also takes them as text."""
        written = {key: str(configuration.get(key)).lower() for key in SWITCHES if configuration.get(key) is not None}
        read = {key: text == "true" for key, text in written.items() if text in ("true", "false")}
        for key in read:
            if not isinstance(configuration[key], bool):
                self.warnings.append(f"{self.yaml.where((*path, key))}: {key} is text; it is read as {written[key]}")
        return configuration | read

    def file(
        self, entry: dict[str, Any], uuid: str, kind: str, configuration: dict[str, Any], path: tuple[PathKey, ...]
    ) -> tuple[str, Path | None]:
        """Return the block's language and its file."""
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
            (name, folder / f"{stem}{suffix}")
            for name, endings in suffixes.items()
            for folder in folders
            for suffix in endings
        ]
        # Without `language` it is python, or the language of the first file that exists.
        expected = [(name, file) for name, file in candidates if name == (given or "python")]
        for name, file in [*expected, *([] if given else candidates)]:
            if file.is_file():
                return name, file
        written = configuration.get("file_source")
        written_path = written.get("path") if isinstance(written, dict) else None
        if isinstance(written_path, str) and self.find_file(written_path) is not None:
            return self.named_file(written_path, given, path)
        if entry.get("content") or isinstance(named, str) or uuid == self.fileless:
            return given or "python", None
        existing = next(((name, file) for name, file in candidates if file.is_file()), None)
        if existing is not None:
            hint = f"{self.project.shown(existing[1])} exists: set `language: {existing[0]}`"
        elif (other := self.file_of_other_type(stem, kind)) is not None:
            hint = f"{self.project.shown(other[0])} exists: use `type: {other[1]}`?"
        else:
            stems = [file.stem for file in folders[0].glob("*.*")] if folders[0].is_dir() else []
            hint = f"create it, or {suggestion(str(stem), stems, what='files there')}"
        message = f"the block '{uuid}' has no file: {self.project.shown(expected[0][1])} is missing"
        raise self.error(message, path, hint, code="block.file_missing")

    def file_of_other_type(self, stem: str, kind: str) -> tuple[Path, str] | None:
        """Return a file with this name in the folder of another block type, and that type."""
        for other, folder in FOLDERS.items():
            for suffix in (suffix for suffixes in languages().values() for suffix in suffixes):
                file = self.project.root / folder / f"{stem}{suffix}"
                if other != kind and file.is_file():
                    return file, other
        return None

    def original(
        self, uuid: str, copy: dict[str, Any], kind: str, path: tuple[PathKey, ...]
    ) -> tuple[str, Path | None] | None:
        """Return language and file of the block that `copy` replicates; None if it is not in this pipeline."""
        original = next(
            (
                (key, index, entry)
                for key in ("blocks", "callbacks", "conditionals")
                for index, entry in enumerate(self.data.get(key) or [])
                if isinstance(entry, dict) and entry is not copy and (entry.get("uuid") or entry.get("name")) == uuid
            ),
            None,
        )
        if original is None:
            return None
        key, index, entry = original
        original_type = entry.get("type") or key.removesuffix("s")
        if original_type != kind:
            raise self.error(
                f"replicated_block '{uuid}' is a {original_type}, not a {kind}",
                (*path, "replicated_block"),
                f"set `type: {original_type}`",
            )
        if entry.get("replicated_block") is not None:
            raise self.error(
                f"replicated_block '{uuid}' is itself a replica",
                (*path, "replicated_block"),
                f"name the original: {entry['replicated_block']}",
            )
        configuration = entry.get("configuration")
        return self.file(entry, uuid, kind, configuration if isinstance(configuration, dict) else {}, (key, index))

    def named_file(self, named: str, language: str | None, path: tuple[PathKey, ...]) -> tuple[str, Path]:
        file = self.find_file(named)
        if file is None and self.fileless is not None:
            file = self.project.root / named
        if file is None:
            raise self.error(
                f"the file {named} does not exist",
                (*path, "configuration", "file_path"),
                "write the path relative to the project's folder",
                code="block.file_missing",
            )
        by_suffix = {suffix: name for name, suffixes in languages().items() for suffix in suffixes}
        return language or by_suffix.get(file.suffix, "python"), file

    def find_file(self, named: str) -> Path | None:
        """Return the file that a path in metadata.yaml means.

        Mage also resolves paths relative to dbt/ and to the project's parent folder; absolute ones may come from
        another machine (`/home/src/default_repo/utils/x.py`) and are looked for by their last parts.
        """
        root = self.project.root
        parts = Path(named).parts
        last_parts = [root.joinpath(*parts[start:]) for start in range(1, len(parts))] if self.project.mage else []
        candidates = (root / named, root.parent / named, root / "dbt" / named, *last_parts)
        return next((candidate for candidate in candidates if candidate.is_file()), None)

    def seconds(self, value: object, path: tuple[PathKey, ...]) -> float | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise self.error(
                f"timeout must be a number of seconds above 0, not {kind_of(value)}",
                path,
                "remove it for no limit",
            )
        return float(value)

    def retry_config(
        self, value: object, path: tuple[PathKey, ...], base: RetryConfig | None, file: YamlFile | None = None
    ) -> RetryConfig | None:
        """Merge `value` over `base`, key by key; None if both are missing."""
        if value is None:
            return base
        yaml = file or self.yaml
        if not isinstance(value, dict):
            raise yaml.error(f"retry_config must be a mapping, not {kind_of(value)}", path)
        known = {key: item for key, item in value.items() if key in RetryConfig.__struct_fields__ and item is not None}
        self.unknown.add_all(yaml, path, frozenset(RetryConfig.__struct_fields__), "retry_config.")
        for key, item in known.items():
            valid, description = _RETRY_VALUES[key]
            if not valid(item):
                raise yaml.error(f"retry_config: {key} must be {description}, not {kind_of(item)}", (*path, key))
        own = msgspec.convert(known, RetryConfig)
        return msgspec.structs.replace(base or RetryConfig(), **{key: getattr(own, key) for key in known})

    def error(
        self, message: str, path: Sequence[PathKey], hint: str | None = None, code: str = "setting.invalid"
    ) -> ConfigError:
        return self.yaml.error(message, path, hint=hint, code=code)
