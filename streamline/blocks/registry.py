"""What a block's kind does with it: the functions that the kind's entry names, imported when they are used."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from streamline.errors import ConfigError
from streamline.extensions import load_object
from streamline.pipeline.kinds import Explanation, Template, find_kind, kind_of, languages
from streamline.pipeline.model import FOLDERS
from streamline.project.suggest import suggestion

if TYPE_CHECKING:
    from streamline.blocks.call import BlockCall, TestOutcome
    from streamline.blocks.connector.prepared import Prepared
    from streamline.outputs.output import Output
    from streamline.pipeline.kinds import Kind
    from streamline.pipeline.model import Block, PipelineModel
    from streamline.project.project import Project
    from streamline.project.render import Renderer


def run_block(call: BlockCall) -> Any:
    """Run the block and return its output.

    Raises:
        ConfigError: its kind cannot run in batch pipelines, or it is configured wrongly.
        UserError: its code raised.
        StreamlineError: it failed otherwise.
    """
    kind = kind_of(call.block)
    if kind is None or kind.run is None:
        raise _cannot_run(call.block, call.where)
    return load_object(kind.run)(call)


def prepare_block(call: BlockCall) -> Prepared:
    """Work out what a source or destination block reads or writes.

    Raises:
        ConfigError: it is configured wrongly.
        UserError: its code raised.
    """
    kind = kind_of(call.block)
    assert kind is not None
    assert kind.prepare is not None
    prepared: Prepared = load_object(kind.prepare)(call)
    return prepared


def check_block(project: Project, model: PipelineModel, block: Block, renderer: Renderer) -> frozenset[str]:
    """Check a block's code without running it; return the modules that it imports.

    Raises:
        ConfigError: it cannot run; the error names file and line.
    """
    kind = kind_of(block)
    if kind is None or (kind.run is None and kind.prepare is None):
        raise _cannot_run(block, model.where(block.uuid))
    if block.type not in kind.types:
        raise ConfigError(
            f"a {block.type} cannot be written in {kind.title}",
            where=model.where(block.uuid),
            hint=f"{kind.title} blocks are: {', '.join(kind.types)}",
            code="block.wrong_language",
        )
    if kind.check_entry:
        load_object(kind.check_entry)(project, model, block)
    return frozenset((load_object(kind.check)(project, block, renderer) if kind.check else None) or ())


def explain_block(project: Project, model: PipelineModel, block: Block) -> Explanation:
    """Return what runs the block and which table it writes."""
    kind = kind_of(block)
    if kind is None:
        return Explanation(engine=block.language)
    if kind.explain is None:
        return Explanation(engine=kind.engine or kind.title)
    explanation: Explanation = load_object(kind.explain)(project, model, block)
    return explanation


def run_block_tests(call: BlockCall, output: Output) -> list[TestOutcome]:
    """Run the tests in the block's file on its output; empty where its kind has none."""
    kind = kind_of(call.block)
    return list(load_object(kind.tests)(call, output)) if kind is not None and kind.tests else []


def preload(blocks: Iterable[Block]) -> list[str]:
    """Return the modules that the kinds of these blocks need, each once."""
    kinds: dict[str, Kind] = {kind.name: kind for block in blocks if (kind := kind_of(block)) is not None}
    return [module for kind in kinds.values() for module in kind.preload]


def block_template(block_type: str, language: str, pipeline_type: str) -> Template:
    """Return the template for a new block.

    Raises:
        ConfigError: there is no template of this type in this language.
    """
    kind = find_kind(language)
    template = load_object(kind.template)(block_type, pipeline_type) if kind is not None and kind.template else None
    if template is None:
        others = [
            name
            for name in languages()
            if (other := find_kind(name)) and other.template and load_object(other.template)(block_type, pipeline_type)
        ]
        raise ConfigError(
            f"there is no template for a {block_type} in {language}",
            hint=f"use --language {' or '.join(others)}" if others else suggestion(block_type, FOLDERS),
            code="block.no_template",
        )
    made: Template = template
    return made


def _cannot_run(block: Block, where: str) -> ConfigError:
    return ConfigError(
        f"a {block.type} in {block.language} cannot run in this pipeline",
        where=where,
        hint=f"write it in one of: {', '.join(languages())}",
        code="block.unknown_kind",
    )
