"""What is known of a source or destination block of a batch pipeline before it runs. No user code is run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from streamline.blocks.call import shown_block
from streamline.blocks.connector.before_run import known_spec
from streamline.blocks.connector.functions import check_functions
from streamline.blocks.connector.role import connector_role, exported_upstream
from streamline.blocks.connector.spec import DestinationSpec, SourceSpec
from streamline.connectors.registry import connector_name
from streamline.connectors.singer.catalog import is_glob
from streamline.connectors.singer.settings import DEFAULT
from streamline.errors import ConfigError
from streamline.pipeline.kinds import Explanation
from streamline.project.render import Renderer

if TYPE_CHECKING:
    from streamline.connectors.registry import Role
    from streamline.pipeline.model import Block, PipelineModel
    from streamline.project.project import Project

LATER = "known when it runs"
RETURNED = "what its functions return"


def explain(project: Project, model: PipelineModel, block: Block) -> Explanation:
    """Return the plugin, and which streams are read or exported into which tables, as far as the file says so.

    Raises:
        ConfigError: the file is wrong.
    """
    role = connector_role(block)
    if role is None:
        raise ConfigError(
            "a mapper runs in integration and streaming pipelines only", where=block.uuid, code="block.wrong_pipeline"
        )
    plugin_role: Role = "tap" if role == "source" else "target"
    if block.language == "python":
        constant = check_functions(project, block, role)[1]
        engine = _engine(constant[0] if constant is not None else "", plugin_role)
        if role == "source":
            return Explanation(engine=engine, reads=RETURNED)
        return Explanation(engine=engine, writes=RETURNED)
    renderer = Renderer(project, {**project.variables, **model.variables}, project.secrets)
    match known_spec(block, renderer, shown_block(project, block)):
        case SourceSpec() as source:
            return Explanation(engine=_engine(source.source, "tap"), reads=_streams(source))
        case DestinationSpec() as destination:
            return Explanation(engine=_engine(destination.destination, "target"), writes=_tables(destination, block))
        case _:
            return Explanation(engine=f"{role} ({LATER})")


def _engine(name: str, role: Role) -> str:
    return connector_name(name, role) if name else f"a {role} that is {LATER}"


def _streams(source: SourceSpec) -> str:
    entries = source.streams.entries
    names = [entry.pattern for entry in entries if entry.settings.get("selected", True) not in (False, DEFAULT)]
    if not names or any(entry.settings.get("selected") == DEFAULT and is_glob(entry.pattern) for entry in entries):
        names.append(f"{'and ' if names else ''}the streams that it selects itself")
    return ", ".join(names)


def _tables(destination: DestinationSpec, block: Block) -> str:
    entries = destination.streams.entries
    named = {entry.pattern: entry.settings.get("destination_table") for entry in entries if not is_glob(entry.pattern)}
    tables = [f"{name} to {table}" if table else name for name, table in named.items()]
    if not entries or any(is_glob(entry.pattern) for entry in entries):
        rest = f"what {_listed(exported_upstream(block)) or 'no block'} gave"
        tables.append(f"and the rest of {rest}" if tables else rest)
    return ", ".join(tables)


def _listed(names: Sequence[str]) -> str:
    return " and ".join([*([", ".join(names[:-1])] if names[1:] else []), *names[-1:]])
