"""The table of `streamline add source --list`: the systems that a source or destination can name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamline.cli.output import print_json, print_table

if TYPE_CHECKING:
    from streamline.connectors.registry import Role
    from streamline.project.project import Project


def list_systems(project: Project, role: Role, pipeline: str | None, *, as_json: bool) -> None:
    """Print the systems, those first that need no plugin to be declared.

    Args:
        pipeline: that a block would be added to: connectors of streaming pipelines are left out if it is none.
    """
    from streamline.pipeline.reader import load_pipeline

    streaming = pipeline is None or load_pipeline(project, pipeline).type == "streaming"
    rows = [*(_streaming(role) if streaming else ()), *_systems(project, role)]
    if as_json:
        print_json(rows)
        return
    print_table(
        ["SYSTEM", "CONNECTOR", "AVAILABLE", "OTHER NAMES"],
        [(row["system"], row["connector"], row["available"], ", ".join(row["aliases"])) for row in rows],
    )


def _streaming(role: Role) -> list[dict[str, Any]]:
    """Return the connectors that blocks of streaming pipelines name by `connector_type:`."""
    from streamline.connectors.registry import find_stream_connector, stream_connector_names
    from streamline.connectors.stream_connector import Side
    from streamline.errors import ConfigError

    side: Side = "source" if role == "tap" else "destination"
    rows = []
    for name in sorted(stream_connector_names()):
        connector = find_stream_connector(name)
        if name == "singer" or connector is None:
            continue
        try:
            text = connector.template(side, "pipeline", "block")
        except ConfigError:
            continue  # it has only the other side
        if not text:
            continue  # it means the plugin of that name
        rows.append(
            {
                "system": name,
                "connector": f"connector_type: {name}",
                "ready": True,
                "available": "in streaming pipelines",
                "aliases": [],
                "package": None,
            }
        )
    return rows


def _systems(project: Project, role: Role) -> list[dict[str, Any]]:
    from streamline.connectors.plugins import declared_name
    from streamline.connectors.registry import SYSTEMS, bundled_connectors, installed_connectors

    prefix = f"{role}-"
    bundled = {connector.system for connector in bundled_connectors() if connector.role == role}
    installed = {
        name.removeprefix(prefix): package
        for name, package in installed_connectors().items()
        if name.startswith(prefix)
    }
    declared = {name.removeprefix(prefix) for name in project.plugins if name.startswith(prefix)}
    rows = []
    for system in sorted({*SYSTEMS, *bundled, *declared, *installed}):
        known = SYSTEMS.get(system)
        package = None if known is None else known.tap if role == "tap" else known.target
        name = declared_name(project, system, role)
        if name is not None:
            available = f"declared in {project.yaml.shown}"
        elif system in bundled:
            available = "comes with Streamline"
        elif system in installed:
            available = f"installed with {installed[system]}"
        else:
            command = f"streamline plugin add {prefix}{system} --pip"
            available = f"{command} {package or 'REQUIREMENT'}"
        ready = not available.startswith("streamline ")
        rows.append(
            {
                "system": system,
                "connector": name or prefix + system,
                "ready": ready,
                "available": available,
                "aliases": list(known.aliases) if known is not None else [],
                "package": package,
            }
        )
    return sorted(rows, key=lambda row: (not row["ready"], row["package"] is None))
