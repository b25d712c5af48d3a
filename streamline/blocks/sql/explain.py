"""What runs an SQL block, and the table that it writes, for `streamline explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamline.blocks.sql.settings import KEYS, Profiles, read_settings
from streamline.pipeline.kinds import Explanation
from streamline.project.render import Renderer

if TYPE_CHECKING:
    from streamline.blocks.sql.settings import Settings
    from streamline.pipeline.model import Block, PipelineModel
    from streamline.project.project import Project


def explain(project: Project, model: PipelineModel, block: Block) -> Explanation:
    """The block's database and table. Connects to nothing."""
    settings = _settings(project, model, block)
    if settings is None:
        return Explanation(engine="duckdb, embedded")
    engine = f"{settings.provider}, profile {settings.profile}"
    if settings.raw:
        return Explanation(engine=engine, writes="what its statements write")
    table = settings.table or f"{model.uuid}_{block.uuid}"
    name = f"{settings.schema}.{table}" if settings.schema else table
    return Explanation(engine=engine, writes=f"{name} ({settings.policy})")


def _settings(project: Project, model: PipelineModel, block: Block) -> Settings | None:
    """The block's settings; None where the embedded DuckDB runs it."""
    if not block.configuration.get("data_provider"):
        return None
    variables = {**project.variables, **model.variables}
    renderer = Renderer(project, variables, project.secrets, names={"execution_date": "{execution_date}"})
    # A value that only a run knows is shown as written.
    configuration = {
        key: value if "block_output" in str(value) else renderer.render(value, model.where(block.uuid))
        for key, value in block.configuration.items()
        if key in KEYS
    }
    where = model.where(block.uuid, "configuration")
    settings = read_settings(configuration, where)
    return None if Profiles(project, renderer).in_memory(settings, where) else settings
