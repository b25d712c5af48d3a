"""`streamline add`: add a block to a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import click
import msgspec

from streamline.cli.app import App, pass_app
from streamline.cli.output import json_option
from streamline.errors import ConfigError
from streamline.pipeline.model import BATCH_TYPES, FOLDERS

if TYPE_CHECKING:
    from streamline.connectors.registry import Role
    from streamline.pipeline.edit import NewBlock
    from streamline.pipeline.kinds import Template
    from streamline.project.project import Project

Side = Literal["source", "destination", "mapper"]

# The blocks of integration pipelines that run a plugin: side, block type, plugin role.
_SIDES: dict[str, tuple[Side, str, Role]] = {
    "source": ("source", "data_loader", "tap"),
    "destination": ("destination", "data_exporter", "target"),
    "mapper": ("mapper", "transformer", "mapper"),
}
WITH_SYSTEMS = ("source", "destination")
KINDS = [*_SIDES, *FOLDERS]


class _Kind(click.Choice[str]):
    """The kinds; a wrong one is answered with a similar one."""

    def get_invalid_choice_message(self, value: object, ctx: click.Context | None) -> str:
        from streamline.project.suggest import suggestion

        return f"there is no kind '{value}'; {suggestion(str(value), KINDS, what='kinds')}"


@click.command("add")
@click.argument("kind", metavar="KIND", type=_Kind(KINDS))
@click.argument("name", required=False)
@click.option("--list", "list_", is_flag=True, help="List the systems that a source or destination can name.")
@click.option("--pipeline", "-p", metavar="PIPELINE", help="The pipeline; optional if there is only one.")
@click.option(
    "--language",
    metavar="LANG",
    help="yaml, python, sql, r or an installed one; the default depends on KIND.",
)
@click.option(
    "--system",
    "--source",
    "--destination",
    "system",
    metavar="SYSTEM",
    help="Read from or write to this system, such as sqlite or postgresql.",
)
@click.option("--plugin", metavar="PLUGIN", help="Use this plugin of streamline.yaml.")
@click.option(
    "--template",
    type=click.Choice(["basic", "streams"]),
    default="basic",
    show_default=True,
    help="`streams` adds settings for a stream, as an example.",
)
@click.option("--stream", "streams", metavar="STREAM", multiple=True, help="Write settings for this stream.")
@click.option("--upstream", metavar="BLOCK", multiple=True, help="An upstream block; by default the last suitable one.")
@click.option("--downstream", metavar="BLOCK", multiple=True, help="A downstream block.")
@click.option("--dbt-project", metavar="NAME", help="The dbt project of a dbt block, if there are several.")
@json_option
@pass_app
def command(
    app: App,
    kind: str,
    name: str | None,
    list_: bool,
    pipeline: str | None,
    language: str | None,
    system: str | None,
    plugin: str | None,
    template: str,
    streams: tuple[str, ...],
    upstream: tuple[str, ...],
    downstream: tuple[str, ...],
    dbt_project: str | None,
    as_json: bool,
) -> None:
    """Add the block NAME to a pipeline: create its file and its entry in metadata.yaml.

    KIND is source, destination, mapper, data_loader, transformer, data_exporter, sensor, custom, dbt, callback or
    conditional. A file of this name that exists already is used as it is.

    A callback is called after the --upstream blocks, or after the whole pipeline; a conditional gates the --upstream
    blocks.
    """
    from streamline.blocks.connector.templates import connector_block, python_connector_block
    from streamline.blocks.registry import block_template
    from streamline.cli.systems import list_systems
    from streamline.pipeline.edit import NewBlock, add_block, existing_file
    from streamline.pipeline.kinds import known_languages, languages
    from streamline.pipeline.reader import load_pipeline
    from streamline.project.suggest import suggestion

    project = app.project
    if list_:
        if kind not in WITH_SYSTEMS:
            raise click.UsageError(f"--list applies to {' and '.join(WITH_SYSTEMS)}, not to {kind}.")
        list_systems(project, _SIDES[kind][2], pipeline, as_json=as_json)
        return
    if name is None:
        raise click.UsageError("Missing argument 'NAME'.")
    if as_json:
        raise click.UsageError("--json applies to --list.")
    pipeline = pipeline or only_pipeline(project)
    existing = None if kind == "dbt" else existing_file(project, _block_type(kind), name, language)
    if language is None:
        language = existing[0] if existing else "yaml" if kind in (*_SIDES, "dbt") else "python"
    language = language.lower()
    if language not in languages(language):
        raise ConfigError(
            f"unknown language '{language}'",
            hint=suggestion(language, known_languages(), what="languages"),
            code="block.unknown_kind",
        )
    if kind == "transformer" and (plugin is not None or language == "yaml"):
        kind, language = "mapper", "yaml"
    if dbt_project is not None and kind != "dbt":
        raise ConfigError(f"--dbt-project applies to dbt blocks, not to {kind}", code="option.conflict")
    if kind not in _SIDES and (system or plugin or streams or template != "basic"):
        raise ConfigError(
            f"--system, --plugin, --stream and --template apply to {', '.join(_SIDES)}, not to {kind}",
            hint=f"to read with a tap: streamline add source {name} …",
            code="option.conflict",
        )
    if existing and (system or plugin or streams or template != "basic"):
        raise ConfigError(
            "the file already exists and is not overwritten: --system, --plugin, --stream and --template would change "
            "nothing",
            where=project.shown(existing[1]),
            hint="leave them out to use the file as it is, or choose another name",
            code="file.exists",
        )
    pipeline_type = load_pipeline(project, pipeline).type
    connector = None
    upstream_blocks: Sequence[str] | None = upstream or (
        [] if downstream and kind in ("source", "data_loader") else None
    )
    if kind in _SIDES:
        side, block_type, role = _SIDES[kind]
        in_batch = pipeline_type == "python" and side != "mapper"
        if pipeline_type in BATCH_TYPES and not in_batch:
            raise ConfigError(
                f"a {kind} cannot be added to '{pipeline}', which is of type {pipeline_type}",
                code="block.wrong_pipeline",
                hint=f"streamline create NAME --type integration; or `streamline add {block_type} {name}` here",
            )
        if in_batch and language not in ("yaml", "python"):
            raise ConfigError(
                f"a {kind} cannot be written in {language}",
                hint="use --language yaml or --language python",
                code="block.wrong_language",
            )
        text: str | Template = ""
        if existing is None and pipeline_type == "streaming" and plugin is None:
            text = _streaming_text(side, block_type, language, pipeline, name, system)
        if existing is None and not text:
            used, connector = _connector(project, role, system, plugin)
            if language == "python" and in_batch:
                text = python_connector_block(side, used, connector, streams)
            else:
                with_streams = template == "streams"
                text = connector_block(side, used, connector, streams, with_streams=with_streams, commented=in_batch)
                if pipeline_type == "streaming" and side == "source":
                    text += "interval: 60  # seconds from one poll to the next; without it the tap is run once\n"
        new = NewBlock(uuid=name, type=block_type, language=language, text=text)
    elif kind == "dbt":
        new = _dbt_block(project, pipeline, pipeline_type, name, language, dbt_project)
    else:
        new = NewBlock(uuid=name, type=kind, language=language, text=block_template(kind, language, pipeline_type))
    added = add_block(project, pipeline, msgspec.structs.replace(new, upstream=upstream_blocks, downstream=downstream))
    if added.existing:
        click.echo(f"Uses {project.shown(added.file)}, which exists already")
    for file in ([] if added.existing else [added.file]) + added.others:
        click.echo(f"Created {project.shown(file)}")
    click.echo(f"Added to {pipeline}: {_position(new.type, added.upstream, name, added.downstream)}")
    if connector is not None:
        _warn_if_unavailable(project, *_SIDES[kind][2:], used)
    if kind in ("source", "data_loader") and pipeline_type in ("integration", "streaming") and not added.downstream:
        click.echo(
            f"Note: no block gets the records of {name} yet; add {name} to the upstream_blocks of a block, or add a "
            "destination",
            err=True,
        )
    if kind == "sensor" and not added.downstream:
        click.echo(f"Note: no block waits for this sensor yet; add blocks with --upstream {name}", err=True)


def _streaming_text(
    side: Side, block_type: str, language: str, pipeline: str, name: str, system: str | None
) -> str | Template:
    """Return the text of a source or sink of messages; empty where a tap or target is meant."""
    from streamline.blocks.registry import block_template
    from streamline.connectors.registry import find_stream_connector

    if language != "yaml":
        return block_template(block_type, language, "streaming")
    connector = find_stream_connector(system or "kafka")
    if connector is None or side == "mapper":
        return ""
    return connector.template(side, pipeline, name)


def _block_type(kind: str) -> str:
    return _SIDES[kind][1] if kind in _SIDES else kind


def _dbt_block(
    project: Project, pipeline: str, pipeline_type: str, name: str, language: str, chosen: str | None
) -> NewBlock:
    from streamline.blocks.dbt.settings import dbt_projects
    from streamline.blocks.dbt.templates import dbt_block

    if pipeline_type not in BATCH_TYPES:
        raise ConfigError(
            f"a dbt block needs a pipeline of type dbt or python, but '{pipeline}' is of type {pipeline_type}",
            code="block.wrong_pipeline",
            hint="streamline create NAME --type dbt",
        )
    return dbt_block(project, name, language, dbt_projects(project), chosen)


def only_pipeline(project: Project) -> str:
    """Return the name of the project's only pipeline.

    Raises:
        ConfigError: it has none, or several.
    """
    names = project.pipelines()
    if len(names) == 1:
        return names[0]
    if not names:
        raise ConfigError(
            "the project has no pipelines", hint="streamline create NAME --type integration", code="pipeline.not_found"
        )
    raise ConfigError(
        "the project has several pipelines",
        hint=f"add --pipeline: one of {', '.join(names)}",
        code="pipeline.ambiguous",
    )


def _connector(project: Project, role: Role, system: str | None, plugin: str | None) -> tuple[str, str]:
    """Return the connector's name for the block's file, and its full name.

    Raises:
        ConfigError: both options are given, the plugin is not declared, the system unknown, or several plugins match.
    """
    from streamline.connectors.plugins import unavailable
    from streamline.connectors.registry import DEFAULT_SYSTEMS, connector_name, system_of
    from streamline.project.suggest import suggestion, suggestion_and

    if system is not None and plugin is not None:
        raise ConfigError(
            "--system and --plugin are mutually exclusive", hint="use one of them", code="option.conflict"
        )
    if plugin is not None:
        if plugin not in project.plugins:
            raise ConfigError(
                f"the plugin '{plugin}' is not declared",
                where=project.yaml.shown,
                hint=suggestion_and(
                    suggestion(plugin, project.plugins, what="declared plugins"),
                    f"to declare it: streamline plugin add {plugin} --pip REQUIREMENT",
                ),
                code="plugin.unknown",
            )
        return plugin, plugin
    if system is not None:
        full_name = connector_name(system, role)
        error = unavailable(project, system, role) if system_of(full_name) is None else None
        if error is not None:  # a known system may be declared later
            raise error
        return system, full_name
    declared = [name for name in project.plugins if name.startswith(f"{role}-")]
    if role == "mapper":
        declared = [name for name in project.plugins if not name.startswith(("tap-", "target-"))]
    if len(declared) == 1:
        return declared[0], declared[0]
    if role not in DEFAULT_SYSTEMS or declared:
        if not declared:
            raise ConfigError(
                f"no {role} is declared",
                where=project.yaml.shown,
                hint="to declare it: streamline plugin add NAME --pip REQUIREMENT",
                code="plugin.unknown",
            )
        system = f"; or --system, such as {DEFAULT_SYSTEMS[role]}" if role in DEFAULT_SYSTEMS else ""
        raise ConfigError(
            f"the project declares several {role}s",
            hint=f"add --plugin: one of {', '.join(declared)}{system}",
            code="plugin.ambiguous",
        )
    return DEFAULT_SYSTEMS[role], connector_name(DEFAULT_SYSTEMS[role], role)


def _position(block_type: str, upstream: list[str], name: str, downstream: list[str]) -> str:
    if block_type == "callback":
        return f"{name}, called after {', '.join(upstream) or 'the whole pipeline'}"
    if block_type == "conditional":
        return f"{name}, which gates {', '.join(upstream)}"
    parts = [", ".join(upstream), name, ", ".join(downstream)]
    return " → ".join(part for part in parts if part)


def _warn_if_unavailable(project: Project, role: Role, name: str) -> None:
    """Print a note, not an error: the plugin may be declared later."""
    from streamline.connectors.plugins import unavailable

    error = unavailable(project, name, role)
    if error is not None:
        click.echo(f"Note: {error.message}\n  {error.hint}", err=True)
