"""Checks source and destination blocks of batch pipelines before anything runs, without running user code."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from streamline.blocks.call import GATES, block_text, shown_block
from streamline.blocks.connector.decorated import check_name
from streamline.blocks.connector.functions import check_functions
from streamline.blocks.connector.inputs import read_inputs
from streamline.blocks.connector.prepare import mapper_refused
from streamline.blocks.connector.role import connector_role, exported_upstream
from streamline.blocks.connector.source import catalog_file, own_catalog_file
from streamline.blocks.connector.spec import DestinationSpec, SourceSpec, Spec, load_spec, open_spec
from streamline.connectors.singer.discovery import read_catalog_file
from streamline.errors import ConfigError
from streamline.project.lambdas import parse_template
from streamline.project.render import parse_function
from streamline.project.suggest import suggestion
from streamline.project.yamlfile import PathKey, YamlFile

if TYPE_CHECKING:
    from streamline.pipeline.model import Block, PipelineModel
    from streamline.project.project import Project
    from streamline.project.render import Renderer

_ONLY_IN_A_RUN = "block_output"


def check(project: Project, block: Block, renderer: Renderer) -> set[str]:
    """Check the block's file as far as that can be done before its upstream blocks have run.

    Returns:
        The modules that the file of a block in Python imports.

    Raises:
        ConfigError: it is wrong; with file and line.
    """
    shown = shown_block(project, block)
    role = connector_role(block)
    if role is None:
        raise mapper_refused(shown)
    if block.language == "python":
        modules, constant = check_functions(project, block, role)
        if constant is not None:
            check_name(project, constant[0], role, constant[1])
        return modules
    match known_spec(block, renderer, shown):
        case SourceSpec(source=name, where=where) | DestinationSpec(destination=name, where=where) if name:
            check_name(project, name, role, where)
    return set()


def known_spec(block: Block, renderer: Renderer, shown: str) -> Spec | None:
    """Return what a block in YAML says without what uses the outputs of upstream blocks; None: nothing is known.

    Args:
        shown: its name in messages.

    Raises:
        ConfigError: the file is wrong.
    """
    text = block_text(block, shown)
    if "{%" in text and _ONLY_IN_A_RUN in text:  # rendered as a whole
        _check_outputs(text, block, lambda line: f"{shown}:{line}")
        return None
    file = open_spec(block, renderer)
    if not file.rendered:
        file.data = {key: _known(value, block, file, (key,)) for key, value in file.mapping().items()}
    spec = load_spec(block, renderer, file=file, streaming=False)
    spec.where = next((file.where((key,)) for key in ("source", "destination") if key in file.mapping()), spec.where)
    return spec


def check_entry(project: Project, model: PipelineModel, block: Block) -> None:
    """Check the block's entry in metadata.yaml, and its catalog.json.

    Raises:
        ConfigError: it is wrong; with file and line.
    """
    read_inputs(block, lambda path: model.where(block.uuid, "configuration", *path), mage=project.mage)
    role = connector_role(block)
    if role == "source" and block.configuration.get("secret_output") is True:
        raise ConfigError(
            "the output of a source cannot be secret: it is stored while it is read",
            where=model.where(block.uuid, "configuration", "secret_output"),
            hint="remove `secret_output`, and leave columns that must not be stored out with `columns: {exclude: […]}`",
            code="setting.invalid",
        )
    path = catalog_file(project, model, block) if role == "source" else own_catalog_file(model, block)
    read_catalog_file(path, shown=project.shown(path))
    exported = any(_has_output(model.block(uuid)) for uuid in exported_upstream(block))
    if role == "destination" and not exported and not project.mage:
        raise ConfigError(
            f"destination '{block.uuid}' exports nothing: no block before it has an output for it",
            where=model.where(block.uuid),
            hint="name the block whose output it exports under upstream_blocks",
            code="graph.wrong_place",
        )


def _has_output(block: Block) -> bool:
    return block.type not in GATES and connector_role(block) != "destination"


def _known(value: Any, block: Block, file: YamlFile, path: tuple[PathKey, ...]) -> Any:
    """Return a value without the templates that use outputs, which are checked: at the top None stands for them."""
    if isinstance(value, str):
        if _ONLY_IN_A_RUN not in value:
            return value
        _check_outputs(value, block, lambda line: file.where(path))
        return None
    if isinstance(value, dict):
        known = {key: _known(item, block, file, (*path, key)) for key, item in value.items()}
        return {key: item for key, item in known.items() if item is not None or value[key] is None}
    if isinstance(value, list):
        items = [_known(item, block, file, (*path, number)) for number, item in enumerate(value)]
        return [item for item, before in zip(items, value, strict=True) if item is not None or before is None]
    return value


def _check_outputs(text: str, block: Block, where: Callable[[int], str]) -> None:
    """Check the calls of `block_output` in a text.

    Raises:
        ConfigError: a syntax error, a block that is not upstream, or a `parse=` that is no lambda.
    """
    from jinja2 import nodes

    for call in parse_template(text, where).find_all(nodes.Call):
        if not isinstance(call.node, nodes.Name) or call.node.name != _ONLY_IN_A_RUN:
            continue
        uuid = call.args[0] if call.args else None
        if isinstance(uuid, nodes.Const) and uuid.value not in block.upstream:
            raise ConfigError(
                f"block_output('{uuid.value}'): '{uuid.value}' is not upstream of '{block.uuid}'",
                where=where(call.lineno),
                hint=suggestion(str(uuid.value), block.upstream, what="upstream blocks"),
                code="block.not_upstream",
            )
        for keyword in call.kwargs:
            if keyword.key == "parse" and isinstance(keyword.value, nodes.Const):
                try:
                    parse_function(keyword.value.value)
                except ConfigError as error:
                    error.where = where(call.lineno)
                    raise
