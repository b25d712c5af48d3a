"""The Python environment that dbt runs in: dbt-core and the adapter of the profile's type, apart from Streamline's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamline.connectors.plugins import requirements_of
from streamline.errors import ConfigError
from streamline.project.environments import Requirements, ensure_environment, find_environment
from streamline.project.suggest import almost, words

if TYPE_CHECKING:
    from streamline.project.environments import Environment, Notify
    from streamline.project.project import Project

CORE = "dbt-core>=1.8,<1.12"
"""dbt-core 1.12 fetches a build from elsewhere when it starts."""
_ADAPTERS = words(
    "athena bigquery clickhouse databricks dremio duckdb exasol fabric mysql oracle postgres redshift risingwave "
    "snowflake spark sqlite sqlserver starrocks synapse teradata trino vertica"
)


def dbt_environment(project: Project, adapter: str, notify: Notify) -> Environment:
    """Return the environment for an adapter, created if needed (which takes a minute).

    An entry `dbt-<type>` under `plugins:` in streamline.yaml says what it holds instead: other versions, packages for
    Python models.

    Raises:
        ConfigError: it cannot be made.
    """
    choices = _requirements(project, adapter)
    for wanted in choices:
        environment = find_environment(project, wanted)
        if environment is not None:
            return environment
    for wanted in choices[:-1]:
        try:
            return ensure_environment(project, wanted, notify=notify)
        except ConfigError:
            continue  # the adapter may not allow this version; the last choice leaves it to the adapter
    try:
        return ensure_environment(project, choices[-1], notify=notify)
    except ConfigError as error:
        near = None if adapter in _ADAPTERS else almost(adapter, _ADAPTERS)
        guess = f"did you mean `type: {near}` in profiles.yml? Else: " if near else ""
        raise ConfigError(
            error.message,
            where=error.where,
            hint=f"{guess}dbt's packages come from the package index; `plugins: {{dbt-{adapter}: {{pip: […]}}}}` in "
            f"{project.yaml.shown} says others than {', '.join(choices[-1].pip)}",
            code=error.code,
        ) from None


def _requirements(project: Project, adapter: str) -> list[Requirements]:
    name = f"dbt-{adapter}"
    if name in project.plugins:
        return [requirements_of(project, project.plugin(name))]
    pip = [CORE, name.replace("_", "-")]
    plain = Requirements(name=name, pip=pip)
    if adapter != "duckdb":
        return [plain]
    import duckdb

    # A database file that one version of DuckDB wrote cannot always be read by an older one.
    return [Requirements(name=name, pip=[*pip, f"duckdb=={duckdb.__version__}"]), plain]
